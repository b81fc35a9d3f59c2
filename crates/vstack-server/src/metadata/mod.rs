//! The metadata role: the library, the manifests, the nodes, and the catalogue's side of ChunkPaxos over HTTP.
//!
//! The rules are in `vstack-core`, the rows in `vstack-meta`; here are signatures, the choice of nodes, and requests.
//! Nothing here is state that a restart may lose, except which uploaders were heard of lately. Beside the requests it
//! collects garbage, writes catalogue objects, makes backups, checks its file at night, and catches up after a restore.

mod abandoned;
mod announced;
mod backups;
mod care;
mod catch_up;
mod collect;
mod consensus;
mod counts;
mod events;
mod fetch;
mod finalize;
mod input;
mod inventory;
mod manifest;
mod manifests;
mod nodes;
mod objects;
mod offline;
mod placement;
mod plain;
mod problem;
mod redundancy;
mod services;
mod state;
#[cfg(test)]
mod tests;
mod videos;

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use rustix::fs::{FlockOperation, flock};
use tokio_util::sync::CancellationToken;
use tracing::info;
use vstack_core::keys::ClusterKey;
use vstack_core::limits::VIEW_HALF_LIFE_MS;
use vstack_meta::{MetaStore as _, Remembered, SqliteMetaStore};

pub use crate::platform::Clock;
pub use catch_up::CaughtUp;
pub use offline::{OfflineError, Rebuilt, Restored, check, rebuild, restore, role_folder};
pub use redundancy::RedundancySettings;

use crate::accept::Listening;
use crate::metrics::Metrics;
use crate::platform::{Platform, Threads};
use crate::role::{Running, Site, StartError, listen};
use state::{Metadata, Settings};

/// The catalogue's file in the role's folder.
const CATALOGUE: &str = "catalogue.db";
const LOCK: &str = "LOCK";
const BACKUPS: &str = "backups";

/// How to run the role.
#[derive(Debug, Clone)]
pub struct MetadataConfig {
    pub listen: SocketAddr,
    /// The role's own folder; made if it is not there.
    pub data: PathBuf,
    pub key: ClusterKey,
    pub clock: Clock,
    /// After this long a view counts half.
    pub view_half_life_ms: u64,
    /// How often the catalogue is backed up into its folder `backups`.
    pub backup_every: Duration,
    /// The newest so many stay.
    pub backups_kept: usize,
    /// How often it looks for uploads that nobody finishes; what two looks find is removed.
    pub abandoned_every: Duration,
    /// When videos are converted and parts replaced.
    pub redundancy: RedundancySettings,
    pub platform: Platform,
}

/// Backups that stay: two days by the hour.
const BACKUPS_KEPT: usize = 48;
const HOUR: Duration = Duration::from_secs(3_600);

impl MetadataConfig {
    /// The role at `listen` with its catalogue in `data`, by the system's clock.
    #[must_use]
    pub fn new(listen: SocketAddr, data: PathBuf, key: ClusterKey) -> Self {
        Self {
            listen,
            data,
            key,
            clock: Clock::default(),
            view_half_life_ms: VIEW_HALF_LIFE_MS,
            backup_every: HOUR,
            backups_kept: BACKUPS_KEPT,
            abandoned_every: 24 * HOUR,
            redundancy: RedundancySettings::default(),
            platform: Platform::default(),
        }
    }
}

/// Starts the role. On return it listens, and its generation is durable.
///
/// # Errors
/// The folder is in use or unusable, the catalogue is damaged or of a newer version, or the address is taken.
pub async fn start(config: MetadataConfig) -> Result<Running, StartError> {
    let catalogue = open(&config).await?;
    let listener = listen(config.listen).await?;
    serve(catalogue, listener, config)
}

/// The same on a listener that is there already.
///
/// # Errors
/// As [`start`].
pub async fn start_on(listener: impl Listening, config: MetadataConfig) -> Result<Running, StartError> {
    serve(open(&config).await?, listener, config)
}

/// A catalogue that is this process's.
struct Catalogue {
    store: SqliteMetaStore,
    remembered: Remembered,
    lock: File,
    /// It is too large to have been checked.
    unchecked: bool,
}

async fn open(config: &MetadataConfig) -> Result<Catalogue, StartError> {
    let lock = lock_folder(&config.data)?;
    let path = config.data.join(CATALOGUE);
    let unchecked = SqliteMetaStore::is_large(&path);
    let threads = config.platform.threads;
    let opened = threads.run(move || match threads {
        Threads::Pool => SqliteMetaStore::open(&path),
        Threads::Caller => SqliteMetaStore::open_on_caller(&path),
    });
    let store = match opened.await {
        Ok(store) => store.map_err(|error| unusable(&config.data, &error))?,
        Err(error) => return Err(unusable(&config.data, &error)),
    };
    let remembered = store.remembered().await;
    let remembered = remembered.map_err(|error| unusable(&config.data, &error))?;
    info!(generation = store.generation(), data = %config.data.display(), "catalogue opened");
    Ok(Catalogue {
        store,
        remembered,
        lock,
        unchecked,
    })
}

