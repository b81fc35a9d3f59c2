//! What all roles share: how one starts, says where it listens, and stops.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vstack_api::MetadataClient;
use vstack_api::wire::{Service, ServiceHeartbeat};
use vstack_core::id::NodeId;
use vstack_core::keys::DerivedKey;
use vstack_core::limits::HEARTBEAT_MS;

use crate::accept::{Listening, Server};
use crate::connection::ConnectionLimits;
use crate::http::shell;
use crate::metrics::Metrics;
use crate::process::listener_pid;

/// Open requests get this long to end after a stop was asked for; then their connections are closed.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Tells the metadata role where this one is, for as long as it runs. A change between answered and unanswered is told
/// once.
pub(crate) async fn announce(metadata: MetadataClient, service: Service, key: DerivedKey, url: String) {
    let heartbeat = ServiceHeartbeat::signed(&key, service, url);
    let mut beats = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
    let mut answered = None;
    loop {
        beats.tick().await;
        let result = metadata.service_heartbeat(service, &heartbeat).await;
        if answered != Some(result.is_ok()) {
            match &result {
                Ok(()) => info!("registered with the metadata role"),
                Err(error) => warn!(%error, "the metadata role does not take the heartbeat"),
            }
        }
        answered = Some(result.is_ok());
    }
}

/// Why a role could not start. The process ends with exit code 3.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {cause}{holder}")]
    Listen {
        address: SocketAddr,
        holder: String,
        cause: io::Error,
    },
    #[error("the data folder {path} is in use by process {pid}")]
    Locked { path: String, pid: String },
    #[error("cannot open the data folder {path}: {reason}")]
    Data { path: String, reason: String },
    #[error("{what} is missing; {remedy}")]
    Missing { what: String, remedy: String },
}

/// What a role serves: its routes, which get the shell that all roles share.
#[derive(Debug)]
pub struct Site {
    pub routes: Router,
    pub metrics: Metrics,
    pub limits: ConnectionLimits,
}

impl Site {
    /// With the limits of production.
    #[must_use]
    pub fn new(routes: Router, metrics: Metrics) -> Self {
        Self {
            routes,
            metrics,
            limits: ConnectionLimits::default(),
        }
    }
}

/// A role that listens. Dropping it leaves it running; [`Running::stop`] drains and ends it.
#[derive(Debug)]
pub struct Running {
    pub role: &'static str,
    pub url: String,
    pub node_id: Option<NodeId>,
    stop: CancellationToken,
    cut: CancellationToken,
    server: JoinHandle<()>,
    /// Ends when the role's state is gone, where the role says so.
    closed: Option<oneshot::Receiver<()>>,
}

impl Running {
    /// Serves `site` on `listener` until [`Running::stop`]. `stop` is the token that the role's own background tasks
    /// watch; it is cancelled first.
    ///
    /// # Errors
    /// The listener has no local address (it was closed).
    pub fn serve(
        role: &'static str,
        node_id: Option<NodeId>,
        listener: impl Listening,
        site: Site,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let url = format!("http://{}", listener.local_addr()?);
        info!(role, %url, "listening");
        let cut = CancellationToken::new();
        let server = Server {
            app: shell(site.routes, &site.metrics),
            limits: site.limits,
            metrics: site.metrics,
            stop: stop.clone(),
            cut: cut.clone(),
        };
        Ok(Self {
            role,
            url,
            node_id,
            stop,
            cut,
            server: tokio::spawn(server.run(listener)),
            closed: None,
        })
    }

    /// Makes [`Running::stop`] wait until the other end of `closed` is dropped: the role's state holds it, so that its
    /// files are closed and its locks released when the stop returns.
    #[must_use]
    pub fn closing_with(mut self, closed: oneshot::Receiver<()>) -> Self {
        self.closed = Some(closed);
        self
    }

    /// Stops accepting, lets open requests end for up to 10 s, and returns when the role is down.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(DRAIN_LIMIT, &mut self.server).await.is_err() {
            warn!(
                role = self.role,
                "requests still open after the drain limit, closing them"
            );
            self.cut.cancel();
            // It ends when the connections are dropped; a panic in it was logged by the runtime.
            let _ = self.server.await;
        }
        if let Some(closed) = self.closed
            && tokio::time::timeout(DRAIN_LIMIT, closed).await.is_err()
        {
            warn!(
                role = self.role,
                "the role's state is still in use after the drain limit"
            );
        }
    }
}

/// Lets this process open as many files as the system allows it: each connection and each superblock is one, and many
/// systems begin with 1024.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if current != maximum && setrlimit(Resource::Nofile, raised).is_err() {
        warn!(?current, "the limit of open files cannot be raised");
    }
}

/// Binds `address` (port 0 picks a free one).
///
/// # Errors
/// [`StartError::Listen`], naming the process that holds the port where the system tells.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|cause| {
        let holder = match cause.kind() {
            io::ErrorKind::AddrInUse => port_holder(address.port()).unwrap_or_default(),
            _ => String::new(),
        };
        StartError::Listen {
            address,
            holder,
            cause,
        }
    })
}

/// `; process 1234 (nginx) holds the port`.
fn port_holder(port: u16) -> Option<String> {
    let pid = listener_pid(port)?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("; process {pid} ({}) holds the port", name.trim()))
}
