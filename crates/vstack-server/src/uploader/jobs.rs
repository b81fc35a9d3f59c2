//! Upload jobs: their state, how far they are, and who watches them.
//!
//! A job's state only moves forward and ends in done, failed or cancelled. Watchers see the present state and every
//! later one, though not each step between two looks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vstack_api::Problem;
use vstack_api::wire::{Job, JobState};
use vstack_core::id::VideoId;

/// Finished jobs that are remembered; older ones are forgotten first.
const REMEMBERED_JOBS: usize = 500;
/// Notes that a job collects at most: a bad network could fill pages.
const MAX_NOTES: usize = 20;

/// Share of the whole job (percent) that is behind it when a stage ends. Guesses for copying on one machine: receiving
/// is bound by the sender, placing by three copies on disks.
const RECEIVED_PERCENT: f64 = 30.0;
const PLACED_PERCENT: f64 = 97.0;

/// One job, shared between its worker and its watchers.
#[derive(Debug)]
pub(super) struct JobHandle {
    job: watch::Sender<Job>,
    pub(super) cancel: CancellationToken,
    /// Another uploader had stored chunks of this video before: the video is not this job's to abort.
    pub(super) joined: bool,
    pace: Mutex<Pace>,
}

/// Since when bytes flow, and how much of the presentation is behind.
#[derive(Debug, Clone, Copy)]
struct Pace {
    started: Instant,
    converted_ms: u64,
    placed_ms: u64,
    duration_ms: u64,
}

impl Pace {
    fn begin(duration_ms: u64) -> Self {
        Self {
            started: Instant::now(),
            converted_ms: 0,
            placed_ms: 0,
            duration_ms,
        }
    }

    /// What is placed has been converted; what FFmpeg says lags by half a second.
    fn fraction(&self) -> f64 {
        let converted = ratio(self.converted_ms.max(self.placed_ms), self.duration_ms);
        f64::midpoint(converted, ratio(self.placed_ms, self.duration_ms))
    }
}

impl JobHandle {
    pub(super) fn id(&self) -> String {
        self.job.borrow().job_id.clone()
    }

    pub(super) fn video(&self) -> VideoId {
        self.job.borrow().video_id
    }

    pub(super) fn snapshot(&self) -> Job {
        self.job.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Job> {
        self.job.subscribe()
    }

    /// Enters a state; a final one is never left.
    pub(super) fn enter(&self, state: JobState) {
        self.update(|job| job.state = state);
    }

    /// Conversion begins, of a presentation of this length. Converting and storing run at once and share one pace.
    pub(super) fn begin_converting(&self, duration_ms: u64) {
        *self.pace() = Pace::begin(duration_ms);
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rename(&self, title: &str) {
        self.update(|job| title.clone_into(&mut job.title));
    }

    pub(super) fn note(&self, text: String) {
        self.update(|job| {
            if job.notes.len() < MAX_NOTES && !job.notes.contains(&text) {
                job.notes.push(text);
            }
        });
    }

    /// Bytes of the original that have arrived.
    pub(super) fn received(&self, bytes: u64) {
        let seconds = self.pace().started.elapsed().as_secs_f64();
        self.update(|job| {
            job.received_bytes = bytes;
            let fraction = job.total_bytes.map(|total| ratio(bytes, total));
            job.percent = fraction.unwrap_or(0.0) * RECEIVED_PERCENT;
            job.speed_bytes_per_sec = per_second(bytes, seconds);
            job.eta_sec = fraction.and_then(|fraction| remaining(fraction, seconds));
        });
    }

    /// All of the original is here.
    pub(super) fn received_all(&self, bytes: u64) {
        self.update(|job| job.total_bytes = Some(bytes));
        self.received(bytes);
    }

    /// FFmpeg is this far in the presentation.
    pub(super) fn converted(&self, until_ms: u64) {
        let pace = {
            let mut pace = self.pace();
            pace.converted_ms = pace.converted_ms.max(until_ms);
            *pace
        };
        self.update(|job| show_pace(job, pace));
    }

    /// Bytes of one copy go to a node.
    pub(super) fn sent(&self, bytes: u64) {
        self.update(|job| job.sent_bytes += bytes);
    }

    /// Bytes of copies that were on their nodes already.
    pub(super) fn spared(&self, bytes: u64) {
        self.update(|job| job.spared_bytes += bytes);
    }

    /// One more chunk is durable and decided, with this much of the presentation.
    pub(super) fn placed(&self, bytes: u64, duration_ms: u64) {
        let pace = {
            let mut pace = self.pace();
            pace.placed_ms += duration_ms;
            *pace
        };
        self.update(|job| {
            job.stored_chunks += 1;
            job.stored_bytes += bytes;
            show_pace(job, pace);
        });
    }

    pub(super) fn finish(&self) {
        self.update(|job| {
            job.state = JobState::Done;
            job.percent = 100.0;
            job.eta_sec = Some(0.0);
        });
    }

    pub(super) fn fail(&self, state: JobState, failure: JobFailure) {
        self.update(|job| {
            job.state = state;
            job.eta_sec = None;
            job.problem = Some(failure.problem);
            job.last_stderr = failure.last_stderr;
        });
    }

    fn update(&self, change: impl FnOnce(&mut Job)) {
        self.job.send_if_modified(|job| {
            let before = job.clone();
            if !before.state.is_final() {
                change(job);
            }
            *job != before
        });
    }
}

fn show_pace(job: &mut Job, pace: Pace) {
    let (fraction, seconds) = (pace.fraction(), pace.started.elapsed().as_secs_f64());
    job.percent = job
        .percent
        .max(RECEIVED_PERCENT + fraction * (PLACED_PERCENT - RECEIVED_PERCENT));
    job.speed_bytes_per_sec = per_second(job.stored_bytes, seconds);
    job.eta_sec = remaining(fraction, seconds);
}

/// Why a job ended without a video.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JobFailure {
    pub(super) problem: Problem,
    pub(super) last_stderr: Vec<String>,
}

impl From<Problem> for JobFailure {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            last_stderr: Vec::new(),
        }
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        (part as f64 / whole as f64).min(1.0)
    }
}

