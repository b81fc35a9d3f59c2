//! Copy or transcode, per stream: a pure decision over what the probe found.
//!
//! A stream is copied when a browser's Media Source and GStreamer both play it, and when its groups of pictures can be
//! cut; otherwise only that stream is transcoded. What cannot be stored at all is refused here with its reason.

use vstack_core::limits::{MAX_PICTURE_SIDE_PX, MAX_STREAMS, MAX_VIDEO_MS};

use crate::MediaError;
use crate::probe::{PacketFacts, Probe, Stream, StreamKind};

/// Copying cannot cut inside a group, and a chunk is meant to last 10 s. The half second on top is for x264's default of
/// 250 pictures a group, which is 10.43 s at the 23.976 pictures a second of most films.
const LONGEST_COPIED_GROUP_MS: u64 = 10_500;

/// What happens to the streams of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub video: VideoPlan,
    pub audio: Option<AudioPlan>,
    /// What is left out, in plain words for the uploader.
    pub notes: Vec<String>,
}

/// What happens to one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamAction {
    Copy,
    Transcode { why: String },
}

/// The picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoPlan {
    pub index: usize,
    pub action: StreamAction,
}

/// The sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioPlan {
    pub index: usize,
    pub action: StreamAction,
    /// Copied AAC that carries its configuration in every frame, as transport streams have it.
    pub strip_adts: bool,
}

/// The video stream of a file: the first that is no cover picture.
///
/// # Errors
/// There is none, there are too many streams, it is encrypted or cannot be decoded, or the picture is too large.
pub fn choose_video(probe: &Probe) -> Result<&Stream, MediaError> {
    if probe.streams.len() > MAX_STREAMS {
        return Err(over_limit("streams", probe.streams.len(), MAX_STREAMS));
    }
    if probe.streams.iter().any(|stream| stream.is_encrypted) {
        return Err(MediaError::ProtectedContent {
            scheme: "a Matroska encryption key".to_owned(),
        });
    }
    let is_video = |stream: &&Stream| stream.kind == StreamKind::Video && !stream.is_cover;
    let video = probe.streams.iter().find(is_video);
    let video = video.ok_or_else(|| MediaError::NoVideo {
        detected: what_else(probe),
    })?;
    let larger = video.width.max(video.height);
    if larger > MAX_PICTURE_SIDE_PX {
        return Err(over_limit("picture side in pixels", larger, MAX_PICTURE_SIDE_PX));
    }
    match (&video.codec, &video.pixel_format) {
        (None, _) => Err(undecodable(
            "The picture",
            "a codec that FFmpeg does not know".to_owned(),
        )),
        (Some(codec), None) => Err(undecodable(
            "The picture",
            format!("{codec}, and no picture of it could be read"),
        )),
        (Some(_), Some(_)) => Ok(video),
    }
}

fn what_else(probe: &Probe) -> String {
    let of_kind = |kind| probe.streams.iter().find(|stream| stream.kind == kind);
    match of_kind(StreamKind::Audio) {
        Some(audio) => format!("sound only ({})", audio.codec.as_deref().unwrap_or("unknown")),
        None => format!("{} streams, none of them video", probe.streams.len()),
    }
}

fn over_limit(what: &'static str, actual: impl ToString, limit: impl ToString) -> MediaError {
    MediaError::OverLimit {
        what,
        actual: actual.to_string(),
        limit: limit.to_string(),
    }
}

fn undecodable(stream: &'static str, codec: String) -> MediaError {
    MediaError::UnsupportedCodec { stream, codec }
}

/// Decides what happens to each stream.
///
/// # Errors
/// No packets, too long, or sound that cannot be decoded.
pub fn plan(probe: &Probe, video: &Stream, packets: &PacketFacts) -> Result<Plan, MediaError> {
    if packets.packets == 0 {
        return Err(MediaError::IncompleteUpload {
            detail: "the header is there, the pictures are not".to_owned(),
        });
    }
    if packets.duration_ms > MAX_VIDEO_MS {
        return Err(over_limit(
            "length in hours",
            packets.duration_ms / 3_600_000,
            MAX_VIDEO_MS / 3_600_000,
        ));
    }
    let audio = probe
        .streams
        .iter()
        .find(|stream| stream.kind == StreamKind::Audio);
    Ok(Plan {
        video: VideoPlan {
            index: video.index,
            action: video_action(video, packets),
        },
        audio: audio.map(plan_audio).transpose()?,
        notes: notes(probe, video),
    })
}

