//! Which bytes show which moment: the manifest, turned into the units that the source hands to the demuxer.
//!
//! A unit is one fragment (`moof`+`mdat`) of a chunk, or a whole chunk where the manifest names no fragments. Units
//! ascend in time without gaps. Pure: no bytes, no clock. Nothing of the manifest is trusted: a fragment that lies
//! outside its chunk makes the chunk one whole unit, and the demuxer says what it thinks of the bytes.

use std::ops::Range;

use vstack_core::manifest::{Container, Manifest, ManifestChunk, TrackKind};

/// Keyframe times and presentation times were rounded to milliseconds on different ways.
const ROUNDING_MS: u64 = 2;

/// What is handed to the demuxer at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Number of the chunk that holds it.
    pub seq: u32,
    /// Its bytes inside the chunk; `None` is all of them.
    pub bytes: Option<Range<usize>>,
    /// Length of the whole chunk.
    pub size_bytes: u64,
    /// Presentation time of its first video frame.
    pub start_ms: u64,
    /// Where the next unit starts, or the video ends.
    pub end_ms: u64,
}

/// The order of a video's units and the times a seek needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    pub duration_ms: u64,
    /// Each chunk is a file of its own, without a common init segment.
    pub whole_files: bool,
    /// Subtracted from every presentation time of the video track.
    pub video_offset_ms: i64,
    /// Subtracted from every presentation time of the first audio track.
    pub audio_offset_ms: i64,
    units: Vec<Unit>,
    keyframes_ms: Vec<u64>,
}

impl Timeline {
    /// The timeline of a manifest.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let whole_files = manifest.container == Container::Mp4Segments;
        let mut units: Vec<Unit> = Vec::new();
        let mut keyframes_ms: Vec<u64> = Vec::new();
        for chunk in &manifest.chunks {
            push_units(&mut units, chunk, whole_files);
            keyframes_ms.extend(&chunk.keyframes_ms);
        }
        let duration_ms = manifest.duration_ms();
        let starts: Vec<u64> = units
            .iter()
            .skip(1)
            .map(|unit| unit.start_ms)
            .chain([duration_ms])
            .collect();
        for (unit, next_start_ms) in units.iter_mut().zip(starts) {
            unit.end_ms = next_start_ms.max(unit.start_ms);
        }
        keyframes_ms.sort_unstable();
        Self {
            duration_ms,
            whole_files,
            video_offset_ms: edit_offset_ms(manifest, TrackKind::Video),
            audio_offset_ms: edit_offset_ms(manifest, TrackKind::Audio),
            units,
            keyframes_ms,
        }
    }

    /// All units, in the order of play.
    #[must_use]
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// The last keyframe at or before `target_ms`: decoding has to start there.
    #[must_use]
    pub fn keyframe_before(&self, target_ms: u64) -> u64 {
        let after = self
            .keyframes_ms
            .partition_point(|&time_ms| time_ms <= target_ms + ROUNDING_MS);
        after
            .checked_sub(1)
            .and_then(|last| self.keyframes_ms.get(last))
            .copied()
            .unwrap_or(0)
    }

    /// Index of the unit to begin with so that `target_ms` can be shown: the one that holds its keyframe.
    #[must_use]
    pub fn unit_for(&self, target_ms: u64) -> usize {
        // Without keyframes each unit is taken to start with one, as whole chunks do.
        let needed_ms = if self.keyframes_ms.is_empty() {
            target_ms
        } else {
            self.keyframe_before(target_ms)
        };
        let after = self
            .units
            .partition_point(|unit| unit.start_ms <= needed_ms + ROUNDING_MS);
        let start_ms = after
            .checked_sub(1)
            .and_then(|last| self.units.get(last))
            .map_or(0, |unit| unit.start_ms);
        // A fragment without pictures carries the time of the one before it, which has the keyframe.
        self.units.partition_point(|unit| unit.start_ms < start_ms)
    }

    /// Index of the file that shows `target_ms`, where each chunk is a file of its own; else the video is one, 0.
    #[must_use]
    pub fn file_at(&self, target_ms: u64) -> usize {
        let after = self.units.partition_point(|unit| unit.start_ms <= target_ms);
        if self.whole_files {
            after.saturating_sub(1)
        } else {
            0
        }
    }

    /// When the file starts; 0 for a video that is one.
    #[must_use]
    pub fn file_start_ms(&self, file: usize) -> u64 {
        let unit = self.units.get(file).filter(|_| self.whole_files);
        unit.map_or(0, |unit| unit.start_ms)
    }

    /// The file after `file`.
    #[must_use]
    pub fn next_file(&self, file: usize) -> Option<usize> {
        (self.whole_files && file + 1 < self.units.len()).then_some(file + 1)
    }

    /// Whether a video frame can be dropped unseen after a seek to `target_ms`: it lies before the keyframe that the
    /// target needs.
    #[must_use]
    pub fn is_before_keyframe(&self, time_ms: u64, keyframe_ms: u64) -> bool {
        time_ms + ROUNDING_MS < keyframe_ms
    }
}

