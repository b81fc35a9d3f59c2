//! Any facts in any order, also such as no session would tell: the pool keeps its promises.
//!
//! The input decides which fact comes next and how much time passes. Checked after each: no block is asked from a node that
//! it runs at or that has brought it, nothing is finished twice while it is held, and while something is missing an attempt
//! runs or a wake-up is set.

use std::collections::{BTreeMap, BTreeSet};

use vstack_client::policy::{
    Action, AttemptId, BlockRange, ChunkSpec, Fact, Failure, Micros, NodeIndex, NodeRecords, Part, Piece,
    Pool, PoolConfig, Shape,
};

const CHUNKS: u32 = 6;
const NODES: u16 = 5;
const CHUNK_MS: u64 = 4_000;

/// Feeds the facts that `data` spells, three bytes a fact.
///
/// # Panics
/// When the policy breaks a promise.
pub fn policy(data: &[u8]) {
    let coded = data.first().is_some_and(|byte| byte % 2 == 1);
    let mut world = Facts::new(coded);
    // Nothing starts before the first fact that something is decided on.
    world.tell(13, 0, 0);
    for spelled in data.chunks_exact(3) {
        world.tell(spelled[0], spelled[1], spelled[2]);
    }
}

struct Asked {
    seq: u32,
    node: NodeIndex,
    range: BlockRange,
}

struct Facts {
    coded: bool,
    leaving: bool,
    pool: Pool,
    records: NodeRecords,
    now: Micros,
    running: BTreeMap<AttemptId, Asked>,
    stored: BTreeSet<(u32, u32, NodeIndex)>,
    finishing: BTreeSet<u32>,
    held: BTreeSet<u32>,
}

fn shape(coded: bool, bytes: u64) -> Shape {
    let part = |index: u16| Part {
        node: NodeIndex(index),
        shard: coded.then(|| u8::try_from(index).unwrap_or(0)),
    };
    let needed = if coded { 3 } else { 1 };
    Shape {
        chunk_bytes: bytes,
        part_bytes: bytes.div_ceil(u64::from(needed)),
        needed,
        parts: (0..NODES).map(part).collect(),
    }
}

fn chunk_bytes(seq: u32) -> u64 {
    700_000 + u64::from(seq) * 10_000
}

impl Facts {
    fn new(coded: bool) -> Self {
        let spec = |seq: u32| ChunkSpec {
            start: Micros::from_ms(u64::from(seq) * CHUNK_MS),
            end: Micros::from_ms(u64::from(seq + 1) * CHUNK_MS),
            shape: shape(coded, chunk_bytes(seq)),
        };
        Self {
            coded,
            leaving: false,
            pool: Pool::new(PoolConfig::default(), (0..CHUNKS).map(spec).collect()),
            records: NodeRecords::default(),
            now: Micros(1),
            running: BTreeMap::new(),
            stored: BTreeSet::new(),
            finishing: BTreeSet::new(),
            held: BTreeSet::new(),
        }
    }

    fn tell(&mut self, kind: u8, which: u8, more: u8) {
        self.now = self.now + Micros(u64::from(more) * 5_000);
        let place = usize::from(which) % self.running.len().max(1);
        let attempt = self
            .running
            .keys()
            .nth(place)
            .copied()
            .unwrap_or(AttemptId(u64::from(which)));
        let asked = self.running.get(&attempt);
        let block = asked.map_or(0, |asked| asked.range.first + u32::from(more) % asked.range.len());
        let seq = u32::from(which) % CHUNKS;
        let at = Micros::from_ms(u64::from(which) * 100);
        let fact = match kind % 17 {
            0 => Fact::Position(at),
            1 => Fact::Seek(at),
            2 => Fact::Wanted { seq },
            3 => Fact::Unwanted { seq },
            4 => Fact::Starved(more.is_multiple_of(2)),
            5 => Fact::FirstByte { attempt },
            6 => Fact::Progress {
                attempt,
                bytes: u64::from(more) * 4_096,
            },
            7 | 8 => Fact::Verified {
                attempt,
                blocks: BlockRange {
                    first: block,
                    end: block + 1,
                },
            },
            9 => Fact::BadBlock { attempt, block },
            10 => Fact::Done {
                attempt,
                bytes: 65_536,
                elapsed: Micros(u64::from(more) + 1),
            },
            11 if more.is_multiple_of(3) => Fact::Failed {
                attempt,
                failure: Failure::NotFound,
            },
            11 => Fact::Failed {
                attempt,
                failure: Failure::Connect,
            },
            12 => Fact::Finished {
                seq,
                right: !more.is_multiple_of(4),
            },
            13 => Fact::Supplied { seq },
            14 => Fact::Placed {
                seq,
                shape: self.moved(seq, more),
            },
            15 => Fact::Leaving(more % 2 == 1),
            _ => Fact::Tick,
        };
        self.expect(&fact);
        let actions = self.pool.apply(self.now, &mut self.records, fact);
        let wakes = actions.iter().any(|action| matches!(action, Action::WakeAt(_)));
        for action in actions {
            self.check(action);
        }
        assert_eq!(self.pool.running_count(), self.running.len());
        // A policy that leaves begins nothing.
        let missing =
            !self.leaving && !self.pool.reaches_end() && self.pool.level() < Micros::from_ms(10_000);
        assert!(
            wakes || !self.running.is_empty() || !missing,
            "nothing runs and nobody wakes"
        );
    }

