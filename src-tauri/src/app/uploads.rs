//! Files on their way into the library: sent to the uploader piece by piece, then followed until they can be watched.
//!
//! Each upload is one task that owns its work; the list is what everybody sees. Sending and ingest share one percentage.
//! A cancelled upload leaves nothing behind: while it is sent the connection is cut, later the uploader's job is
//! cancelled.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::sync::{Semaphore, watch};
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;
use vstack_api::UploaderClient;
use vstack_api::transport::ByteStream;
use vstack_api::wire::{Job, JobState};
use vstack_core::limits::MAX_TITLE_CHARS;

use super::cluster::ClusterLink;
use crate::dto::{UiError, UploadItem, UploadPhase};

/// Files that are sent at once. One alone seldom fills a link, many only delay each other.
const SENDING_AT_ONCE: usize = 2;
/// Bytes read from a file at a time.
const READ_BYTES: usize = 256 * 1024;
/// Share of the percentage that sending takes; ingest reads, splits, stores and commits.
const SENDING_PERCENT: f64 = 30.0;
/// Times that a broken stream of events is opened again while the job goes on, and the pause before.
const EVENT_ATTEMPTS: u32 = 20;
const EVENT_PAUSE: Duration = Duration::from_millis(500);

/// All uploads of this run, the oldest first.
#[derive(Debug)]
pub(crate) struct Uploads {
    link: Arc<ClusterLink>,
    list: watch::Sender<Vec<Upload>>,
    sending: Semaphore,
    next_id: AtomicU64,
}

#[derive(Debug, Clone)]
struct Upload {
    item: UploadItem,
    cancel: CancellationToken,
}

impl Uploads {
    pub(crate) fn new(link: Arc<ClusterLink>) -> Arc<Self> {
        let (list, sending) = (watch::Sender::default(), Semaphore::new(SENDING_AT_ONCE));
        Arc::new(Self {
            link,
            list,
            sending,
            next_id: AtomicU64::new(1),
        })
    }

    /// Starts to upload each file; returns their items.
    pub(crate) fn start(self: &Arc<Self>, paths: Vec<PathBuf>) -> Vec<UploadItem> {
        paths.into_iter().map(|path| self.start_one(path)).collect()
    }

    pub(crate) fn items(&self) -> Vec<UploadItem> {
        self.list
            .borrow()
            .iter()
            .map(|upload| upload.item.clone())
            .collect()
    }

    pub(crate) fn cancel(&self, upload_id: &str) {
        if let Some(upload) = self
            .list
            .borrow()
            .iter()
            .find(|upload| upload.item.upload_id == upload_id)
        {
            upload.cancel.cancel();
        }
    }

    /// Takes a finished upload off the list.
    pub(crate) fn dismiss(&self, upload_id: &str) {
        let goes = |upload: &Upload| upload.item.upload_id == upload_id && upload.item.phase.is_final();
        self.list.send_modify(|list| list.retain(|upload| !goes(upload)));
    }

    fn start_one(self: &Arc<Self>, path: PathBuf) -> UploadItem {
        let item = UploadItem {
            upload_id: self.next_id.fetch_add(1, Ordering::Relaxed).to_string(),
            file_name: path
                .file_name()
                .unwrap_or(path.as_os_str())
                .to_string_lossy()
                .into_owned(),
            phase: UploadPhase::Queued,
            sent_bytes: 0,
            total_bytes: 0,
            percent: 0.0,
            speed_bytes_per_sec: 0.0,
            eta_sec: None,
            video_id: None,
            note: None,
            error: None,
        };
        let upload = Upload {
            item: item.clone(),
            cancel: CancellationToken::new(),
        };
        self.list.send_modify(|list| list.push(upload.clone()));
        let work = Work {
            uploads: Arc::clone(self),
            upload_id: item.upload_id.clone(),
            cancel: upload.cancel,
        };
        tauri::async_runtime::spawn(work.run(path));
        item
    }

    fn update(&self, upload_id: &str, change: impl FnOnce(&mut UploadItem)) {
        self.list.send_modify(|list| {
            if let Some(upload) = list.iter_mut().find(|upload| upload.item.upload_id == upload_id) {
                change(&mut upload.item);
            }
        });
    }
}

/// The task of one upload.
struct Work {
    uploads: Arc<Uploads>,
    upload_id: String,
    cancel: CancellationToken,
}

