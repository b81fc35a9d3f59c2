//! A network path to put in front of a node, since nothing below HTTP can be slowed down on every machine.
//!
//! A TCP proxy with one bandwidth limit for each direction, shared by all its connections as a real line is, an added
//! delay, and two switches: *freeze* (connections stay open and nothing moves, as with a stopped process or a lost
//! route) and *cut* (connections are reset and new ones refused, as with a killed process). It knows no HTTP.

mod path;
mod pipe;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use path::{Line, Path, Switch};
use pipe::pipe;

/// What the path is like. The default is no limit and no delay.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// From the node to its clients, in Mbit/s (10^6 bits); `None` for no limit.
    pub down_mbps: Option<f64>,
    /// From clients to the node.
    pub up_mbps: Option<f64>,
    /// Added in each direction; a round trip takes twice as long.
    pub delay_ms: u64,
}

/// A path could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    #[error("cannot listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: io::Error },
}

/// Starts paths.
#[derive(Debug, Clone, Copy)]
pub struct Emulator;

/// A running path. It ends, with all its connections, when this is dropped.
#[derive(Debug)]
pub struct Emulated {
    /// What clients connect to.
    pub addr: SocketAddr,
    pub handle: Handle,
    _task: DropGuard,
}

impl Emulated {
    /// What clients connect to, as the base of URLs.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

/// Changes a path while it runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    path: Arc<Path>,
    switch: watch::Sender<Switch>,
}

impl Emulator {
    /// A path on a free loopback port to the node at `upstream`.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(upstream: SocketAddr, profile: Profile) -> Result<Emulated, EmulatorError> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), upstream, profile).await
    }

    /// A path from `listen` to the node at `upstream`.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn start_on(
        listen: SocketAddr,
        upstream: SocketAddr,
        profile: Profile,
    ) -> Result<Emulated, EmulatorError> {
        let refused = |source| EmulatorError::Listen { addr: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;
        let path = Arc::new(Path::new(profile));
        let (switch, position) = watch::channel(Switch::Open);
        let stop = CancellationToken::new();
        let accepting = accept(listener, upstream, Arc::clone(&path), position);
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(accepting).await });
        Ok(Emulated {
            addr,
            handle: Handle { path, switch },
            _task: stop.drop_guard(),
        })
    }
}

impl Handle {
    /// Changes limits and delay, for bytes that are not on their way yet.
    pub fn set_profile(&self, profile: Profile) {
        self.path.set_profile(profile);
    }

    /// Nothing moves any more; connections stay open, and new ones are taken and stay silent.
    pub fn freeze(&self) {
        self.switch.send_replace(Switch::Frozen);
    }

    /// Resets all connections, and every new one.
    pub fn cut(&self) {
        self.switch.send_replace(Switch::Cut);
    }

    /// Ends a freeze or a cut. What was frozen goes on where it stopped.
    pub fn restore(&self) {
        self.switch.send_replace(Switch::Open);
    }

    /// Bytes that clients have been sent.
    #[must_use]
    pub fn down_bytes(&self) -> u64 {
        self.path.down.passed_bytes()
    }

    /// Bytes that the node has been sent.
    #[must_use]
    pub fn up_bytes(&self) -> u64 {
        self.path.up.passed_bytes()
    }
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    path: Arc<Path>,
    switch: watch::Receiver<Switch>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(connection(client, upstream, Arc::clone(&path), switch.clone()));
                }
                Err(error) => {
                    // Out of descriptors, most likely; taking a breath lets connections end.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(
    mut client: TcpStream,
    upstream: SocketAddr,
    path: Arc<Path>,
    mut switch: watch::Receiver<Switch>,
) {
    let mut until_cut = switch.clone();
    let carried = async {
        wait_until_open(&mut switch).await;
        carry(&mut client, upstream, &path, &switch).await
    };
    let outcome = tokio::select! {
        outcome = carried => outcome,
        // The sender lives as long as a handle; without one nobody can cut.
        Ok(_) = until_cut.wait_for(|position| *position == Switch::Cut) => Err(io::ErrorKind::ConnectionReset.into()),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection through the emulator ended");
        // Closing with unsent data would look like a normal end to the client; a reset does not.
        let _ = client.set_zero_linger();
    }
}

async fn carry(
    client: &mut TcpStream,
    upstream: SocketAddr,
    path: &Path,
    switch: &watch::Receiver<Switch>,
) -> io::Result<()> {
    let mut node = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    node.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_node, to_node) = node.split();
    let up = pipe(from_client, to_node, path, Line::Up, switch.clone());
    let down = pipe(from_node, to_client, path, Line::Down, switch.clone());
    tokio::try_join!(up, down).map(|_| ())
}

pub(crate) async fn wait_until_open(switch: &mut watch::Receiver<Switch>) {
    // Without a handle the switch stays where it is.
    if switch
        .wait_for(|position| *position == Switch::Open)
        .await
        .is_err()
        && *switch.borrow() != Switch::Open
    {
        std::future::pending::<()>().await;
    }
}
