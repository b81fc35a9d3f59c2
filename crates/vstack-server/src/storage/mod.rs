//! The storage role: a node that keeps chunks and gives them out again.
//!
//! An HTTP shell around `vstack-store`, with the acceptor's rules of ChunkPaxos in front: a body is hashed while it
//! arrives and appended only when it is what it claims to be; an answer of success means that the bytes survive a power
//! cut; no byte is sent whose checksum was not compared. Everything that touches the disk runs on the blocking pool.
//!
//! The catalogue learns of the node by its heartbeats and need not be there: a node serves without it.

mod buffers;
mod chunks;
mod conditions;
mod counters;
mod damage;
mod egress;
mod heartbeat;
mod inventory;
mod listing;
mod load;
mod prepare;
mod receive;
mod refusals;
mod respond;
mod state;
#[cfg(test)]
mod tests;
mod upkeep;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio_util::sync::CancellationToken;
use tracing::info;
use vstack_api::slack::Weights;
use vstack_api::wire::{DISK_USAGE_HEADER, EGRESS_HEADER, IN_FLIGHT_HEADER, NODE_ID_HEADER, StorageHealth};
use vstack_core::keys::ClusterKey;
use vstack_store::{Reserve, Store, StoreError, StoreOptions};

use crate::accept::Listening;
use crate::connection::ConnectionLimits;
use crate::http::Answer;
use crate::metrics::Metrics;
use crate::platform::{Clock, Platform};
use crate::role::{Running, Site, StartError, listen};
use state::Node;

// What the command line needs to look at a node's folder while no node runs.
pub use vstack_store::{
    BadRange, CheckDepth, Checkup, Damaged, ErrorKind, IndexLine, RecoveryReport,
    StoreOptions as FolderOptions, fsck, read_index,
};

/// How a storage node is started.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// Port 0 picks a free one.
    pub listen: SocketAddr,
    /// The data folder; made if it is missing, its parent must exist.
    pub data: PathBuf,
    pub cluster_key: ClusterKey,
    /// Where heartbeats go; none are sent without it.
    pub metadata_url: Option<String>,
    /// What other machines call this node; where it listens, if not given.
    pub public_url: Option<String>,
    /// What fails together with this node; its host, if not given.
    pub rack: Option<String>,
    /// What this node is to be called; the catalogue numbers it, if not given.
    pub name: Option<String>,
    /// Room on the disk that writes leave alone; 5 % if not given.
    pub reserve_bytes: Option<u64>,
    /// Largest superblock; 1 GiB if not given. Each open one reserves this much of the disk.
    pub superblock_bytes: Option<u64>,
    /// Whether scrub, compaction and index snapshots run.
    pub upkeep: bool,
    /// How often the catalogue is told what is here, after the time at the start.
    pub inventory_period: Duration,
    pub limits: ConnectionLimits,
    pub clock: Clock,
    pub platform: Platform,
    /// What the node sends of chunks at most, in Mbit/s (10^6 bits), those first who need them first; no limit and no
    /// order if not given. To be set a little below what the machine's line carries.
    pub egress_mbit: Option<f64>,
    pub weights: Weights,
}

impl StorageConfig {
    /// A node with the defaults of production.
    #[must_use]
    pub fn new(listen: SocketAddr, data: PathBuf, cluster_key: ClusterKey) -> Self {
        Self {
            listen,
            data,
            cluster_key,
            metadata_url: None,
            public_url: None,
            rack: None,
            name: None,
            reserve_bytes: None,
            superblock_bytes: None,
            upkeep: true,
            inventory_period: inventory::PERIOD,
            limits: ConnectionLimits::default(),
            clock: Clock::default(),
            platform: Platform::default(),
            egress_mbit: None,
            weights: Weights::default(),
        }
    }

    fn broken(&self, reason: &dyn std::fmt::Display) -> StartError {
        StartError::Data {
            path: self.data.display().to_string(),
            reason: reason.to_string(),
        }
    }

    fn store_options(&self) -> StoreOptions {
        let mut options = StoreOptions::default();
        if let Some(bytes) = self.reserve_bytes {
            options.reserve = Reserve::Bytes(bytes);
        }
        if let Some(bytes) = self.superblock_bytes {
            options.superblock_bytes = bytes;
        }
        options
    }
}

/// Opens the data folder and serves it. The first heartbeat is on its way when this returns.
///
/// # Errors
/// The port is taken, or the folder is locked or cannot be opened.
pub async fn start(config: StorageConfig) -> Result<Running, StartError> {
    let (folder, options) = (config.data.clone(), config.store_options());
    let opened = tokio::task::spawn_blocking(move || Store::open(&folder, options)).await;
    let store = match opened.map_err(|panic| config.broken(&panic))? {
        Ok((store, _)) => store,
        Err(StoreError::Locked { path, pid }) => {
            return Err(StartError::Locked {
                path: path.display().to_string(),
                pid,
            });
        }
        Err(error) => return Err(config.broken(&error)),
    };
    let listener = listen(config.listen).await?;
    serve(store, listener, config)
}

