//! What the role knows of lying nodes, of an operator's wish and of its own speed outlives it.

use std::collections::BTreeSet;

use vstack_api::policy::{DurabilityQuery, SpeedSource};
use vstack_api::redundancy::{BalanceState, RebalanceView, RedundancyChoice};
use vstack_api::wire::NodeAction;
use vstack_core::id::NodeId;
use vstack_emulator::Fault;

use super::cluster::{Cluster, until};
use super::redundancy::{check_readable, converted};

async fn quarantined(cluster: &Cluster) -> BTreeSet<NodeId> {
    let nodes = cluster.catalogue.nodes().await.unwrap();
    let quarantined = nodes.iter().filter(|node| node.quarantined);
    quarantined.map(|node| node.node_id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lied_stays_in_quarantine_when_the_role_restarts_until_it_is_trusted_again() {
    let mut cluster = Cluster::start(4).await;
    let path = cluster.put_behind_path(3).await;
    let liar = cluster.nodes[3].node_id.unwrap();
    let video = cluster.active_video("clip", 12).await;
    let manifest = cluster.catalogue.manifest(video).await.unwrap();
    path.handle.set_faults(vec![Fault::Corrupt { chance: 1.0 }]);
    for chunk in &manifest.chunks {
        if chunk.placement.parts.iter().any(|part| part.node_id == liar) {
            cluster.catalogue.suspect(chunk.chunk_id, liar).await.unwrap();
        }
    }
    path.handle.set_faults(Vec::new());
    let liars = BTreeSet::from([liar]);
    assert_eq!(quarantined(&cluster).await, liars);
    let cluster = cluster.restarted(async |_| {}).await;
    assert_eq!(quarantined(&cluster).await, liars);
    cluster
        .catalogue
        .change_node(liar, NodeAction::Readopt, false)
        .await
        .unwrap();
    assert_eq!(quarantined(&cluster).await, BTreeSet::new());
    let cluster = cluster.restarted(async |_| {}).await;
    assert_eq!(quarantined(&cluster).await, BTreeSet::new());
    cluster.stop().await;
}

/// A cluster with a node that is empty and may take parts.
async fn uneven() -> Cluster {
    let mut cluster = Cluster::start(3).await;
    cluster.active_video("clip", 12).await;
    cluster.start_node(3).await;
    cluster.until_healthy(4).await;
    until("there is something to move", async || {
        rebalance(&cluster).await.moves > 1
    })
    .await;
    cluster
}

async fn rebalance(cluster: &Cluster) -> RebalanceView {
    cluster.catalogue.rebalance().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_evened_out_to_the_end_though_the_role_restarts_in_the_middle() {
    let cluster = uneven().await;
    cluster.catalogue.apply_rebalance().await.unwrap();
    let cluster = cluster.restarted(async |_| {}).await;
    until("the nodes are even", async || {
        let view = rebalance(&cluster).await;
        view.state == BalanceState::Idle && view.moves == 0
    })
    .await;
    let newcomer = cluster.nodes[3].node_id.unwrap();
    assert!(cluster.catalogue.node(newcomer).await.unwrap().parts > 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_outlives_the_role() {
    let cluster = uneven().await;
    cluster.catalogue.apply_rebalance().await.unwrap();
    let paused = cluster.catalogue.pause_rebalance().await.unwrap();
    assert_eq!(paused.state, BalanceState::Paused);
    let cluster = cluster.restarted(async |_| {}).await;
    until("what is left to move is seen", async || {
        rebalance(&cluster).await.moves > 0
    })
    .await;
    let view = rebalance(&cluster).await;
    assert_eq!((view.state, view.work.active), (BalanceState::Paused, false));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durability_rests_on_what_was_measured_before_the_role_restarted() {
    let cluster = Cluster::start(5).await;
    let basis = async |cluster: &Cluster| {
        let report = cluster.catalogue.durability(DurabilityQuery::default()).await;
        report.unwrap().repair
    };
    let assumed = basis(&cluster).await;
    assert_eq!(assumed.speed_source, SpeedSource::Assumed);
    let video = cluster.active_video("clip", 3).await;
    converted(&cluster, video, RedundancyChoice::Erasure).await;
    let measured = basis(&cluster).await;
    assert_eq!(measured.speed_source, SpeedSource::Conversions);
    let cluster = cluster.restarted(async |_| {}).await;
    assert_eq!(basis(&cluster).await, measured);
    check_readable(&cluster, video).await;
    cluster.stop().await;
}
