//! The generated clip of demo and tests: moving picture, readable time code, tones, and the bar code of its frames.
//!
//! Keyframes come every two seconds exactly (`-g 60` at 30 pictures a second, no scene cuts), so that its chunks are
//! known beforehand. The frame number starts at 0 and is that of the presentation.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::MediaError;
use crate::barcode::{BITS, CELLS, FIRST_BIT, PARITY, STRIP_ROWS, WHITE_SYNC};
use crate::ffmpeg::{Limits, Tools, run};

/// Pictures a second of every generated clip.
pub const FRAMES_PER_SECOND: u32 = 30;
/// Pictures from one keyframe to the next.
pub const GROUP_FRAMES: u32 = 60;

/// What to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipSpec {
    pub duration_sec: u32,
    /// Even numbers; the bar code is sharp when 32 divides the width and 18 the height.
    pub width: u32,
    pub height: u32,
    pub video_bits_per_sec: u32,
    /// x264's word for effort: `veryfast` looks well, `ultrafast` is three times as quick.
    pub preset: &'static str,
    /// Font of the readable time code; without one there is none (the bar code is always there).
    pub font: Option<PathBuf>,
}

impl ClipSpec {
    /// 720p at 1.6 Mbit/s with sound, so that a chunk of 10 s has about 2 MB.
    #[must_use]
    pub fn hd(duration_sec: u32) -> Self {
        Self {
            duration_sec,
            width: 1280,
            height: 720,
            video_bits_per_sec: 1_500_000,
            preset: "veryfast",
            font: system_font(),
        }
    }

    /// A small picture that is quick to make, for tests.
    #[must_use]
    pub fn small(duration_sec: u32) -> Self {
        Self {
            duration_sec,
            width: 320,
            height: 180,
            video_bits_per_sec: 300_000,
            preset: "ultrafast",
            font: None,
        }
    }

    /// FFmpeg's arguments that write the clip to `output` as an ordinary MP4, its index in front.
    #[must_use]
    pub fn arguments(&self, output: &Path) -> Vec<OsString> {
        let Self {
            duration_sec,
            width,
            height,
            video_bits_per_sec,
            preset,
            ..
        } = self;
        let text = format!(
            "-nostdin -v error -y -f lavfi -i testsrc2=size={width}x{height}:rate={FRAMES_PER_SECOND} \
             -f lavfi -i sine=frequency=440:beep_factor=4:sample_rate=48000 -t {duration_sec} \
             -c:v libx264 -preset {preset} -profile:v high -g {GROUP_FRAMES} -keyint_min {GROUP_FRAMES} -sc_threshold 0 \
             -b:v {video_bits_per_sec} -maxrate {video_bits_per_sec} -bufsize {video_bits_per_sec} \
             -c:a aac -b:a 96k -ac 2 -movflags +faststart -f mp4"
        );
        let mut arguments: Vec<OsString> = text.split_whitespace().map(OsString::from).collect();
        arguments.extend(["-vf".into(), self.filter().into()]);
        let mut file = OsString::from("file:");
        file.push(output);
        arguments.push(file);
        arguments
    }

    fn filter(&self) -> String {
        let mut filters = vec![bar_code_filter()];
        filters.extend(
            self.font
                .as_deref()
                .and_then(|font| time_code_filter(font, self.height)),
        );
        filters.push("format=yuv420p".to_owned());
        filters.join(",")
    }
}

/// Generates the clip; returns when the file is written.
///
/// # Errors
/// FFmpeg is missing or failed.
pub async fn generate(tools: &Tools, spec: &ClipSpec, output: &Path) -> Result<(), MediaError> {
    run(&tools.ffmpeg, &spec.arguments(output), Limits::trusted())
        .await
        .map(|_| ())
}

/// A black strip, then a white square for each bit in those frames (`n`) that have it.
fn bar_code_filter() -> String {
    let cell = |cell: u32, enable: &str| {
        format!(
            "drawbox=x=iw*{cell}/{CELLS}:y=0:w=iw/{CELLS}:h=ih/{STRIP_ROWS}:color=white:t=fill:enable='{enable}'"
        )
    };
    let bit = |index: u32| format!("mod(floor(n/{}),2)", 1u32 << index);
    let ones = (0..BITS).map(bit).collect::<Vec<_>>().join("+");
    let mut boxes = vec![format!(
        "drawbox=x=0:y=0:w=iw:h=ih/{STRIP_ROWS}:color=black:t=fill"
    )];
    boxes.extend(WHITE_SYNC.iter().map(|sync| cell(*sync, "1")));
    boxes.extend((0..BITS).map(|index| cell(FIRST_BIT + BITS - 1 - index, &bit(index))));
    boxes.push(cell(PARITY, &format!("mod({ones},2)")));
    boxes.push(cell(PARITY + 1, &format!("1-mod({ones},2)")));
    boxes.join(",")
}

/// `None` where the font's path has characters that a filter graph reads as its own.
fn time_code_filter(font: &Path, height: u32) -> Option<String> {
    let font = font
        .to_str()
        .filter(|path| !path.contains(['\'', ':', '\\', ',', ';', '[', ']']))?;
    let size = height / 18;
    Some(format!(
        "drawtext=fontfile={font}:text='%{{pts\\:hms}}  frame %{{n}}':fontsize={size}:fontcolor=white:box=1:\
         boxcolor=black@0.7:boxborderw=8:x=(w-text_w)/2:y=h*2/{STRIP_ROWS}"
    ))
}

/// A monospaced font where Debian, Ubuntu, Fedora and Arch keep theirs.
#[must_use]
pub fn system_font() -> Option<PathBuf> {
    let candidates = [
        "/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf",
        "/usr/share/fonts/dejavu-sans-mono-fonts/DejaVuSansMono.ttf",
        "/usr/share/fonts/TTF/DejaVuSansMono.ttf",
        "/usr/share/fonts/truetype/liberation/LiberationMono-Regular.ttf",
    ];
    candidates.iter().map(PathBuf::from).find(|font| font.is_file())
}
