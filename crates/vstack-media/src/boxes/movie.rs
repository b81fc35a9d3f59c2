//! The `moov` box: what the tracks are, how their times map to the presentation, and whether they are encrypted.

use vstack_core::limits::MAX_STREAMS;
use vstack_core::manifest::{Track, TrackKind};

use super::codec::codec_string;
use super::reader::{BoxError, Boxes, Fields, FourCc, RawBox};

/// Presentation of a movie, without its samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movie {
    pub tracks: Vec<MovieTrack>,
    /// It has a `mvex`: samples come in `moof` boxes.
    pub fragmented: bool,
    /// A track is encrypted (`encv`, `enca` or `sinf`), under this scheme where it says so.
    pub protected: Option<String>,
}

/// What kind of samples a track has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handler {
    Video,
    Audio,
    Other(FourCc),
}

/// One track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovieTrack {
    pub id: u32,
    pub handler: Handler,
    /// Units a second, never 0.
    pub timescale: u32,
    pub edits: Edits,
    pub sample_entry: Option<FourCc>,
    pub codec: Option<String>,
    pub width: u32,
    pub height: u32,
    pub language: Option<String>,
    pub defaults: SampleDefaults,
}

/// What the edit list says, as far as a stream of fragments can use it: wait first, then start at a media time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Edits {
    /// Empty edits in front, in microseconds of the presentation.
    pub wait_us: i64,
    /// Media time (track units) of the first moment that is shown.
    pub media_start: i64,
}

/// `trex`: what a fragment leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SampleDefaults {
    pub duration: u32,
    pub size: u32,
    pub flags: u32,
}

impl MovieTrack {
    /// Presentation time of a media time, in microseconds; negative where the edit list cuts it off.
    #[must_use]
    pub fn presentation_us(&self, media_time: i64) -> i64 {
        let media_us = i128::from(media_time) - i128::from(self.edits.media_start);
        let media_us = media_us * 1_000_000 / i128::from(self.timescale.max(1));
        i64::try_from(media_us + i128::from(self.edits.wait_us)).unwrap_or(i64::MAX)
    }

    /// Presentation time in whole milliseconds, what is cut off at 0.
    #[must_use]
    pub fn presentation_ms(&self, media_time: i64) -> u64 {
        let us = self.presentation_us(media_time).max(0);
        u64::try_from((us.saturating_add(500)) / 1000).unwrap_or(0)
    }

    /// The manifest's words for it; `None` for what is neither picture nor sound, or has no readable configuration.
    #[must_use]
    pub fn to_manifest(&self) -> Option<Track> {
        let kind = match self.handler {
            Handler::Video => TrackKind::Video,
            Handler::Audio => TrackKind::Audio,
            Handler::Other(_) => return None,
        };
        let picture = kind == TrackKind::Video;
        Some(Track {
            kind,
            codec: self.codec.clone()?,
            timescale: self.timescale,
            edit_offset_ms: -(self.presentation_us(0).div_euclid(1000)),
            width: picture.then_some(self.width),
            height: picture.then_some(self.height),
            language: self.language.clone(),
        })
    }
}

impl Movie {
    /// Reads the movie of an init segment or whole file in memory.
    ///
    /// # Errors
    /// No `moov`, or one that breaks the format.
    pub fn in_file(bytes: &[u8]) -> Result<Self, BoxError> {
        Self::read(&Boxes::new(bytes).require(b"moov")?)
    }

    /// Reads a `moov` box.
    ///
    /// # Errors
    /// It breaks the format, or has more than 32 tracks.
    pub fn read(moov: &RawBox<'_>) -> Result<Self, BoxError> {
        let movie_timescale = movie_timescale(&moov.children().require(b"mvhd")?)?;
        let mut tracks = Vec::new();
        for trak in moov.children().all(b"trak") {
            if tracks.len() == MAX_STREAMS {
                return Err(BoxError::TooMany {
                    what: "tracks",
                    limit: MAX_STREAMS,
                });
            }
            tracks.push(read_track(&trak, movie_timescale)?);
        }
        let extends = moov.children().find(b"mvex");
        for trex in extends.iter().flat_map(|mvex| mvex.children().all(b"trex")) {
            let (track_id, defaults) = read_trex(&trex)?;
            tracks
                .iter_mut()
                .filter(|track| track.id == track_id)
                .for_each(|track| track.defaults = defaults);
        }
        Ok(Self {
            tracks,
            fragmented: extends.is_some(),
            protected: find_protection(moov),
        })
    }

    /// The first video track: the one whose times and keyframes count.
    #[must_use]
    pub fn video(&self) -> Option<&MovieTrack> {
        self.tracks.iter().find(|track| track.handler == Handler::Video)
    }

