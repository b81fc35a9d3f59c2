//! The splitter on synthetic streams: where chunks end, and that neither piece sizes nor garbage can upset it.

mod common;

use common::{TestFragment, boxed, init_segment};
use proptest::prelude::*;
use vstack_media::describe::describe;
use vstack_media::split::{ChunkPiece, Piece, SplitError, SplitRules, Splitter};

const RULES: SplitRules = SplitRules {
    target_ms: 10_000,
    target_bytes: 4_000,
    soft_max_bytes: 16_000,
    hard_max_bytes: 64_000,
};

/// Fragments of two seconds one after another; `true` starts with a keyframe.
fn stream(fragments: &[(bool, usize)]) -> Vec<u8> {
    let mut bytes = init_segment();
    for (index, (keyframe, media_bytes)) in fragments.iter().enumerate() {
        let start_ms = u32::try_from(index).expect("few fragments") * 2_000;
        let fragment = TestFragment {
            start_ms,
            duration_ms: 2_000,
            keyframe: *keyframe,
            media_bytes: *media_bytes,
        };
        bytes.extend(fragment.bytes());
    }
    bytes
}

fn split_in(bytes: &[u8], piece_bytes: usize) -> Result<Vec<Piece>, SplitError> {
    let mut splitter = Splitter::new(RULES);
    let mut pieces = Vec::new();
    for part in bytes.chunks(piece_bytes.max(1)) {
        pieces.extend(splitter.push(part)?);
    }
    pieces.extend(splitter.finish()?);
    Ok(pieces)
}

fn chunks_of(pieces: Vec<Piece>) -> Vec<ChunkPiece> {
    let chunk = |piece| match piece {
        Piece::Chunk(chunk) => Some(chunk),
        Piece::Init(_) => None,
    };
    pieces.into_iter().filter_map(chunk).collect()
}

fn chunks(fragments: &[(bool, usize)]) -> Vec<ChunkPiece> {
    chunks_of(split_in(&stream(fragments), 1000).expect("a sound stream"))
}

/// Start times of chunks and how many fragments each has.
fn check(fragments: &[(bool, usize)], expected: &[(u64, usize)]) {
    let got: Vec<_> = chunks(fragments)
        .iter()
        .map(|chunk| (chunk.facts.start_ms, chunk.facts.fragments.len()))
        .collect();
    assert_eq!(got, expected, "{fragments:?}");
}

#[test]
fn a_chunk_closes_at_the_first_keyframe_past_ten_seconds() {
    check(&[(true, 100); 12], &[(0, 5), (10_000, 5), (20_000, 2)]);
    let every_third = |index: usize| (index.is_multiple_of(3), 100);
    check(
        &(0..12).map(every_third).collect::<Vec<_>>(),
        &[(0, 6), (12_000, 6)],
    );
}

#[test]
fn a_chunk_closes_at_the_first_keyframe_past_the_target_size() {
    check(&[(true, 2_000); 5], &[(0, 2), (4_000, 2), (8_000, 1)]);
}

#[test]
fn a_large_group_starts_a_chunk_of_its_own_when_it_would_burst_the_soft_limit() {
    let group = [
        (true, 3_000),
        (true, 6_000),
        (false, 6_000),
        (false, 3_000),
        (true, 100),
    ];
    check(&group, &[(0, 1), (2_000, 3), (8_000, 1)]);
}

#[test]
fn a_group_larger_than_the_soft_limit_stays_whole() {
    check(
        &[(true, 12_000), (false, 12_000), (false, 12_000), (true, 100)],
        &[(0, 3), (6_000, 1)],
    );
}

#[test]
fn a_group_larger_than_the_hard_limit_is_refused() {
    let fragments = [(true, 30_000), (false, 30_000), (false, 30_000)];
    assert_eq!(
        split_in(&stream(&fragments), 1000),
        Err(SplitError::GroupTooLarge { limit_bytes: 64_000 })
    );
    let one_box = [(true, 70_000)];
    assert_eq!(
        split_in(&stream(&one_box), 1000),
        Err(SplitError::GroupTooLarge { limit_bytes: 64_000 })
    );
}

#[test]
fn facts_name_times_keyframes_and_fragments() {
    let chunks = chunks(&[(true, 50), (false, 60), (true, 70)]);
    let [chunk] = &chunks[..] else {
        panic!("{chunks:?}")
    };
    assert_eq!((chunk.facts.start_ms, chunk.facts.duration_ms), (0, 6_000));
    assert_eq!(chunk.facts.keyframes_ms, [0, 4_000]);
    assert_eq!(chunk.video_samples, 3);
    let mut offset = 0;
    for (span, start_ms) in chunk.facts.fragments.iter().zip([0, 2_000, 4_000]) {
        assert_eq!((span.offset, span.start_ms), (offset, start_ms));
        let at = span.offset as usize;
        assert_eq!(&chunk.bytes[at + 4..at + 8], b"moof");
        offset += span.size;
    }
    assert_eq!(offset as usize, chunk.bytes.len());
}

