//! From a spooled original to placed chunks: judge, convert, cut, place, poster, finalize.
//!
//! At most five chunks of an upload are under way; while they are, nobody reads from FFmpeg, and it waits. So memory
//! is bounded by five chunks, whatever the size of the file. Dropping the work ends FFmpeg and all messages.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use vstack_api::client::ApiError;
use vstack_api::roles::MetadataClient;
use vstack_api::wire::{Finalize, JobState};
use vstack_api::{ErrorCode, Problem};
use vstack_core::id::ChunkId;
use vstack_core::limits::UPLOAD_CHUNKS_IN_FLIGHT;
use vstack_core::manifest::{Container, Track, VideoStatus};
use vstack_media::MediaError;
use vstack_media::boxes::joined_codecs;
use vstack_media::ffmpeg::{Progress, Tools};
use vstack_media::ingest::{Prepared, prepare};
use vstack_media::poster::poster;
use vstack_media::split::Piece;

use super::catalogue::{Patience, wait_for_answer};
use super::jobs::{JobFailure, JobHandle};
use super::place::{ChunkPlacer, NewChunk, Placed};

/// Everything that turns files into videos.
#[derive(Debug)]
pub(super) struct Pipeline {
    tools: Tools,
    metadata: MetadataClient,
    placer: ChunkPlacer,
    patience: Patience,
    conversions: Arc<Semaphore>,
}

/// What finalize needs to know of an upload whose chunks are all placed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Complete(Finalize);

impl Pipeline {
    pub(super) fn new(
        tools: Tools,
        metadata: MetadataClient,
        placer: ChunkPlacer,
        patience: Patience,
        conversions_at_once: usize,
    ) -> Self {
        Self {
            tools,
            metadata,
            placer,
            patience,
            conversions: Arc::new(Semaphore::new(conversions_at_once.max(1))),
        }
    }

    /// Places all chunks of a file. Safe to drop at any moment.
    pub(super) async fn place_all(
        &self,
        job: &Arc<JobHandle>,
        original: &Path,
    ) -> Result<Complete, JobFailure> {
        job.enter(JobState::Queued);
        let closed = |_| Problem::new(ErrorCode::Unavailable, "the uploader is stopping");
        let _turn = self.conversions.acquire().await.map_err(closed)?;
        job.enter(JobState::Splitting);
        let failure = |error: MediaError| media_failure(&error, original);
        let prepared = prepare(&self.tools, original).await.map_err(failure)?;
        prepared.plan.notes.iter().for_each(|note| job.note(note.clone()));
        self.convert(job, prepared).await.map_err(|failed| match failed {
            Failed::Media(error) => media_failure(&error, original),
            Failed::Place(problem) => problem.into(),
        })
    }

    async fn convert(&self, job: &Arc<JobHandle>, prepared: Prepared) -> Result<Complete, Failed> {
        let mut ingest = prepared.start(&self.tools)?;
        let mut run = Placing::new(self.placer.clone(), job);
        job.begin_converting(prepared.duration_ms());
        run.followers.spawn(follow(ingest.progress(), Arc::clone(job)));
        run.place_poster(self.tools.clone(), prepared);
        while let Some(piece) = run.landing_until(ingest.next()).await?? {
            run.place_piece(piece).await?;
        }
        job.enter(JobState::Storing);
        run.finish().await
    }

    /// Makes the video visible as complete. Waits for a metadata role that does not answer.
    pub(super) async fn finalize(&self, job: &JobHandle, complete: &Complete) -> Result<(), Problem> {
        job.enter(JobState::Finalizing);
        let call = || async {
            let finalized = self.metadata.finalize(job.video(), &complete.0).await;
            finalized.map(drop).map_err(ApiError::into_problem)
        };
        let Err(problem) = wait_for_answer(&self.patience, job, call).await else {
            return Ok(());
        };
        // An answer that was lost, or another uploader of the same file that was first: the video is complete, whatever
        // the repetition says.
        let entry = self.metadata.video(job.video()).await;
        if entry.is_ok_and(|entry| entry.status == VideoStatus::Active) {
            Ok(())
        } else {
            Err(problem)
        }
    }
}

