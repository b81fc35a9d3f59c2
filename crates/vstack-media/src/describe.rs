//! Describing chunks that somebody else cut: what a plain client's finalize needs to fill into the manifest.
//!
//! Two shapes are legal: fragments after a common init segment, and whole MP4 files without one (as FFmpeg's
//! `-f segment` writes them). The facts are the same that our own splitter gives.

use vstack_core::manifest::{Container, MediaFacts, Track};

use crate::boxes::{
    BoxError, Boxes, FourCc, FragmentTimes, Movie, RawBox, read_fragment, read_sample_tables,
};
use crate::split::FactsBuilder;

/// What a chunk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub container: Container,
    pub tracks: Vec<Track>,
    pub facts: MediaFacts,
    pub video_samples: u64,
}

/// Why a chunk cannot be described.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    #[error(transparent)]
    Box(#[from] BoxError),
    #[error("it is encrypted ({scheme})")]
    Protected { scheme: String },
    #[error("it has no picture")]
    NoPicture,
}

/// Describes one media chunk. `init` is the video's init segment; without one the chunk has to be a whole MP4 file.
///
/// # Errors
/// It is neither, it is encrypted, or it has no picture.
pub fn describe(init: Option<&[u8]>, chunk: &[u8]) -> Result<Described, DescribeError> {
    let whole_file = Boxes::new(chunk).find(b"moov");
    let (movie, container) = match (init, &whole_file) {
        (Some(init), _) => (Movie::in_file(init)?, Container::Fmp4),
        (None, Some(moov)) => (Movie::read(moov)?, Container::Mp4Segments),
        (None, None) => return Err(BoxError::Missing(FourCc(*b"moov")).into()),
    };
    if let Some(scheme) = movie.protected {
        return Err(DescribeError::Protected { scheme });
    }
    let mut facts = FactsBuilder::new(&movie);
    match &whole_file {
        Some(moov) if init.is_none() && !movie.fragmented => {
            let times = FragmentTimes {
                video: read_sample_tables(moov, &movie)?,
                audio_samples: 0,
            };
            facts.add(0, chunk.len(), times);
        }
        _ => add_fragments(&mut facts, chunk, &movie)?,
    }
    let (mut facts, video_samples, _) = facts.finish();
    if video_samples == 0 {
        return Err(DescribeError::NoPicture);
    }
    if container == Container::Mp4Segments {
        // Such a chunk is fed to a player as a whole: its header is in it.
        facts.fragments = Vec::new();
    }
    Ok(Described {
        container,
        tracks: movie.manifest_tracks(),
        facts,
        video_samples,
    })
}

/// The tracks of an init segment.
///
/// # Errors
/// It has no readable `moov`, or is encrypted.
pub fn describe_init(init: &[u8]) -> Result<Vec<Track>, DescribeError> {
    let movie = Movie::in_file(init)?;
    match movie.protected {
        Some(scheme) => Err(DescribeError::Protected { scheme }),
        None => Ok(movie.manifest_tracks()),
    }
}

/// Moves self-contained chunks one behind another where their own clocks do not do so (FFmpeg's `-reset_timestamps 1`
/// starts each at 0).
pub fn lay_end_to_end(chunks: &mut [MediaFacts]) {
    let mut previous: Option<(u64, u64)> = None;
    for facts in chunks {
        if let Some((_, end_ms)) = previous.filter(|(start_ms, _)| facts.start_ms <= *start_ms) {
            let shift = end_ms.saturating_sub(facts.start_ms);
            facts.start_ms += shift;
            facts.keyframes_ms.iter_mut().for_each(|time| *time += shift);
            facts.fragments.iter_mut().for_each(|span| span.start_ms += shift);
        }
        previous = Some((facts.start_ms, facts.start_ms.saturating_add(facts.duration_ms)));
    }
}

fn add_fragments(facts: &mut FactsBuilder<'_>, chunk: &[u8], movie: &Movie) -> Result<(), BoxError> {
    let mut open: Option<(RawBox<'_>, FragmentTimes)> = None;
    for found in Boxes::new(chunk) {
        let found = found?;
        match (&found.kind.0, open.take()) {
            (b"moof", None) => {
                let times = read_fragment(&found, movie)?;
                open = Some((found, times));
            }
            (b"mdat", Some((moof, times))) => {
                facts.add(moof.offset, found.offset + found.whole_bytes - moof.offset, times);
            }
            (b"moof", Some(_)) => return Err(BoxError::BadValue(found.kind)),
            (_, still_open) => open = still_open,
        }
    }
    match open {
        Some((moof, _)) => Err(BoxError::Truncated(moof.kind)),
        None => Ok(()),
    }
}