impl Work {
    async fn run(self, path: PathBuf) {
        let outcome = self.upload(&path).await;
        self.update(|item| match outcome {
            Ok(phase) => {
                item.phase = phase;
                item.percent = if phase == UploadPhase::Done {
                    100.0
                } else {
                    item.percent
                };
                item.eta_sec = None;
            }
            Err(error) => {
                tracing::warn!(code = error.code, message = error.message, "an upload failed");
                (item.phase, item.error, item.eta_sec) = (UploadPhase::Failed, Some(error), None);
            }
        });
    }

    fn update(&self, change: impl FnOnce(&mut UploadItem)) {
        self.uploads.update(&self.upload_id, change);
    }

    async fn upload(&self, path: &Path) -> Result<UploadPhase, UiError> {
        let (file, size_bytes) = open(path).await?;
        self.update(|item| item.total_bytes = size_bytes);
        let sent = tokio::select! {
            sent = self.send(path, file, size_bytes) => sent?,
            () = self.cancel.cancelled() => return Ok(UploadPhase::Cancelled),
        };
        let (uploader, job_id) = sent;
        tokio::select! {
            done = self.follow(&uploader, &job_id) => done,
            () = self.cancel.cancelled() => {
                uploader.cancel_job(&job_id).await?;
                Ok(UploadPhase::Cancelled)
            }
        }
    }

    /// Sends the file; returns where its job runs.
    async fn send(
        &self,
        path: &Path,
        file: tokio::fs::File,
        size_bytes: u64,
    ) -> Result<(UploaderClient, String), UiError> {
        let closed = |_| {
            UiError::new(
                "internal",
                "V-Stack is closing.",
                "Start it again and repeat the upload.",
            )
        };
        let _turn = self.uploads.sending.acquire().await.map_err(closed)?;
        let uploader = self.uploads.link.uploader().await?;
        self.update(|item| item.phase = UploadPhase::Sending);
        let name = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned();
        let accepted = uploader
            .upload(&title_of(path), &name, self.counted(file, size_bytes), size_bytes)
            .await?;
        self.update(|item| item.video_id = Some(accepted.video_id.to_string()));
        Ok((uploader, accepted.job_id))
    }

    /// The file's bytes; the item follows as they are taken.
    fn counted(&self, file: tokio::fs::File, size_bytes: u64) -> ByteStream {
        let (uploads, upload_id) = (Arc::clone(&self.uploads), self.upload_id.clone());
        let (started, mut sent_bytes) = (Instant::now(), 0u64);
        let pieces = ReaderStream::with_capacity(file, READ_BYTES).inspect(move |piece| {
            let Ok(piece) = piece else { return };
            sent_bytes += piece.len() as u64;
            let progress = Sent {
                sent_bytes,
                size_bytes,
                seconds: started.elapsed().as_secs_f64(),
            };
            uploads.update(&upload_id, |item| progress.tell(item));
        });
        pieces.boxed()
    }

    /// Follows the job to its end.
    async fn follow(&self, uploader: &UploaderClient, job_id: &str) -> Result<UploadPhase, UiError> {
        for _ in 0..EVENT_ATTEMPTS {
            if let Ok(mut events) = uploader.job_events(job_id).await {
                while let Some(Ok(job)) = events.next().await {
                    self.update(|item| tell_job(item, &job));
                    if let Some(outcome) = outcome(&job) {
                        return outcome;
                    }
                }
            }
            tokio::time::sleep(EVENT_PAUSE).await;
        }
        let job = uploader.job(job_id).await?;
        outcome(&job).unwrap_or_else(|| {
            let message = "The uploader stopped telling how the upload goes.";
            Err(UiError::new(
                "unreachable",
                message,
                "Look into the library in a while: the upload may still finish.",
            ))
        })
    }
}

async fn open(path: &Path) -> Result<(tokio::fs::File, u64), UiError> {
    let unreadable = |error: std::io::Error| {
        let message = format!("{} cannot be read: {error}.", path.display());
        UiError::new(
            "unreadable_file",
            message,
            "Check that the file is there and that you may read it.",
        )
    };
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let facts = file.metadata().await.map_err(unreadable)?;
    if !facts.is_file() {
        let message = format!("{} is no file.", path.display());
        return Err(UiError::new(
            "unreadable_file",
            message,
            "Choose video files, not folders.",
        ));
    }
    Ok((file, facts.len()))
}

