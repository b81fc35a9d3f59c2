//! The splitter: FFmpeg's fragmented MP4 in, init segment and media chunks out, while the bytes arrive.
//!
//! A chunk is a run of fragments (`moof`+`mdat`) that starts at a fragment whose first video sample is a keyframe, so
//! that it decodes after the init segment alone. It closes at the first such fragment past 10 s or past 4 MiB, and never
//! grows beyond 16 MiB unless one group of pictures is larger; a group beyond 64 MiB is refused. Chunks do not depend
//! on how the bytes are cut into pieces. Memory is bounded by one chunk and one box, whatever the stream claims.

use bytes::{Bytes, BytesMut};
use vstack_core::limits::{CHUNK_SOFT_MAX_BYTES, CHUNK_TARGET_BYTES, CHUNK_TARGET_MS, MAX_CHUNK_BYTES};
use vstack_core::manifest::{FragmentSpan, MediaFacts};

use crate::boxes::{BoxError, BoxHeader, Boxes, FourCc, FragmentTimes, Movie, VideoTimes, read_fragment};

/// Largest `ftyp`+`moov` in front of a fragmented stream. Ours have 0.8-1.9 kB.
const MAX_INIT_BYTES: usize = 1024 * 1024;

/// Where chunks end. The limits table has the product's; tests use small ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitRules {
    pub target_ms: u64,
    pub target_bytes: u64,
    pub soft_max_bytes: u64,
    pub hard_max_bytes: u64,
}

impl Default for SplitRules {
    fn default() -> Self {
        Self {
            target_ms: CHUNK_TARGET_MS,
            target_bytes: CHUNK_TARGET_BYTES,
            soft_max_bytes: CHUNK_SOFT_MAX_BYTES,
            hard_max_bytes: MAX_CHUNK_BYTES,
        }
    }
}

/// Why a stream cannot be split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    #[error(transparent)]
    Box(#[from] BoxError),
    #[error("the stream ends inside the box `{0}`")]
    EndsInside(FourCc),
    #[error("the box `{0}` is not expected here")]
    Unexpected(FourCc),
    #[error("the init segment would exceed {limit} bytes")]
    InitTooLarge { limit: usize },
    /// Copying cannot cut inside a group of pictures.
    #[error("a group of pictures exceeds {limit_bytes} bytes")]
    GroupTooLarge { limit_bytes: u64 },
}

/// What comes out of the splitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Init(InitPiece),
    Chunk(ChunkPiece),
}

/// The init segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitPiece {
    pub bytes: Bytes,
    pub movie: Movie,
}

/// A media chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPiece {
    pub sequence_num: u32,
    pub bytes: Bytes,
    pub facts: MediaFacts,
    pub video_samples: u64,
    pub audio_samples: u64,
}

/// Push parser. Feed it with [`Splitter::push`], end it with [`Splitter::finish`].
#[derive(Debug)]
pub struct Splitter {
    rules: SplitRules,
    pending: BytesMut,
    state: State,
    sequence_num: u32,
}

#[derive(Debug)]
enum State {
    /// Boxes up to and with `moov`.
    Init(BytesMut),
    Media {
        movie: Movie,
        /// A `moof` and whatever followed it, until its `mdat` is there.
        open: Option<OpenFragment>,
        chunk: Vec<Fragment>,
    },
}

#[derive(Debug)]
struct OpenFragment {
    parts: Vec<Bytes>,
    times: FragmentTimes,
}

#[derive(Debug)]
struct Fragment {
    parts: Vec<Bytes>,
    times: FragmentTimes,
}

impl Fragment {
    fn size_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    fn can_start_a_chunk(&self) -> bool {
        self.times.video.starts_with_keyframe
    }
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new(SplitRules::default())
    }
}

impl Splitter {
    #[must_use]
    pub fn new(rules: SplitRules) -> Self {
        Self {
            rules,
            pending: BytesMut::new(),
            state: State::Init(BytesMut::new()),
            sequence_num: 0,
        }
    }