/// Passes FFmpeg's progress on to the job, about twice a second.
async fn follow(progress: Option<watch::Receiver<Progress>>, job: Arc<JobHandle>) {
    let Some(mut progress) = progress else { return };
    while progress.changed().await.is_ok() {
        let until_ms = progress.borrow_and_update().out_time_ms;
        job.converted(until_ms);
    }
}

/// Why an upload does not get to its end.
#[derive(Debug)]
enum Failed {
    Media(MediaError),
    Place(Problem),
}

impl From<MediaError> for Failed {
    fn from(error: MediaError) -> Self {
        Self::Media(error)
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self::Place(problem)
    }
}

/// A chunk's task has ended.
struct Landed {
    bytes: u64,
    /// Of a media chunk.
    duration_ms: u64,
    /// `Err` of a poster is a note, of anything else the end.
    placed: Result<Placed, Problem>,
    optional: bool,
}

/// The chunks of one upload on their way.
struct Placing<'a> {
    placer: ChunkPlacer,
    job: &'a Arc<JobHandle>,
    tasks: JoinSet<Landed>,
    /// Ends with this run.
    followers: JoinSet<()>,
    reduced_chunks: u32,
    media_chunks: u32,
    end_ms: u64,
    tracks: Vec<Track>,
}

impl<'a> Placing<'a> {
    fn new(placer: ChunkPlacer, job: &'a Arc<JobHandle>) -> Self {
        Self {
            placer,
            job,
            tasks: JoinSet::new(),
            followers: JoinSet::new(),
            reduced_chunks: 0,
            media_chunks: 0,
            end_ms: 0,
            tracks: Vec::new(),
        }
    }

    /// A video without a poster is still a video.
    fn place_poster(&mut self, tools: Tools, prepared: Prepared) {
        let (placer, job) = (self.placer.clone(), Arc::clone(self.job));
        self.tasks.spawn(async move {
            let jpeg = poster(
                &tools,
                &prepared.input,
                prepared.plan.video.index,
                prepared.duration_ms(),
            )
            .await;
            let (bytes, placed) = match jpeg {
                Ok(jpeg) => {
                    let chunk = NewChunk {
                        id: ChunkId::poster(job.video()),
                        bytes: jpeg.clone(),
                        media: None,
                    };
                    (jpeg.len() as u64, placer.place(&job, chunk).await)
                }
                Err(error) => (0, Err(Problem::new(ErrorCode::FfmpegFailed, error.to_string()))),
            };
            Landed {
                bytes,
                duration_ms: 0,
                placed,
                optional: true,
            }
        });
    }

    /// Waits for the next piece, and meanwhile takes note of chunks that are done or failed.
    async fn landing_until<T>(&mut self, piece: impl Future<Output = T>) -> Result<T, Problem> {
        let mut piece = std::pin::pin!(piece);
        loop {
            tokio::select! {
                piece = &mut piece => return Ok(piece),
                Some(landed) = self.tasks.join_next() => self.land(landed)?,
            }
        }
    }

    /// Sends a piece on its way, once fewer than five are under way.
    async fn place_piece(&mut self, piece: Piece) -> Result<(), Problem> {
        while self.tasks.len() >= UPLOAD_CHUNKS_IN_FLIGHT {
            self.land_next().await?;
        }
        let video = self.job.video();
        let (chunk, duration_ms) = match piece {
            Piece::Init(init) => {
                self.tracks = init.movie.manifest_tracks();
                (
                    NewChunk {
                        id: ChunkId::init(video),
                        bytes: init.bytes,
                        media: None,
                    },
                    0,
                )
            }
            Piece::Chunk(media) => {
                let duration_ms = media.facts.duration_ms;
                self.media_chunks += 1;
                self.end_ms = self.end_ms.max(media.facts.start_ms + duration_ms);
                let id = ChunkId::media(video, media.sequence_num);
                (
                    NewChunk {
                        id,
                        bytes: media.bytes,
                        media: Some(media.facts),
                    },
                    duration_ms,
                )
            }
        };
        let (placer, job) = (self.placer.clone(), Arc::clone(self.job));
        self.tasks.spawn(async move {
            let bytes = chunk.bytes.len() as u64;
            Landed {
                bytes,
                duration_ms,
                placed: placer.place(&job, chunk).await,
                optional: false,
            }
        });
        Ok(())
    }