fn title_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
    stem.chars().take(MAX_TITLE_CHARS).collect()
}

/// How far the sending is.
struct Sent {
    sent_bytes: u64,
    size_bytes: u64,
    seconds: f64,
}

impl Sent {
    fn tell(&self, item: &mut UploadItem) {
        let speed = self.sent_bytes as f64 / self.seconds.max(0.001);
        let left = self.size_bytes.saturating_sub(self.sent_bytes) as f64;
        item.sent_bytes = self.sent_bytes;
        item.speed_bytes_per_sec = speed;
        // In the first moments all of it goes into buffers, and any estimate is a guess.
        item.eta_sec = (self.seconds > 1.0 && speed > 0.0).then(|| left / speed);
        item.percent = SENDING_PERCENT * self.sent_bytes as f64 / self.size_bytes.max(1) as f64;
    }
}

fn tell_job(item: &mut UploadItem, job: &Job) {
    item.phase = match job.state {
        JobState::Receiving => UploadPhase::Sending,
        JobState::Queued => UploadPhase::Queued,
        JobState::Splitting => UploadPhase::Splitting,
        JobState::Storing => UploadPhase::Storing,
        // The task says how it ended.
        JobState::Finalizing | JobState::Done | JobState::Failed | JobState::Cancelled => {
            UploadPhase::Finalizing
        }
    };
    let percent = SENDING_PERCENT + job.percent.clamp(0.0, 100.0) * (100.0 - SENDING_PERCENT) / 100.0;
    item.percent = item.percent.max(percent);
    item.speed_bytes_per_sec = job.speed_bytes_per_sec;
    item.eta_sec = job.eta_sec;
    item.note = job.notes.last().cloned();
}

/// How a job ended, once it has.
fn outcome(job: &Job) -> Option<Result<UploadPhase, UiError>> {
    match job.state {
        JobState::Done => Some(Ok(UploadPhase::Done)),
        JobState::Cancelled => Some(Ok(UploadPhase::Cancelled)),
        JobState::Failed => Some(Err(job.problem.clone().map_or_else(without_reason, |problem| {
            vstack_api::ApiError::Refused(Box::new(problem)).into()
        }))),
        _ => None,
    }
}

fn without_reason() -> UiError {
    let next_step = "Try again. If it stays, the uploader's log says more.";
    UiError::new("internal", "The upload failed without saying why.", next_step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> UploadItem {
        UploadItem {
            upload_id: "1".into(),
            file_name: "a.mp4".into(),
            phase: UploadPhase::Queued,
            sent_bytes: 0,
            total_bytes: 1000,
            percent: 0.0,
            speed_bytes_per_sec: 0.0,
            eta_sec: None,
            video_id: None,
            note: None,
            error: None,
        }
    }

    #[test]
    fn the_percentage_of_sending_and_ingest_only_grows() {
        let mut item = item();
        Sent {
            sent_bytes: 500,
            size_bytes: 1000,
            seconds: 2.0,
        }
        .tell(&mut item);
        assert_eq!(
            (item.percent, item.speed_bytes_per_sec, item.eta_sec),
            (15.0, 250.0, Some(2.0))
        );
        Sent {
            sent_bytes: 1000,
            size_bytes: 1000,
            seconds: 4.0,
        }
        .tell(&mut item);
        assert_eq!(item.percent, SENDING_PERCENT);
        let mut job: Job = serde_json::from_value(serde_json::json!({
            "job_id": "j", "video_id": uuid::Uuid::nil(), "title": "t", "state": "storing", "received_bytes": 1000,
            "total_bytes": 1000, "stored_chunks": 1, "stored_bytes": 10, "percent": 50.0, "speed_bytes_per_sec": 1.0,
            "eta_sec": null, "problem": null
        }))
        .unwrap();
        tell_job(&mut item, &job);
        assert_eq!((item.percent, item.phase), (65.0, UploadPhase::Storing));
        job.percent = 10.0;
        tell_job(&mut item, &job);
        assert_eq!(item.percent, 65.0);
        assert!(outcome(&job).is_none());
    }

    #[test]
    fn a_title_is_the_name_without_its_ending() {
        assert_eq!(
            title_of(Path::new("/a/Holiday 2024.part1.mkv")),
            "Holiday 2024.part1"
        );
        assert_eq!(title_of(Path::new(&"x".repeat(300))).len(), MAX_TITLE_CHARS);
    }
}
