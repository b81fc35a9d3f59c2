//! Pings every node each 3 s, and learns of new nodes and new addresses from the catalogue.
//!
//! The first round is awaited, but no longer than 300 ms, so that the first chunk is not asked for blindly. A catalogue
//! that does not answer changes nothing here: the nodes that are known go on being pinged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use vstack_api::{ApiError, StorageClient};
use vstack_core::node_name::order;

use crate::clock::micros;
use crate::cluster::Shared;
use crate::policy::{NodeIndex, NodeLoad};

/// Base policy.
const PING_PERIOD: Duration = Duration::from_secs(3);
/// Base policy.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that start-up waits for pings (contracts, section 8).
const FIRST_ROUND_LIMIT: Duration = Duration::from_millis(300);
/// Rounds between two readings of the list of nodes. A node that moved is also found by the next manifest.
const ROUNDS_BETWEEN_LISTS: u32 = 5;

/// Reads the list of nodes.
pub(crate) async fn read_nodes(shared: &Shared) -> Result<(), ApiError> {
    let mut nodes = shared.catalogue.nodes().await?;
    // By name: the same node has the same place, and so the same colour, in every session.
    nodes.sort_by(|a, b| order(&a.label()).cmp(&order(&b.label())));
    let mut table = shared.nodes();
    let mut news = false;
    for node in nodes {
        news |= table.is_news(node.node_id, &node.node_url);
        if let Some(index) = table.register(node.node_id, &node.node_url) {
            table.name(index, node.name.as_deref());
        }
    }
    drop(table);
    if news {
        shared.nodes_changed.send_replace(());
    }
    Ok(())
}

/// One ping to each node; those that take longer are measured by a later round.
pub(crate) async fn first_round(shared: &Arc<Shared>) {
    let mut pings = JoinSet::new();
    for (index, client) in shared.nodes().clients() {
        pings.spawn(ping(Arc::clone(shared), index, client));
    }
    let all = async { while pings.join_next().await.is_some() {} };
    // A node that is slower than this has no latency yet, scores 0 and is asked last.
    if timeout(FIRST_ROUND_LIMIT, all).await.is_err() {
        tracing::debug!("some nodes did not answer the first ping in time");
    }
}

/// Runs until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut rounds = interval_at(Instant::now() + PING_PERIOD, PING_PERIOD);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut round: u32 = 0;
    let mut pinging = BTreeSet::new();
    let mut pings = JoinSet::new();
    let mut lists = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(done) = pings.join_next() => {
                if let Ok(index) = done {
                    pinging.remove(&index);
                }
            }
            Some(_) = lists.join_next() => {}
            _ = rounds.tick() => {
                round = round.wrapping_add(1);
                for (index, client) in shared.nodes().clients() {
                    if pinging.insert(index) {
                        pings.spawn(ping(Arc::clone(&shared), index, client));
                    }
                }
                if round.is_multiple_of(ROUNDS_BETWEEN_LISTS) && lists.is_empty() {
                    let reading = Arc::clone(&shared);
                    lists.spawn(async move { reread_nodes(&reading).await });
                    let shared = Arc::clone(&shared);
                    lists.spawn_blocking(move || shared.save_history());
                }
            }
        }
    }
}

/// Learns what nodes are called that a manifest named and the list did not yet.
pub(crate) async fn name_newcomers(shared: &Shared) {
    if !shared.nodes().all_named() {
        reread_nodes(shared).await;
    }
}

async fn reread_nodes(shared: &Shared) {
    if let Err(error) = read_nodes(shared).await {
        tracing::debug!(%error, "the list of nodes cannot be read; the known ones stay");
    }
}

async fn ping(shared: Arc<Shared>, index: NodeIndex, client: StorageClient) -> NodeIndex {
    let started = Instant::now();
    let answer = client.ping(PING_TIMEOUT).await;
    let latency = micros(started.elapsed());
    let now = shared.clock.now();
    let mut table = shared.nodes();
    let record = table.records.record_mut(index);
    match answer {
        Ok(pong) => {
            record.ping_answered(now, latency);
            if let (Some(requests_in_flight), Some(egress_bits_per_sec)) =
                (pong.requests_in_flight, pong.egress_bps)
            {
                record.loaded(NodeLoad {
                    requests_in_flight,
                    egress_bits_per_sec,
                });
            }
        }
        Err(_) => record.ping_unanswered(now),
    }
    index
}
