//! The sample tables of a file that is not fragmented: what plain clients upload as self-contained chunks.

use super::fragment::{MAX_FRAGMENT_SAMPLES, VideoTimes};
use super::movie::{Handler, Movie};
use super::reader::{BoxError, Boxes, Fields, RawBox};

/// Times of the first video track's samples, from `stts`, `ctts` and `stss`.
///
/// # Errors
/// The tables are missing or broken, or hold too many samples.
pub fn read_sample_tables(moov: &RawBox<'_>, movie: &Movie) -> Result<VideoTimes, BoxError> {
    let video = movie
        .tracks
        .iter()
        .position(|track| track.handler == Handler::Video);
    let trak = video.and_then(|position| moov.children().all(b"trak").nth(position));
    let Some(trak) = trak else {
        return Ok(VideoTimes::default());
    };
    let path = [b"mdia", b"minf", b"stbl"];
    let stbl = path
        .iter()
        .try_fold(trak, |parent, kind| parent.children().require(kind))?
        .children();
    let mut offsets = Offsets::open(&stbl)?;
    let mut keyframes = Keyframes::open(&stbl)?;
    let mut times = VideoTimes::default();
    let mut decode_time = 0i64;
    let (_, mut durations) = entries(stbl.require(b"stts")?)?;
    while let (Ok(count), Ok(duration)) = (durations.u32(), durations.u32()) {
        if times.samples + u64::from(count) > MAX_FRAGMENT_SAMPLES as u64 {
            return Err(BoxError::TooMany {
                what: "samples in a chunk",
                limit: MAX_FRAGMENT_SAMPLES,
            });
        }
        for _ in 0..count {
            let keyframe = keyframes.is_keyframe(times.samples + 1);
            times.add(decode_time, offsets.next_offset(), duration, keyframe);
            decode_time = decode_time.saturating_add(i64::from(duration));
        }
    }
    Ok(times)
}

/// Version and the entries of a table, without more bytes than its count claims.
fn entries(table: RawBox<'_>) -> Result<(u8, Fields<'_>), BoxError> {
    let mut fields = table.fields();
    let (version, _) = fields.version_and_flags()?;
    fields.skip(4)?;
    Ok((version, fields))
}

/// `ctts`, run by run; without one every offset is 0.
struct Offsets<'a> {
    fields: Option<Fields<'a>>,
    left: u32,
    offset: i64,
}

impl<'a> Offsets<'a> {
    fn open(stbl: &Boxes<'a>) -> Result<Self, BoxError> {
        let fields = stbl
            .find(b"ctts")
            .map(|ctts| entries(ctts).map(|(_, fields)| fields))
            .transpose()?;
        Ok(Self {
            fields,
            left: 0,
            offset: 0,
        })
    }

    fn next_offset(&mut self) -> i64 {
        while self.left == 0 {
            let Some(fields) = &mut self.fields else { return 0 };
            match (fields.u32(), fields.i32()) {
                (Ok(count), Ok(offset)) => (self.left, self.offset) = (count, i64::from(offset)),
                _ => self.fields = None,
            }
        }
        self.left -= 1;
        self.offset
    }
}

/// `stss`, ascending sample numbers from 1; without one every sample is a keyframe.
struct Keyframes<'a> {
    fields: Option<Fields<'a>>,
    next: Option<u64>,
}

impl<'a> Keyframes<'a> {
    fn open(stbl: &Boxes<'a>) -> Result<Self, BoxError> {
        let fields = stbl
            .find(b"stss")
            .map(|stss| entries(stss).map(|(_, fields)| fields))
            .transpose()?;
        let mut keyframes = Self { fields, next: None };
        keyframes.advance();
        Ok(keyframes)
    }

    fn advance(&mut self) {
        self.next = self
            .fields
            .as_mut()
            .and_then(|fields| fields.u32().ok())
            .map(u64::from);
    }

    fn is_keyframe(&mut self, sample: u64) -> bool {
        if self.fields.is_none() {
            return true;
        }
        while self.next.is_some_and(|next| next < sample) {
            self.advance();
        }
        self.next == Some(sample)
    }
}