    /// Adds the next bytes of the stream; returns the pieces that they complete.
    ///
    /// # Errors
    /// The stream breaks the format or a limit. The splitter is of no further use then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Piece>, SplitError> {
        self.pending.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        while let Some((kind, whole)) = self.next_box()? {
            self.take_box(kind, whole, &mut pieces)?;
        }
        Ok(pieces)
    }

    /// Ends the stream; returns the last chunk.
    ///
    /// # Errors
    /// The stream ended inside a box or a fragment.
    pub fn finish(mut self) -> Result<Vec<Piece>, SplitError> {
        if !self.pending.is_empty() {
            let header = BoxHeader::read(&self.pending)?;
            return Err(SplitError::EndsInside(
                header.map_or(FourCc(*b"box "), |header| header.kind),
            ));
        }
        let State::Media { movie, open, chunk } = self.state else {
            return Err(BoxError::Missing(FourCc(*b"moov")).into());
        };
        if open.is_some() {
            return Err(SplitError::EndsInside(FourCc(*b"moof")));
        }
        Ok(close_chunk(&movie, chunk, &mut self.sequence_num)
            .into_iter()
            .map(Piece::Chunk)
            .collect())
    }

    /// The next box of the stream once it is whole.
    fn next_box(&mut self) -> Result<Option<(FourCc, Bytes)>, SplitError> {
        let Some(header) = BoxHeader::read(&self.pending)? else {
            return Ok(None);
        };
        let size = header.size_bytes.ok_or(SplitError::Unexpected(header.kind))?;
        if size > self.rules.hard_max_bytes {
            return Err(SplitError::GroupTooLarge {
                limit_bytes: self.rules.hard_max_bytes,
            });
        }
        let size = usize::try_from(size).map_err(|_| BoxError::BadSize {
            kind: header.kind,
            size,
        })?;
        if matches!(self.state, State::Init(_)) && size > MAX_INIT_BYTES {
            return Err(SplitError::InitTooLarge {
                limit: MAX_INIT_BYTES,
            });
        }
        if self.pending.len() < size {
            return Ok(None);
        }
        Ok(Some((header.kind, self.pending.split_to(size).freeze())))
    }

    fn take_box(&mut self, kind: FourCc, whole: Bytes, pieces: &mut Vec<Piece>) -> Result<(), SplitError> {
        match &mut self.state {
            State::Init(init) => {
                if matches!(&kind.0, b"moof" | b"mdat") {
                    return Err(SplitError::Unexpected(kind));
                }
                if init.len() + whole.len() > MAX_INIT_BYTES {
                    return Err(SplitError::InitTooLarge {
                        limit: MAX_INIT_BYTES,
                    });
                }
                init.extend_from_slice(&whole);
                if &kind.0 == b"moov" {
                    let bytes = std::mem::take(init).freeze();
                    let movie = Movie::in_file(&bytes)?;
                    self.state = State::Media {
                        movie: movie.clone(),
                        open: None,
                        chunk: Vec::new(),
                    };
                    pieces.push(Piece::Init(InitPiece { bytes, movie }));
                }
                Ok(())
            }
            State::Media { movie, open, .. } => match (&kind.0, open.take()) {
                (b"moof", None) => {
                    let times = fragment_times(&whole, movie)?;
                    *open = Some(OpenFragment {
                        parts: vec![whole],
                        times,
                    });
                    Ok(())
                }
                (b"mdat", Some(mut fragment)) => {
                    fragment.parts.push(whole);
                    self.add_fragment(
                        Fragment {
                            parts: fragment.parts,
                            times: fragment.times,
                        },
                        pieces,
                    )
                }
                (b"moof" | b"mdat" | b"moov", _) => Err(SplitError::Unexpected(kind)),
                // Offsets in `moof` count from its start, so what lies between it and its `mdat` has to stay.
                (_, Some(mut fragment)) => {
                    fragment.parts.push(whole);
                    *open = Some(fragment);
                    Ok(())
                }
                // `styp`, `sidx`, `mfra`, `free` between fragments say nothing that the manifest does not.
                (_, None) => Ok(()),
            },
        }
    }

    fn add_fragment(&mut self, next: Fragment, pieces: &mut Vec<Piece>) -> Result<(), SplitError> {
        let rules = self.rules;
        let State::Media { movie, chunk, .. } = &mut self.state else {
            return Ok(());
        };
        if next.can_start_a_chunk() && is_full(movie, chunk, &next, rules) {
            let closed = std::mem::take(chunk);
            pieces.extend(close_chunk(movie, closed, &mut self.sequence_num).map(Piece::Chunk));
        }
        chunk.push(next);
        let last_start = chunk.iter().rposition(Fragment::can_start_a_chunk).unwrap_or(0);
        if last_start > 0 && size_of(chunk) > rules.soft_max_bytes {
            let group = chunk.split_off(last_start);
            let closed = std::mem::replace(chunk, group);
            pieces.extend(close_chunk(movie, closed, &mut self.sequence_num).map(Piece::Chunk));
        }
        if size_of(chunk) > rules.hard_max_bytes {
            return Err(SplitError::GroupTooLarge {
                limit_bytes: rules.hard_max_bytes,
            });
        }
        Ok(())
    }
}