fn per_second(bytes: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        bytes as f64 / seconds
    } else {
        0.0
    }
}

/// Seconds left at the pace so far; nothing in the first moments, when it would jump.
fn remaining(fraction: f64, seconds: f64) -> Option<f64> {
    (fraction > 0.01 && seconds > 0.5).then(|| seconds * (1.0 - fraction) / fraction)
}

/// All jobs since the role started, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Jobs(Mutex<Vec<Arc<JobHandle>>>);

impl Jobs {
    /// Adds a job for a video; `None` when one is under way for it already.
    pub(super) fn add(
        &self,
        video_id: VideoId,
        title: &str,
        total_bytes: Option<u64>,
        joined: bool,
    ) -> Option<Arc<JobHandle>> {
        let job_id = Uuid::new_v4().to_string();
        self.add_as(job_id, video_id, title, total_bytes, joined)
    }

    /// Adds a job that an earlier life of the role began, under its old id.
    pub(super) fn restore(
        &self,
        job_id: &str,
        video_id: VideoId,
        title: &str,
        total_bytes: u64,
        joined: bool,
    ) -> Option<Arc<JobHandle>> {
        let job = self.add_as(job_id.to_owned(), video_id, title, Some(total_bytes), joined)?;
        job.received_all(total_bytes);
        Some(job)
    }

    fn add_as(
        &self,
        job_id: String,
        video_id: VideoId,
        title: &str,
        total_bytes: Option<u64>,
        joined: bool,
    ) -> Option<Arc<JobHandle>> {
        let job = Job {
            job_id,
            video_id,
            title: title.to_owned(),
            state: JobState::Receiving,
            received_bytes: 0,
            total_bytes,
            stored_chunks: 0,
            stored_bytes: 0,
            sent_bytes: 0,
            spared_bytes: 0,
            percent: 0.0,
            speed_bytes_per_sec: 0.0,
            eta_sec: None,
            notes: Vec::new(),
            problem: None,
            last_stderr: Vec::new(),
        };
        let mut jobs = self.lock();
        if jobs
            .iter()
            .any(|other| other.video() == video_id && !other.snapshot().state.is_final())
        {
            return None;
        }
        let handle = Arc::new(JobHandle {
            job: watch::Sender::new(job),
            cancel: CancellationToken::new(),
            joined,
            pace: Mutex::new(Pace::begin(0)),
        });
        jobs.push(Arc::clone(&handle));
        forget_oldest(&mut jobs);
        Some(handle)
    }

    pub(super) fn find(&self, job_id: &str) -> Option<Arc<JobHandle>> {
        self.lock().iter().find(|job| job.id() == job_id).cloned()
    }

    pub(super) fn list(&self) -> Vec<Job> {
        self.lock().iter().map(|job| job.snapshot()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<JobHandle>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget_oldest(jobs: &mut Vec<Arc<JobHandle>>) {
    if jobs.len() > REMEMBERED_JOBS
        && let Some(oldest) = jobs.iter().position(|job| job.snapshot().state.is_final())
    {
        jobs.remove(oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vstack_api::ErrorCode;

    fn video(number: u128) -> VideoId {
        VideoId(Uuid::from_u128(number))
    }

    fn job(jobs: &Jobs, number: u128) -> Arc<JobHandle> {
        jobs.add(video(number), "title", Some(1_000), false).unwrap()
    }

    #[test]
    fn percent_never_falls_and_ends_at_a_hundred() {
        let job = job(&Jobs::default(), 1);
        let mut last = 0.0;
        let mut check = |job: &JobHandle| {
            let percent = job.snapshot().percent;
            assert!(percent >= last && percent <= 100.0, "{percent} after {last}");
            last = percent;
        };
        job.received(500);
        check(&job);
        job.received(1_000);
        check(&job);
        job.begin_converting(10_000);
        for (converted, placed) in [
            (0, 0),
            (5_000, 0),
            (5_000, 5_000),
            (4_000, 1_000),
            (20_000, 20_000),
        ] {
            job.converted(converted);
            check(&job);
            job.placed(1, placed);
            check(&job);
        }
        job.finish();
        check(&job);
        assert_eq!(last, 100.0);
    }

    #[test]
    fn a_final_state_is_never_left() {
        let job = job(&Jobs::default(), 1);
        job.fail(
            JobState::Cancelled,
            Problem::new(ErrorCode::Cancelled, "by request").into(),
        );
        job.enter(JobState::Storing);
        job.finish();
        assert_eq!(job.snapshot().state, JobState::Cancelled);
    }

    #[test]
    fn a_video_has_one_job_at_a_time() {
        let jobs = Jobs::default();
        let first = job(&jobs, 1);
        assert!(jobs.add(video(1), "again", None, false).is_none());
        first.finish();
        assert!(jobs.add(video(1), "again", None, false).is_some());
    }

    #[test]
    fn old_finished_jobs_are_forgotten_and_running_ones_are_not() {
        let jobs = Jobs::default();
        let running = job(&jobs, 0);
        for number in 1..=u128::try_from(REMEMBERED_JOBS).unwrap() + 10 {
            job(&jobs, number).finish();
        }
        assert_eq!(jobs.list().len(), REMEMBERED_JOBS);
        assert!(jobs.find(&running.id()).is_some());
    }
}
