//! Viewers of a bench: each fetches a chunk, checks nothing, waits for the next second, and notes how long it took.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use vstack_api::{Endpoint, StorageClient};
use vstack_core::limits::MAX_CHUNK_BYTES;

use super::Stored;
use super::cluster::Cluster;

const PERIOD: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Nodes that stay for the whole bench.
const SOURCES: usize = 2;

pub(super) struct Viewers {
    stop: CancellationToken,
    running: JoinSet<Vec<f64>>,
}

impl Viewers {
    pub(super) fn start(cluster: &Cluster, stored: &[Stored], count: usize) -> Self {
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        for number in 0..count {
            let urls = cluster.nodes.iter().take(SOURCES).map(|node| node.url.clone());
            let nodes: Vec<StorageClient> = urls
                .map(|url| StorageClient(Endpoint::with_transport(&url, cluster.transport.clone())))
                .collect();
            let (stored, stop) = (stored.to_vec(), stop.clone());
            running.spawn(async move { watch(number, &nodes, &stored, &stop).await });
        }
        Self { stop, running }
    }

    /// Milliseconds that each chunk took, sorted.
    pub(super) async fn end(self) -> Vec<f64> {
        self.stop.cancel();
        let mut took_ms: Vec<f64> = self.running.join_all().await.into_iter().flatten().collect();
        took_ms.sort_by(f64::total_cmp);
        took_ms
    }
}

async fn watch(
    number: usize,
    nodes: &[StorageClient],
    stored: &[Stored],
    stop: &CancellationToken,
) -> Vec<f64> {
    let mut took_ms = Vec::new();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Viewers are at different places of the library.
    for (index, at) in stored.iter().cycle().skip(number * 7).enumerate() {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let Some(node) = nodes.get((number + index) % nodes.len().max(1)) else {
            break;
        };
        let began = Instant::now();
        let Ok(answer) = node.get(at.chunk, Some(at.ballot), None, ANSWER_WITHIN).await else {
            continue;
        };
        if answer.bytes(MAX_CHUNK_BYTES).await.is_ok() {
            took_ms.push(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
    took_ms
}
