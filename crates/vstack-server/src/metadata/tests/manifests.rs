//! A manifest is kept for the next viewer, and never outlives a change of anything that it says.

use vstack_api::wire::NodeAction;
use vstack_api::{ApiError, ErrorCode};
use vstack_core::id::{ChunkId, NodeId, VideoId};
use vstack_core::manifest::Manifest;

use super::cluster::Cluster;

/// The nodes that a plain client tries, in its order.
fn order(manifest: &Manifest) -> Vec<NodeId> {
    let parts = &manifest.chunks[0].placement.parts;
    parts.iter().map(|part| part.node_id).collect()
}

async fn kept(cluster: &Cluster, video: VideoId) -> Manifest {
    let first = cluster.catalogue.manifest(video).await.unwrap();
    let second = cluster.catalogue.manifest(video).await.unwrap();
    assert_eq!(first, second);
    second
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_a_video_shows_in_its_next_manifest() {
    let cluster = Cluster::start(3).await;
    let video = cluster.create("clip").await;
    for count in 1..=3 {
        let chunk = ChunkId::media(video, count - 1);
        cluster.store(chunk, chunk.to_string().as_bytes()).await;
        assert_eq!(kept(&cluster, video).await.total_chunks, count);
    }
    let other = cluster.active_video("other", 1).await;
    assert_eq!(kept(&cluster, other).await.title, "other");
    cluster.catalogue.rename_video(other, "renamed").await.unwrap();
    assert_eq!(kept(&cluster, other).await.title, "renamed");
    assert_eq!(kept(&cluster, video).await.title, "clip");

    cluster.catalogue.delete_video(other).await.unwrap();
    let gone = cluster.catalogue.manifest(other).await.unwrap_err();
    assert!(
        matches!(&gone, ApiError::Refused(problem) if problem.code == ErrorCode::VideoNotFound),
        "{gone}"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_and_lost_nodes_show_in_the_next_manifest() {
    let mut cluster = Cluster::start(3).await;
    let video = cluster.active_video("clip", 1).await;
    let all = order(&kept(&cluster, video).await);
    assert_eq!(all.len(), 3);

    let entry = cluster.catalogue.node(all[0]).await.unwrap().entry;
    let number = cluster.nodes.iter().position(|node| node.url == entry.node_url);
    cluster.nodes.remove(number.unwrap()).stop().await;
    cluster.clock.advance(31_000);
    cluster.until_healthy(2).await;
    let silent_last = order(&kept(&cluster, video).await);
    assert_eq!(silent_last, [all[1], all[2], all[0]]);

    let remove = cluster.catalogue.change_node(all[0], NodeAction::Remove, true);
    remove.await.unwrap();
    // Nothing is put in its place: there is no third node.
    assert_eq!(order(&kept(&cluster, video).await), all[1..]);
    cluster.stop().await;
}