    async fn finish(mut self) -> Result<Complete, Failed> {
        while !self.tasks.is_empty() {
            self.land_next().await?;
        }
        if self.reduced_chunks > 0 {
            let count = self.reduced_chunks;
            self.job.note(format!(
                "{count} chunks have only two copies until enough nodes are back"
            ));
        }
        Ok(Complete(Finalize {
            total_chunks: self.media_chunks,
            duration_ms: self.end_ms,
            container: Container::Fmp4,
            codecs: joined_codecs(&self.tracks),
            tracks: self.tracks,
        }))
    }

    async fn land_next(&mut self) -> Result<(), Problem> {
        match self.tasks.join_next().await {
            Some(landed) => self.land(landed),
            None => Ok(()),
        }
    }

    fn land(&mut self, landed: Result<Landed, tokio::task::JoinError>) -> Result<(), Problem> {
        let landed = landed.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
        let placed = match landed.placed {
            Ok(placed) => placed,
            Err(problem) if landed.optional => {
                self.job.note(format!("There is no poster: {}", problem.detail));
                return Ok(());
            }
            Err(problem) => return Err(problem),
        };
        for (node, reason) in placed.given_up {
            self.job
                .note(format!("Node {node} was replaced for some chunks: {reason}"));
        }
        self.reduced_chunks += u32::from(placed.under_replicated);
        self.job.placed(landed.bytes, landed.duration_ms);
        Ok(())
    }
}

/// The wire's words for what FFmpeg or the file did. The spool's path is nobody's business.
fn media_failure(error: &MediaError, original: &Path) -> JobFailure {
    let path = original.display().to_string();
    let clean = |text: &str| {
        text.replace(&format!("file:{path}"), "input")
            .replace(&path, "input")
    };
    let code = ErrorCode::ALL.iter().find(|code| code.as_str() == error.code());
    let problem = Problem::new(
        code.copied().unwrap_or(ErrorCode::Internal),
        clean(&error.to_string()),
    );
    JobFailure {
        problem,
        last_stderr: error.stderr_tail().iter().map(|line| clean(line)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_code_and_hides_the_path() {
        let error = MediaError::Ffmpeg {
            reason: "file:/var/spool/x.original: Invalid data".to_owned(),
            stderr_tail: vec!["[mov] /var/spool/x.original".to_owned()],
        };
        let failure = media_failure(&error, Path::new("/var/spool/x.original"));
        assert_eq!(failure.problem.code, ErrorCode::FfmpegFailed);
        assert!(
            !failure.problem.detail.contains("/var")
                && failure.problem.detail.contains("input: Invalid data")
        );
        assert_eq!(failure.last_stderr, ["[mov] input"]);
    }

    #[test]
    fn every_media_code_is_on_the_wire() {
        let errors = [
            MediaError::EmptyFile,
            MediaError::UnsupportedFormat {
                detected: String::new(),
            },
            MediaError::IncompleteUpload {
                detail: String::new(),
            },
            MediaError::NoVideo {
                detected: String::new(),
            },
            MediaError::ProtectedContent {
                scheme: String::new(),
            },
            MediaError::UnsupportedCodec {
                stream: "",
                codec: String::new(),
            },
            MediaError::OverLimit {
                what: "",
                actual: String::new(),
                limit: String::new(),
            },
            MediaError::TimedOut {
                what: "",
                limit_sec: 0,
            },
            MediaError::FfmpegMissing {
                program: String::new(),
            },
        ];
        for error in errors {
            assert_eq!(
                media_failure(&error, Path::new("/x")).problem.code.as_str(),
                error.code()
            );
        }
    }
}
