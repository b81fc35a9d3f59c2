//! FFmpeg and ffprobe as subprocesses: where they are, what they may use, how they are watched and ended.
//!
//! A process gets no input but named files, an empty environment, limits of the kernel from its first moment on (set
//! right after it starts, before it can have read much), and is killed when its owner is dropped. Arguments are built
//! by pure functions.

mod arguments;
mod process;
mod progress;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use arguments::{INPUT_FORMATS, convert_arguments, input_arguments, poster_arguments, probe_arguments};
pub use process::{Conversion, run, stream_lines};
pub use progress::Progress;

/// The two programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    pub ffmpeg: PathBuf,
    pub ffprobe: PathBuf,
}

impl Default for Tools {
    /// `ffmpeg` and `ffprobe` from PATH.
    fn default() -> Self {
        Self {
            ffmpeg: "ffmpeg".into(),
            ffprobe: "ffprobe".into(),
        }
    }
}

impl Tools {
    /// Both programs in one folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            ffmpeg: folder.join("ffmpeg"),
            ffprobe: folder.join("ffprobe"),
        }
    }
}

/// What one process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time that its owner waited for it. Time in which the owner did not read (back-pressure) does not count.
    pub wall: Duration,
    /// Time without any sign of progress.
    pub silence: Duration,
    pub cpu_seconds: u64,
    pub memory_bytes: u64,
    /// Largest file it may write; 0 for pipes only.
    pub file_bytes: u64,
}

/// Address space for one conversion. A 1080p transcode takes 310 MB; 8192 px sides with their reference pictures stay
/// under 4 GiB.
const MEMORY_BYTES: u64 = 4 << 30;
/// A healthy FFmpeg reports twice a second; a slow disk pauses it for seconds.
const SILENCE: Duration = Duration::from_secs(60);
/// Shortest wall limit: the machine may be busy with other uploads.
const LEAST_WALL_SEC: u64 = 60;
/// Seconds of work per second of video. A transcode of 1080p runs at 0.7x real time on one core; 20 leaves room for
/// slow machines and several jobs at once.
const WALL_PER_SECOND: u64 = 20;

impl Limits {
    /// For reading the facts of an uploaded file.
    #[must_use]
    pub fn probing() -> Self {
        let wall = Duration::from_secs(300);
        Self {
            wall,
            silence: SILENCE,
            cpu_seconds: 300,
            memory_bytes: MEMORY_BYTES,
            file_bytes: 0,
        }
    }

    /// For converting a video of this length.
    #[must_use]
    pub fn converting(duration_ms: u64) -> Self {
        let seconds = LEAST_WALL_SEC.max(duration_ms.div_ceil(1000).saturating_mul(WALL_PER_SECOND));
        let wall = Duration::from_secs(seconds);
        // Several threads use processor time at once.
        let cpu_seconds = seconds.saturating_mul(4);
        Self {
            wall,
            silence: SILENCE,
            cpu_seconds,
            memory_bytes: MEMORY_BYTES,
            file_bytes: 0,
        }
    }

    /// For our own input (generated clips) and output files.
    #[must_use]
    pub fn trusted() -> Self {
        let wall = Duration::from_secs(3600);
        Self {
            wall,
            silence: wall,
            cpu_seconds: 4 * 3600,
            memory_bytes: 16 << 30,
            file_bytes: 64 << 30,
        }
    }
}
