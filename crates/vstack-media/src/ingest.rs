//! The way of one uploaded file: sniff, probe, plan, convert, split, check.
//!
//! [`prepare`] judges the file without writing anything; [`Prepared::start`] starts FFmpeg, and [`Ingest::next`] hands
//! out the init segment and the chunks as they are made. FFmpeg waits while nobody asks. Its exit status is not
//! believed: at the end the pieces must hold pictures, and as long a presentation as the input's packets.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use crate::MediaError;
use crate::boxes::{FileShape, file_shape};
use crate::ffmpeg::{Conversion, Limits, Progress, Tools, convert_arguments};
use crate::plan::{Plan, choose_video, plan};
use crate::probe::{PacketFacts, Probe, packets, probe};
use crate::sniff::{Container, SNIFF_BYTES, Sniffed, sniff};
use crate::split::{Piece, Splitter};

/// How far the output's length may be from the input's: 2 %...
const LENGTH_TOLERANCE_PERCENT: u64 = 2;
/// ...or this much, since a clip of one second has only some 30 pictures and the last one's length is a guess.
const LENGTH_TOLERANCE_MS: u64 = 250;

/// A file that can become a video.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub input: PathBuf,
    pub probe: Probe,
    pub packets: PacketFacts,
    pub plan: Plan,
}

/// Judges a file.
///
/// # Errors
/// Every reason for which it cannot be stored, see [`MediaError`].
pub async fn prepare(tools: &Tools, input: &Path) -> Result<Prepared, MediaError> {
    let path = input.to_path_buf();
    let inspected = tokio::task::spawn_blocking(move || inspect(&path)).await;
    let container = inspected.map_err(|error| MediaError::io("reading the file")(error.into()))??;
    let probe = probe(tools, input)
        .await
        .map_err(|error| unreadable(error, container))?;
    if probe.streams.is_empty() {
        return Err(MediaError::UnsupportedFormat {
            detected: describe_damaged(container),
        });
    }
    let video = choose_video(&probe)?;
    let packets = packets(tools, input, video.index).await?;
    let plan = plan(&probe, video, &packets)?;
    Ok(Prepared {
        input: input.to_path_buf(),
        packets,
        plan,
        probe,
    })
}

/// Magic bytes, and for ISO files whether all of it is there and free to copy.
fn inspect(path: &Path) -> Result<Container, MediaError> {
    let mut file = File::open(path).map_err(MediaError::io("opening the file"))?;
    let mut head = Vec::with_capacity(SNIFF_BYTES);
    (&mut file)
        .take(SNIFF_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(MediaError::io("reading the file"))?;
    let container = match sniff(&head) {
        Sniffed::Accepted(container) => container,
        Sniffed::Empty => return Err(MediaError::EmptyFile),
        Sniffed::Refused(name) => {
            return Err(MediaError::UnsupportedFormat {
                detected: name.to_owned(),
            });
        }
    };
    if container == Container::IsoMedia {
        judge_shape(file_shape(&mut file).map_err(MediaError::io("reading the file"))?)?;
    }
    Ok(container)
}

fn judge_shape(shape: FileShape) -> Result<(), MediaError> {
    let incomplete = |detail: String| Err(MediaError::IncompleteUpload { detail });
    if let Some(scheme) = shape.protected {
        return Err(MediaError::ProtectedContent { scheme });
    }
    if let Some(kind) = shape.cut_off_in {
        return incomplete(format!("it ends inside its `{kind}` part"));
    }
    match (shape.has_moov, shape.has_media_data) {
        (false, _) => incomplete("its index (`moov`) is missing".to_owned()),
        (true, false) => incomplete("it has an index, but no pictures or sound (`mdat`)".to_owned()),
        (true, true) => Ok(()),
    }
}

/// A container of a known kind that ffprobe cannot read is damaged; other failures stay what they are.
fn unreadable(error: MediaError, container: Container) -> MediaError {
    match error {
        MediaError::Ffmpeg { .. } => MediaError::UnsupportedFormat {
            detected: describe_damaged(container),
        },
        other => other,
    }
}

fn describe_damaged(container: Container) -> String {
    let name = match container {
        Container::IsoMedia => "MP4",
        Container::Matroska => "Matroska or WebM",
        Container::MpegTs => "MPEG transport stream",
        Container::MpegPs | Container::MpegVideo => "MPEG",
        Container::Avi => "AVI",
        Container::Flv => "FLV",
        Container::Ogg => "Ogg",
        Container::Asf => "ASF or WMV",
        Container::Mxf => "MXF",
        Container::Sound(name) => name,
    };
    format!("a damaged {name} file")
}

impl Prepared {
    /// Length by the packets of the picture.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        self.packets.duration_ms
    }

    /// Starts FFmpeg.
    ///
    /// # Errors
    /// It is missing or cannot be started.
    pub fn start(&self, tools: &Tools) -> Result<Ingest, MediaError> {
        let limits = Limits::converting(self.packets.duration_ms);
        let conversion =
            Conversion::start(&tools.ffmpeg, &convert_arguments(&self.input, &self.plan), limits)?;
        Ok(Ingest {
            source: Source::Converting {
                conversion: Box::new(conversion),
                splitter: Box::default(),
            },
            ready: VecDeque::new(),
            made: Made::default(),
            expected_ms: self.packets.duration_ms,
            expects_sound: self.plan.audio.is_some(),
        })
    }
}

