//! Any three of five shards give the chunk back, whatever its length and whichever are lost.

use proptest::prelude::*;
use vstack_erasure::{
    CELL_BYTES, DATA_SHARDS, ErasureError, Layout, ROW_BYTES, SHARDS, Shards, decode, decode_row, encode,
    rebuild,
};

fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// The shards whose bit is set in `kept`.
fn keep(shards: &Shards, kept: u32) -> [Option<&[u8]>; SHARDS] {
    std::array::from_fn(|shard| (kept >> shard & 1 == 1).then(|| shards[shard].as_slice()))
}

fn sets() -> impl Iterator<Item = u32> {
    0..1 << SHARDS
}

/// Decodes from every set of shards, and rebuilds every shard from every set of others.
fn check_all_losses(chunk: &[u8]) {
    let (layout, shards) = (Layout::new(chunk.len()), encode(chunk).expect("shards"));
    assert!(shards.iter().all(|shard| shard.len() == layout.shard_bytes()));
    for kept in sets() {
        let decoded = decode(layout, keep(&shards, kept));
        if (kept.count_ones() as usize) < DATA_SHARDS {
            let given = kept.count_ones() as usize;
            assert_eq!(decoded, Err(ErasureError::TooFew { given }));
            continue;
        }
        assert!(
            decoded.as_deref() == Ok(chunk),
            "{} bytes from the set {kept:05b}",
            chunk.len()
        );
        for wanted in (0..SHARDS).filter(|shard| kept >> shard & 1 == 0) {
            let rebuilt = rebuild(layout, wanted, keep(&shards, kept)).expect("a shard");
            assert!(
                rebuilt == shards[wanted],
                "shard {wanted} from the set {kept:05b}"
            );
        }
    }
}

#[test]
fn chunks_of_all_awkward_lengths_survive_every_loss() {
    let edges = [1, 3, CELL_BYTES, ROW_BYTES, 2 * ROW_BYTES];
    let near = edges.iter().flat_map(|edge| edge.saturating_sub(4)..=edge + 4);
    for len in near.filter(|len| *len > 0).chain([2 << 20]) {
        check_all_losses(&bytes(len, len as u64));
    }
}

#[test]
fn the_largest_chunk_survives_the_loss_of_two() {
    let chunk = bytes(64 << 20, 7);
    let (layout, shards) = (Layout::new(chunk.len()), encode(&chunk).unwrap());
    assert!(decode(layout, keep(&shards, 0b11100)).unwrap() == chunk);
}

#[test]
fn data_shards_are_the_chunk_row_by_row() {
    let chunk = bytes(ROW_BYTES + 10, 3);
    let (layout, shards) = (Layout::new(chunk.len()), encode(&chunk).unwrap());
    assert_eq!(shards[1][..CELL_BYTES], chunk[CELL_BYTES..2 * CELL_BYTES]);
    assert_eq!((layout.rows(), layout.shard_bytes()), (2, CELL_BYTES + 4));
    // The last row holds 10 bytes: 4, 4, and 2 with two zeros.
    assert_eq!(
        shards[2][CELL_BYTES..],
        [chunk[ROW_BYTES + 8], chunk[ROW_BYTES + 9], 0, 0]
    );
    assert_eq!(layout.part(1, 2), ROW_BYTES + 8..ROW_BYTES + 10);
}

#[test]
fn an_empty_chunk_and_shards_of_other_lengths_are_refused() {
    assert_eq!(encode(&[]), Err(ErasureError::Empty));
    let shards = encode(&[1, 2, 3, 4]).unwrap();
    let layout = Layout::new(4);
    let mut pieces = keep(&shards, 0b11111);
    pieces[4] = Some(&[0]);
    let wrong = ErasureError::WrongLength {
        shard: 4,
        actual: 1,
        expected: 2,
    };
    assert_eq!(decode(layout, pieces), Err(wrong));
    assert_eq!(
        rebuild(layout, 5, keep(&shards, 0b111)),
        Err(ErasureError::NoSuchShard(5))
    );
}

/// A shard is not made from itself: what is given under its own number may be the damaged one.
#[test]
fn a_shard_is_rebuilt_from_others() {
    let chunk = bytes(100, 5);
    let (layout, shards) = (Layout::new(100), encode(&chunk).unwrap());
    let damaged = vec![0; layout.shard_bytes()];
    let mut pieces = keep(&shards, 0b11111);
    pieces[3] = Some(&damaged);
    assert_eq!(rebuild(layout, 3, pieces).unwrap(), shards[3]);
}

#[test]
fn the_code_never_changes() {
    let shards = encode(b"any two of five nodes may go").unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&shards[3]), "32287d37687766200b03");
    assert_eq!(hex(&shards[4]), "3f978131d21a57dd4837");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_length_survives_every_loss(len in 1usize..20_000, seed in any::<u64>()) {
        check_all_losses(&bytes(len, seed));
    }

    #[test]
    fn rows_decode_on_their_own(len in 1usize..400_000, seed in any::<u64>(), kept in 0u32..32, row in 0usize..3) {
        let chunk = bytes(len, seed);
        let (layout, shards) = (Layout::new(len), encode(&chunk).unwrap());
        prop_assume!(kept.count_ones() >= 3 && row < layout.rows());
        let cells = keep(&shards, kept).map(|shard| shard.map(|shard| &shard[layout.cell(row)]));
        prop_assert_eq!(decode_row(layout, row, cells).unwrap(), &chunk[layout.row(row)]);
    }

    /// A wrong shard gives a wrong chunk, which its hash shows: never the right one by luck, and never a panic.
    #[test]
    fn a_wrong_shard_shows_in_the_chunk(len in 1usize..10_000, seed in any::<u64>(), at in any::<prop::sample::Index>(), shard in 0usize..3) {
        let chunk = bytes(len, seed);
        let (layout, mut shards) = (Layout::new(len), encode(&chunk).unwrap());
        let place = at.index(layout.shard_bytes());
        prop_assume!(layout.part(place / CELL_BYTES, shard).len() > place % CELL_BYTES);
        shards[shard][place] ^= 1;
        prop_assert_ne!(decode(layout, keep(&shards, 0b00111)).unwrap(), chunk);
    }
}
