//! A node that joins while a video plays brings a part of what is still to come.

use std::time::Duration;

use crate::support::{CHUNK_MS, TestCluster, told, until_within};
use vstack_client::{EventKind, HeadlessOptions, Pace, PolicyName, headless};
use vstack_emulator::Profile;

/// The list of nodes is read every 15 s.
const NOTICED_WITHIN: Duration = Duration::from_secs(25);

/// Nothing fails here: no chunk leaves the nodes that the manifest named at first.
async fn check_join(policy: PolicyName) {
    let slow = Profile {
        down_mbps: Some(2.0),
        ..Profile::default()
    };
    let mut cluster = TestCluster::start_behind(slow, 2, 60, |_| vec![0, 1]).await;
    let client = cluster.connect(policy).await;
    let session = client.open(cluster.video).await.expect("the video can be opened");
    let mut events = session.events();
    let player = session.clone();
    let options = HeadlessOptions {
        pace: Pace::Times(5.0),
        ..HeadlessOptions::default()
    };
    let playing = tokio::spawn(async move { headless::play_session(&player, options).await });
    cluster.join(10);
    let newcomer = &cluster.nodes[2];
    until_within(NOTICED_WITHIN, "the newcomer is asked", || {
        !newcomer.asked().is_empty()
    })
    .await;
    until_within(NOTICED_WITHIN, "it has brought something", || {
        session.report().bytes_by_node.get("node-3").copied() > Some(0)
    })
    .await;
    let report = session.report();
    assert_eq!((report.stalls, report.faults.len()), (0, 0), "{report:?}");
    let read = |kind: &EventKind| {
        matches!(
            kind,
            EventKind::ManifestRead {
                moved_chunks: 50,
                error: None
            }
        )
    };
    let told = told(&mut events);
    assert!(told.iter().any(read), "{told:?}");
    let names: Vec<_> = client.nodes().into_iter().map(|node| node.node_id).collect();
    assert_eq!(names.get(2), Some(&newcomer.id), "it is in the client's list");
    assert!(session.snapshot().position_ms > CHUNK_MS);
    playing.abort();
}

#[tokio::test]
async fn a_node_that_joins_is_used_by_the_pool() {
    check_join(PolicyName::Pool).await;
}

#[tokio::test]
async fn a_node_that_joins_is_used_by_the_base_policy() {
    check_join(PolicyName::Seed).await;
}
