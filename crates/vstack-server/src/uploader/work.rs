//! One upload from its first byte to its end, and what is left to tidy up.
//!
//! Whoever starts a job here sees it end: done, failed or cancelled, its video finalized or aborted, its original
//! removed or kept with a note. A job whose file is here is taken up again by the next start of the role, under the same
//! id. An abort that the metadata role does not answer is repeated until it does, also after a restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures::stream::Stream;
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use vstack_api::client::ApiError;
use vstack_api::roles::MetadataClient;
use vstack_api::wire::{Job, JobState, UploadAccepted};
use vstack_api::{ErrorCode, Problem};
use vstack_core::id::VideoId;

use super::counts::Counts;
use super::jobs::{JobFailure, JobHandle, Jobs};
use super::pipeline::Pipeline;
use super::receive::{cancelled, receive};
use super::spool::{Note, Spool};
use crate::platform::Clock;

/// How often old originals and unanswered aborts are looked after.
const TIDY_PERIOD: Duration = Duration::from_secs(60);
/// Pauses between the first tries to abort a video.
const ABORT_PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];
/// Starts that take a job up. A file that brings the role down each time must not do so for ever.
const MAX_STARTS: u32 = 5;

/// The role's state.
#[derive(Debug)]
pub(super) struct Uploader {
    pub(super) jobs: Jobs,
    spool: Arc<Spool>,
    pub(super) metadata: MetadataClient,
    pipeline: Pipeline,
    pub(super) counts: Counts,
    clock: Clock,
    pub(super) stop: CancellationToken,
}

impl Uploader {
    pub(super) fn new(
        spool: Spool,
        metadata: MetadataClient,
        pipeline: Pipeline,
        counts: Counts,
        clock: Clock,
        stop: CancellationToken,
    ) -> Self {
        Self {
            jobs: Jobs::default(),
            spool: Arc::new(spool),
            metadata,
            pipeline,
            counts,
            clock,
            stop,
        }
    }

    /// Creates a video and a job that receives its file.
    pub(super) async fn begin(
        &self,
        title: &str,
        total_bytes: Option<u64>,
    ) -> Result<Arc<JobHandle>, Problem> {
        let created = self
            .metadata
            .create_video(title, 0.0)
            .await
            .map_err(ApiError::into_problem)?;
        self.begin_for(created.video_id, title, total_bytes, false).await
    }

    /// A job for a video that is there already.
    pub(super) async fn begin_for(
        &self,
        video: VideoId,
        title: &str,
        total_bytes: Option<u64>,
        joined: bool,
    ) -> Result<Arc<JobHandle>, Problem> {
        let taken = || {
            Problem::new(
                ErrorCode::Conflict,
                "a file is being uploaded for this video already",
            )
        };
        let job = self
            .jobs
            .add(video, title, total_bytes, joined)
            .ok_or_else(taken)?;
        info!(job = %job.id(), %video, "receiving a file");
        let note = note_of(&job, false);
        self.write_note(note).await;
        Ok(job)
    }

