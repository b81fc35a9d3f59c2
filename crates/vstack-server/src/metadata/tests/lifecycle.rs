//! Starts, restarts, ends of videos, and what the collector does to the nodes.

use vstack_api::ErrorCode;
use vstack_core::id::ChunkId;

use super::cluster::{Cluster, start_metadata};
use crate::metadata::check;
use crate::role::StartError;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_video_is_gone_at_once_and_its_bytes_after_the_grace() {
    let cluster = Cluster::start(4).await;
    let video = cluster.active_video("clip", 1).await;
    let chunk = ChunkId::media(video, 0);
    assert_eq!(cluster.holders(chunk).await, 3);
    cluster.catalogue.delete_video(video).await.unwrap();
    assert_eq!(
        cluster.catalogue.manifest(video).await.unwrap_err().code(),
        ErrorCode::VideoNotFound
    );
    assert_eq!(
        cluster.catalogue.video(video).await.unwrap_err().code(),
        ErrorCode::VideoNotFound
    );
    assert_eq!(
        cluster.holders(chunk).await,
        3,
        "readers with an old manifest have a grace"
    );
    cluster.let_graces_pass().await;
    cluster.until_gone(chunk).await;
    cluster.until_gone(ChunkId::init(video)).await;
    // Deleting again is no error.
    cluster.catalogue.delete_video(video).await.unwrap();
    assert_eq!(check(&cluster.folder.path().join("metadata")).unwrap(), []);
    let folder = cluster.stop().await;
    assert_eq!(check(&folder.path().join("metadata")).unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_upload_leaves_neither_rows_nor_bytes() {
    let cluster = Cluster::start(3).await;
    let video = cluster.create("clip").await;
    let (stored, in_flight) = (ChunkId::media(video, 0), ChunkId::media(video, 1));
    cluster.store(stored, b"bytes").await;
    let opened = cluster.open_as("uploader", in_flight, None).await.unwrap();
    let receipts = cluster.put_all(&opened, b"more").await;
    cluster.catalogue.abort_video(video).await.unwrap();
    assert_eq!(
        cluster.catalogue.video(video).await.unwrap_err().code(),
        ErrorCode::VideoNotFound
    );
    let late = cluster.commit(&opened, b"more", receipts).await.unwrap_err();
    assert_eq!(late.code, ErrorCode::Fenced);
    cluster.until_gone(stored).await;
    cluster.until_gone(in_flight).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_role_has_everything_and_needs_no_node_for_a_manifest() {
    let cluster = Cluster::start(3).await;
    let video = cluster.active_video("clip", 2).await;
    let before = cluster.catalogue.manifest(video).await.unwrap();
    let clock = cluster.clock.clone();
    let folder = cluster.stop().await;
    let metadata = start_metadata(folder.path(), &clock).await.unwrap();
    let catalogue = vstack_api::MetadataClient::new(&metadata.url);
    assert_eq!(catalogue.manifest(video).await.unwrap(), before);
    metadata.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_use_is_refused_with_the_pid_of_its_user() {
    let cluster = Cluster::start(0).await;
    let second = start_metadata(cluster.folder.path(), &cluster.clock).await;
    let Err(StartError::Locked { pid, .. }) = second else {
        unreachable!("two roles write one catalogue")
    };
    assert_eq!(pid, std::process::id().to_string());
    cluster.stop().await;
}
