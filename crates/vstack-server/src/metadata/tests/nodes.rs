//! Nodes over sockets: who may speak for one, what is odd or refused, and what its operator wants.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use uuid::Uuid;
use vstack_api::ErrorCode;
use vstack_api::wire::{Heartbeat, NodeAction};
use vstack_core::id::{ChunkId, Incarnation, NodeId};
use vstack_core::keys::ClusterKey;
use vstack_core::node::{NodeHealth, NodeState};

use super::cluster::{Cluster, DEADLINE, code, key, until};
use super::redundancy::good_nodes;

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
        corrupt_count: 0,
        highest_generation: 0,
        protocol: 1,
        clock_ms: None,
        capacity_bytes: 0,
        rack: None,
        name: None,
        mac: key
            .receipt_key(signer)
            .sign(&Heartbeat::canonical(signer, url, incarnation, boot_epoch)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_writes_down_the_generation_before_anything_is_granted_to_it() {
    let cluster = Cluster::start(1).await;
    let file = cluster.folder.path().join("node-0").join("generation");
    until("the node has written it down", async || {
        fs::read_to_string(&file).is_ok_and(|text| text.trim().parse::<u64>().is_ok_and(|number| number > 0))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_while_it_is_compared_keeps_no_other_one_waiting() {
    let mut cluster = Cluster::start(3).await;
    let chunk = ChunkId::media(cluster.active_video("clip", 1).await, 0);
    // It takes connections, sends heartbeats, and answers nothing: its disk hangs.
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", deaf.local_addr().unwrap());
    let node = NodeId(Uuid::from_u128(1));
    for start in [1, 2] {
        let beat = heartbeat(&key(), node, &url, start);
        cluster.catalogue.heartbeat(node, &beat).await.unwrap();
    }
    let asked = tokio::time::timeout(DEADLINE, deaf.accept()).await;
    let _silent = asked.expect("it is asked what it holds").unwrap();
    cluster.nodes.remove(0).stop().await;
    cluster.start_node(0).await;
    until("the other one was compared and its parts count", async || {
        good_nodes(&cluster, chunk).await.len() == 3
    })
    .await;
    cluster.stop().await;
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
            .map(drop)
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

/// A heartbeat as JSON with one field replaced.
async fn altered(cluster: &Cluster, field: &str, value: Value) -> reqwest::Response {
    let me = NodeId(Uuid::from_u128(7));
    let good = heartbeat(&key(), me, "http://127.0.0.1:1007", 1);
    let mut body = serde_json::to_value(good).unwrap();
    body[field] = value;
    let request = cluster.http.post(cluster.at(&format!("/nodes/{me}/heartbeat")));
    request.json(&body).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_that_no_node_has_are_refused_and_newer_fields_ignored() {
    let cluster = Cluster::start(0).await;
    for (field, value) in [
        ("disk_usage", json!(-1.0)),
        ("disk_usage", json!(1e30)),
        ("disk_usage", json!("full")),
        ("chunk_count", json!(-1)),
        ("chunk_count", json!(1.5)),
        ("chunk_count", json!(1u64 << 63)),
        ("version", json!("x".repeat(101))),
        ("incarnation", json!("none")),
    ] {
        let answer = altered(&cluster, field, value.clone()).await;
        assert_eq!(code(answer).await, ErrorCode::InvalidField, "{field} {value}");
    }
    let newer = altered(&cluster, "protocol", json!(99)).await;
    assert_eq!(code(newer).await, ErrorCode::UpgradeRequired);
    let unknown = altered(&cluster, "fans", json!(3)).await;
    assert_eq!(unknown.status(), 200);
    assert_eq!(cluster.catalogue.nodes().await.unwrap().len(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_that_no_node_has_are_refused() {
    let cluster = Cluster::start(0).await;
    let me = NodeId(Uuid::from_u128(8));
    for url in [
        "http://169.254.169.254:80",
        "file:///etc/passwd",
        "http://me:secret@127.0.0.1:1",
        "http://127.0.0.1:0",
        "http://two words:1",
    ] {
        let refused = cluster
            .catalogue
            .heartbeat(me, &heartbeat(&key(), me, url, 1))
            .await;
        assert_eq!(refused.unwrap_err().code(), ErrorCode::BadRequest, "{url}");
    }
    assert_eq!(cluster.catalogue.nodes().await.unwrap(), []);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_a_month_off_is_told_and_taken() {
    let cluster = Cluster::start(0).await;
    const MONTH_MS: u64 = 30 * 24 * 3_600_000;
    let warned: Value = altered(&cluster, "clock_ms", json!(MONTH_MS))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(warned["warnings"], json!(["clock_skew"]));
    let right: Value = altered(&cluster, "clock_ms", warned["clock_ms"].clone())
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(right["warnings"], json!([]));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_went_back_waits_for_its_operator() {
    let cluster = Cluster::start(0).await;
    let me = NodeId(Uuid::from_u128(1));
    let beat = async |boot_epoch| {
        let beat = heartbeat(&key(), me, "http://127.0.0.1:1001", boot_epoch);
        cluster
            .catalogue
            .heartbeat(me, &beat)
            .await
            .map(drop)
            .map_err(|error| error.code())
    };
    assert_eq!(beat(5).await, Ok(()));
    cluster.clock.advance(10_000);
    assert_eq!(beat(3).await, Err(ErrorCode::NodeRolledBack));
    cluster
        .catalogue
        .change_node(me, NodeAction::Readopt, false)
        .await
        .unwrap();
    assert_eq!(beat(3).await, Ok(()));
    cluster.stop().await;
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A cluster whose one node was started from a copy of its folder that is two starts old, and holds this chunk.
async fn with_a_folder_that_went_back() -> (Cluster, ChunkId) {
    let mut cluster = Cluster::start(1).await;
    let chunk = ChunkId::media(cluster.create("clip").await, 0);
    assert_eq!(put(&cluster, chunk).await.status(), 201);
    let folder = cluster.folder.path().join("node-0");
    let copy = cluster.folder.path().join("copy");
    cluster.nodes.remove(0).stop().await;
    copy_folder(&folder, &copy);
    for _ in 0..2 {
        cluster.start_node(0).await;
        until("this start is known", async || {
            let nodes = cluster.catalogue.nodes().await.unwrap();
            nodes.iter().any(|node| node.node_url == cluster.nodes[0].url)
        })
        .await;
        cluster.nodes.remove(0).stop().await;
        cluster.clock.advance(10_000);
    }
    fs::remove_dir_all(&folder).unwrap();
    copy_folder(&copy, &folder);
    cluster.start_node(0).await;
    (cluster, chunk)
}

async fn put(cluster: &Cluster, chunk: ChunkId) -> reqwest::Response {
    let url = format!("{}/chunk/{chunk}", cluster.nodes[0].url);
    cluster.http.put(url).body("bytes").send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_folder_went_back_only_reads_until_it_is_readopted() {
    let (cluster, chunk) = with_a_folder_that_went_back().await;
    let health = async || cluster.storage(0).health().await.unwrap();
    until("the node knows that it is shut out", async || {
        health().await.read_only
    })
    .await;
    let reason = health().await.read_only_reason.unwrap();
    assert!(reason.contains("vstack node readopt"), "{reason}");

    let next = ChunkId::media(chunk.video(), 1);
    assert_eq!(code(put(&cluster, next).await).await, ErrorCode::Unavailable);
    let url = format!("{}/chunk/{chunk}", cluster.nodes[0].url);
    let deleted = cluster.http.delete(&url).send().await.unwrap();
    assert_eq!(code(deleted).await, ErrorCode::Unavailable);
    assert_eq!(
        cluster.http.get(&url).send().await.unwrap().status(),
        200,
        "it reads"
    );

    let node = cluster.nodes[0].node_id.unwrap();
    let readopted = cluster.catalogue.change_node(node, NodeAction::Readopt, false);
    readopted.await.unwrap();
    until("the node writes again", async || !health().await.read_only).await;
    assert_eq!(put(&cluster, next).await.status(), 201);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_node_takes_nothing_new_and_says_what_lies_there() {
    let cluster = Cluster::start(4).await;
    let video = cluster.active_video("clip", 2).await;
    let mut parts = 0;
    for node in &cluster.nodes {
        let id = node.node_id.unwrap();
        parts += cluster.catalogue.node(id).await.unwrap().parts;
    }
    assert_eq!(parts, 3 * 3, "init and two media chunks, three copies each");

    let drained = cluster.nodes[0].node_id.unwrap();
    let detail = cluster
        .catalogue
        .change_node(drained, NodeAction::Drain, false)
        .await
        .unwrap();
    assert_eq!(
        (detail.entry.state, detail.only_holder_of),
        (NodeState::Draining, 0)
    );
    let other = cluster.create("other").await;
    for seq in 0..8 {
        let opened = cluster
            .open_as("me", ChunkId::media(other, seq), None)
            .await
            .unwrap();
        let nodes: Vec<_> = opened.grant.nodes.iter().map(|target| target.node).collect();
        assert!(!nodes.contains(&drained), "{nodes:?}");
    }
    // It still serves what it has.
    assert!(cluster.catalogue.manifest(video).await.is_ok());

    let removed = cluster
        .catalogue
        .change_node(drained, NodeAction::Remove, false)
        .await
        .unwrap();
    assert_eq!((removed.entry.state, removed.parts), (NodeState::Removed, 0));
    // Some of it may have been made again elsewhere by now.
    assert!(removed.lost_parts <= detail.parts);
    let left = cluster.catalogue.nodes().await.unwrap();
    assert!(left.iter().all(|node| node.node_id != drained), "{left:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senseless_changes_of_nodes_are_refused() {
    let cluster = Cluster::start(1).await;
    let known = cluster.nodes[0].node_id.unwrap();
    let unknown = Uuid::from_u128(99);
    for (path, expected) in [
        (format!("/nodes/{unknown}/drain"), ErrorCode::NotFound),
        ("/nodes/x/drain".to_owned(), ErrorCode::BadRequest),
        (format!("/nodes/{known}/explode"), ErrorCode::BadRequest),
        (format!("/nodes/{known}/drain?force=maybe"), ErrorCode::BadRequest),
        (format!("/nodes/{known}/drain?forse=true"), ErrorCode::BadRequest),
    ] {
        let answer = cluster.http.post(cluster.at(&path)).send().await.unwrap();
        assert_eq!(code(answer).await, expected, "{path}");
    }
    cluster.stop().await;
}