    /// Spools the file's bytes. A job whose file does not arrive whole ends here, and nothing of it is kept.
    pub(super) async fn receive<E: std::fmt::Display>(
        &self,
        job: &Arc<JobHandle>,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(), Problem> {
        match receive(job, &self.spool.original(&job.id()), body).await {
            Ok(_) => Ok(()),
            Err(problem) => {
                self.discard(job, problem.clone()).await;
                Err(problem)
            }
        }
    }

    /// Ends a job whose file did not arrive. Ends it once: a second call finds it ended.
    pub(super) async fn discard(&self, job: &Arc<JobHandle>, problem: Problem) {
        if job.snapshot().state.is_final() {
            return;
        }
        let cleared = job.joined || self.abort(job.video()).await;
        if cleared && let Err(error) = self.spool.remove(&job.id()) {
            warn!(job = %job.id(), %error, "an original cannot be removed");
        }
        end_without_video(job, problem.into());
    }

    /// Lets the job, whose file is here, go on by itself. From now on a restart goes on with it too.
    pub(super) async fn launch(self: &Arc<Self>, job: &Arc<JobHandle>) -> UploadAccepted {
        let note = note_of(job, true);
        self.write_note(note.clone()).await;
        self.run(job, note);
        UploadAccepted {
            video_id: job.video(),
            job_id: job.id(),
        }
    }

    fn run(self: &Arc<Self>, job: &Arc<JobHandle>, note: Note) {
        let (uploader, running) = (Arc::clone(self), Arc::clone(job));
        tokio::spawn(async move {
            let stop = uploader.stop.clone();
            // A stopping role leaves the job's note; the next start finds it and goes on.
            stop.run_until_cancelled_owned(uploader.work(running, note)).await;
        });
    }

    /// Goes on with what an earlier life of the role has received and not finished, and notes what it cannot go on with.
    pub(super) async fn take_up_unfinished(self: &Arc<Self>) {
        let notes = self.notes();
        if let Err(error) = self.spool.remove_strays(&notes) {
            warn!(%error, "the spool cannot be tidied");
        }
        for note in notes.into_iter().filter(|note| note.failed_at.is_none()) {
            self.take_up(note).await;
        }
    }

    async fn take_up(self: &Arc<Self>, note: Note) {
        let original = self.spool.original_bytes(&note.job_id).filter(|_| note.received);
        let job = match original {
            Some(bytes) if note.starts < MAX_STARTS => {
                self.jobs
                    .restore(&note.job_id, note.video_id, &note.title, bytes, note.joined)
            }
            _ => None,
        };
        let Some(job) = job else {
            warn!(job = %note.job_id, video = %note.video_id, "an upload was interrupted and cannot go on");
            if !note.received
                && let Err(error) = self.spool.remove_original(&note.job_id)
            {
                warn!(job = %note.job_id, %error, "a part of an original cannot be removed");
            }
            let (failed_at, code) = (Some(self.clock.now()), Some(ErrorCode::Unavailable.to_string()));
            return self
                .write_note(Note {
                    failed_at,
                    code,
                    ..note
                })
                .await;
        };
        info!(job = %note.job_id, video = %note.video_id, "an upload goes on after a restart");
        job.note("The uploader was restarted; the upload went on by itself.".to_owned());
        let starts = note.starts + 1;
        let note = Note { starts, ..note };
        self.write_note(note.clone()).await;
        self.run(&job, note);
    }

    async fn work(&self, job: Arc<JobHandle>, note: Note) {
        let original = self.spool.original(&job.id());
        let placed = tokio::select! {
            biased;
            () = job.cancel.cancelled() => Err(cancelled().into()),
            placed = self.pipeline.place_all(&job, &original) => placed,
        };
        let outcome = match placed {
            Ok(complete) => self
                .pipeline
                .finalize(&job, &complete)
                .await
                .map_err(JobFailure::from),
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(()) => self.end_well(&job, original),
            Err(failure) => self.end_badly(&job, failure, note).await,
        }
    }

    fn end_well(&self, job: &JobHandle, original: PathBuf) {
        if let Err(error) = self.spool.remove(&job.id()) {
            warn!(job = %job.id(), path = %original.display(), %error, "an original cannot be removed");
        }
        job.finish();
        let Job {
            job_id,
            video_id,
            stored_chunks,
            stored_bytes,
            ..
        } = job.snapshot();
        info!(job = %job_id, video = %video_id, stored_chunks, stored_bytes, "the video is complete");
    }

    async fn end_badly(&self, job: &JobHandle, failure: JobFailure, note: Note) {
        let aborted = job.joined || self.abort(job.video()).await;
        self.write_note(Note {
            must_abort: !aborted,
            failed_at: Some(self.clock.now()),
            code: Some(failure.problem.code.to_string()),
            ..note
        })
        .await;
        end_without_video(job, failure);
    }

    /// Takes everything of a video out of the cluster; `false` when the metadata role did not say so.
    async fn abort(&self, video: VideoId) -> bool {
        for pause in ABORT_PAUSES {
            sleep(pause).await;
            match self.metadata.abort_video(video).await {
                Ok(()) => return true,
                Err(error) if error.code() == ErrorCode::VideoNotFound => return true,
                Err(error) if !error.code().retryable() => {
                    warn!(%video, %error, "a failed upload cannot be aborted; asking again would not help");
                    return true;
                }
                Err(error) => warn!(%video, %error, "a failed upload cannot be aborted yet"),
            }
        }
        false
    }

    async fn write_note(&self, note: Note) {
        let (spool, job) = (Arc::clone(&self.spool), note.job_id.clone());
        let written = tokio::task::spawn_blocking(move || spool.write_note(&note)).await;
        if let Err(error) = written.unwrap_or_else(|panic| Err(panic.into())) {
            error!(%job, %error, "the note of an upload cannot be written; a restart will not know of it");
        }
    }

    /// Every minute, looks after what failed uploads left.
    pub(super) async fn tidy_for_ever(&self) {
        let mut periods = interval(TIDY_PERIOD);
        loop {
            periods.tick().await;
            for note in self.notes() {
                self.tidy(note).await;
            }
        }
    }

    fn notes(&self) -> Vec<Note> {
        self.spool.notes().unwrap_or_else(|error| {
            warn!(%error, "the spool cannot be read");
            Vec::new()
        })
    }

    async fn tidy(&self, note: Note) {
        if note.failed_at.is_some() && note.must_abort && self.abort(note.video_id).await {
            let must_abort = false;
            self.write_note(Note { must_abort, ..note }).await;
        } else if note.is_over(self.clock.now())
            && let Err(error) = self.spool.remove(&note.job_id)
        {
            warn!(job = %note.job_id, %error, "an old original cannot be removed");
        }
    }
}

/// The first note of a job.
fn note_of(job: &JobHandle, received: bool) -> Note {
    Note {
        job_id: job.id(),
        video_id: job.video(),
        title: job.snapshot().title,
        must_abort: !job.joined,
        received,
        joined: job.joined,
        starts: 0,
        failed_at: None,
        code: None,
    }
}

fn end_without_video(job: &JobHandle, failure: JobFailure) {
    let state = match failure.problem.code {
        ErrorCode::Cancelled => JobState::Cancelled,
        _ => JobState::Failed,
    };
    info!(job = %job.id(), code = %failure.problem.code, detail = %failure.problem.detail, "the upload ended without a video");
    job.fail(state, failure);
}
