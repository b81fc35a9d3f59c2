//! An MP4 file that starts in the middle of a video's time, made to start at 0.
//!
//! FFmpeg's segments carry the whole video's time as an empty edit before each track (unless they were made with
//! `-reset_timestamps`). GStreamer's demuxer would show black for that long, and gives the tracks up when the empty edit
//! is over four times as long as they are. What the empty edits of all tracks have in common is taken off here, so
//! picture and sound stay as they were to each other. Anything that is not understood is left as it is: the demuxer has
//! the last word. Lengths and places are checked; nothing is read past the file.

use std::ops::Range;

use bytes::Bytes;

/// `media_time` of an empty edit.
const NOTHING: i64 = -1;

/// A number in the file: its first byte, and whether it has 8 bytes instead of 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    at: usize,
    wide: bool,
}

/// The file with its own time from 0.
pub(super) fn from_zero(file: Bytes) -> Bytes {
    match shift(&file) {
        Some(shift) => shift.apply(&file),
        None => file,
    }
}

/// What is to be taken off, in the movie's units, and where.
struct Shift {
    by: u64,
    fields: Vec<Field>,
}

impl Shift {
    fn apply(&self, file: &Bytes) -> Bytes {
        let mut bytes = file.to_vec();
        for field in &self.fields {
            field.subtract(&mut bytes, self.by);
        }
        bytes.into()
    }
}

fn shift(file: &[u8]) -> Option<Shift> {
    let moov = boxes(file, 0..file.len())
        .find(|found| &found.kind == b"moov")?
        .body;
    let tracks: Vec<Field> = boxes(file, moov.clone())
        .filter(|found| &found.kind == b"trak")
        .map(|track| empty_edit(file, track.body))
        .collect::<Option<_>>()?;
    let by = tracks
        .iter()
        .map(|field| field.read(file))
        .collect::<Option<Vec<u64>>>()?
        .into_iter()
        .min()?;
    let mut fields = tracks;
    fields.extend(
        boxes(file, moov)
            .find(|found| &found.kind == b"mvhd")
            .and_then(|found| movie_length(file, found.body)),
    );
    (by > 0).then_some(Shift { by, fields })
}

/// Where the length of the empty edit at the start of a track is.
fn empty_edit(file: &[u8], track: Range<usize>) -> Option<Field> {
    let edits = boxes(file, track).find(|found| &found.kind == b"edts")?.body;
    let list = boxes(file, edits).find(|found| &found.kind == b"elst")?.body;
    // Version and flags, the number of edits; then for each: length, media time, rate.
    let wide = *file.get(list.start)? == 1;
    let first = list.start.checked_add(8)?;
    let length = Field { at: first, wide };
    let media_time = if wide {
        i64::from_be_bytes(file.get(first + 8..first + 16)?.try_into().ok()?)
    } else {
        i64::from(i32::from_be_bytes(
            file.get(first + 4..first + 8)?.try_into().ok()?,
        ))
    };
    let whole_entry = first + if wide { 20 } else { 12 };
    (media_time == NOTHING && whole_entry <= list.end).then_some(length)
}

/// Where the movie's length is: version and flags, two times, units a second, length.
fn movie_length(file: &[u8], header: Range<usize>) -> Option<Field> {
    let wide = *file.get(header.start)? == 1;
    let field = Field {
        at: header.start + if wide { 24 } else { 16 },
        wide,
    };
    (field.at + field.len() <= header.end).then_some(field)
}

impl Field {
    const fn len(self) -> usize {
        if self.wide { 8 } else { 4 }
    }

    fn read(self, file: &[u8]) -> Option<u64> {
        let bytes = file.get(self.at..self.at + self.len())?;
        Some(
            bytes
                .iter()
                .fold(0, |number, &byte| number << 8 | u64::from(byte)),
        )
    }

    fn subtract(self, file: &mut [u8], by: u64) {
        let Some(number) = self.read(file) else { return };
        let left = number.saturating_sub(by).to_be_bytes();
        if let (Some(place), Some(bytes)) = (
            file.get_mut(self.at..self.at + self.len()),
            left.get(8 - self.len()..),
        ) {
            place.copy_from_slice(bytes);
        }
    }
}

struct Found {
    kind: [u8; 4],
    body: Range<usize>,
}

/// The boxes in a range, up to the first one that does not fit into it.
fn boxes(file: &[u8], within: Range<usize>) -> impl Iterator<Item = Found> {
    let mut at = within.start;
    std::iter::from_fn(move || {
        let header = file.get(at..within.end)?;
        let short = u32::from_be_bytes(header.get(..4)?.try_into().ok()?);
        let kind: [u8; 4] = header.get(4..8)?.try_into().ok()?;
        let (header_len, size) = match short {
            0 => (8, header.len()),
            1 => (
                16,
                usize::try_from(u64::from_be_bytes(header.get(8..16)?.try_into().ok()?)).ok()?,
            ),
            size => (8, usize::try_from(size).ok()?),
        };
        if size < header_len || size > header.len() {
            return None;
        }
        let body = at + header_len..at + size;
        at += size;
        Some(Found { kind, body })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(body.len() + 8).unwrap();
        [&size.to_be_bytes()[..], kind, body].concat()
    }

    fn track(empty: u32) -> Vec<u8> {
        let list = [
            &[0; 4][..],
            &2u32.to_be_bytes(),
            &empty.to_be_bytes(),
            &(-1i32).to_be_bytes(),
            &[0, 1, 0, 0],
        ]
        .concat();
        let list = [list, vec![0; 12]].concat();
        make(
            b"trak",
            &[make(b"tkhd", &[0; 84]), make(b"edts", &make(b"elst", &list))].concat(),
        )
    }

    fn file(tracks: &[Vec<u8>]) -> Bytes {
        let header = make(
            b"mvhd",
            &[
                &[0; 12][..],
                &1000u32.to_be_bytes(),
                &24_000u32.to_be_bytes(),
                &[0; 80],
            ]
            .concat(),
        );
        let movie = make(b"moov", &[header, tracks.concat()].concat());
        [make(b"ftyp", b"isom"), make(b"mdat", &[7; 50]), movie]
            .concat()
            .into()
    }

    #[test]
    fn what_all_tracks_wait_for_is_taken_off() {
        assert_eq!(
            from_zero(file(&[track(20_021), track(20_000)])).len(),
            file(&[track(0), track(0)]).len()
        );
        let shifted = from_zero(file(&[track(20_021), track(20_000)]));
        let expected = file(&[track(21), track(0)]);
        let movie = expected.len()
            - shifted
                .iter()
                .rev()
                .zip(expected.iter().rev())
                .take_while(|(a, b)| a == b)
                .count();
        // All but the movie's length is the same: that went from 24 s to 4 s.
        assert_eq!(shifted[movie - 4..movie], 4_000u32.to_be_bytes());
    }

    #[test]
    fn a_track_that_starts_at_once_keeps_all_as_it_is() {
        for whole in [
            file(&[track(20_000), make(b"trak", &[])]),
            file(&[track(0)]),
            file(&[]),
        ] {
            assert_eq!(from_zero(whole.clone()), whole);
        }
    }

    #[test]
    fn damaged_files_are_left_alone() {
        let whole = file(&[track(20_021), track(20_000)]);
        for end in 0..whole.len() {
            let cut = whole.slice(..end);
            assert_eq!(from_zero(cut.clone()).len(), cut.len());
        }
        for at in 0..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 0xff;
            assert_eq!(from_zero(bytes.into()).len(), whole.len());
        }
    }
}