fn video_action(video: &Stream, packets: &PacketFacts) -> StreamAction {
    let why = match (video.codec.as_deref(), video.pixel_format.as_deref()) {
        (Some("h264" | "vp9" | "av1"), Some("yuv420p" | "yuvj420p")) => uncuttable(packets),
        (Some("h264" | "vp9" | "av1"), format) => Some(format!(
            "pictures in {} are not played everywhere",
            format.unwrap_or("an unknown format")
        )),
        (codec, _) => Some(format!(
            "{} is not played everywhere",
            codec.unwrap_or("its codec")
        )),
    };
    why.map_or(StreamAction::Copy, |why| StreamAction::Transcode { why })
}

/// Why a stream of the right codec cannot be cut into chunks as it is.
fn uncuttable(packets: &PacketFacts) -> Option<String> {
    if !packets.starts_with_keyframe {
        Some("it does not start with a keyframe".to_owned())
    } else if packets.open_groups {
        Some("its groups of pictures are open".to_owned())
    } else if packets.longest_group_ms > LONGEST_COPIED_GROUP_MS {
        Some(format!(
            "{} s lie between two keyframes",
            packets.longest_group_ms / 1000
        ))
    } else if !packets.clean_times {
        Some("its time stamps are missing or repeat".to_owned())
    } else {
        None
    }
}

fn plan_audio(audio: &Stream) -> Result<AudioPlan, MediaError> {
    let Some(codec) = audio.codec.as_deref() else {
        return Err(undecodable(
            "The sound",
            "the file does not say how it is coded".to_owned(),
        ));
    };
    let copied = match (codec, audio.profile.as_deref()) {
        ("aac", profile) => profile.is_none_or(|profile| matches!(profile, "LC" | "HE-AAC" | "HE-AACv2")),
        ("opus" | "flac", _) => true,
        _ => false,
    };
    let why = || StreamAction::Transcode {
        why: format!("{codec} sound is not played everywhere"),
    };
    Ok(AudioPlan {
        index: audio.index,
        action: if copied { StreamAction::Copy } else { why() },
        strip_adts: copied && codec == "aac" && !audio.has_configuration,
    })
}

