//! What one run measured of the nodes is where the next one begins, and what nodes say of their load is known.

use std::path::Path;

use crate::support::{DEADLINE, Footage, LOAD, TestCluster, told, until};
use tokio::time::timeout;
use vstack_client::{ClientConfig, Cluster, EventKind, HeadlessOptions, Pace, PolicyName, headless};
use vstack_emulator::Profile;

const FOOTAGE: Footage = Footage {
    chunks: 4,
    chunk_bytes: 600_000,
    fragments: 0,
};

/// Near and slow, and far and fast: by pings alone the near ones are asked first.
fn path_of(index: usize) -> Profile {
    let (down_mbps, delay_ms) = if index == 2 { (24.0, 60) } else { (1.0, 1) };
    Profile {
        down_mbps: Some(down_mbps),
        up_mbps: None,
        delay_ms,
        jitter_ms: 0,
    }
}

/// Nothing of an earlier run stands in the way of the pings.
async fn paths_are_free(cluster: &TestCluster) {
    let paths = || cluster.nodes.iter().filter_map(|node| node.path.as_ref());
    until("all connections are closed", || {
        paths().all(|path| path.handle.connections() == 0)
    })
    .await;
}

/// A run of the program: plays everything and ends. The node that was asked first.
async fn run(cluster: &TestCluster, history: Option<&Path>) -> String {
    paths_are_free(cluster).await;
    let config = ClientConfig {
        history_file: history.map(Path::to_owned),
        policy: PolicyName::Pool,
        ..ClientConfig::new(&cluster.metadata_url)
    };
    let client = Cluster::connect(config).await.expect("the metadata role answers");
    // Its pings are known before anything is asked for.
    assert!(client.nodes().iter().all(|node| node.latency_ms().is_some()));
    let session = client.open(cluster.video).await.expect("the video can be opened");
    let mut events = session.events();
    let options = HeadlessOptions {
        pace: Pace::AsFastAsPossible,
        ..HeadlessOptions::default()
    };
    let played = timeout(DEADLINE, headless::play_session(&session, options)).await;
    played.expect("in time").expect("it plays");
    client.save_history().await;
    let first = told(&mut events).into_iter().find_map(|kind| match kind {
        EventKind::Requested { node, .. } => Some(node.name),
        _ => None,
    });
    first.expect("something was asked for")
}

#[tokio::test]
async fn the_next_run_begins_with_the_node_that_served_best() {
    let cluster = TestCluster::behind(Profile::default(), 3, FOOTAGE, |_| vec![0, 1, 2]).await;
    for (index, node) in cluster.nodes.iter().enumerate() {
        let path = node.path.as_ref().expect("there is a path");
        path.handle.set_profile(path_of(index));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cache/nodes.json");
    assert_ne!(run(&cluster, Some(&file)).await, "node-3", "nothing is known yet");
    assert!(file.exists());
    assert_eq!(run(&cluster, Some(&file)).await, "node-3");
    assert_ne!(
        run(&cluster, None).await,
        "node-3",
        "without the file nothing is known"
    );
    // A broken file is as good as none, and is replaced.
    std::fs::write(&file, "{\"format\":").expect("it can be written");
    assert_ne!(run(&cluster, Some(&file)).await, "node-3");
    assert_eq!(run(&cluster, Some(&file)).await, "node-3");
}

#[tokio::test]
async fn a_file_that_cannot_be_written_stops_nobody() {
    let cluster = TestCluster::start(3, 4, |_| vec![0, 1, 2]);
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("file"), "").expect("it can be written");
    run(&cluster, Some(&folder.path().join("file/nodes.json"))).await;
}

#[tokio::test]
async fn what_a_ping_says_of_a_nodes_load_is_known() {
    let cluster = TestCluster::start(2, 1, |_| vec![0, 1]);
    let client = cluster.connect(PolicyName::Pool).await;
    let loads: Vec<_> = client.nodes().into_iter().map(|node| node.load).collect();
    assert_eq!(loads, [Some(LOAD), Some(LOAD)]);
}