#[test]
fn boxes_between_fragments_are_dropped_and_those_inside_stay() {
    let fragment = |start_ms| {
        TestFragment {
            start_ms,
            duration_ms: 1000,
            keyframe: true,
            media_bytes: 10,
        }
        .bytes()
    };
    let first = fragment(0);
    let moof_end = first.len() - 18;
    let (moof, mdat) = first.split_at(moof_end);
    let inside = [moof, &boxed(b"free", &[1; 4]), mdat].concat();
    let bytes = [
        init_segment(),
        boxed(b"styp", b"msdh"),
        inside.clone(),
        boxed(b"sidx", &[0; 9]),
        fragment(1000),
    ]
    .concat();
    let chunks = chunks_of(split_in(&bytes, 7).unwrap());
    assert_eq!(chunks.len(), 1);
    assert_eq!(chunks[0].bytes, [inside, fragment(1000)].concat());
}

#[test]
fn a_stream_that_ends_early_is_not_complete() {
    let bytes = stream(&[(true, 100), (true, 100)]);
    let ends = |length: usize| split_in(&bytes[..length], 64).unwrap_err();
    assert!(matches!(ends(bytes.len() - 1), SplitError::EndsInside(kind) if &kind.0 == b"mdat"));
    assert!(matches!(ends(bytes.len() - 108), SplitError::EndsInside(kind) if &kind.0 == b"moof"));
    assert!(split_in(b"", 1).is_err());
}

#[test]
fn a_claim_of_four_billion_samples_is_refused_at_once() {
    let tfhd = boxed(b"tfhd", &[0, 2, 0, 0, 0, 0, 0, 1]);
    let trun = boxed(b"trun", &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let moof = boxed(b"moof", &boxed(b"traf", &[tfhd, trun].concat()));
    let bytes = [init_segment(), moof, boxed(b"mdat", &[])].concat();
    assert!(matches!(split_in(&bytes, 4096), Err(SplitError::Box(_))));
}

fn fragments() -> impl Strategy<Value = Vec<(bool, usize)>> {
    prop::collection::vec((any::<bool>(), 0usize..6_000), 1..40)
}

proptest! {
    #[test]
    fn pieces_of_any_size_give_the_same_chunks(fragments in fragments(), piece_bytes in 1usize..9_000) {
        let bytes = stream(&fragments);
        let whole = split_in(&bytes, bytes.len());
        prop_assert_eq!(&split_in(&bytes, piece_bytes), &whole);
        if let Ok(pieces) = whole {
            let (mut joined, mut next) = (Vec::new(), 0);
            for piece in &pieces {
                match piece {
                    Piece::Init(init) => joined.extend_from_slice(&init.bytes),
                    Piece::Chunk(chunk) => {
                        prop_assert_eq!(chunk.sequence_num, next);
                        next += 1;
                        joined.extend_from_slice(&chunk.bytes);
                    }
                }
            }
            prop_assert_eq!(joined, bytes);
        }
    }

    #[test]
    fn every_chunk_describes_itself_as_the_splitter_did(fragments in fragments()) {
        for chunk in split_in(&stream(&fragments), 5_000).map(chunks_of).unwrap_or_default() {
            let described = describe(Some(&init_segment()), &chunk.bytes).unwrap();
            prop_assert_eq!(described.facts, chunk.facts);
        }
    }

    #[test]
    fn a_damaged_stream_never_panics(fragments in fragments(), cut in 0usize..20_000, at in 0usize..20_000, value: u8) {
        let mut bytes = stream(&fragments);
        let at = at % bytes.len();
        bytes[at] = value;
        bytes.truncate(cut.max(1));
        let split = split_in(&bytes, 333);
        let described = describe(None, &bytes);
        prop_assert!(split.is_ok() || split.is_err() || described.is_ok());
    }

    #[test]
    fn garbage_never_panics(garbage in prop::collection::vec(any::<u8>(), 0..3_000)) {
        prop_assert!(split_in(&garbage, 17).is_err());
        prop_assert!(describe(None, &garbage).is_err());
        let after_init = [init_segment(), garbage].concat();
        let _ = split_in(&after_init, 100);
    }
}