fn serve(
    catalogue: Catalogue,
    listener: impl Listening,
    config: MetadataConfig,
) -> Result<Running, StartError> {
    let Catalogue {
        store,
        remembered,
        lock,
        unchecked,
    } = catalogue;
    let stop = CancellationToken::new();
    let settings = Settings {
        view_half_life_ms: config.view_half_life_ms,
        backups: config.data.join(BACKUPS),
        backup_every: config.backup_every,
        backups_kept: config.backups_kept,
        abandoned_every: config.abandoned_every,
        redundancy: config.redundancy,
    };
    let (metadata, closed) = Metadata::new(
        (Arc::new(store), &remembered),
        config.key,
        (config.clock, config.platform),
        settings,
        lock,
    );
    let metadata = Arc::new(metadata);
    tokio::spawn(collect::run(metadata.clone(), stop.clone()));
    tokio::spawn(nodes::judge(metadata.clone(), stop.clone()));
    tokio::spawn(objects::run(metadata.clone(), stop.clone()));
    tokio::spawn(catch_up::run(metadata.clone(), stop.clone()));
    tokio::spawn(backups::run(metadata.clone(), stop.clone()));
    tokio::spawn(abandoned::run(metadata.clone(), stop.clone()));
    tokio::spawn(care::run(metadata.clone(), unchecked, stop.clone()));
    tokio::spawn(redundancy::convert_for_ever(metadata.clone(), stop.clone()));
    tokio::spawn(redundancy::heal_for_ever(metadata.clone(), stop.clone()));
    tokio::spawn(redundancy::compare_for_ever(metadata.clone(), stop.clone()));
    tokio::spawn(redundancy::balance_for_ever(metadata.clone(), stop.clone()));
    let address = config.listen;
    let metrics = Metrics::new();
    metadata.counts.register(&metrics);
    let site = Site::new(routes(metadata, stop.clone()), metrics);
    let running = Running::serve("metadata", None, listener, site, stop);
    running
        .map(|running| running.closing_with(closed))
        .map_err(|cause| StartError::Listen {
            address,
            holder: String::new(),
            cause,
        })
}

fn routes(metadata: Arc<Metadata>, stop: CancellationToken) -> Router {
    // A listener must not keep a stopping role waiting.
    let stopping = stop.clone();
    let listen = |State(metadata): State<Arc<Metadata>>| async move { metadata.events.listen(&stop) };
    let follow =
        |State(metadata): State<Arc<Metadata>>| async move { redundancy::listen(metadata, &stopping) };
    Router::new()
        .route("/video", get(videos::list).post(videos::create))
        .route(
            "/video/{video_id}",
            get(videos::show).patch(videos::rename).delete(videos::delete),
        )
        .route("/video/{video_id}/finalize", post(finalize::finalize))
        .route("/video/{video_id}/abort", post(videos::abort))
        .route("/video/{video_id}/view", post(videos::view))
        .route(
            "/video/{video_id}/redundancy",
            get(redundancy::show).put(redundancy::set),
        )
        .route("/video/{video_id}/policy", get(redundancy::explain))
        .route("/redundancy", get(redundancy::status))
        .route("/policy", get(redundancy::report))
        .route("/durability", get(redundancy::durability))
        .route("/redundancy/events", get(follow))
        .route("/rebalance", get(redundancy::show_balance))
        .route("/rebalance/apply", post(redundancy::apply_balance))
        .route("/rebalance/pause", post(redundancy::pause_balance))
        .route("/manifest/{video_id}", get(manifest::show))
        .route("/chunk/{chunk_id}/commit", post(plain::commit))
        .route("/consensus", get(counts::show))
        .route("/consensus/events", get(listen))
        .route("/consensus/open", post(consensus::open))
        .route("/consensus/commit", post(consensus::commit))
        .route("/nodes", get(nodes::all))
        .route("/nodes/healthy", get(nodes::healthy))
        .route("/nodes/{node_id}", get(nodes::show))
        .route("/nodes/{node_id}/heartbeat", post(nodes::heartbeat))
        .route("/nodes/{node_id}/inventory", post(inventory::page))
        .route("/nodes/{node_id}/inventory/details", post(inventory::details))
        .route("/nodes/{node_id}/{action}", post(nodes::change))
        .route("/backup", post(backups::create))
        .route("/backup/{name}", get(backups::fetch))
        .route("/chunk/{chunk_id}/suspect", post(redundancy::suspect))
        .route("/under-replicated", get(nodes::under_replicated))
        .merge(services::routes())
        .with_state(metadata)
}

/// Holds the folder for this process; the lock ends with it.
fn lock_folder(data: &Path) -> Result<File, StartError> {
    fs::create_dir_all(data).map_err(|error| unusable(data, &error))?;
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(data.join(LOCK));
    let mut file = opened.map_err(|error| unusable(data, &error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid)
                .map_err(|error| unusable(data, &error))?;
            return Err(StartError::Locked {
                path: data.display().to_string(),
                pid: pid.trim().to_owned(),
            });
        }
        Err(error) => return Err(unusable(data, &error)),
    }
    let noted = file.set_len(0).and_then(|()| file.rewind());
    noted
        .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()))
        .map_err(|error| unusable(data, &error))?;
    Ok(file)
}

fn unusable(data: &Path, reason: &dyn std::fmt::Display) -> StartError {
    StartError::Data {
        path: data.display().to_string(),
        reason: reason.to_string(),
    }
}