fn fragment_times(moof: &[u8], movie: &Movie) -> Result<FragmentTimes, SplitError> {
    let moof = Boxes::new(moof).require(b"moof")?;
    Ok(read_fragment(&moof, movie)?)
}

fn size_of(fragments: &[Fragment]) -> u64 {
    fragments.iter().map(Fragment::size_bytes).sum()
}

/// Whether `chunk` ends where `next`, which starts with a keyframe, begins.
fn is_full(movie: &Movie, chunk: &[Fragment], next: &Fragment, rules: SplitRules) -> bool {
    let times = |fragment: &Fragment| fragment.times.video.first;
    let (Some(video), Some(first)) = (movie.video(), chunk.iter().find_map(times)) else {
        return false;
    };
    let Some(now) = times(next) else { return false };
    let shown_ms = video
        .presentation_ms(now)
        .saturating_sub(video.presentation_ms(first));
    shown_ms >= rules.target_ms || size_of(chunk) >= rules.target_bytes
}

fn close_chunk(movie: &Movie, fragments: Vec<Fragment>, sequence_num: &mut u32) -> Option<ChunkPiece> {
    if fragments.is_empty() {
        return None;
    }
    let mut facts = FactsBuilder::new(movie);
    let mut bytes = BytesMut::with_capacity(usize::try_from(size_of(&fragments)).unwrap_or(0));
    for fragment in fragments {
        let offset = bytes.len();
        fragment
            .parts
            .iter()
            .for_each(|part| bytes.extend_from_slice(part));
        facts.add(offset, bytes.len() - offset, fragment.times);
    }
    let (facts, video_samples, audio_samples) = facts.finish();
    let piece = ChunkPiece {
        sequence_num: *sequence_num,
        bytes: bytes.freeze(),
        facts,
        video_samples,
        audio_samples,
    };
    *sequence_num += 1;
    Some(piece)
}

/// Gathers the manifest's facts of a chunk, fragment by fragment.
#[derive(Debug)]
pub(crate) struct FactsBuilder<'a> {
    movie: &'a Movie,
    fragments: Vec<FragmentSpan>,
    video: VideoTimes,
    audio_samples: u64,
}

impl<'a> FactsBuilder<'a> {
    pub(crate) fn new(movie: &'a Movie) -> Self {
        Self {
            movie,
            fragments: Vec::new(),
            video: VideoTimes::default(),
            audio_samples: 0,
        }
    }

    pub(crate) fn add(&mut self, offset: usize, size: usize, times: FragmentTimes) {
        let before = self.fragments.last().map_or(0, |span| span.start_ms);
        let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.fragments.push(FragmentSpan {
            offset: narrow(offset),
            size: narrow(size),
            start_ms: times.video.first.map_or(before, |first| self.shown_ms(first)),
        });
        self.audio_samples += times.audio_samples;
        if times.video.samples == 0 {
            return;
        }
        let first = self.video.first.into_iter().chain(times.video.first).min();
        self.video.end = if self.video.samples == 0 {
            times.video.end
        } else {
            self.video.end.max(times.video.end)
        };
        self.video.first = first;
        self.video.samples += times.video.samples;
        self.video.keyframes.extend(times.video.keyframes);
    }

    /// The facts, and how many samples of picture and sound there are.
    pub(crate) fn finish(self) -> (MediaFacts, u64, u64) {
        let start_ms = self.video.first.map_or(0, |first| self.shown_ms(first));
        let end_ms = if self.video.samples == 0 {
            start_ms
        } else {
            self.shown_ms(self.video.end)
        };
        let mut keyframes_ms: Vec<u64> = self
            .video
            .keyframes
            .iter()
            .map(|time| self.shown_ms(*time))
            .collect();
        keyframes_ms.sort_unstable();
        let mut fragments = self.fragments;
        // Sound that precedes the first picture belongs to the chunk's start.
        fragments
            .iter_mut()
            .for_each(|span| span.start_ms = span.start_ms.max(start_ms));
        let facts = MediaFacts {
            start_ms,
            duration_ms: end_ms.saturating_sub(start_ms),
            keyframes_ms,
            fragments,
        };
        (facts, self.video.samples, self.audio_samples)
    }

    fn shown_ms(&self, media_time: i64) -> u64 {
        self.movie
            .video()
            .map_or(0, |video| video.presentation_ms(media_time))
    }
}