fn notes(probe: &Probe, video: &Stream) -> Vec<String> {
    let count = |kind| {
        probe
            .streams
            .iter()
            .filter(|stream| stream.kind == kind && !stream.is_cover)
            .count()
    };
    let left_out = [
        (
            count(StreamKind::Video) - usize::from(!video.is_cover),
            "further picture track",
        ),
        (count(StreamKind::Audio).saturating_sub(1), "further sound track"),
        (count(StreamKind::Subtitle), "subtitle track"),
    ];
    let present = left_out.iter().filter(|(count, _)| *count > 0);
    present
        .map(|(count, what)| format!("{count} {what}{} left out", if *count == 1 { "" } else { "s" }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(index: usize, kind: StreamKind, codec: &str) -> Stream {
        Stream {
            index,
            kind,
            codec: Some(codec.to_owned()),
            profile: (codec == "aac").then(|| "LC".to_owned()),
            width: 1280,
            height: 720,
            pixel_format: Some("yuv420p".to_owned()),
            is_cover: false,
            is_encrypted: false,
            has_configuration: true,
            language: None,
        }
    }

    fn file(streams: Vec<Stream>) -> Probe {
        Probe {
            format: "mov,mp4".to_owned(),
            streams,
            chapters: 0,
        }
    }

    const CLEAN: PacketFacts = PacketFacts {
        packets: 300,
        starts_with_keyframe: true,
        longest_group_ms: 2_000,
        open_groups: false,
        clean_times: true,
        duration_ms: 10_000,
    };

    fn check(codec: &str, format: &str, packets: PacketFacts, copied: bool) {
        let video = Stream {
            pixel_format: Some(format.to_owned()),
            ..stream(0, StreamKind::Video, codec)
        };
        let probe = file(vec![video.clone()]);
        let plan = plan(&probe, &video, &packets).unwrap();
        assert_eq!(
            plan.video.action == StreamAction::Copy,
            copied,
            "{codec} {format} {packets:?}: {plan:?}"
        );
    }

    #[test]
    fn pictures_are_copied_when_everybody_plays_them_and_they_can_be_cut() {
        for codec in ["h264", "vp9", "av1"] {
            check(codec, "yuv420p", CLEAN, true);
            check(codec, "yuv420p10le", CLEAN, false);
        }
        for codec in ["hevc", "mpeg4", "vp8", "mpeg2video"] {
            check(codec, "yuv420p", CLEAN, false);
        }
        check(
            "h264",
            "yuv420p",
            PacketFacts {
                open_groups: true,
                ..CLEAN
            },
            false,
        );
        check(
            "h264",
            "yuv420p",
            PacketFacts {
                clean_times: false,
                ..CLEAN
            },
            false,
        );
        check(
            "h264",
            "yuv420p",
            PacketFacts {
                starts_with_keyframe: false,
                ..CLEAN
            },
            false,
        );
        check(
            "h264",
            "yuv420p",
            PacketFacts {
                longest_group_ms: 10_501,
                ..CLEAN
            },
            false,
        );
        check(
            "h264",
            "yuv420p",
            PacketFacts {
                longest_group_ms: 10_000,
                ..CLEAN
            },
            true,
        );
    }

    #[test]
    fn only_the_stream_that_needs_it_is_transcoded() {
        let video = stream(0, StreamKind::Video, "h264");
        let probe = file(vec![
            video.clone(),
            stream(1, StreamKind::Audio, "ac3"),
            stream(2, StreamKind::Subtitle, "subrip"),
        ]);
        let plan = plan(&probe, &video, &CLEAN).unwrap();
        assert_eq!(plan.video.action, StreamAction::Copy);
        assert!(matches!(
            plan.audio.unwrap().action,
            StreamAction::Transcode { .. }
        ));
        assert_eq!(plan.notes, ["1 subtitle track left out"]);
    }

    #[test]
    fn files_without_a_usable_picture_are_refused() {
        let code = |streams: Vec<Stream>| choose_video(&file(streams)).unwrap_err().code();
        let cover = Stream {
            is_cover: true,
            ..stream(1, StreamKind::Video, "mjpeg")
        };
        assert_eq!(code(vec![stream(0, StreamKind::Audio, "aac"), cover]), "no_video");
        let unreadable = Stream {
            pixel_format: None,
            ..stream(0, StreamKind::Video, "vp9")
        };
        assert_eq!(code(vec![unreadable]), "unsupported_codec");
        let huge = Stream {
            width: 8193,
            ..stream(0, StreamKind::Video, "h264")
        };
        assert_eq!(code(vec![huge]), "over_limit");
        let many = (0..33)
            .map(|index| stream(index, StreamKind::Video, "h264"))
            .collect();
        assert_eq!(code(many), "over_limit");
        let locked = Stream {
            is_encrypted: true,
            ..stream(0, StreamKind::Video, "vp9")
        };
        assert_eq!(code(vec![locked]), "protected_content");
    }

    #[test]
    fn a_header_without_pictures_and_a_day_and_a_half_are_refused() {
        let video = stream(0, StreamKind::Video, "h264");
        let code = |packets: PacketFacts| {
            plan(&file(vec![video.clone()]), &video, &packets)
                .unwrap_err()
                .code()
        };
        assert_eq!(code(PacketFacts::default()), "incomplete_upload");
        assert_eq!(
            code(PacketFacts {
                duration_ms: 36 * 3_600_000,
                ..CLEAN
            }),
            "over_limit"
        );
    }
}