/// A running conversion. Dropping it kills FFmpeg.
#[derive(Debug)]
pub struct Ingest {
    source: Source,
    ready: VecDeque<Piece>,
    made: Made,
    expected_ms: u64,
    expects_sound: bool,
}

#[derive(Debug)]
enum Source {
    Converting {
        conversion: Box<Conversion>,
        splitter: Box<Splitter>,
    },
    Ended,
}

/// What came out so far.
#[derive(Debug, Clone, Copy, Default)]
struct Made {
    chunks: u32,
    video_samples: u64,
    audio_samples: u64,
    start_ms: u64,
    end_ms: u64,
}

impl Made {
    fn add(&mut self, piece: &Piece) {
        let Piece::Chunk(chunk) = piece else { return };
        if self.chunks == 0 {
            self.start_ms = chunk.facts.start_ms;
        }
        self.chunks += 1;
        self.video_samples += chunk.video_samples;
        self.audio_samples += chunk.audio_samples;
        self.end_ms = self.end_ms.max(chunk.facts.start_ms + chunk.facts.duration_ms);
    }
}

impl Ingest {
    /// How far FFmpeg is.
    #[must_use]
    pub fn progress(&self) -> Option<watch::Receiver<Progress>> {
        match &self.source {
            Source::Converting { conversion, .. } => Some(conversion.progress()),
            Source::Ended => None,
        }
    }

    /// The next piece; `None` after the last, and only when the whole passed its checks.
    ///
    /// # Errors
    /// FFmpeg failed or stopped, its output cannot be split, or it is not what the input promised.
    pub async fn next(&mut self) -> Result<Option<Piece>, MediaError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                self.made.add(&piece);
                return Ok(Some(piece));
            }
            let Source::Converting { conversion, splitter } = &mut self.source else {
                self.check()?;
                return Ok(None);
            };
            match conversion.next().await? {
                Some(bytes) => self.ready.extend(splitter.push(&bytes)?),
                None => self.end().await?,
            }
        }
    }

    /// FFmpeg's own verdict comes before the splitter's: its words say more than "the stream ends too early".
    async fn end(&mut self) -> Result<(), MediaError> {
        if let Source::Converting { conversion, splitter } =
            std::mem::replace(&mut self.source, Source::Ended)
        {
            let tail = conversion.finish().await?;
            let last = splitter.finish().map_err(|error| MediaError::Ffmpeg {
                reason: format!("its output is not complete: {error}"),
                stderr_tail: tail,
            })?;
            self.ready.extend(last);
        }
        Ok(())
    }

    /// Exit code 0 is not success.
    fn check(&self) -> Result<(), MediaError> {
        let failed = |reason: String| {
            Err(MediaError::Ffmpeg {
                reason,
                stderr_tail: Vec::new(),
            })
        };
        if self.made.video_samples == 0 {
            return failed("its output holds no picture".to_owned());
        }
        if self.expects_sound && self.made.audio_samples == 0 {
            return failed("its output holds no sound, the file has some".to_owned());
        }
        let made_ms = self.made.end_ms.saturating_sub(self.made.start_ms);
        let tolerance = LENGTH_TOLERANCE_MS.max(self.expected_ms * LENGTH_TOLERANCE_PERCENT / 100);
        if made_ms.abs_diff(self.expected_ms) > tolerance {
            return failed(format!(
                "its output lasts {made_ms} ms, the file {} ms",
                self.expected_ms
            ));
        }
        Ok(())
    }
}
