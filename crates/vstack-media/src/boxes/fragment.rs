//! The `moof` box: when its samples are shown, and which of them can be decoded without others.

use super::movie::{Handler, Movie, MovieTrack, SampleDefaults};
use super::reader::{BoxError, Fields, RawBox};

/// Samples that one fragment may hold. Ours hold two seconds; a day of 60 pictures a second is five million. A `trun`
/// without fields for each sample can claim four billion in twenty bytes.
pub const MAX_FRAGMENT_SAMPLES: usize = 1 << 20;

/// Times of the main video track's samples in a run of boxes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VideoTimes {
    pub samples: u64,
    /// The first sample in decoding order can be decoded alone.
    pub starts_with_keyframe: bool,
    /// Earliest presentation, in track units before the edit list.
    pub first: Option<i64>,
    /// Latest end of presentation.
    pub end: i64,
    /// Presentation times of keyframes, in decoding order.
    pub keyframes: Vec<i64>,
}

impl VideoTimes {
    /// Adds the next sample in decoding order.
    pub fn add(&mut self, decode_time: i64, offset: i64, duration: u32, keyframe: bool) {
        let shown = decode_time.saturating_add(offset);
        let end = shown.saturating_add(i64::from(duration));
        if self.samples == 0 {
            self.starts_with_keyframe = keyframe;
            self.end = end;
        }
        self.samples += 1;
        self.first = Some(self.first.map_or(shown, |first| first.min(shown)));
        self.end = self.end.max(end);
        if keyframe {
            self.keyframes.push(shown);
        }
    }
}

/// What a `moof` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FragmentTimes {
    pub video: VideoTimes,
    /// Samples of all sound tracks.
    pub audio_samples: u64,
}

/// Reads a `moof` in the light of the init segment's movie. Tracks that the movie does not know are skipped.
///
/// # Errors
/// It breaks the format or holds too many samples.
pub fn read_fragment(moof: &RawBox<'_>, movie: &Movie) -> Result<FragmentTimes, BoxError> {
    let video_id = movie.video().map(|track| track.id);
    let mut times = FragmentTimes::default();
    for traf in moof.children().all(b"traf") {
        let (track_id, defaults) = read_tfhd(&traf, movie)?;
        let Some(track) = movie.tracks.iter().find(|track| track.id == track_id) else {
            continue;
        };
        if Some(track_id) == video_id {
            read_runs(&traf, defaults, Some(&mut times.video))?;
        } else if track.handler == Handler::Audio {
            times.audio_samples += read_runs(&traf, defaults, None)?;
        }
    }
    Ok(times)
}

/// Track id of a `traf`, and its defaults over the movie's.
fn read_tfhd(traf: &RawBox<'_>, movie: &Movie) -> Result<(u32, SampleDefaults), BoxError> {
    let mut fields = traf.children().require(b"tfhd")?.fields();
    let (_, flags) = fields.version_and_flags()?;
    let track_id = fields.u32()?;
    let base = movie
        .tracks
        .iter()
        .find(|track| track.id == track_id)
        .map(|track: &MovieTrack| track.defaults);
    let mut defaults = base.unwrap_or_default();
    if flags & 0x01 != 0 {
        fields.skip(8)?;
    }
    if flags & 0x02 != 0 {
        fields.skip(4)?;
    }
    for (flag, value) in [
        (0x08, &mut defaults.duration),
        (0x10, &mut defaults.size),
        (0x20, &mut defaults.flags),
    ] {
        if flags & flag != 0 {
            *value = fields.u32()?;
        }
    }
    Ok((track_id, defaults))
}

/// Walks all `trun` boxes of a `traf`; returns how many samples they hold.
fn read_runs(
    traf: &RawBox<'_>,
    defaults: SampleDefaults,
    mut video: Option<&mut VideoTimes>,
) -> Result<u64, BoxError> {
    let mut decode_time = match traf.children().find(b"tfdt") {
        Some(tfdt) => {
            let mut fields = tfdt.fields();
            let (version, _) = fields.version_and_flags()?;
            i64::try_from(fields.versioned(version)?).map_err(|_| BoxError::BadValue(tfdt.kind))?
        }
        None => 0,
    };
    let mut samples = 0u64;
    for trun in traf.children().all(b"trun") {
        let mut run = Run::open(trun.fields(), defaults)?;
        samples += u64::from(run.left);
        if samples > MAX_FRAGMENT_SAMPLES as u64 {
            return Err(BoxError::TooMany {
                what: "samples in a fragment",
                limit: MAX_FRAGMENT_SAMPLES,
            });
        }
        let Some(video) = video.as_deref_mut() else {
            continue;
        };
        while let Some(sample) = run.next_sample()? {
            video.add(decode_time, sample.offset, sample.duration, sample.is_keyframe());
            decode_time = decode_time.saturating_add(i64::from(sample.duration));
        }
    }
    Ok(samples)
}

struct Sample {
    duration: u32,
    offset: i64,
    flags: u32,
}

impl Sample {
    /// `sample_is_non_sync_sample` is bit 16.
    fn is_keyframe(&self) -> bool {
        self.flags & 0x0001_0000 == 0
    }
}

/// One `trun`, read sample by sample.
struct Run<'a> {
    fields: Fields<'a>,
    version: u8,
    flags: u32,
    first_sample_flags: Option<u32>,
    left: u32,
    defaults: SampleDefaults,
}

impl<'a> Run<'a> {
    fn open(mut fields: Fields<'a>, defaults: SampleDefaults) -> Result<Self, BoxError> {
        let (version, flags) = fields.version_and_flags()?;
        let left = fields.u32()?;
        if flags & 0x01 != 0 {
            fields.skip(4)?;
        }
        let first_sample_flags = if flags & 0x04 != 0 {
            Some(fields.u32()?)
        } else {
            None
        };
        Ok(Self {
            fields,
            version,
            flags,
            first_sample_flags,
            left,
            defaults,
        })
    }

    fn next_sample(&mut self) -> Result<Option<Sample>, BoxError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        let duration = self.field(0x100, self.defaults.duration)?;
        let _size = self.field(0x200, self.defaults.size)?;
        let flags = self.field(0x400, self.defaults.flags)?;
        let offset = self.field(0x800, 0)?;
        // Version 0 is unsigned on paper; real writers (and FFmpeg's reader) treat both as signed.
        let offset = if self.version == 0 {
            i64::from(offset)
        } else {
            i64::from(offset.cast_signed())
        };
        let flags = self.first_sample_flags.take().unwrap_or(flags);
        Ok(Some(Sample {
            duration,
            offset,
            flags,
        }))
    }

    fn field(&mut self, flag: u32, default: u32) -> Result<u32, BoxError> {
        if self.flags & flag == 0 {
            Ok(default)
        } else {
            self.fields.u32()
        }
    }
}