    /// All picture and sound tracks in the manifest's words.
    #[must_use]
    pub fn manifest_tracks(&self) -> Vec<Track> {
        self.tracks.iter().filter_map(MovieTrack::to_manifest).collect()
    }
}

/// The codec strings of tracks, joined as `MediaSource` wants them.
#[must_use]
pub fn joined_codecs(tracks: &[Track]) -> String {
    tracks
        .iter()
        .map(|track| track.codec.as_str())
        .collect::<Vec<_>>()
        .join(",")
}

fn movie_timescale(mvhd: &RawBox<'_>) -> Result<u32, BoxError> {
    let mut fields = mvhd.fields();
    let (version, _) = fields.version_and_flags()?;
    fields.skip(if version == 0 { 8 } else { 16 })?;
    nonzero(mvhd.kind, fields.u32()?)
}

fn nonzero(owner: FourCc, value: u32) -> Result<u32, BoxError> {
    if value == 0 {
        Err(BoxError::BadValue(owner))
    } else {
        Ok(value)
    }
}

fn read_track(trak: &RawBox<'_>, movie_timescale: u32) -> Result<MovieTrack, BoxError> {
    let (id, width, height) = read_tkhd(&trak.children().require(b"tkhd")?)?;
    let mdia = trak.children().require(b"mdia")?;
    let (timescale, language) = read_mdhd(&mdia.children().require(b"mdhd")?)?;
    let handler = read_handler(&mdia.children().require(b"hdlr")?)?;
    let edits = match trak
        .children()
        .find(b"edts")
        .and_then(|edts| edts.children().find(b"elst"))
    {
        Some(elst) => read_edits(&elst, movie_timescale)?,
        None => Edits::default(),
    };
    let entry = sample_entry(&mdia, handler);
    let (coded_width, coded_height) = entry.as_ref().map_or((0, 0), |entry| entry.picture);
    Ok(MovieTrack {
        id,
        handler,
        timescale,
        edits,
        codec: entry
            .as_ref()
            .and_then(|entry| codec_string(entry.kind, &entry.config)),
        sample_entry: entry.map(|entry| entry.kind),
        // The track header has the size after rotation matrices and pixel shape; ordinary files have both alike.
        width: if width == 0 { coded_width } else { width },
        height: if height == 0 { coded_height } else { height },
        language,
        defaults: SampleDefaults::default(),
    })
}

/// Track id and its size in pixels (16.16 fixed point on disk).
fn read_tkhd(tkhd: &RawBox<'_>) -> Result<(u32, u32, u32), BoxError> {
    let mut fields = tkhd.fields();
    let (version, _) = fields.version_and_flags()?;
    fields.skip(if version == 0 { 8 } else { 16 })?;
    let id = fields.u32()?;
    // Reserved, duration, reserved, layer, group, volume, reserved, matrix.
    fields.skip(4 + if version == 0 { 4 } else { 8 } + 8 + 8 + 36)?;
    Ok((id, fields.u32()? >> 16, fields.u32()? >> 16))
}

fn read_mdhd(mdhd: &RawBox<'_>) -> Result<(u32, Option<String>), BoxError> {
    let mut fields = mdhd.fields();
    let (version, _) = fields.version_and_flags()?;
    fields.skip(if version == 0 { 8 } else { 16 })?;
    let timescale = nonzero(mdhd.kind, fields.u32()?)?;
    fields.skip(if version == 0 { 4 } else { 8 })?;
    Ok((timescale, language(fields.u16()?)))
}

/// Three letters of five bits each; "und" and anything that is no letter says nothing.
fn language(packed: u16) -> Option<String> {
    let letters = [10, 5, 0].map(|shift| ((packed >> shift & 0x1f) as u8).wrapping_add(0x60));
    let text: String = letters.iter().map(|letter| char::from(*letter)).collect();
    (letters.iter().all(u8::is_ascii_lowercase) && text != "und").then_some(text)
}

fn read_handler(hdlr: &RawBox<'_>) -> Result<Handler, BoxError> {
    let mut fields = hdlr.fields();
    fields.skip(8)?;
    let kind = fields.four_cc()?;
    Ok(match &kind.0 {
        b"vide" => Handler::Video,
        b"soun" => Handler::Audio,
        _ => Handler::Other(kind),
    })
}