/// Serves an open store: what [`start`] does with the folder and the address of its configuration. The first heartbeat
/// is on its way when this returns.
///
/// # Errors
/// The listener was closed, or the system gives no thread for the upkeep.
pub fn serve(store: Store, listener: impl Listening, config: StorageConfig) -> Result<Running, StartError> {
    let address = listener.local_addr().map_err(|error| config.broken(&error))?;
    let url = config
        .public_url
        .clone()
        .unwrap_or_else(|| format!("http://{address}"));
    let node = Arc::new(Node::new(store, url, &config));
    let stop = CancellationToken::new();
    if let Some(catalogue) = node.catalogue.clone() {
        tokio::spawn(heartbeat::run(Arc::clone(&node), catalogue, stop.clone()));
        let telling = inventory::run(Arc::clone(&node), config.inventory_period, stop.clone());
        tokio::spawn(telling);
        tokio::spawn(damage::run(Arc::clone(&node), stop.clone()));
    }
    let upkeep = config
        .upkeep
        .then(|| upkeep::start(&node.store, &node.load, stop.clone()))
        .transpose()
        .map_err(|error| config.broken(&error))?;
    let node_id = node.node_id();
    let (sha256, crc32c) = hash_backends();
    info!(sha256, crc32c, "hashing with");
    let metrics = Metrics::new();
    counters::register(&metrics, &node);
    let site = Site {
        limits: config.limits,
        ..Site::new(routes(node), metrics)
    };
    Running::serve("storage", Some(node_id), listener, site, stop)
        .map(|running| match upkeep {
            Some(ended) => running.closing_with(ended),
            None => running,
        })
        .map_err(|error| config.broken(&error))
}

/// The role's routes. A chunk's id takes the rest of the path, so that a malformed one is told so whatever is in it.
fn routes(node: Arc<Node>) -> Router {
    let chunks = get(chunks::get)
        .put(chunks::put)
        .post(chunks::post)
        .delete(chunks::delete);
    Router::new()
        .route("/chunk/{*rest}", chunks)
        .route("/inventory", post(inventory::order))
        .route("/objects", get(listing::objects))
        .route("/ping", get(ping))
        .route("/health", get(health))
        .with_state(node)
}

async fn ping(State(node): State<Arc<Node>>) -> Response {
    let mut response = ().into_response();
    let values = [
        (NODE_ID_HEADER, node.node_id().to_string()),
        (DISK_USAGE_HEADER, format!("{:.1}", node.disk_used_percent())),
        (IN_FLIGHT_HEADER, node.load.in_flight().to_string()),
        (EGRESS_HEADER, node.load.egress_bps().to_string()),
    ];
    for (name, value) in values {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn health(State(node): State<Arc<Node>>) -> Answer<axum::Json<StorageHealth>> {
    let (stats, (scrub, compaction, quarantined)) = node
        .on_disk(|node| Ok((node.store.stats(), upkeep::reports(node))))
        .await?;
    let identity = node.store.identity();
    let fault = stats.read_only.map(|fault| fault.to_string());
    let read_only_reason = fault.or_else(|| node.shut_out());
    Ok(axum::Json(StorageHealth {
        node_id: identity.node_id,
        name: node.called(),
        disk_usage: stats.disk_used_percent,
        chunk_count: stats.chunk_count,
        uptime: node.uptime_sec(),
        bytes_stored: stats.stored_bytes,
        read_only: read_only_reason.is_some(),
        read_only_reason,
        disk_errors: stats.disk_errors,
        corrupt_count: stats.corrupt_count,
        scrub,
        compaction,
        quarantined,
        incarnation: identity.incarnation,
        boot_epoch: identity.boot_epoch,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }))
}

/// What this processor computes SHA-256 and CRC32C with. Without its own instructions a node is several times slower.
fn hash_backends() -> (&'static str, &'static str) {
    #[cfg(target_arch = "x86_64")]
    {
        let sha256 = match is_x86_feature_detected!("sha") {
            true => "sha-ni",
            false => "software",
        };
        let crc32c = match is_x86_feature_detected!("sse4.2") {
            true => "sse4.2",
            false => "software",
        };
        (sha256, crc32c)
    }
    #[cfg(target_arch = "aarch64")]
    {
        let sha256 = match std::arch::is_aarch64_feature_detected!("sha2") {
            true => "sha2",
            false => "software",
        };
        let crc32c = match std::arch::is_aarch64_feature_detected!("crc") {
            true => "crc",
            false => "software",
        };
        (sha256, crc32c)
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    ("software", "software")
}
