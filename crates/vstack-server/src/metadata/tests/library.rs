//! The library's calls, nodes and uploaders.

use uuid::Uuid;
use vstack_api::ErrorCode;
use vstack_api::wire::{Heartbeat, UploaderHeartbeat, VideoQuery, VideoSort};
use vstack_core::id::{Incarnation, NodeId};
use vstack_core::keys::ClusterKey;
use vstack_core::manifest::VideoStatus;
use vstack_core::node::NodeHealth;

use super::cluster::{Cluster, key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn videos_are_listed_searched_renamed_and_counted() {
    let cluster = Cluster::start(3).await;
    let old = cluster.active_video("Ärger im Zoo", 1).await;
    cluster.clock.advance(1_000);
    let new = cluster.create("'; DROP TABLE videos").await;
    let all = cluster.catalogue.videos(&VideoQuery::default()).await.unwrap();
    assert_eq!(
        all.videos.iter().map(|video| video.video_id).collect::<Vec<_>>(),
        [new, old]
    );
    assert_eq!(all.videos[1].status, VideoStatus::Active);
    let query = VideoQuery {
        search: Some("ÄRGER".into()),
        sort: VideoSort::Title,
        ..VideoQuery::default()
    };
    assert_eq!(cluster.catalogue.videos(&query).await.unwrap().total, 1);

    cluster.catalogue.record_view(old).await.unwrap();
    let renamed = cluster.catalogue.rename_video(old, "🎬").await.unwrap();
    assert_eq!((renamed.title.as_str(), renamed.views), ("🎬", 1));
    assert_eq!(cluster.catalogue.manifest(old).await.unwrap().title, "🎬");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_address_is_given_while_an_uploader_lives() {
    let cluster = Cluster::start(0).await;
    assert_eq!(
        cluster.catalogue.create_video("a", 0.0).await.unwrap().upload_url,
        None
    );
    let url = "http://127.0.0.1:4321";
    let signed = UploaderHeartbeat::signed(&key().grant_key(), url.into());
    cluster.catalogue.uploader_heartbeat(&signed).await.unwrap();
    let made = cluster.catalogue.create_video("b", 0.0).await.unwrap();
    assert_eq!(made.upload_url, Some(format!("{url}/upload/{}", made.video_id)));
    cluster.clock.advance(30_000);
    assert_eq!(cluster.catalogue.uploader_url().await.unwrap(), None);

    let foreign = ClusterKey::from_bytes(&[8; 32]).unwrap();
    let forged = UploaderHeartbeat::signed(&foreign.grant_key(), url.into());
    let refused = cluster.catalogue.uploader_heartbeat(&forged).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::BadSignature);
    cluster.stop().await;
}

fn heartbeat(key: &ClusterKey, signer: NodeId, url: &str, boot_epoch: u64) -> Heartbeat {
    let incarnation = Incarnation(Uuid::from_u128(5));
    Heartbeat {
        url: url.to_owned(),
        incarnation,
        boot_epoch,
        version: "0.1.0".into(),
        disk_usage: 10.0,
        chunk_count: 0,
        read_only: false,
        highest_generation: 0,
        mac: key
            .receipt_key(signer)
            .sign(&Heartbeat::canonical(signer, url, incarnation, boot_epoch)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_holder_of_a_nodes_key_speaks_for_it() {
    let cluster = Cluster::start(0).await;
    let (me, other) = (NodeId(Uuid::from_u128(1)), NodeId(Uuid::from_u128(2)));
    let beat = async |node, heartbeat: &Heartbeat| {
        cluster
            .catalogue
            .heartbeat(node, heartbeat)
            .await
            .map_err(|error| error.code())
    };
    let mine = heartbeat(&key(), me, "http://127.0.0.1:1001", 1);
    assert_eq!(beat(me, &mine).await, Ok(()));
    assert_eq!(
        beat(other, &mine).await,
        Err(ErrorCode::BadSignature),
        "another node's name"
    );
    let moved = Heartbeat {
        url: "http://127.0.0.1:1002".into(),
        ..mine.clone()
    };
    assert_eq!(
        beat(me, &moved).await,
        Err(ErrorCode::BadSignature),
        "an address that was not signed"
    );
    let foreign = ClusterKey::from_bytes(&[8; 32]).unwrap();
    let forged = heartbeat(&foreign, me, "http://127.0.0.1:1001", 1);
    assert_eq!(
        beat(me, &forged).await,
        Err(ErrorCode::BadSignature),
        "another cluster's key"
    );
    let copy = heartbeat(&key(), me, "http://127.0.0.1:1002", 1);
    assert_eq!(
        beat(me, &copy).await,
        Err(ErrorCode::DuplicateNode),
        "a copy of its folder"
    );
    let nodes = cluster.catalogue.nodes().await.unwrap();
    assert_eq!(
        (nodes.len(), nodes[0].node_url.as_str()),
        (1, "http://127.0.0.1:1001")
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_makes_a_node_suspect_and_then_down() {
    let mut cluster = Cluster::start(2).await;
    cluster.nodes.remove(0).stop().await;
    for (ms, expected) in [(5_000, NodeHealth::Degraded), (25_000, NodeHealth::Down)] {
        cluster.clock.advance(ms);
        cluster.until_healthy(1).await;
        let nodes = cluster.catalogue.nodes().await.unwrap();
        assert!(nodes.iter().any(|node| node.status == expected), "{nodes:?}");
        assert_eq!(cluster.catalogue.healthy_nodes().await.unwrap().len(), 1);
    }
    cluster.stop().await;
}
