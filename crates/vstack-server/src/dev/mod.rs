//! A whole cluster on loopback: the supervisor behind `vstack dev`.
//!
//! Every role is a process of its own, so that one can be really killed or stopped. The metadata role starts first, the
//! others learn its address; the cluster is ready when every node counts as healthy there. Children end with their
//! parent, however that ends. A child that ends by itself is reported, and started again only when asked for.
//! The folder keeps everything: the same folder started again is the same cluster, at whatever ports.

mod child;
mod folder;
mod state;

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vstack_api::MetadataClient;

pub use child::{ServeReady, die_with_parent};
pub use folder::read_key;
pub use state::{ClusterReady, ClusterState};

use crate::StartError;
use child::{Child, Order};
use folder::Folder;

/// Where a cluster listens unless told otherwise: the metadata role here, the others behind it.
pub const DEFAULT_PORT_BASE: u16 = 7400;
/// Nodes of a development cluster.
pub const DEFAULT_NODES: u16 = 5;
/// More would not fit between the port base of one cluster and the next hundred.
pub const MAX_NODES: u16 = 64;

const UPLOADER_PORT: u16 = 1;
const GATEWAY_PORT: u16 = 2;
const FIRST_NODE_PORT: u16 = 10;
/// From the last child's ready line until all nodes have sent a heartbeat; one comes at once, then every 2 s.
const HEALTHY_WITHIN: Duration = Duration::from_secs(30);
const HEALTH_POLL: Duration = Duration::from_millis(50);
/// A child that ends again and again is not started more often than this.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// What cluster to run.
#[derive(Debug, Clone)]
pub struct DevConfig {
    /// The `vstack` program that the children run.
    pub program: PathBuf,
    pub data: PathBuf,
    pub nodes: u16,
    /// 0 lets the system pick every port.
    pub port_base: u16,
    /// Start a child again that ended by itself.
    pub restart: bool,
}

/// Why the cluster is not there.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{name} did not start: {reason}")]
    Child { name: String, reason: String },
    #[error("only {healthy} of {nodes} nodes are healthy after {waited_s} s; see the logs under {data}")]
    NotReady {
        healthy: usize,
        nodes: usize,
        waited_s: u64,
        data: String,
    },
}

/// A running cluster. Ends with [`DevCluster::stop`]; when it is dropped, its children are killed.
#[derive(Debug)]
pub struct DevCluster {
    config: DevConfig,
    folder: Folder,
    children: Vec<Child>,
    ready: ClusterReady,
}

impl DevCluster {
    /// Starts all roles; returns when every node is healthy and the uploader is known.
    ///
    /// Call it on a thread that lives as long as the process (the main one): the system ends the children when the
    /// thread that started them ends.
    ///
    /// # Errors
    /// The folder is in use or unusable, a role could not start, or the nodes did not become healthy.
    pub async fn start(config: DevConfig) -> Result<Self, DevError> {
        let folder = Folder::open(&config.data)?;
        let metadata = Child::start(metadata_order(&config, &folder)).await?;
        let url = metadata.ready().url.clone();
        let starts = node_orders(&config, &folder, &url)
            .into_iter()
            .chain([
                uploader_order(&config, &folder, &url),
                gateway_order(&config, &folder, &url),
            ])
            .map(Child::start);
        let mut children = vec![metadata];
        children.extend(futures::future::try_join_all(starts).await?);
        let mut cluster = Self {
            ready: ClusterReady::of(&children, &config.data),
            config,
            folder,
            children,
        };
        cluster.until_healthy().await?;
        cluster.note_state()?;
        Ok(cluster)
    }

    /// Addresses and processes, as `vstack dev --json` prints them.
    #[must_use]
    pub const fn ready(&self) -> &ClusterReady {
        &self.ready
    }

