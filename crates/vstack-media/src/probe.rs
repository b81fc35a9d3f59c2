//! What ffprobe says of a file, typed: its streams, and the packets of its picture.
//!
//! Headers lie (a file of one second claims 143 165), so lengths come from packets. Their list is read line by line:
//! memory does not grow with the file.

use std::ffi::OsString;
use std::path::Path;

use serde::Deserialize;

use crate::MediaError;
use crate::ffmpeg::{Limits, Tools, input_arguments, probe_arguments, run, stream_lines};

/// A file's container and streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// FFmpeg's name of the container, for example `matroska,webm`.
    pub format: String,
    pub streams: Vec<Stream>,
    pub chapters: usize,
}

/// Kind of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    Video,
    Audio,
    Subtitle,
    Other,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub index: usize,
    pub kind: StreamKind,
    /// FFmpeg's name; `None` for what it cannot decode.
    pub codec: Option<String>,
    pub profile: Option<String>,
    pub width: u32,
    pub height: u32,
    /// `None` when no picture's header could be read.
    pub pixel_format: Option<String>,
    /// A cover picture, not video.
    pub is_cover: bool,
    /// A Matroska track with an encryption key id.
    pub is_encrypted: bool,
    /// The container has the decoder's configuration (raw AAC in a transport stream has not).
    pub has_configuration: bool,
    pub language: Option<String>,
}

/// What the packets of one video stream say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PacketFacts {
    pub packets: u64,
    pub starts_with_keyframe: bool,
    /// Longest presentation time from one keyframe to the next, or to the end.
    pub longest_group_ms: u64,
    /// A picture is shown before the keyframe that it follows: the group cannot be decoded alone.
    pub open_groups: bool,
    /// Every packet has a presentation time, and decoding times ascend strictly where they are given (Matroska leaves
    /// the first ones out).
    pub clean_times: bool,
    /// From the first picture's presentation to the end of the last.
    pub duration_ms: u64,
}

/// Reads the streams of a file.
///
/// # Errors
/// ffprobe is missing, cannot read the file, or takes too long.
pub async fn probe(tools: &Tools, input: &Path) -> Result<Probe, MediaError> {
    let json = run(&tools.ffprobe, &probe_arguments(input), Limits::probing()).await?;
    parse(&json).map_err(|error| MediaError::Ffmpeg {
        reason: format!("ffprobe's answer cannot be read: {error}"),
        stderr_tail: Vec::new(),
    })
}

/// Reads all packets of one stream.
///
/// # Errors
/// ffprobe is missing or fails.
pub async fn packets(tools: &Tools, input: &Path, stream: usize) -> Result<PacketFacts, MediaError> {
    let mut arguments: Vec<OsString> = input_arguments(input);
    let text = format!(
        "-select_streams {stream} -show_entries packet=pts_time,dts_time,duration_time,flags -of compact=p=0"
    );
    arguments.extend(text.split_whitespace().map(OsString::from));
    let mut scan = PacketScan::default();
    stream_lines(&tools.ffprobe, &arguments, Limits::probing(), |line| {
        scan.take_line(line)
    })
    .await?;
    Ok(scan.finish())
}

#[derive(Deserialize)]
struct RawProbe {
    #[serde(default)]
    streams: Vec<RawStream>,
    #[serde(default)]
    chapters: Vec<serde_json::Value>,
    #[serde(default)]
    format: RawFormat,
}

#[derive(Deserialize, Default)]
struct RawFormat {
    #[serde(default)]
    format_name: String,
}

#[derive(Deserialize)]
struct RawStream {
    index: usize,
    codec_type: Option<String>,
    codec_name: Option<String>,
    profile: Option<String>,
    width: Option<u32>,
    height: Option<u32>,
    pix_fmt: Option<String>,
    extradata_size: Option<u64>,
    #[serde(default)]
    disposition: RawDisposition,
    #[serde(default)]
    tags: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize, Default)]
struct RawDisposition {
    #[serde(default)]
    attached_pic: u8,
}

fn parse(json: &[u8]) -> Result<Probe, serde_json::Error> {
    let raw: RawProbe = serde_json::from_slice(json)?;
    let streams = raw.streams.into_iter().map(Stream::from).collect();
    Ok(Probe {
        format: raw.format.format_name,
        streams,
        chapters: raw.chapters.len(),
    })
}

impl From<RawStream> for Stream {
    fn from(raw: RawStream) -> Self {
        let tag = |name: &str| {
            raw.tags
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        };
        let language = tag("language")
            .and_then(|value| value.as_str())
            .filter(|language| *language != "und");
        Self {
            index: raw.index,
            kind: match raw.codec_type.as_deref() {
                Some("video") => StreamKind::Video,
                Some("audio") => StreamKind::Audio,
                Some("subtitle") => StreamKind::Subtitle,
                _ => StreamKind::Other,
            },
            is_encrypted: tag("enc_key_id").is_some(),
            language: language.map(str::to_owned),
            codec: raw.codec_name.filter(|name| name != "unknown" && name != "none"),
            profile: raw.profile,
            width: raw.width.unwrap_or(0),
            height: raw.height.unwrap_or(0),
            pixel_format: raw
                .pix_fmt
                .filter(|format| format != "none" && format != "unknown"),
            is_cover: raw.disposition.attached_pic != 0,
            has_configuration: raw.extradata_size.is_some_and(|size| size > 0),
        }
    }
}