/// Empty edits in front, then the media time of the first real one. Later edits (cuts in the middle) cannot be
/// expressed in a stream of fragments; FFmpeg has already applied them when it wrote ours.
fn read_edits(elst: &RawBox<'_>, movie_timescale: u32) -> Result<Edits, BoxError> {
    let mut fields = elst.fields();
    let (version, _) = fields.version_and_flags()?;
    let count = fields.u32()?;
    let mut edits = Edits::default();
    for _ in 0..count {
        let duration = fields.versioned(version)?;
        let media_time = if version == 0 {
            i64::from(fields.i32()?)
        } else {
            fields.i64()?
        };
        fields.skip(4)?;
        if media_time >= 0 {
            edits.media_start = media_time;
            break;
        }
        let wait_us = u128::from(duration) * 1_000_000 / u128::from(movie_timescale);
        edits.wait_us = edits
            .wait_us
            .saturating_add(i64::try_from(wait_us).unwrap_or(i64::MAX));
    }
    Ok(edits)
}

/// Track id, then the defaults of its samples.
fn read_trex(trex: &RawBox<'_>) -> Result<(u32, SampleDefaults), BoxError> {
    let mut fields = trex.fields();
    fields.version_and_flags()?;
    let track_id = fields.u32()?;
    let _description_index = fields.u32()?;
    Ok((
        track_id,
        SampleDefaults {
            duration: fields.u32()?,
            size: fields.u32()?,
            flags: fields.u32()?,
        },
    ))
}

struct SampleEntry<'a> {
    kind: FourCc,
    picture: (u32, u32),
    config: Boxes<'a>,
}

/// The first sample entry, with the boxes behind its fixed fields.
fn sample_entry<'a>(mdia: &RawBox<'a>, handler: Handler) -> Option<SampleEntry<'a>> {
    let stbl = mdia.children().find(b"minf")?.children().find(b"stbl")?;
    let stsd = stbl.children().find(b"stsd")?;
    let entry = Boxes::new(stsd.body.get(8..)?).next()?.ok()?;
    let (picture, config) = match handler {
        Handler::Video => video_entry(entry.fields()).ok()?,
        Handler::Audio => ((0, 0), audio_entry(entry.fields()).ok()?),
        Handler::Other(_) => ((0, 0), Boxes::new(&[])),
    };
    Some(SampleEntry {
        kind: entry.kind,
        picture,
        config,
    })
}

/// 78 fixed bytes, the picture's size among them.
fn video_entry(mut fields: Fields<'_>) -> Result<((u32, u32), Boxes<'_>), BoxError> {
    fields.skip(24)?;
    let size = (u32::from(fields.u16()?), u32::from(fields.u16()?));
    fields.skip(50)?;
    Ok((size, Boxes::new(fields.rest())))
}

/// 28 fixed bytes; QuickTime's versions 1 and 2 have 16 and 36 more.
fn audio_entry(mut fields: Fields<'_>) -> Result<Boxes<'_>, BoxError> {
    fields.skip(8)?;
    let version = fields.u16()?;
    fields.skip(18)?;
    fields.skip(match version {
        1 => 16,
        2 => 36,
        _ => 0,
    })?;
    Ok(Boxes::new(fields.rest()))
}

/// The protection scheme of any encrypted track. Works on movies that are broken elsewhere: FFmpeg converts encrypted
/// files without a word of complaint, so that nothing else would notice.
#[must_use]
pub fn find_protection(moov: &RawBox<'_>) -> Option<String> {
    moov.children().all(b"trak").find_map(|trak| protection(&trak))
}

/// The protection scheme when any sample entry of the track is encrypted.
fn protection(trak: &RawBox<'_>) -> Option<String> {
    let path = [b"mdia", b"minf", b"stbl", b"stsd"];
    let stsd = path
        .iter()
        .try_fold(*trak, |parent, kind| parent.children().find(kind))?;
    let entries = Boxes::new(stsd.body.get(8..)?);
    entries.map_while(Result::ok).find_map(|entry| {
        let named = matches!(
            &entry.kind.0,
            b"encv" | b"enca" | b"enct" | b"encs" | b"drms" | b"drmi"
        );
        let scheme = scheme_of(entry.body);
        (named || scheme.is_some()).then(|| scheme.unwrap_or_else(|| entry.kind.to_string()))
    })
}

/// The scheme that a `sinf` among the boxes of a sample entry names. The fixed fields in front differ in length, so the
/// box is looked for at each offset that they can have.
fn scheme_of(entry_body: &[u8]) -> Option<String> {
    const FIXED_FIELDS: [usize; 5] = [8, 28, 44, 64, 78];
    let candidates = FIXED_FIELDS.iter().filter_map(|fixed| entry_body.get(*fixed..));
    let sinf = candidates.map(Boxes::new).find_map(|boxes| boxes.find(b"sinf"))?;
    let scheme = sinf.children().find(b"schm").and_then(|schm| {
        let mut fields = schm.fields();
        fields.skip(4).ok()?;
        fields.four_cc().ok()
    });
    Some(scheme.map_or_else(|| "sinf".to_owned(), |scheme| scheme.to_string()))
}
