//! Conversion and repair on a real cluster: what readers get, where parts end up, and what is said about it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use vstack_api::ErrorCode;
use vstack_api::redundancy::{BalanceState, PartWord, RedundancyChoice};
use vstack_api::wire::NodeAction;
use vstack_client::ClientConfig;
use vstack_core::id::{ChunkId, NodeId, VideoId};
use vstack_core::manifest::{ManifestChunk, Redundancy};
use vstack_core::paxos::DeleteOrder;

use super::cluster::{Cluster, code, key, until, until_within};
use crate::gateway::{self, GatewayConfig};
use crate::metadata::{RedundancySettings, check};
use crate::role::Running;

pub(super) async fn converted(cluster: &Cluster, video: VideoId, to: RedundancyChoice) {
    converted_within(Duration::from_secs(30), cluster, video, to).await;
}

pub(super) async fn converted_within(
    deadline: Duration,
    cluster: &Cluster,
    video: VideoId,
    to: RedundancyChoice,
) {
    cluster.catalogue.set_redundancy(video, to).await.unwrap();
    until_within(deadline, "the video is converted", async || {
        let view = cluster.catalogue.redundancy(video).await.unwrap();
        let status = cluster.catalogue.redundancy_status().await.unwrap();
        view.mode == to.as_str() && !status.conversion.active
    })
    .await;
}

/// A gateway that the catalogue names.
pub(super) async fn start_gateway(cluster: &Cluster) -> Running {
    let gateway = gateway::start(GatewayConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        metadata_url: cluster.metadata.url.clone(),
        cluster_key: key(),
    })
    .await
    .unwrap();
    until("the gateway is known", async || {
        cluster.catalogue.gateway_url().await.unwrap().is_some()
    })
    .await;
    gateway
}

/// The nodes of a chunk's good parts.
pub(super) async fn good_nodes(cluster: &Cluster, chunk: ChunkId) -> BTreeSet<NodeId> {
    let view = cluster.catalogue.redundancy(chunk.video()).await.unwrap();
    let places = view.map.iter().find(|places| places.chunk_id == chunk).unwrap();
    let good = places.parts.iter().filter(|part| part.state == PartWord::Good);
    good.map(|part| part.node_id).collect()
}

/// A new client that knows nothing plays every chunk.
pub(super) async fn check_readable(cluster: &Cluster, video: VideoId) {
    check_reads(cluster, video, |chunk| chunk.to_string().into_bytes()).await;
}

async fn check_reads(cluster: &Cluster, video: VideoId, bytes_of: impl Fn(ChunkId) -> Vec<u8>) {
    let client = vstack_client::Cluster::connect(ClientConfig::new(&cluster.metadata.url))
        .await
        .unwrap();
    let session = client.open(video).await.unwrap();
    for seq in 0..session.chunk_count() {
        let bytes = session.chunk(seq).await.unwrap();
        assert!(bytes == bytes_of(ChunkId::media(video, seq)), "chunk {seq}");
    }
}

