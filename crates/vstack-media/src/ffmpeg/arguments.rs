//! Argument lists for FFmpeg and ffprobe. Pure: a plan and a path in, words out.
//!
//! An input is always written `file:` in front of its path, so that no name can become an option or a protocol, and
//! always read under both whitelists: the protocol list alone does not stop a playlist named `.mp4` from opening
//! another local file.

use std::ffi::OsString;
use std::path::Path;

use vstack_core::limits::MAX_PICTURE_SIDE_PX;

use crate::plan::{Plan, StreamAction};

/// FFmpeg's names of the containers that uploads may have.
pub const INPUT_FORMATS: &str =
    "mov,mp4,matroska,webm,mpegts,mpeg,mpegvideo,avi,flv,ogg,asf,mxf,mp3,aac,flac,wav";

/// Fragments last 0.5 to 2 s: short ones carry picture and sound of the same moment side by side, and a 30 Mbit/s
/// video can still be cut (fragments of 9.5 s gave 39 MB that nothing could cut).
const FRAGMENT_OPTIONS: &str = "-movflags +frag_keyframe+delay_moov+default_base_moof+skip_trailer \
                                -min_frag_duration 500000 -frag_duration 2000000";

/// 1.5 Mbit/s picture: with sound 10 s are about 2 MB. Keyframes every 2 s make seeking quick. Pictures keep their own
/// times: nothing is repeated or dropped to reach an even rate.
const VIDEO_ENCODER: &str = "-c:v libx264 -preset veryfast -profile:v high -pix_fmt yuv420p -b:v 1500k -maxrate 2250k \
                             -bufsize 3000k -force_key_frames expr:gte(t,n_forced*2) -x264-params open-gop=0 -fps_mode vfr";
/// H.264 in 4:2:0 needs even sides; half-pictures become whole ones where the source says it has them.
const VIDEO_FILTER: &str = "yadif=deint=interlaced,pad=ceil(iw/2)*2:ceil(ih/2)*2";
const AUDIO_ENCODER: &str = "-c:a aac -ac 2 -b:a 96k";

fn words(text: &str) -> impl Iterator<Item = OsString> + '_ {
    text.split_whitespace().map(OsString::from)
}

fn file_url(path: &Path) -> OsString {
    let mut url = OsString::from("file:");
    url.push(path);
    url
}

/// Everything up to and with the input, for both programs.
#[must_use]
pub fn input_arguments(input: &Path) -> Vec<OsString> {
    let pixels = u64::from(MAX_PICTURE_SIDE_PX) * u64::from(MAX_PICTURE_SIDE_PX);
    let text = format!(
        "-v error -protocol_whitelist file,pipe -format_whitelist {INPUT_FORMATS} -max_pixels {pixels}"
    );
    words(&text).chain(["-i".into(), file_url(input)]).collect()
}

/// ffprobe: the container and its streams as JSON.
#[must_use]
pub fn probe_arguments(input: &Path) -> Vec<OsString> {
    let mut arguments = input_arguments(input);
    arguments.extend(words("-of json -show_format -show_streams -show_chapters"));
    arguments
}

/// FFmpeg: one fragmented MP4 on stdout, progress on descriptor 3.
///
/// Without `-xerror`: it turns any odd packet into a refusal (equal time stamps of hidden VP9 frames, for one), while
/// FFmpeg's own exit status says little in both cases. What counts is checked on the output.
#[must_use]
pub fn convert_arguments(input: &Path, plan: &Plan) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = words("-nostdin").collect();
    arguments.extend(input_arguments(input));
    arguments.extend(words(&format!("-map 0:{}", plan.video.index)));
    match &plan.video.action {
        StreamAction::Copy => arguments.extend(words("-c:v copy")),
        StreamAction::Transcode { .. } => {
            arguments.extend(words(VIDEO_ENCODER));
            arguments.extend(words(&format!("-vf {VIDEO_FILTER}")));
        }
    }
    if let Some(audio) = &plan.audio {
        arguments.extend(words(&format!("-map 0:{}", audio.index)));
        match &audio.action {
            StreamAction::Copy => arguments.extend(words("-c:a copy")),
            StreamAction::Transcode { .. } => arguments.extend(words(AUDIO_ENCODER)),
        }
        if audio.strip_adts {
            arguments.extend(words("-bsf:a aac_adtstoasc"));
        }
    }
    arguments.extend(words("-map_metadata -1 -map_chapters -1 -f mp4"));
    arguments.extend(words(FRAGMENT_OPTIONS));
    arguments.extend(words("-progress pipe:3 pipe:1"));
    arguments
}

/// FFmpeg: one JPEG on stdout, the most typical of 30 pictures from `at_ms` on, 640 px wide.
#[must_use]
pub fn poster_arguments(input: &Path, video_index: usize, at_ms: u64) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = words("-nostdin").collect();
    arguments.extend(words(&format!("-ss {}.{:03}", at_ms / 1000, at_ms % 1000)));
    arguments.extend(input_arguments(input));
    arguments.extend(words(&format!("-map 0:{video_index} -frames:v 1")));
    arguments.extend(words(
        "-vf thumbnail=30,scale=640:-2 -q:v 4 -f image2pipe -c:v mjpeg pipe:1",
    ));
    arguments
}
