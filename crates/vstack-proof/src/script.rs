//! Random requests from a seed, and the bytes they carry.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::id::{ChunkId, VideoId};
use vstack_store::sim::Random;

use crate::ledger::Name;

/// Few names, so that requests meet: puts of what is there, adopts, deletes, puts of what was deleted.
const CHUNKS: u64 = 8;
/// Plain clients write ballot 0; 7 has other bytes than the rest, for conflicts.
const BALLOTS: [u64; 6] = [0, 0, 0, 5, 6, 7];
/// Around the borders of padding, blocks and leaves. The large ones are rare: they cost what many small ones do.
const SIZES: [usize; 12] = [1, 8, 64, 700, 1500, 3000, 3944, 4096, 5000, 9000, 20_000, 66_000];

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Put { seq: u32, ballot: u64 },
    Adopt { seq: u32, from: u64, to: u64 },
    Delete { seq: u32, ballot: u64 },
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Move {
    /// Requests that wait together, so that they share a batch.
    Group(Vec<Request>),
    /// Silence, long enough for the idle watermark.
    Idle,
    /// A compaction, however little it saves, with a request before each of its first steps.
    Compact(Vec<Request>),
}

/// Everything that is done to one folder.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// Small, so that superblocks are sealed and begun all the time.
    pub(crate) superblock_bytes: u64,
    /// One list for each start of the store.
    pub(crate) boots: Vec<Vec<Move>>,
}

impl Script {
    pub(crate) fn random(random: &mut Random) -> Self {
        let superblock_bytes = [24 << 10, 48 << 10, 128 << 10][pick(random, 3)];
        let boots = 1 + pick(random, 3);
        Self {
            superblock_bytes,
            boots: (0..boots).map(|_| boot(random)).collect(),
        }
    }
}

fn boot(random: &mut Random) -> Vec<Move> {
    let moves = 3 + pick(random, 6);
    (0..moves)
        .map(|_| {
            let requests = 1 + pick(random, 4);
            let kind = random.below(8);
            let requests = (0..requests).map(|_| request(random)).collect();
            match kind {
                0 => Move::Idle,
                1 => Move::Compact(requests),
                _ => Move::Group(requests),
            }
        })
        .collect()
}

fn request(random: &mut Random) -> Request {
    let seq = u32::try_from(random.below(CHUNKS)).unwrap_or(0);
    let ballot = BALLOTS[pick(random, BALLOTS.len())];
    match random.below(10) {
        0..6 => Request::Put { seq, ballot },
        6 | 7 => Request::Adopt {
            seq,
            from: ballot,
            to: BALLOTS[pick(random, BALLOTS.len())],
        },
        _ => Request::Delete { seq, ballot },
    }
}

/// An index below `len`.
pub(crate) fn pick(random: &mut Random, len: usize) -> usize {
    usize::try_from(random.below(len as u64)).unwrap_or(0)
}

pub(crate) fn chunk(seq: u32) -> ChunkId {
    ChunkId::media(VideoId(Uuid::from_u128(0x3b24_1101)), seq)
}

pub(crate) fn name(seq: u32, ballot: u64) -> Name {
    (chunk(seq), Ballot::from_number(ballot))
}

/// Whether the delete of an object counts as confirmed everywhere, so that a compaction may drop its tombstone.
pub(crate) fn is_confirmed(chunk: ChunkId) -> bool {
    chunk.seq().is_multiple_of(2)
}

/// The bytes of a run: under one name always the same, and other ones in another run.
#[derive(Debug)]
pub(crate) struct Contents {
    seed: u64,
    made: BTreeMap<(u32, bool), (Bytes, ChunkDigest)>,
}

impl Contents {
    pub(crate) const fn new(seed: u64) -> Self {
        Self {
            seed,
            made: BTreeMap::new(),
        }
    }

    pub(crate) fn of(&mut self, seq: u32, ballot: u64) -> (Bytes, ChunkDigest) {
        let variant = (seq, ballot == 7);
        let seed = self.seed;
        let (bytes, digest) = self.made.entry(variant).or_insert_with(|| make(seed, variant));
        (bytes.clone(), *digest)
    }
}

fn make(seed: u64, (seq, other): (u32, bool)) -> (Bytes, ChunkDigest) {
    let mut random = Random::new(seed ^ (u64::from(seq) << 32) ^ (u64::from(other) << 48));
    random.next_u64();
    let mut size = SIZES[pick(&mut random, SIZES.len())];
    if size > 10_000 && !random.one_in(16) {
        size /= 20;
    }
    let start = pick(&mut random, POOL_BYTES - size);
    let bytes = pool().slice(start..start + size);
    let digest = ChunkDigest::of(&bytes);
    (bytes, digest)
}

/// Random bytes of which all contents are cut: making them anew for each run would be most of the work.
const POOL_BYTES: usize = 1 << 20;

fn pool() -> Bytes {
    static POOL: OnceLock<Bytes> = OnceLock::new();
    POOL.get_or_init(|| {
        let mut random = Random::new(0x5eed);
        let words = (0..POOL_BYTES / 8).flat_map(|_| random.next_u64().to_le_bytes());
        Bytes::from(words.collect::<Vec<u8>>())
    })
    .clone()
}
