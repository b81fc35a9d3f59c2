//! The uploaders: they bring videos in by the real ChunkPaxos driver, and convert and delete them. An uploader that was
//! killed goes on where the cluster is.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio::time::sleep;
use vstack_api::client::ApiError;
use vstack_api::redundancy::RedundancyChoice;
use vstack_api::wire::Finalize;
use vstack_api::{ErrorCode, MetadataClient};
use vstack_core::digest::Sha256Digest;
use vstack_core::id::{ChunkId, VideoId};
use vstack_core::limits::UPLOAD_CHUNKS_IN_FLIGHT;
use vstack_core::manifest::{Container, MediaFacts, VideoStatus};
use vstack_server::metadata::Clock;
use vstack_server::platform::Platform;
use vstack_server::uploader::{ChunkWriter, UploaderConfig};

use crate::plan::VideoPlan;
use crate::shared::{Shared, now};
use crate::wire::Machine;

/// Between two tries of a call that was refused or not answered.
const AGAIN: Duration = Duration::from_millis(700);
/// How long a chunk waits for a silent catalogue before the upload is told; then it is tried again.
const PATIENCE: Duration = Duration::from_secs(20);

/// One life of an uploader.
pub(crate) async fn uploader(shared: Arc<Shared>, number: u8) -> turmoil::Result {
    let machine = Machine::Uploader(number);
    let platform = shared.platform(machine);
    let work = (0..shared.plan.videos.len()).filter_map(|index| {
        let video = shared.plan.videos.get(index)?;
        let rival = video.rival == Some(number);
        (rival || video.uploader == number).then(|| Work {
            shared: Arc::clone(&shared),
            index,
            plan: video.clone(),
            rival,
            catalogue: catalogue(&platform),
            config: config(&platform),
        })
    });
    stream::iter(work)
        .map(Work::run)
        .buffer_unordered(usize::MAX)
        .collect::<Vec<()>>()
        .await;
    Ok(())
}

fn catalogue(platform: &Platform) -> MetadataClient {
    MetadataClient::with_transport(&Machine::Catalogue.url(), Arc::clone(&platform.transport))
}

fn config(platform: &Platform) -> UploaderConfig {
    let nowhere = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    UploaderConfig {
        catalogue_patience: PATIENCE,
        clock: Clock::showing(now),
        platform: platform.clone(),
        ..UploaderConfig::new(
            nowhere,
            &Machine::Catalogue.url(),
            "/uploader".into(),
            Shared::key(),
        )
    }
}

/// One video on one uploader.
struct Work {
    shared: Arc<Shared>,
    index: usize,
    plan: VideoPlan,
    rival: bool,
    catalogue: MetadataClient,
    config: UploaderConfig,
}

impl Work {
    async fn run(self) {
        if self.rival {
            let video = self.until_created().await;
            self.place_all(video).await;
            self.shared
                .change_video(self.index, |video| video.rival_done = true);
            return;
        }
        let video = self.create().await;
        if !self.shared.video(self.index).active {
            self.place_all(video).await;
            self.finalize(video).await;
        }
        if self.plan.then.converts() {
            self.pin(video).await;
        }
        if self.plan.then.deletes() {
            self.delete(video).await;
        }
        self.shared.change_video(self.index, |video| video.done = true);
    }

    async fn until_created(&self) -> VideoId {
        loop {
            if let Some(video) = self.shared.video(self.index).id {
                return video;
            }
            sleep(AGAIN).await;
        }
    }

    async fn create(&self) -> VideoId {
        if let Some(video) = self.shared.video(self.index).id {
            return video;
        }
        loop {
            match self
                .catalogue
                .create_video(&format!("video {}", self.index), 0.0)
                .await
            {
                Ok(created) => {
                    self.shared
                        .change_video(self.index, |video| video.id = Some(created.video_id));
                    return created.video_id;
                }
                Err(_) => sleep(AGAIN).await,
            }
        }
    }

    async fn place_all(&self, video: VideoId) {
        let whose = if self.rival { "rival" } else { "upload" };
        let writer = ChunkWriter::new(&self.config, video, &format!("{whose} {}", self.index));
        stream::iter(0..self.plan.sizes.len())
            .map(|seq| self.place(&writer, video, seq))
            .buffer_unordered(UPLOAD_CHUNKS_IN_FLIGHT)
            .collect::<Vec<()>>()
            .await;
    }

