//! The connection to a cluster: which one, whether it answers, and how its nodes are.
//!
//! One task owns it. It starts a cluster on this computer where none is named, connects, asks the catalogue for the
//! nodes every two seconds, and starts over when its own cluster has ended. Everybody else looks at the newest state or
//! takes the [`Cluster`]. A catalogue that stops answering changes the state only: open videos play on.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vstack_api::UploaderClient;
use vstack_api::wire::NodeEntry;
use vstack_client::{ClientConfig, Cluster, PolicyName};
use vstack_core::node::NodeHealth;

use super::own_cluster::OwnCluster;
use crate::dto::{ClusterPhase, ClusterState, UiError};

/// Period of the nodes' heartbeats: nothing newer is to be learnt by asking more often.
const ASK_EVERY: Duration = Duration::from_secs(2);
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Between two starts of a cluster that fails to run.
const RESTART_AFTER: Duration = Duration::from_secs(5);
/// How long a command of the page waits for a cluster that is still starting.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which cluster to use.
#[derive(Debug, Clone)]
pub(crate) enum Choice {
    /// Of somebody else, by its metadata address.
    Named(String),
    /// Of one's own, with its data here.
    Own(PathBuf),
}

/// Handle to the connection.
#[derive(Debug)]
pub(crate) struct ClusterLink {
    choice: Choice,
    /// By which videos begin that are opened from now on.
    policy: Mutex<PolicyName>,
    /// Where what was measured of nodes is kept.
    history_file: PathBuf,
    state: watch::Sender<ClusterState>,
    cluster: watch::Sender<Option<Cluster>>,
    stop: CancellationToken,
    ended: CancellationToken,
}

impl ClusterLink {
    /// Starts to connect.
    pub(crate) fn start(choice: Choice, policy: PolicyName, history_file: PathBuf) -> Arc<Self> {
        let state = ClusterState {
            phase: ClusterPhase::Starting,
            metadata_url: None,
            healthy: 0,
            total: 0,
            disk_usage_percent: 0.0,
            error: None,
            own_cluster: matches!(choice, Choice::Own(_)),
        };
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let (state, cluster) = (watch::Sender::new(state), watch::Sender::new(None));
        let link = Arc::new(Self {
            choice,
            policy: Mutex::new(policy),
            history_file,
            state,
            cluster,
            stop,
            ended,
        });
        tauri::async_runtime::spawn(Arc::clone(&link).run());
        link
    }

    pub(crate) fn state(&self) -> ClusterState {
        self.state.borrow().clone()
    }

    /// Of videos that are opened from now on.
    pub(crate) fn set_policy(&self, policy: PolicyName) {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
        if let Some(cluster) = self.connected() {
            cluster.set_policy(policy);
        }
    }

    /// The same.
    pub(crate) fn policy(&self) -> PolicyName {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster, where it is connected.
    pub(crate) fn connected(&self) -> Option<Cluster> {
        self.cluster.borrow().clone()
    }

    /// The cluster; waits for one that is starting.
    pub(crate) async fn cluster(&self) -> Result<Cluster, UiError> {
        let mut cluster = self.cluster.subscribe();
        let connected = tokio::time::timeout(PATIENCE, cluster.wait_for(Option::is_some)).await;
        let found = connected
            .ok()
            .and_then(Result::ok)
            .and_then(|cluster| cluster.clone());
        found.ok_or_else(|| self.state().error.unwrap_or_else(not_there))
    }

    /// Where uploads go.
    pub(crate) async fn uploader(&self) -> Result<UploaderClient, UiError> {
        let url = self.cluster().await?.catalogue().uploader_url().await?;
        url.map(|url| UploaderClient::new(&url)).ok_or_else(|| {
            let message = "No uploader belongs to this cluster at the moment.";
            UiError::new("no_uploader", message, "Start one: vstack serve --role uploader")
        })
    }

    /// Ends the connection, and the cluster where it is the player's own. Returns when that is done.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }

    async fn run(self: Arc<Self>) {
        while !self.stop.is_cancelled() {
            match &self.choice {
                Choice::Named(url) => self.follow(url).await,
                Choice::Own(data) => self.run_own(data).await,
            }
        }
        self.ended.cancel();
    }

    async fn run_own(&self, data: &std::path::Path) {
        let started = tokio::select! {
            started = OwnCluster::start(data) => started,
            // Dropping the start kills the child; its roles end with it.
            () = self.stop.cancelled() => return,
        };
        let failure = match started {
            Err(failure) => failure,
            Ok(mut own) => {
                let url = own.metadata_url.clone();
                let ended = tokio::select! {
                    () = self.follow(&url) => None,
                    failure = own.ended() => Some(failure),
                };
                match ended {
                    Some(failure) => failure,
                    None => return own.stop().await,
                }
            }
        };
        self.cluster.send_replace(None);
        self.tell_failure(failure);
        self.pause(RESTART_AFTER).await;
    }

    /// Connects to `url` and watches it until told to stop.
    async fn follow(&self, url: &str) {
        self.state
            .send_modify(|state| state.metadata_url = Some(url.to_owned()));
        let Some(cluster) = self.connect(url).await else {
            return;
        };
        self.cluster.send_replace(Some(cluster.clone()));
        while !self.stop.is_cancelled() {
            match cluster.catalogue().nodes().await {
                Ok(nodes) => self.tell_nodes(&nodes),
                Err(error) => self.tell_failure(error.into()),
            }
            self.pause(ASK_EVERY).await;
        }
        cluster.save_history().await;
    }

    async fn connect(&self, url: &str) -> Option<Cluster> {
        while !self.stop.is_cancelled() {
            let config = ClientConfig {
                policy: self.policy(),
                history_file: Some(self.history_file.clone()),
                ..ClientConfig::new(url)
            };
            match Cluster::connect(config).await {
                Ok(cluster) => return Some(cluster),
                Err(error) => self.tell_failure(error.into()),
            }
            self.pause(RETRY_AFTER).await;
        }
        None
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn tell_nodes(&self, nodes: &[NodeEntry]) {
        let count = |nodes: usize| u32::try_from(nodes).unwrap_or(u32::MAX);
        let healthy = nodes
            .iter()
            .filter(|node| node.status == NodeHealth::Healthy)
            .count();
        let fullest = nodes.iter().map(|node| node.disk_usage).fold(0.0, f64::max);
        self.state.send_if_modified(|state| {
            let before = state.clone();
            state.phase = ClusterPhase::Ready;
            (state.healthy, state.total) = (count(healthy), count(nodes.len()));
            (state.disk_usage_percent, state.error) = (fullest, None);
            *state != before
        });
    }

    fn tell_failure(&self, failure: UiError) {
        tracing::warn!(
            code = failure.code,
            message = failure.message,
            "the cluster cannot be used"
        );
        self.state.send_if_modified(|state| {
            let before = state.clone();
            state.phase = ClusterPhase::Unreachable;
            state.error = Some(failure);
            *state != before
        });
    }
}

fn not_there() -> UiError {
    let next_step = "Wait a moment; the start takes longer after a crash.";
    UiError::new("starting", "The cluster is still starting.", next_step)
}