    /// Watches the children until `stop` is cancelled: reports those that end, starts them again where configured.
    ///
    /// # Errors
    /// A child could not be started again.
    pub async fn watch(&mut self, stop: &CancellationToken) -> Result<(), DevError> {
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = next_end(&mut self.children) => ended,
            };
            let (index, status) = ended;
            self.after_end(index, status).await?;
        }
    }

    async fn after_end(&mut self, index: usize, status: ExitStatus) -> Result<(), DevError> {
        let Some(child) = self.children.get_mut(index) else {
            return Ok(());
        };
        let name = child.name().to_owned();
        if !self.config.restart {
            warn!(child = %name, %status, "a child ended; it stays down (--restart would start it again)");
            return Ok(());
        }
        warn!(child = %name, %status, "a child ended; starting it again");
        sleep(RESTART_PAUSE).await;
        *child = Child::start(child.order().clone()).await?;
        info!(child = %name, pid = child.ready().pid, "started again");
        self.ready = ClusterReady::of(&self.children, &self.config.data);
        self.note_state()
    }

    /// Asks every child to drain and waits for it; one that does not end is killed. The metadata role ends last: the
    /// others tell it that they are there until they are not.
    pub async fn stop(mut self) {
        let (metadata, others) = self.children.split_at_mut(1);
        for children in [others, metadata] {
            futures::future::join_all(children.iter_mut().map(Child::stop)).await;
        }
        self.folder.forget_state();
    }

    fn note_state(&mut self) -> Result<(), DevError> {
        let state = ClusterState {
            supervisor_pid: std::process::id(),
            cluster: self.ready.clone(),
        };
        Ok(self.folder.write_state(&state)?)
    }

    async fn until_healthy(&mut self) -> Result<(), DevError> {
        let catalogue = MetadataClient::new(&self.ready.metadata_url);
        let deadline = Instant::now() + HEALTHY_WITHIN;
        loop {
            let healthy = self.count_healthy(&catalogue).await;
            let known = self.uploader_is_known(&catalogue).await && self.gateway_is_known(&catalogue).await;
            if healthy == self.ready.storage_urls.len() && known {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(DevError::NotReady {
                    healthy,
                    nodes: self.ready.storage_urls.len(),
                    waited_s: HEALTHY_WITHIN.as_secs(),
                    data: self.config.data.display().to_string(),
                });
            }
            tokio::select! {
                () = sleep(HEALTH_POLL) => {}
                (index, status) = next_end(&mut self.children) => return Err(self.ended_early(index, status)),
            }
        }
    }

    fn ended_early(&self, index: usize, status: ExitStatus) -> DevError {
        let name = self.children.get(index).map_or("a role", Child::name).to_owned();
        DevError::Child {
            name,
            reason: format!("it ended right after its start ({status})"),
        }
    }

    async fn count_healthy(&self, catalogue: &MetadataClient) -> usize {
        let healthy = catalogue.healthy_nodes().await.unwrap_or_default();
        self.ready
            .storage_urls
            .iter()
            .filter(|url| healthy.iter().any(|node| node.node_url == **url))
            .count()
    }

    async fn gateway_is_known(&self, catalogue: &MetadataClient) -> bool {
        catalogue
            .gateway_url()
            .await
            .is_ok_and(|url| url == self.ready.gateway_url)
    }

    async fn uploader_is_known(&self, catalogue: &MetadataClient) -> bool {
        catalogue
            .uploader_url()
            .await
            .is_ok_and(|url| url.as_ref() == Some(&self.ready.uploader_url))
    }
}

fn gateway_order(config: &DevConfig, folder: &Folder, metadata_url: &str) -> Order {
    Order::new(config, folder, "gateway", "gateway", GATEWAY_PORT).knowing(metadata_url)
}

/// Waits for the next child that ends by itself. A cluster whose children have all ended waits for ever.
async fn next_end(children: &mut [Child]) -> (usize, ExitStatus) {
    let ends = children.iter_mut().enumerate().filter(|(_, child)| child.runs());
    let mut ends: Vec<_> = ends
        .map(|(index, child)| Box::pin(async move { (index, child.ended().await) }))
        .collect();
    if ends.is_empty() {
        return std::future::pending().await;
    }
    let (ended, _, _) = futures::future::select_all(ends.drain(..)).await;
    ended
}

fn metadata_order(config: &DevConfig, folder: &Folder) -> Order {
    Order::new(config, folder, "metadata", "metadata", 0)
}

fn node_orders(config: &DevConfig, folder: &Folder, metadata_url: &str) -> Vec<Order> {
    let node = |number: u16| {
        let name = format!("node-{number}");
        Order::new(config, folder, "storage", &name, FIRST_NODE_PORT + number - 1).knowing(metadata_url)
    };
    (1..=config.nodes).map(node).collect()
}

fn uploader_order(config: &DevConfig, folder: &Folder, metadata_url: &str) -> Order {
    Order::new(config, folder, "uploader", "uploader", UPLOADER_PORT).knowing(metadata_url)
}
