//! The uploader's way to the catalogue: OPEN and COMMIT of all its chunks in shared batches, and patience.
//!
//! A catalogue that does not answer is waited for: bytes that are stored stay stored, and repeating an OPEN or a COMMIT
//! is harmless (the first opens a new ballot for the same owner, the second is answered with what was decided). What it
//! does answer goes to the proposer, which decides what follows.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;
use vstack_api::roles::MetadataClient;
use vstack_api::wire::{CommitBatch, CommitItem, Committed, OpenBatch, OpenItem, Opened};
use vstack_api::{ErrorCode, Problem};
use vstack_core::limits::{MAX_BATCH_CHUNKS, OPEN_LEASE_MS};
use vstack_core::paxos::master::{Accepted, Value};
use vstack_core::paxos::proposer::Failure;
use vstack_core::time::UnixMillis;

use super::batch::Batcher;
use super::counts::Counts;
use super::jobs::JobHandle;
use crate::platform::Chance;

/// Commits in one request: with three receipts and the times of a chunk of nothing but keyframes each has up to 10 kB,
/// and a JSON body may have 1 MiB.
const COMMITS_AT_ONCE: usize = 64;
/// A chunk that is leased to somebody else is asked for again after this at the latest: they may be done long before
/// their lease is.
const LOCKED_PAUSE: Duration = Duration::from_secs(1);
/// The lease of somebody who has died ends within this; who is still there by then is alive and at work.
const LEASE_PATIENCE: Duration = Duration::from_millis(2 * OPEN_LEASE_MS);
/// Pauses while the catalogue does not answer: from this...
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// ...doubling up to this, which is how late a catalogue that is back may be noticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// How long one call waits for a catalogue that does not answer.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    pub(super) longest: Duration,
    /// What the pauses differ by.
    pub(super) chance: Chance,
}

/// Cheap to clone; clones share the batches.
#[derive(Clone)]
pub(super) struct Catalogue {
    opens: Batcher<OpenItem, Opened>,
    commits: Batcher<CommitItem, Committed>,
    patience: Patience,
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue")
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

impl Catalogue {
    pub(super) fn new(metadata: MetadataClient, patience: Patience, counts: &Counts) -> Self {
        let opening = metadata.clone();
        let (opened, committed) = (counts.open.clone(), counts.commit.clone());
        let opens = Batcher::new(MAX_BATCH_CHUNKS, move |requests: Vec<OpenItem>| {
            opened.sent(requests.len());
            let metadata = opening.clone();
            async move {
                let answer = metadata.open(&OpenBatch { requests }).await?;
                Ok(answer.grants.into_iter().map(Into::into).collect())
            }
        });
        let commits = Batcher::new(COMMITS_AT_ONCE, move |commits: Vec<CommitItem>| {
            committed.sent(commits.len());
            let metadata = metadata.clone();
            async move {
                let answer = metadata.commit(&CommitBatch { commits }).await?;
                Ok(answer.results.into_iter().map(Into::into).collect())
            }
        });
        Self {
            opens,
            commits,
            patience,
        }
    }

    /// A chunk that somebody else is working on is asked for again until it is decided or their lease is over.
    pub(super) async fn open(&self, job: &JobHandle, item: OpenItem) -> Result<Opened, Problem> {
        let give_up = Instant::now() + LEASE_PATIENCE;
        loop {
            let opened = wait_for_answer(&self.patience, job, || self.opens.call(item.clone())).await;
            match opened {
                Err(problem) if problem.code == ErrorCode::Locked && Instant::now() < give_up => {
                    let left = problem.retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
                    sleep(left.unwrap_or(LOCKED_PAUSE).clamp(FIRST_PAUSE, LOCKED_PAUSE)).await;
                }
                opened => return opened,
            }
        }
    }

