//! Placing chunks that are cut already: what the role does with each piece of a video, without files and FFmpeg.

use std::sync::Arc;

use bytes::Bytes;
use vstack_api::Problem;
use vstack_api::roles::MetadataClient;
use vstack_core::id::{ChunkId, VideoId};
use vstack_core::manifest::MediaFacts;

use super::UploaderConfig;
use super::catalogue::{Catalogue, Patience};
use super::counts::Counts;
use super::jobs::{JobHandle, Jobs};
use super::place::{ChunkPlacer, NewChunk};

/// Places the chunks of one video. Calls may run side by side; they share their OPEN and COMMIT requests.
#[derive(Debug)]
pub struct ChunkWriter {
    placer: ChunkPlacer,
    job: Arc<JobHandle>,
}

impl ChunkWriter {
    /// For `video`, by the clock, platform and patience of `config`. `job` names the lease: who comes back under the same
    /// name goes on at once, anybody else waits until the lease is over.
    ///
    /// # Panics
    /// Never: a list without jobs takes one.
    #[must_use]
    pub fn new(config: &UploaderConfig, video: VideoId, job: &str) -> Self {
        let platform = &config.platform;
        let transport = Arc::clone(&platform.transport);
        let metadata = MetadataClient::with_transport(&config.metadata_url, transport);
        let patience = Patience {
            longest: config.catalogue_patience,
            chance: platform.chance.clone(),
        };
        let counts = Counts::default();
        let job = Jobs::default().restore(job, video, "", 0, false);
        Self {
            placer: ChunkPlacer::new(
                Catalogue::new(metadata, patience, &counts),
                (config.clock.clone(), platform.clone()),
                config.retry_pauses_ms,
                counts,
            ),
            job: job.expect("no other job is there"),
        }
    }

    /// On return the chunk is durable and its placement decided, by this call or by somebody else with the same bytes.
    /// `true` when it lacks copies.
    ///
    /// # Errors
    /// Too few nodes took it, or the catalogue refused, after all retries.
    pub async fn place(&self, id: ChunkId, bytes: Bytes, media: Option<MediaFacts>) -> Result<bool, Problem> {
        let placed = self
            .placer
            .place(&self.job, NewChunk { id, bytes, media })
            .await?;
        Ok(placed.under_replicated)
    }
}