    /// Until it is stored, or the catalogue says that it never will be.
    async fn place(&self, writer: &ChunkWriter, video: VideoId, seq: usize) {
        let bytes = self.shared.bytes(self.index, seq, self.rival);
        let (chunk, media) = chunk_of(video, seq);
        loop {
            match writer.place(chunk, bytes.clone(), media.clone()).await {
                Ok(_) => {
                    self.shared.acknowledge(chunk, Sha256Digest::of(&bytes));
                    return;
                }
                Err(problem) if self.may_fail(problem.code) => {
                    self.shared
                        .trace
                        .note(|| format!("{chunk} is not this upload's: {problem}"));
                    return;
                }
                Err(problem) => {
                    self.shared
                        .trace
                        .note(|| format!("{chunk} was not stored: {problem}"));
                    if !is_passing(problem.code) {
                        self.shared
                            .wrong(format!("{chunk} was refused for ever: {problem}"));
                        return;
                    }
                    sleep(AGAIN).await;
                }
            }
        }
    }

    /// Two who bring different bytes cannot both have them stored, and a video may be deleted meanwhile.
    fn may_fail(&self, code: ErrorCode) -> bool {
        match code {
            ErrorCode::Conflict => self.plan.rival.is_some(),
            ErrorCode::VideoNotFound | ErrorCode::ChunkDeleted => self.rival && self.plan.then.deletes(),
            // The video is complete: what comes now is refused.
            ErrorCode::Committed => self.rival,
            _ => false,
        }
    }

    async fn finalize(&self, video: VideoId) {
        let total = u32::try_from(self.plan.sizes.len() - 1).unwrap_or(u32::MAX);
        let body = Finalize {
            total_chunks: total,
            duration_ms: u64::from(total) * CHUNK_MS,
            container: Container::Fmp4,
            codecs: "avc1.640028".into(),
            tracks: Vec::new(),
        };
        loop {
            match self.catalogue.finalize(video, &body).await {
                Ok(entry) if entry.status == VideoStatus::Active => break,
                Ok(entry) => self
                    .shared
                    .wrong(format!("a finalized video is {:?}", entry.status)),
                Err(error) => self.shared.trace.note(|| format!("not finalized: {error}")),
            }
            sleep(AGAIN).await;
        }
        self.shared.change_video(self.index, |video| video.active = true);
    }

    async fn pin(&self, video: VideoId) {
        if self.shared.video(self.index).pinned {
            return;
        }
        while let Err(error) = self
            .catalogue
            .set_redundancy(video, RedundancyChoice::Erasure)
            .await
        {
            self.shared.trace.note(|| format!("not pinned: {error}"));
            sleep(AGAIN).await;
        }
        self.shared.change_video(self.index, |video| video.pinned = true);
    }

    async fn delete(&self, video: VideoId) {
        self.shared
            .change_video(self.index, |video| video.deleting = true);
        loop {
            match self.catalogue.delete_video(video).await {
                Ok(()) => break,
                // Its first answer was lost.
                Err(ApiError::Refused(problem)) if problem.code == ErrorCode::VideoNotFound => break,
                Err(error) => self.shared.trace.note(|| format!("not deleted: {error}")),
            }
            sleep(AGAIN).await;
        }
        self.shared.change_video(self.index, |video| video.deleted = true);
    }
}

const CHUNK_MS: u64 = 10_000;

/// The first one is the init segment.
fn chunk_of(video: VideoId, seq: usize) -> (ChunkId, Option<MediaFacts>) {
    match u32::try_from(seq).unwrap_or(u32::MAX).checked_sub(1) {
        None => (ChunkId::init(video), None),
        Some(seq) => {
            let start_ms = u64::from(seq) * CHUNK_MS;
            let facts = MediaFacts {
                start_ms,
                duration_ms: CHUNK_MS,
                keyframes_ms: vec![start_ms],
                fragments: Vec::new(),
            };
            (ChunkId::media(video, seq), Some(facts))
        }
    }
}

/// What better times cure.
const fn is_passing(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Unavailable
            | ErrorCode::Unreachable
            | ErrorCode::TimedOut
            | ErrorCode::NotEnoughNodes
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::Locked
            | ErrorCode::Fenced
    )
}
