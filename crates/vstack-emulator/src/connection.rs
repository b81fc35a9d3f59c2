//! Connections of one path: taken, carried, and ended as the path's faults say.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::gate::wait_until_open;
use crate::http::{Answers, Asked, RequestScan};
use crate::path::{Line, Path};
use crate::pipe::{Over, down, up};

pub(crate) async fn accept(listener: TcpListener, upstream: SocketAddr, path: Arc<Path>, seed: u64) {
    let mut connections = JoinSet::new();
    let mut seeds = StdRng::seed_from_u64(seed);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let random = StdRng::from_rng(&mut seeds);
                    connections.spawn(connection(client, upstream, Arc::clone(&path), random));
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

async fn connection(mut client: TcpStream, upstream: SocketAddr, path: Arc<Path>, random: StdRng) {
    let _counted = Counted::new(Arc::clone(&path));
    let mut until_cut = path.doors.subscribe();
    let outcome = tokio::select! {
        biased;
        _ = until_cut.wait_for(|doors| doors.cut) => Err(Over::Broken(io::ErrorKind::ConnectionReset.into())),
        outcome = carry(&mut client, upstream, &path, random) => outcome,
    };
    if let Err(Over::Broken(error)) = outcome {
        tracing::debug!(%error, "a connection through the emulator ended");
        // Closing with unsent data would look like a normal end to the client; a reset does not.
        let _ = client.set_zero_linger();
    }
}

async fn carry(
    client: &mut TcpStream,
    upstream: SocketAddr,
    path: &Path,
    mut random: StdRng,
) -> Result<(), Over> {
    wait_until_open(&mut path.doors.subscribe(), Line::Up).await;
    let mut node = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    node.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_node, to_node) = node.split();
    let asked = Asked::default();
    let mut fork = || StdRng::from_rng(&mut random);
    let (scan, answers) = (RequestScan::new(asked.clone()), Answers::new(asked, fork()));
    let up = up(from_client, to_node, path, scan, fork());
    let down = down(from_node, to_client, path, answers, fork());
    tokio::try_join!(up, down).map(|_| ())
}

/// Counts a connection while it is open.
struct Counted(Arc<Path>);

impl Counted {
    fn new(path: Arc<Path>) -> Self {
        path.connections.fetch_add(1, Ordering::Relaxed);
        Self(path)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