fn push_units(units: &mut Vec<Unit>, chunk: &ManifestChunk, whole_files: bool) {
    let unit = |bytes, start_ms| Unit {
        seq: chunk.sequence_num,
        bytes,
        size_bytes: chunk.size_bytes,
        start_ms,
        end_ms: start_ms,
    };
    let ranges: Option<Vec<_>> = chunk
        .fragments
        .iter()
        .map(|f| fragment_range(chunk, f.offset, f.size))
        .collect();
    match ranges {
        Some(ranges) if !ranges.is_empty() && !whole_files => {
            let starts = chunk.fragments.iter().map(|fragment| fragment.start_ms);
            units.extend(
                ranges
                    .into_iter()
                    .zip(starts)
                    .map(|(range, start_ms)| unit(Some(range), start_ms)),
            );
        }
        _ => units.push(unit(None, chunk.start_ms())),
    }
}

/// The bytes of a fragment, if they lie inside its chunk.
fn fragment_range(chunk: &ManifestChunk, offset: u32, size: u32) -> Option<Range<usize>> {
    let (start, end) = (u64::from(offset), u64::from(offset) + u64::from(size));
    if size == 0 || end > chunk.size_bytes {
        return None;
    }
    Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

fn edit_offset_ms(manifest: &Manifest, kind: TrackKind) -> i64 {
    manifest
        .tracks
        .iter()
        .find(|track| track.kind == kind)
        .map_or(0, |track| track.edit_offset_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::player::testing::manifest_with;

    /// Two chunks of 10 s; fragments of 2 s, keyframes every 4 s.
    fn timeline() -> Timeline {
        Timeline::of(&manifest_with(&[(0, 5), (10_000, 5)], 2_000, 4_000))
    }

    #[test]
    fn units_follow_each_other_without_a_gap_to_the_end() {
        let timeline = timeline();
        assert_eq!(timeline.units().len(), 10);
        for pair in timeline.units().windows(2) {
            assert_eq!(pair[0].end_ms, pair[1].start_ms);
        }
        assert_eq!(timeline.units()[9].end_ms, 20_000);
    }

    #[test]
    fn a_seek_begins_with_the_fragment_of_its_keyframe() {
        for (target_ms, keyframe_ms, unit) in [
            (0, 0, 0),
            (3_999, 4_000, 2),
            (3_900, 0, 0),
            (7_000, 4_000, 2),
            (11_000, 10_000, 5),
            (90_000, 18_000, 9),
        ] {
            assert_eq!(timeline().keyframe_before(target_ms), keyframe_ms, "{target_ms}");
            assert_eq!(timeline().unit_for(target_ms), unit, "{target_ms}");
        }
    }

    #[test]
    fn a_fragment_outside_its_chunk_makes_the_chunk_one_unit() {
        let mut manifest = manifest_with(&[(0, 5), (10_000, 5)], 2_000, 4_000);
        manifest.chunks[1].fragments[4].size += 1;
        let timeline = Timeline::of(&manifest);
        assert_eq!(timeline.units().len(), 6);
        assert_eq!(timeline.units()[5].bytes, None);
    }

    #[test]
    fn a_seek_never_begins_with_a_fragment_that_has_only_sound() {
        let mut manifest = manifest_with(&[(0, 5)], 2_000, 2_000);
        manifest.chunks[0].fragments[4].start_ms = 6_000;
        let timeline = Timeline::of(&manifest);
        assert_eq!(timeline.unit_for(7_000), 3);
        assert_eq!(timeline.unit_for(8_500), 3);
    }

    #[test]
    fn a_video_without_chunks_has_no_units_and_does_not_fail() {
        let timeline = Timeline::of(&manifest_with(&[], 2_000, 4_000));
        assert_eq!(
            (timeline.unit_for(5_000), timeline.keyframe_before(5_000)),
            (0, 0)
        );
    }
}
