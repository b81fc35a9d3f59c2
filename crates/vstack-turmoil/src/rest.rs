//! The watcher: once nothing goes wrong any more, it looks until the cluster is at rest and everything that was
//! acknowledged can be read from every part of its placement, and says what it still waits for.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use vstack_api::client::Endpoint;
use vstack_api::redundancy::RedundancyStatus;
use vstack_api::{ApiError, ErrorCode, MetadataClient, StorageClient, Transport};
use vstack_core::digest::Sha256Digest;
use vstack_core::id::{ChunkId, VideoId};
use vstack_core::limits::{MAX_CHUNK_BYTES, REPLICA_COUNT};
use vstack_core::manifest::{ManifestChunk, ManifestPart};
use vstack_erasure::{Layout, SHARDS, decode};

use crate::shared::{Progress, Shared};
use crate::wire::{Machine, SimTransport};

const LOOK: Duration = Duration::from_secs(2);
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Looks until the cluster is at rest.
pub(crate) async fn watch(shared: Arc<Shared>) -> turmoil::Result {
    let transport: Arc<dyn Transport> = SimTransport::new(Machine::Uploader(0), shared.trace.clone());
    let watcher = Watcher {
        catalogue: MetadataClient::with_transport(&Machine::Catalogue.url(), Arc::clone(&transport)),
        transport,
        shared,
    };
    loop {
        sleep(LOOK).await;
        let restless = watcher.look().await.err();
        let settled = restless.is_none();
        watcher.shared.report_rest(restless);
        if settled {
            return Ok(());
        }
    }
}

struct Watcher {
    shared: Arc<Shared>,
    transport: Arc<dyn Transport>,
    catalogue: MetadataClient,
}

impl Watcher {
    /// `Err` says what is not as it will be.
    async fn look(&self) -> Result<(), String> {
        let videos: Vec<Progress> = (0..self.shared.plan.videos.len())
            .map(|index| self.shared.video(index))
            .collect();
        for (index, video) in videos.iter().enumerate() {
            let plan = &self.shared.plan.videos[index];
            if !video.done || (plan.rival.is_some() && !video.rival_done) {
                return Err(format!("video {index} is still being worked on: {video:?}"));
            }
        }
        let counts = self
            .catalogue
            .consensus()
            .await
            .map_err(|error| error.to_string())?;
        if counts.state.missing_parts > 0 || counts.state.lost_parts > 0 {
            return Err(format!("parts are missing: {:?}", counts.state));
        }
        let status = self
            .catalogue
            .redundancy_status()
            .await
            .map_err(|error| error.to_string())?;
        at_work(&status)?;
        for (index, video) in videos.iter().enumerate() {
            let id = video.id.ok_or("a video without an id is done")?;
            if video.deleted {
                self.check_deleted(id).await?;
            } else {
                self.check_video(index, id).await?;
            }
        }
        Ok(())
    }

    async fn check_deleted(&self, id: VideoId) -> Result<(), String> {
        match self.catalogue.manifest(id).await {
            Err(ApiError::Refused(problem)) if problem.code == ErrorCode::VideoNotFound => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(_) => {
                self.shared.wrong(format!("video {id} was deleted and is there"));
                Ok(())
            }
        }
    }

    async fn check_video(&self, index: usize, id: VideoId) -> Result<(), String> {
        let manifest = self
            .catalogue
            .manifest(id)
            .await
            .map_err(|error| error.to_string())?;
        let erasure = self.shared.plan.videos[index].then.converts();
        let init = manifest.init.as_ref().map(|init| &init.chunk);
        let all: Vec<&ManifestChunk> = init.into_iter().chain(&manifest.chunks).collect();
        if all.len() != self.shared.plan.videos[index].sizes.len() {
            return Err(format!("video {index} has {} chunks", all.len()));
        }
        for chunk in all {
            self.check_chunk(chunk, erasure && chunk.chunk_id != ChunkId::init(id))
                .await?;
        }
        Ok(())
    }

    /// Every part is what the placement says, and together they are what was acknowledged.
    async fn check_chunk(&self, chunk: &ManifestChunk, erasure: bool) -> Result<(), String> {
        let mut parts = chunk.placement.parts.clone();
        parts.sort_by_key(|part| part.shard);
        let wanted = if erasure { SHARDS } else { REPLICA_COUNT };
        if parts.len() != wanted {
            return Err(format!(
                "{} has {} of {wanted} parts",
                chunk.chunk_id,
                parts.len()
            ));
        }
        let mut bytes = Vec::new();
        for part in &parts {
            bytes.push(self.read(chunk.chunk_id, part).await?);
        }
        let whole = match erasure {
            false => bytes.swap_remove(0).to_vec(),
            true => {
                let layout = Layout::new(usize::try_from(chunk.size_bytes).unwrap_or(0));
                // The last three: both parity shards are among them.
                let given = std::array::from_fn(|index| (index >= 2).then(|| &bytes[index][..]));
                decode(layout, given).map_err(|error| error.to_string())?
            }
        };
        let found = Sha256Digest::of(&whole);
        match self.shared.acknowledged().get(&chunk.chunk_id) {
            Some(acknowledged) if *acknowledged == found => {}
            acknowledged => self.shared.wrong(format!(
                "{} reads as {found}, acknowledged was {acknowledged:?}",
                chunk.chunk_id
            )),
        }
        Ok(())
    }

    async fn read(&self, chunk: ChunkId, part: &ManifestPart) -> Result<bytes::Bytes, String> {
        let node = StorageClient(Endpoint::with_transport(
            &part.node_url,
            Arc::clone(&self.transport),
        ));
        let object = part.shard.map_or(Ok(chunk), |shard| chunk.with_shard(shard));
        let object = object.map_err(|error| error.to_string())?;
        let reading = async {
            let answer = node.get(object, Some(part.ballot), None, READ_WITHIN).await?;
            Ok::<_, ApiError>(answer.bytes(MAX_CHUNK_BYTES).await?)
        };
        let read = timeout(READ_WITHIN, reading)
            .await
            .map_err(|_| "a read takes too long".to_owned())?;
        let bytes = read.map_err(|error| format!("{object} on {}: {error}", part.node_url))?;
        if Sha256Digest::of(&bytes) != part.checksum {
            self.shared
                .wrong(format!("{object} on {} has other bytes", part.node_url));
        }
        Ok(bytes)
    }
}

fn at_work(status: &RedundancyStatus) -> Result<(), String> {
    let lacking = status.waiting + status.degraded + status.unreadable;
    if status.data_loss.is_empty() && !status.conversion.active && !status.repair.active && lacking == 0 {
        Ok(())
    } else {
        Err(format!("conversion or repair is at work: {status:?}"))
    }
}