    pub(super) async fn commit(&self, job: &JobHandle, item: CommitItem) -> Result<Committed, Problem> {
        wait_for_answer(&self.patience, job, || self.commits.call(item.clone())).await
    }
}

/// Repeats `call` while nothing answers, for as long as there is `patience`; the job's watchers are told that it waits.
pub(super) async fn wait_for_answer<T, Answered>(
    patience: &Patience,
    job: &JobHandle,
    call: impl Fn() -> Answered,
) -> Result<T, Problem>
where
    Answered: Future<Output = Result<T, Problem>>,
{
    let deadline = Instant::now() + patience.longest;
    let mut pause = FIRST_PAUSE;
    loop {
        let problem = match call().await {
            Err(problem) if is_silence(&problem) && Instant::now() < deadline => problem,
            outcome => return outcome,
        };
        if pause == FIRST_PAUSE {
            warn!(job = %job.id(), %problem, "the metadata role does not answer, waiting for it");
        }
        job.note(
            "The metadata role did not answer; the upload waited for it and went on by itself.".to_owned(),
        );
        // Callers that were refused together should not come back together.
        sleep(pause.mul_f64(patience.chance.between(1.0..1.25))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Nobody was there, or somebody who cannot answer yet. Anything else is an answer.
const fn is_silence(problem: &Problem) -> bool {
    matches!(
        problem.code,
        ErrorCode::Unreachable | ErrorCode::TimedOut | ErrorCode::Unavailable
    )
}

/// The proposer's view of a refusal.
pub(super) fn catalogue_failure(problem: Problem, now: UnixMillis) -> Failure {
    let reason = problem.detail;
    match (problem.code, problem.decided) {
        (ErrorCode::Committed | ErrorCode::Fenced, Some(decided)) => Failure::Decided(Accepted {
            ballot: decided.epoch,
            value: Value::Placed(decided.value),
        }),
        (ErrorCode::Fenced, None) => Failure::Fenced,
        (ErrorCode::Locked, _) => Failure::Locked {
            until: now + u64::from(problem.retry_after_ms.unwrap_or_default()),
        },
        (ErrorCode::NotEnoughNodes, _) => Failure::NotEnoughNodes { reason },
        _ if problem.retryable => Failure::Transient { reason },
        _ => Failure::Refused { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::super::jobs::Jobs;
    use super::*;
    use std::sync::Mutex;
    use vstack_core::id::VideoId;

    fn patience(longest: Duration) -> Patience {
        Patience {
            longest,
            chance: Chance::default(),
        }
    }

    async fn check(answers: &[Result<u8, ErrorCode>], expected: Result<u8, ErrorCode>, calls: usize) {
        let jobs = Jobs::default();
        let job = jobs
            .add(VideoId(uuid::Uuid::nil()), "title", None, false)
            .expect("no other job is there");
        let left = Mutex::new(answers.iter());
        let call = || {
            let answer = left.lock().expect("one thread").next().expect("no more calls");
            let answer = answer.map_err(|code| Problem::new(code, "why"));
            async move { answer }
        };
        let outcome = wait_for_answer(&patience(Duration::from_secs(60)), &job, call).await;
        assert_eq!(outcome.map_err(|problem| problem.code), expected);
        assert_eq!(
            answers.len() - left.into_inner().expect("one thread").len(),
            calls
        );
    }

    #[tokio::test]
    async fn silence_is_waited_out_and_an_answer_is_passed_on() {
        let then = |last| [Err(ErrorCode::Unreachable), Err(ErrorCode::Unavailable), last];
        check(&then(Ok(1)), Ok(1), 3).await;
        check(&then(Err(ErrorCode::Fenced)), Err(ErrorCode::Fenced), 3).await;
        check(&[Err(ErrorCode::VideoNotFound)], Err(ErrorCode::VideoNotFound), 1).await;
    }

    #[tokio::test]
    async fn patience_ends() {
        let job = Jobs::default();
        let job = job
            .add(VideoId(uuid::Uuid::nil()), "title", None, false)
            .expect("no other job is there");
        let silent = || async { Err::<(), _>(Problem::new(ErrorCode::Unreachable, "why")) };
        let begin = Instant::now();
        let longest = Duration::from_millis(400);
        let outcome = wait_for_answer(&patience(longest), &job, silent).await;
        assert_eq!(
            outcome.map_err(|problem| problem.code),
            Err(ErrorCode::Unreachable)
        );
        assert!(begin.elapsed() >= longest);
    }
}
