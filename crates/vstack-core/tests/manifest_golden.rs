//! The manifest's field names are a contract: the committed document of the first version is read and written
//! unchanged by every later one.

use serde_json::Value;
use vstack_core::digest::ChunkDigest;
use vstack_core::manifest::Manifest;

const GOLDEN: &str = include_str!("golden/manifest.json");

#[test]
fn the_golden_manifest_is_read_and_written_unchanged() {
    let manifest: Manifest = serde_json::from_str(GOLDEN).unwrap();
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    assert_eq!(serde_json::to_value(&manifest).unwrap(), golden);
}

#[test]
fn times_and_chunks_are_found_by_position() {
    let manifest: Manifest = serde_json::from_str(GOLDEN).unwrap();
    let seq_at = |position_ms| manifest.chunk_at(position_ms).map(|chunk| chunk.sequence_num);
    assert_eq!(
        [0, 9_999, 10_000, 99_000].map(seq_at),
        [Some(0), Some(0), Some(1), Some(1)]
    );
    assert_eq!(
        (manifest.duration_ms(), manifest.video_edit_offset_ms()),
        (12_500, 67)
    );
}

#[test]
fn the_init_segments_digest_fits_its_inlined_bytes() {
    let manifest: Manifest = serde_json::from_str(GOLDEN).unwrap();
    let init = manifest.init.unwrap().chunk;
    let digest = ChunkDigest::of(&[0, 1, 2, 3]);
    assert_eq!((init.checksum, init.leaf_root), (digest.sha256, digest.leaf_root));
}

#[test]
fn a_manifest_of_a_plain_client_needs_none_of_the_later_fields() {
    let mut document: Value = serde_json::from_str(GOLDEN).unwrap();
    for name in [
        "container",
        "codecs",
        "tracks",
        "poster",
        "storyboard",
        "subtitles",
    ] {
        document.as_object_mut().unwrap().remove(name);
    }
    assert!(serde_json::from_value::<Manifest>(document).is_ok());
}
