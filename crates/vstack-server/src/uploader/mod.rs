//! The uploader role: receives files, turns them into chunks, and places the chunks in the cluster.
//!
//! A file is spooled to disk first (constant memory), then judged, converted by FFmpeg and cut; its chunks go to their
//! nodes while FFmpeg still runs, at most five at once, and FFmpeg waits when they are slow. Every chunk goes through
//! ChunkPaxos. Whatever fails or is cancelled leaves no chunks and no rows; its original is kept for seven days.
//! A job whose file is here outlives its process: the next start goes on with it, and sends no bytes that are stored.
//!
//! Left out: resumable uploads (tus), renditions for further sound tracks, subtitles, storyboards.

mod batch;
mod catalogue;
mod counts;
mod jobs;
mod pipeline;
mod place;
mod receive;
mod routes;
mod spool;
mod work;
mod writer;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vstack_api::roles::MetadataClient;
use vstack_api::wire::Service;
use vstack_core::keys::ClusterKey;
use vstack_core::paxos::proposer::BACKOFF_MS;
use vstack_media::ffmpeg::Tools;

use crate::metrics::Metrics;
use crate::platform::{Clock, Platform};
use crate::role::{Running, Site, StartError, announce, listen};
use catalogue::{Catalogue, Patience};
use counts::Counts;
use pipeline::Pipeline;
use place::ChunkPlacer;
use spool::Spool;
use work::Uploader;

pub use writer::ChunkWriter;

/// FFmpeg processes that convert at the same time; further uploads wait their turn. A transcode takes all cores.
const CONVERSIONS_AT_ONCE: usize = 2;

/// How long an upload waits for a metadata role that does not answer, before it gives up and is taken out of the
/// cluster: somebody has looked after it by then, or nobody will.
const CATALOGUE_PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// How an uploader is set up.
#[derive(Debug, Clone)]
pub struct UploaderConfig {
    pub listen: SocketAddr,
    pub metadata_url: String,
    /// Folder for spooled originals; made when it is not there.
    pub data: PathBuf,
    pub cluster_key: ClusterKey,
    pub tools: Tools,
    pub conversions_at_once: usize,
    /// How long an upload waits for a metadata role that does not answer.
    pub catalogue_patience: Duration,
    /// Pauses before a node that failed is tried for the second, third and fourth time; up to half as much is added.
    pub retry_pauses_ms: [u64; 3],
    pub clock: Clock,
    pub platform: Platform,
}

impl UploaderConfig {
    /// With FFmpeg from PATH and two conversions at once.
    #[must_use]
    pub fn new(listen: SocketAddr, metadata_url: &str, data: PathBuf, cluster_key: ClusterKey) -> Self {
        Self {
            listen,
            metadata_url: metadata_url.to_owned(),
            data,
            cluster_key,
            tools: Tools::default(),
            conversions_at_once: CONVERSIONS_AT_ONCE,
            catalogue_patience: CATALOGUE_PATIENCE,
            retry_pauses_ms: BACKOFF_MS,
            clock: Clock::default(),
            platform: Platform::default(),
        }
    }
}

/// Starts the role. On return it listens; the metadata role hears of it within two seconds.
///
/// # Errors
/// The port is taken, or the data folder cannot be used.
pub async fn start(config: UploaderConfig) -> Result<Running, StartError> {
    let spool = Spool::open(&config.data)?;
    let listener = listen(config.listen).await?;
    let stop = CancellationToken::new();
    let transport = Arc::clone(&config.platform.transport);
    let metadata = MetadataClient::with_transport(&config.metadata_url, transport);
    let patience = Patience {
        longest: config.catalogue_patience,
        chance: config.platform.chance.clone(),
    };
    let (metrics, counts) = (Metrics::new(), Counts::default());
    counts.register(&metrics);
    let placer = ChunkPlacer::new(
        Catalogue::new(metadata.clone(), patience.clone(), &counts),
        (config.clock.clone(), config.platform.clone()),
        config.retry_pauses_ms,
        counts.clone(),
    );
    let pipeline = Pipeline::new(
        config.tools,
        metadata.clone(),
        placer,
        patience,
        config.conversions_at_once,
    );
    let uploader = Uploader::new(
        spool,
        metadata.clone(),
        pipeline,
        counts,
        config.clock,
        stop.clone(),
    );
    let uploader = Arc::new(uploader);
    uploader.take_up_unfinished().await;
    let site = Site::new(routes::routes(Arc::clone(&uploader)), metrics);
    let running = Running::serve("uploader", None, listener, site, stop.clone()).map_err(|cause| {
        StartError::Listen {
            address: config.listen,
            holder: String::new(),
            cause,
        }
    })?;
    let (key, url) = (config.cluster_key.grant_key(), running.url.clone());
    let announcing = announce(metadata, Service::Uploader, key, url);
    tokio::spawn(stop.clone().run_until_cancelled_owned(announcing));
    tokio::spawn(stop.run_until_cancelled_owned(async move { uploader.tidy_for_ever().await }));
    Ok(running)
}

#[cfg(test)]
mod tests;