    /// The chunk's parts in another order, some of them gone; each node has what it had before.
    fn moved(&self, seq: u32, lot: u8) -> Shape {
        let mut shape = shape(self.coded, chunk_bytes(seq));
        let turn = usize::from(lot) % shape.parts.len();
        shape.parts.rotate_left(turn);
        shape.parts.truncate(3 + usize::from(lot / 8) % 3);
        shape
    }

    /// What the session that tells this would know afterwards.
    fn expect(&mut self, fact: &Fact) {
        match fact {
            Fact::Verified { attempt, blocks } => {
                if let Some(asked) = self.running.get(attempt) {
                    self.stored.insert((asked.seq, blocks.first, asked.node));
                }
            }
            Fact::Done { attempt, .. } | Fact::Failed { attempt, .. } => {
                self.running.remove(attempt);
            }
            // The session puts it into the buffer, and gives up the blocks that it has.
            Fact::Supplied { seq } if !self.finishing.contains(seq) && self.held.insert(*seq) => {
                self.stored.retain(|(stored, ..)| stored != seq);
            }
            Fact::Finished { seq, right } if self.finishing.remove(seq) => {
                if *right {
                    self.held.insert(*seq);
                } else {
                    self.stored.retain(|(stored, ..)| stored != seq);
                }
            }
            Fact::Leaving(leaving) => self.leaving = *leaving,
            _ => {}
        }
    }

    fn check(&mut self, action: Action) {
        match action {
            Action::Start(start) => {
                let Piece::Blocks(range) = start.piece else {
                    unreachable!("the pool asks for blocks");
                };
                assert!(!range.is_empty());
                for block in range.first..range.end {
                    let key = (start.seq, block, start.node);
                    assert!(!self.stored.contains(&key), "{key:?} is stored and asked again");
                }
                let overlaps = self.running.values().any(|asked| {
                    (asked.seq, asked.node) == (start.seq, start.node)
                        && asked.range.first < range.end
                        && range.first < asked.range.end
                });
                // A block of a running range that was verified or was wrong may be the first of another one.
                assert!(
                    !overlaps || self.was_judged(&start.node, start.seq, range),
                    "asked twice from {}",
                    start.node
                );
                let asked = Asked {
                    seq: start.seq,
                    node: start.node,
                    range,
                };
                self.running.insert(start.attempt, asked);
            }
            Action::Cancel { attempt, .. } => {
                assert!(self.running.remove(&attempt).is_some(), "nothing to cancel");
            }
            Action::Finish { seq } => {
                assert!(
                    self.finishing.insert(seq) && !self.held.contains(&seq),
                    "{seq} twice"
                );
            }
            Action::Drop { seq, .. } => {
                self.held.remove(&seq);
                self.stored.retain(|(stored, ..)| *stored != seq);
            }
            _ => {}
        }
    }

    fn was_judged(&self, node: &NodeIndex, seq: u32, range: BlockRange) -> bool {
        (range.first..range.end).any(|block| self.stored.contains(&(seq, block, *node)))
    }
}

/// The seed corpus of the fuzz target, by name: facts as sessions tell them, with copies and with shards.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    // The first byte decides: copies where it is even.
    const COPIES: [u8; 3] = [0, 0, 0];
    const SHARDS: [u8; 3] = [13, 0, 0];
    const FIRST_BYTE: [u8; 3] = [5, 0, 4];
    const SOME_BYTES: [u8; 3] = [6, 0, 16];
    const BLOCK: [u8; 3] = [7, 0, 0];
    const DONE: [u8; 3] = [10, 0, 4];
    const TICK: [u8; 3] = [13, 0, 10];
    let told = |first: [u8; 3], facts: &[[u8; 3]]| {
        let facts = std::iter::once(&first).chain(facts.iter().cycle().take(240));
        facts.flatten().copied().collect::<Vec<u8>>()
    };
    let plays = [FIRST_BYTE, SOME_BYTES, BLOCK, DONE];
    let waits = [
        [4, 0, 0],
        [2, 3, 0],
        FIRST_BYTE,
        SOME_BYTES,
        BLOCK,
        DONE,
        [3, 3, 0],
        [4, 0, 1],
    ];
    let ends = [
        FIRST_BYTE,
        SOME_BYTES,
        BLOCK,
        [7, 1, 0],
        DONE,
        [12, 0, 1],
        [12, 1, 1],
        [0, 20, 0],
    ];
    vec![
        ("copies", told(COPIES, &plays)),
        ("shards", told(SHARDS, &plays)),
        ("finishes", told(COPIES, &ends)),
        ("waits", told(SHARDS, &waits)),
        (
            "seeks",
            told(COPIES, &[[1, 180, 0], FIRST_BYTE, BLOCK, [1, 20, 0], DONE]),
        ),
        (
            "liars",
            told(
                SHARDS,
                &[FIRST_BYTE, SOME_BYTES, [9, 0, 0], BLOCK, [9, 1, 1], DONE],
            ),
        ),
        (
            "failures",
            told(COPIES, &[FIRST_BYTE, [11, 0, 1], [11, 1, 3], BLOCK, DONE, TICK]),
        ),
        (
            "silence",
            told(SHARDS, &[FIRST_BYTE, TICK, TICK, TICK, TICK, TICK, TICK]),
        ),
    ]
}