/// Folds packets, in decoding order, into [`PacketFacts`]. Times in microseconds.
#[derive(Debug, Default)]
struct PacketScan {
    facts: PacketFacts,
    last_decode: Option<i64>,
    last_keyframe: Option<i64>,
    first_shown: Option<i64>,
    last_shown: i64,
    end: i64,
    longest_group_us: i64,
    unclean: bool,
}

impl PacketScan {
    fn take_line(&mut self, line: &str) {
        let field = |name: &str| {
            line.trim()
                .split('|')
                .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
                .map(|(_, value)| value)
        };
        let Some(flags) = field("flags") else { return };
        let time = |name: &str| field(name).and_then(seconds_to_us);
        self.take(
            time("pts_time"),
            time("dts_time"),
            time("duration_time").unwrap_or(0),
            flags,
        );
    }

    fn take(&mut self, shown: Option<i64>, decode: Option<i64>, duration: i64, flags: &str) {
        let keyframe = flags.contains('K');
        if self.facts.packets == 0 {
            self.facts.starts_with_keyframe = keyframe;
        }
        self.facts.packets += 1;
        let repeats = decode
            .zip(self.last_decode)
            .is_some_and(|(decode, last)| decode <= last);
        self.unclean |= shown.is_none() || repeats;
        self.last_decode = decode.or(self.last_decode);
        let Some(shown) = shown.or(decode) else { return };
        if keyframe {
            self.close_group(shown);
            self.last_keyframe = Some(shown);
        } else if self.last_keyframe.is_some_and(|key| shown < key) {
            self.facts.open_groups = true;
        }
        // Packets that the edit list cuts off (D) are decoded but not shown.
        if !flags.contains('D') {
            self.first_shown = Some(self.first_shown.map_or(shown, |first| first.min(shown)));
            self.last_shown = self.last_shown.max(shown);
            self.end = self.end.max(shown.saturating_add(duration));
        }
    }

    fn close_group(&mut self, until: i64) {
        let length = self.last_keyframe.map_or(0, |key| until.saturating_sub(key));
        self.longest_group_us = self.longest_group_us.max(length);
    }

    fn finish(mut self) -> PacketFacts {
        let first = self.first_shown.unwrap_or(0);
        if self.end <= self.last_shown && self.facts.packets > 1 {
            // No durations: the last picture lasts as long as the others do on average.
            let gaps = i64::try_from(self.facts.packets - 1).unwrap_or(i64::MAX);
            self.end = self
                .last_shown
                .saturating_add(self.last_shown.saturating_sub(first) / gaps);
        }
        self.close_group(self.end);
        let to_ms = |us: i64| u64::try_from(us / 1000).unwrap_or(0);
        PacketFacts {
            longest_group_ms: to_ms(self.longest_group_us),
            clean_times: !self.unclean,
            duration_ms: to_ms(self.end.saturating_sub(first)),
            ..self.facts
        }
    }
}

/// `12.345678` in microseconds; `N/A` is nothing.
fn seconds_to_us(text: &str) -> Option<i64> {
    let seconds: f64 = text.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the cast saturates, NaN becomes 0"
    )]
    let us = (seconds * 1e6).round() as i64;
    Some(us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(lines: &[&str]) -> PacketFacts {
        let mut scan = PacketScan::default();
        lines.iter().for_each(|line| scan.take_line(line));
        scan.finish()
    }

    #[test]
    fn closed_groups_are_measured() {
        let facts = scan(&[
            "pts_time=0.000000|dts_time=-0.080000|duration_time=0.040000|flags=K_",
            "pts_time=0.080000|dts_time=-0.040000|duration_time=0.040000|flags=__",
            "pts_time=0.040000|dts_time=0.000000|duration_time=0.040000|flags=__",
            "pts_time=0.120000|dts_time=0.040000|duration_time=0.040000|flags=K_",
        ]);
        let expected = PacketFacts {
            packets: 4,
            starts_with_keyframe: true,
            longest_group_ms: 120,
            open_groups: false,
            clean_times: true,
            duration_ms: 160,
        };
        assert_eq!(facts, expected);
    }

    #[test]
    fn a_picture_shown_before_its_keyframe_opens_the_group() {
        let facts = scan(&[
            "pts_time=0.0|dts_time=0.0|duration_time=0.04|flags=K_",
            "pts_time=0.16|dts_time=0.04|duration_time=0.04|flags=K_",
            "pts_time=0.12|dts_time=0.08|duration_time=0.04|flags=__",
        ]);
        assert!(facts.open_groups);
    }

    #[test]
    fn missing_and_repeated_time_stamps_are_unclean() {
        assert!(!scan(&["pts_time=N/A|dts_time=0.0|flags=K_"]).clean_times);
        assert!(
            !scan(&[
                "pts_time=0.0|dts_time=0.0|flags=K_",
                "pts_time=0.1|dts_time=0.0|flags=__"
            ])
            .clean_times
        );
    }

    #[test]
    fn packets_without_durations_get_the_mean() {
        let facts = scan(&[
            "pts_time=0.0|dts_time=0.0|flags=K_",
            "pts_time=0.5|dts_time=0.5|flags=__",
            "nonsense",
            "",
        ]);
        assert_eq!((facts.packets, facts.duration_ms), (2, 1000));
    }
}
