//! What happens at once: disks that are replaced in mid-upload, and deletion against repair against conversion.

use std::fs;

use serde_json::Value;
use uuid::Uuid;
use vstack_api::ErrorCode;
use vstack_api::redundancy::RedundancyChoice;
use vstack_core::id::{ChunkId, NodeId, VideoId};

use super::cluster::{Cluster, until};
use super::redundancy::{check_readable, good_nodes};
use crate::metadata::{RedundancySettings, check};

impl Cluster {
    fn number_of(&self, node: NodeId) -> usize {
        let found = self
            .nodes
            .iter()
            .position(|running| running.node_id == Some(node));
        found.expect("the node runs")
    }

    /// Puts an empty disk in the place of a node's: the same identity, another incarnation.
    async fn replace_disk(&mut self, number: usize) {
        let folder = self.folder.path().join(format!("node-{number}"));
        let node = self.nodes[number].node_id.expect("a node has an id");
        self.nodes.remove(number).stop().await;
        let file = fs::read(folder.join("node.json")).expect("the folder was formatted");
        let mut identity: Value = serde_json::from_slice(&file).expect("it is JSON");
        identity["incarnation"] = Uuid::new_v4().to_string().into();
        fs::remove_dir_all(&folder).expect("nobody uses it");
        fs::create_dir_all(&folder).expect("a new disk");
        fs::write(folder.join("node.json"), identity.to_string()).expect("a new disk");
        // The old life must be silent before another disk may speak for it.
        self.clock.advance(10_000);
        self.start_node(number).await;
        let incarnation = identity["incarnation"].as_str().map(str::to_owned);
        until("the catalogue knows the new disk", async || {
            let nodes = self.catalogue.nodes().await.unwrap_or_default();
            let known = nodes.iter().find(|entry| entry.node_id == node);
            known.map(|entry| entry.incarnation.to_string()) == incarnation
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_replaced_before_the_commit_counts_no_more_and_the_upload_goes_on() {
    let mut cluster = Cluster::start(3).await;
    let chunk = ChunkId::media(cluster.create("clip").await, 0);
    let mut opened = cluster.open_as("uploader", chunk, None).await.unwrap();
    let receipts = cluster.put_all(&opened, b"bytes").await;
    let number = cluster.number_of(receipts[0].node);
    cluster.replace_disk(number).await;
    // It came back at another address.
    opened.node_urls[0].clone_from(&cluster.nodes[number].url);
    let refused = cluster.commit(&opened, b"bytes", receipts).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotEnoughReplicas, "{refused}");

    // The same ballot again: the new disk takes the bytes, the others have them.
    let receipts = cluster.put_all(&opened, b"bytes").await;
    let committed = cluster.commit(&opened, b"bytes", receipts).await.unwrap();
    assert!(!committed.under_replicated);
    assert_eq!(cluster.holders(chunk).await, 3);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_repair_and_conversion_at_once_leave_whole_videos_or_nothing() {
    let mut settings = RedundancySettings::default();
    settings.repair.grace_ms = 1_000;
    let mut cluster = Cluster::start_with(6, settings).await;
    let mut videos = Vec::new();
    for title in ["deleted", "turned around", "converted"] {
        videos.push(cluster.active_video(title, 3).await);
    }
    let [deleted, turned, converted] = videos[..] else {
        unreachable!("three videos were made")
    };
    for video in [deleted, turned, converted] {
        choose(&cluster, video, RedundancyChoice::Erasure).await;
    }
    cluster.nodes.remove(0).stop().await;
    for _ in 0..2 {
        cluster.clock.advance(28_000);
        cluster.until_healthy(5).await;
    }
    cluster.catalogue.delete_video(deleted).await.unwrap();
    choose(&cluster, turned, RedundancyChoice::Replicated).await;

    for (video, parts) in [(turned, 3), (converted, 5)] {
        for seq in 0..3 {
            until("the chunk is whole", async || {
                good_nodes(&cluster, ChunkId::media(video, seq)).await.len() == parts
            })
            .await;
        }
        check_readable(&cluster, video).await;
    }
    cluster.let_graces_pass().await;
    for seq in 0..3 {
        let chunk = ChunkId::media(deleted, seq);
        cluster.until_gone(chunk).await;
        for shard in 0..5 {
            cluster.until_gone(chunk.with_shard(shard).unwrap()).await;
            let back = ChunkId::media(turned, seq).with_shard(shard).unwrap();
            cluster.until_gone(back).await;
        }
    }
    let folder = cluster.stop().await;
    assert_eq!(check(&folder.path().join("metadata")).unwrap(), []);
}

async fn choose(cluster: &Cluster, video: VideoId, mode: RedundancyChoice) {
    cluster.catalogue.set_redundancy(video, mode).await.unwrap();
}