fn is_coded(chunk: &ManifestChunk) -> bool {
    matches!(&chunk.redundancy, Redundancy::Erasure { shards, .. } if shards.len() == 5)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_video_becomes_five_shards_and_any_two_nodes_may_go() {
    let mut cluster = Cluster::start(5).await;
    let video = cluster.active_video("clip", 3).await;
    let gateway = start_gateway(&cluster).await;
    converted(&cluster, video, RedundancyChoice::Erasure).await;
    let manifest = cluster.catalogue.manifest(video).await.unwrap();
    for chunk in &manifest.chunks {
        assert!(is_coded(chunk), "{chunk:?}");
        assert_eq!(chunk.replicas, [gateway.url.as_str()]);
        assert_eq!(good_nodes(&cluster, chunk.chunk_id).await.len(), 5);
    }
    check_readable(&cluster, video).await;
    for _ in 0..2 {
        cluster.nodes.remove(1).stop().await;
    }
    check_readable(&cluster, video).await;
    for chunk in &manifest.chunks {
        let url = format!("{}/chunk/{}", chunk.replicas[0], chunk.chunk_id);
        let answer = cluster.http.get(url).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), chunk.chunk_id.to_string());
    }
    // With a third one gone there is a clear refusal, and no bytes.
    cluster.nodes.remove(1).stop().await;
    let url = format!("{}/chunk/{}", gateway.url, manifest.chunks[0].chunk_id);
    let answer = cluster.http.get(url).send().await.unwrap();
    assert_eq!(code(answer).await, ErrorCode::Unavailable);
    gateway.stop().await;
    let folder = cluster.stop().await;
    assert_eq!(check(&folder.path().join("metadata")).unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_video_goes_there_and_back_and_leaves_nothing_behind() {
    let cluster = Cluster::start(5).await;
    let video = cluster.active_video("clip", 2).await;
    let chunk = ChunkId::media(video, 0);
    converted(&cluster, video, RedundancyChoice::Erasure).await;
    assert_eq!(
        cluster.holders(chunk).await,
        3,
        "readers with an old manifest have a grace"
    );
    let second = ChunkId::media(video, 1);
    converted(&cluster, video, RedundancyChoice::Replicated).await;
    cluster.let_graces_pass().await;
    for shard in 0..5 {
        cluster.until_gone(chunk.with_shard(shard).unwrap()).await;
        cluster.until_gone(second.with_shard(shard).unwrap()).await;
    }
    assert_eq!(cluster.holders(chunk).await, 3);
    check_readable(&cluster, video).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mode_that_needs_more_nodes_than_there_are_is_refused() {
    let cluster = Cluster::start(4).await;
    let video = cluster.active_video("clip", 1).await;
    let refused = cluster
        .catalogue
        .set_redundancy(video, RedundancyChoice::Erasure)
        .await;
    assert_eq!(refused.unwrap_err().code(), ErrorCode::NotEnoughNodes);
    cluster.stop().await;
}

/// Stops a node that holds a part of the chunk, and waits until the chunk is whole on others. The grace is short: that
/// it is waited for is the planner's, and tested there.
async fn check_healed_after_a_loss(nodes: usize, mode: RedundancyChoice, parts: usize) {
    let mut settings = RedundancySettings::default();
    settings.repair.grace_ms = 1_000;
    let mut cluster = Cluster::start_with(nodes, settings).await;
    let video = cluster.active_video("clip", 2).await;
    converted(&cluster, video, mode).await;
    let chunk = ChunkId::media(video, 0);
    let holders = good_nodes(&cluster, chunk).await;
    let gone = cluster
        .nodes
        .iter()
        .position(|node| node.node_id.is_some_and(|id| holders.contains(&id)))
        .unwrap();
    let gone = cluster.nodes.remove(gone);
    let gone_id = gone.node_id.unwrap();
    gone.stop().await;
    // The others go on sending heartbeats, so that only this one's silence grows.
    for _ in 0..2 {
        cluster.clock.advance(28_000);
        cluster.until_healthy(nodes - 1).await;
    }
    for seq in 0..2 {
        until("the chunk is whole again", async || {
            let good = good_nodes(&cluster, ChunkId::media(video, seq)).await;
            good.len() == parts && !good.contains(&gone_id)
        })
        .await;
    }
    check_readable(&cluster, video).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_a_lost_node_are_made_again_after_the_grace() {
    check_healed_after_a_loss(4, RedundancyChoice::Replicated, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_of_a_lost_node_are_made_again_after_the_grace() {
    check_healed_after_a_loss(6, RedundancyChoice::Erasure, 5).await;
}

/// Turns a bit of every place where `needle` stands in the files of a node.
fn rot(folder: &Path, needle: &[u8]) -> usize {
    let mut turned = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            turned += rot(&path, needle);
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let places: Vec<usize> = bytes
            .windows(needle.len())
            .enumerate()
            .filter(|(_, window)| *window == needle)
            .map(|(at, _)| at)
            .collect();
        if !places.is_empty() {
            use std::os::unix::fs::FileExt as _;
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            for at in &places {
                bytes[*at] ^= 1;
                file.write_all_at(&bytes[*at..=*at], *at as u64).unwrap();
            }
        }
        turned += places.len();
    }
    turned
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_part_that_a_reader_complains_of_is_healed_within_seconds() {
    let cluster = Cluster::start(4).await;
    let video = cluster.active_video("clip", 1).await;
    let chunk = ChunkId::media(video, 0);
    let holders = good_nodes(&cluster, chunk).await;
    let victim = (0..4)
        .find(|&number| {
            cluster.nodes[number]
                .node_id
                .is_some_and(|id| holders.contains(&id))
        })
        .unwrap();
    let id = cluster.nodes[victim].node_id.unwrap();
    let folder = cluster.folder.path().join(format!("node-{victim}"));
    assert!(
        rot(&folder, chunk.to_string().as_bytes()) > 0,
        "the bytes are there"
    );
    cluster.catalogue.suspect(chunk, id).await.unwrap();
    let began = Instant::now();
    until("the chunk has three good parts", async || {
        let status = cluster.catalogue.redundancy_status().await.unwrap();
        good_nodes(&cluster, chunk).await.len() == 3 && status.repair.finished_total > 0
    })
    .await;
    assert!(
        began.elapsed().as_secs() < 5,
        "healed after {:?}",
        began.elapsed()
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_complaint_about_a_good_part_changes_nothing() {
    let cluster = Cluster::start(3).await;
    let video = cluster.active_video("clip", 1).await;
    let chunk = ChunkId::media(video, 0);
    for node in good_nodes(&cluster, chunk).await {
        cluster.catalogue.suspect(chunk, node).await.unwrap();
    }
    assert_eq!(good_nodes(&cluster, chunk).await.len(), 3);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_node_is_emptied_while_it_serves() {
    let cluster = Cluster::start(4).await;
    let video = cluster.active_video("clip", 3).await;
    let holders = good_nodes(&cluster, ChunkId::media(video, 0)).await;
    let leaving = *holders.first().unwrap();
    cluster
        .catalogue
        .change_node(leaving, NodeAction::Drain, false)
        .await
        .unwrap();
    until("no part is left on the node", async || {
        cluster.catalogue.node(leaving).await.unwrap().parts == 0
    })
    .await;
    for seq in 0..3 {
        assert_eq!(good_nodes(&cluster, ChunkId::media(video, seq)).await.len(), 3);
    }
    check_readable(&cluster, video).await;
    cluster.stop().await;
}

/// The number of a node that holds a good part of the chunk.
async fn holder(cluster: &Cluster, chunk: ChunkId) -> usize {
    let holders = good_nodes(cluster, chunk).await;
    let holds = |&number: &usize| {
        cluster.nodes[number]
            .node_id
            .is_some_and(|id| holders.contains(&id))
    };
    (0..cluster.nodes.len()).find(holds).unwrap()
}

/// Within 5 s of its being found.
async fn check_healed_at_once(cluster: &Cluster, chunk: ChunkId, since: Instant) {
    until("the chunk has three good parts", async || {
        let status = cluster.catalogue.redundancy_status().await.unwrap();
        good_nodes(cluster, chunk).await.len() == 3 && status.repair.finished_total > 0
    })
    .await;
    let took = since.elapsed();
    assert!(took.as_secs() < 5, "healed after {took:?}");
    check_readable(cluster, chunk.video()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_scrub_finds_damaged_is_healed_though_nobody_reads_it() {
    let mut cluster = Cluster::start(4).await;
    let video = cluster.active_video("clip", 1).await;
    let chunk = ChunkId::media(video, 0);
    let victim = holder(&cluster, chunk).await;
    cluster.nodes.remove(victim).stop().await;
    let folder = cluster.folder.path().join(format!("node-{victim}"));
    assert!(rot(&folder, chunk.to_string().as_bytes()) > 0);
    // A scrub that does not know where it stood begins a round at once.
    let _ = std::fs::remove_file(folder.join("scrub.json"));
    cluster.start_node(victim).await;
    until("the scrub has found it", async || {
        let health = cluster.storage(victim).health().await.unwrap();
        health.corrupt_count > 0 && !health.scrub.findings.is_empty()
    })
    .await;
    check_healed_at_once(&cluster, chunk, Instant::now()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_plain_reader_finds_damaged_is_healed_though_it_does_not_complain() {
    let cluster = Cluster::start(4).await;
    let video = cluster.active_video("clip", 1).await;
    let chunk = ChunkId::media(video, 0);
    let victim = holder(&cluster, chunk).await;
    let folder = cluster.folder.path().join(format!("node-{victim}"));
    assert!(rot(&folder, chunk.to_string().as_bytes()) > 0);
    let url = format!("{}/chunk/{chunk}", cluster.nodes[victim].url);
    let answer = cluster.http.get(url).send().await.unwrap();
    assert_eq!(code(answer).await, ErrorCode::ChunkCorrupt);
    check_healed_at_once(&cluster, chunk, Instant::now()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_without_its_superblocks_is_filled_again() {
    let mut cluster = Cluster::start(3).await;
    let video = cluster.active_video("clip", 2).await;
    cluster.nodes.remove(1).stop().await;
    let data = cluster.folder.path().join("node-1/data");
    for entry in std::fs::read_dir(&data).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let _ = std::fs::remove_dir_all(cluster.folder.path().join("node-1/index"));
    cluster.start_node(1).await;
    until("its parts were lost and made again", async || {
        let status = cluster.catalogue.redundancy_status().await.unwrap();
        status.repair.finished_total >= 3 && status.waiting + status.degraded == 0
    })
    .await;
    for chunk in [
        ChunkId::init(video),
        ChunkId::media(video, 0),
        ChunkId::media(video, 1),
    ] {
        assert_eq!(good_nodes(&cluster, chunk).await.len(), 3);
        assert!(cluster.holders(chunk).await == 3);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_silent_is_compared_when_it_is_back() {
    let cluster = Cluster::start(3).await;
    let video = cluster.active_video("clip", 1).await;
    let chunk = ChunkId::media(video, 0);
    let manifest = cluster.catalogue.manifest(video).await.unwrap();
    let part = &manifest.chunks[0].placement.parts[0];
    let victim = (0..3)
        .find(|&number| cluster.nodes[number].node_id == Some(part.node_id))
        .unwrap();
    let order = DeleteOrder::signed(&key().grant_key(), chunk, part.ballot, part.node_id);
    cluster.storage(victim).delete(&order).await.unwrap();
    assert_eq!(good_nodes(&cluster, chunk).await.len(), 3, "nobody has looked");
    // All of them were down, by the role's clock, and heartbeats bring them back.
    cluster
        .clock
        .advance(vstack_core::limits::NODE_DOWN_AFTER_MS + 1_000);
    until("the loss was found and made good", async || {
        cluster.holders(chunk).await == 3 && good_nodes(&cluster, chunk).await.len() == 3
    })
    .await;
    assert!(
        cluster
            .catalogue
            .redundancy_status()
            .await
            .unwrap()
            .repair
            .finished_total
            > 0
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_holds_any_more_is_named_by_video_and_seconds() {
    let cluster = Cluster::start(3).await;
    let video = cluster.active_video("clip", 3).await;
    let chunk = ChunkId::media(video, 1);
    for number in 0..3 {
        let folder = cluster.folder.path().join(format!("node-{number}"));
        assert!(rot(&folder, chunk.to_string().as_bytes()) > 0);
        let url = format!("{}/chunk/{chunk}", cluster.nodes[number].url);
        let answer = cluster.http.get(url).send().await.unwrap();
        assert_eq!(code(answer).await, ErrorCode::ChunkCorrupt);
    }
    until("the loss is told", async || {
        !cluster
            .catalogue
            .redundancy_status()
            .await
            .unwrap()
            .data_loss
            .is_empty()
    })
    .await;
    let status = cluster.catalogue.redundancy_status().await.unwrap();
    let loss = &status.data_loss[0];
    assert_eq!((loss.title.as_str(), loss.chunk_id), ("clip", chunk));
    assert_eq!((loss.from_sec, loss.to_sec), (10.0, 20.0));
    assert!(status.advice.contains("data_loss"), "{}", status.advice);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_are_moved_to_a_new_node_as_they_are_and_listeners_hear_of_it() {
    use futures::StreamExt as _;
    let mut cluster = Cluster::start(5).await;
    // Large beside the catalogue objects, which are written to other nodes by themselves.
    let bytes_of = |chunk: ChunkId| chunk.to_string().repeat(2_000).into_bytes();
    let (copies, shards) = (cluster.create("copies").await, cluster.create("shards").await);
    for video in [copies, shards] {
        cluster.fill_with(video, 12, bytes_of).await;
    }
    converted(&cluster, shards, RedundancyChoice::Erasure).await;
    cluster.let_graces_pass().await;
    cluster.start_node(5).await;
    cluster.until_healthy(6).await;
    let newcomer = cluster.nodes[5].node_id.unwrap();
    let mut events = cluster.catalogue.redundancy_events().await.unwrap();
    // What a new node holds is looked at first.
    until("the newcomer takes parts", async || {
        let view = cluster.catalogue.rebalance().await.unwrap();
        let own = view.nodes.iter().find(|node| node.node_id == newcomer);
        own.is_some_and(|node| node.takes_parts)
    })
    .await;
    let plan = cluster.catalogue.rebalance().await.unwrap();
    assert!(plan.moves > 0 && plan.uneven_after < plan.uneven, "{plan:?}");
    cluster.catalogue.apply_rebalance().await.unwrap();
    until("the nodes are even", async || {
        let view = cluster.catalogue.rebalance().await.unwrap();
        view.state == BalanceState::Idle && view.moves == 0
    })
    .await;
    // About its fair share: the planner leaves a tenth alone, and moves whole parts.
    let view = cluster.catalogue.rebalance().await.unwrap();
    let used: u64 = view.nodes.iter().map(|node| node.used_bytes).sum();
    let fair = used as f64 / view.nodes.len() as f64;
    let own = view.nodes.iter().find(|node| node.node_id == newcomer).unwrap();
    let part = bytes_of(ChunkId::media(copies, 0)).len() as f64;
    let off = (own.used_bytes as f64 - fair).abs();
    assert!(off <= view.tolerance * fair + part, "{view:?}");
    for video in [copies, shards] {
        let view = cluster.catalogue.redundancy(video).await.unwrap();
        for chunk in &view.map {
            let good = chunk.parts.iter().filter(|part| part.state == PartWord::Good);
            let nodes: BTreeSet<NodeId> = good.map(|part| part.node_id).collect();
            assert_eq!(nodes.len(), chunk.parts.len(), "two parts on one node: {chunk:?}");
        }
        check_reads(&cluster, video, bytes_of).await;
    }
    let heard = async {
        while let Some(status) = events.next().await {
            if status.unwrap().rebalance.finished_total >= plan.moves {
                return;
            }
        }
        unreachable!("the stream ended");
    };
    tokio::time::timeout(Duration::from_secs(10), heard)
        .await
        .unwrap();
    let folder = cluster.stop().await;
    assert_eq!(check(&folder.path().join("metadata")).unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_asks_once_for_what_cannot_be_had_and_says_so_at_once() {
    let cluster = Cluster::start(3).await;
    let video = cluster.active_video("clip", 1).await;
    let gateway = start_gateway(&cluster).await;
    let chunk = cluster.catalogue.manifest(video).await.unwrap().chunks.remove(0);
    for part in &chunk.placement.parts {
        let order = DeleteOrder::signed(&key().grant_key(), chunk.chunk_id, part.ballot, part.node_id);
        let number = cluster
            .nodes
            .iter()
            .position(|node| node.node_id == Some(part.node_id));
        cluster.storage(number.unwrap()).delete(&order).await.unwrap();
    }
    let begin = Instant::now();
    let url = format!("{}/chunk/{}", gateway.url, chunk.chunk_id);
    // The second time it has a manifest of its own, which it reads again.
    for _ in 0..2 {
        let answer = cluster.http.get(&url).send().await.unwrap();
        assert_eq!(code(answer).await, ErrorCode::Unavailable);
    }
    // A second round would begin a second after the first, and a third two seconds later.
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    gateway.stop().await;
    cluster.stop().await;
}
