//! The pooled policy on real sockets: ranges from several nodes at once, and the bytes are always the source's.

use std::time::{Duration, Instant};

use crate::support::{Behaviour, CHUNK_MS, DEADLINE, TestCluster, told};
use tokio::time::timeout;
use vstack_client::policy::Failure;
use vstack_client::{EventKind, HeadlessOptions, Pace, PolicyName, Session, headless};

async fn open(cluster: &TestCluster) -> Session {
    let client = cluster.connect(PolicyName::Pool).await;
    client.open(cluster.video).await.expect("the video can be opened")
}

/// Takes chunk by chunk as a player does, and compares every byte with the source.
async fn check_plays(cluster: &TestCluster, session: &Session) {
    for seq in 0..session.chunk_count() {
        session.set_position(u64::from(seq) * CHUNK_MS);
        let bytes = timeout(DEADLINE, session.chunk(seq)).await.expect("in time");
        assert!(
            bytes.expect("it can be had") == cluster.media(seq),
            "chunk {seq} differs from the source"
        );
        session.note_first_frame();
    }
}

#[tokio::test]
async fn every_chunk_comes_from_several_nodes_and_is_whole() {
    let cluster = TestCluster::start(3, 20, |_| vec![0, 1, 2]);
    let session = open(&cluster).await;
    check_plays(&cluster, &session).await;
    let report = session.report();
    assert!(report.complete && report.faults.is_empty(), "{report:?}");
    // What was asked for twice while nothing played yet, and nothing else.
    assert!(report.wasted_bytes <= 512 * 1024, "{report:?}");
    let total: u64 = (0..20).map(|seq| cluster.media(seq).len() as u64).sum();
    assert!(report.bytes >= total, "{} of {total}", report.bytes);
    assert!(
        report.bytes - report.hedged_bytes <= total + total / 20,
        "{report:?}"
    );
    let busy = report.bytes_by_node.values().filter(|bytes| **bytes > 0);
    assert_eq!(busy.count(), 3, "{:?}", report.bytes_by_node);
}

/// One node of three misbehaves from the start; its faults are named and cost no wrong byte.
async fn check_fault(behaviour: Behaviour, expected: impl Fn(&Failure) -> bool) {
    let cluster = TestCluster::start(3, 12, |_| vec![0, 1, 2]);
    cluster.nodes[1].set(behaviour);
    let session = open(&cluster).await;
    let mut events = session.events();
    check_plays(&cluster, &session).await;
    let report = session.report();
    assert!(report.complete, "{report:?}");
    let told = told(&mut events);
    let blamed = report
        .faults
        .iter()
        .find(|fault| fault.node.node_id == cluster.nodes[1].id && expected(&fault.failure));
    assert!(blamed.is_some(), "{:?}\n{told:?}", report.faults);
    let others = report
        .faults
        .iter()
        .filter(|fault| fault.node.node_id != cluster.nodes[1].id);
    assert_eq!(others.count(), 0, "{:?}", report.faults);
    let failovers = told.iter().any(|kind| {
        matches!(
            kind,
            EventKind::Failed { .. } | EventKind::BadBlock { .. } | EventKind::Cancelled { .. }
        )
    });
    assert!(failovers, "{told:?}");
}

/// A silent node is hedged before it is given up: what it owed comes from others, and nobody waits for a time-out.
async fn check_silence(behaviour: Behaviour) {
    let cluster = TestCluster::start(3, 12, |_| vec![0, 1, 2]);
    cluster.nodes[1].set(behaviour);
    let session = open(&cluster).await;
    let mut events = session.events();
    let started = Instant::now();
    check_plays(&cluster, &session).await;
    let report = session.report();
    assert!(report.complete, "{report:?}");
    // A whole-chunk policy waits 2 s for each silence; three of them would take longer than this.
    assert!(started.elapsed() < Duration::from_secs(6), "{report:?}");
    let hedged = told(&mut events)
        .iter()
        .any(|kind| matches!(kind, EventKind::Requested { node, hedge: true, .. } if node.index != 1));
    assert!(hedged, "somebody was asked once more for what node-2 owes");
    assert!(
        report.faults.iter().all(|fault| fault.node.index == 1),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_node_that_falls_silent_in_the_middle_costs_no_wait() {
    check_silence(Behaviour::Hang).await;
}

#[tokio::test]
async fn a_node_that_never_answers_costs_no_wait() {
    check_silence(Behaviour::Mute).await;
}

#[tokio::test]
async fn a_node_that_breaks_off_is_left_at_once() {
    check_fault(Behaviour::Truncate, |failure| {
        matches!(failure, Failure::Broken { .. })
    })
    .await;
}

#[tokio::test]
async fn a_node_that_lies_is_blamed_for_the_block_and_not_for_the_chunk() {
    check_fault(Behaviour::Corrupt, |failure| *failure == Failure::WrongBytes).await;
}

#[tokio::test]
async fn a_node_that_sends_more_than_was_asked_is_cut() {
    check_fault(Behaviour::TooLong, |failure| {
        matches!(failure, Failure::WrongLength { .. })
    })
    .await;
}

#[tokio::test]
async fn a_node_without_its_chunks_is_passed_over() {
    check_fault(Behaviour::NotFound, |failure| *failure == Failure::NotFound).await;
}

#[tokio::test]
async fn a_node_with_damaged_chunks_is_passed_over() {
    check_fault(Behaviour::Fail, |failure| {
        matches!(failure, Failure::Refused { status: 500, .. })
    })
    .await;
}

#[tokio::test]
async fn two_of_three_nodes_dead_are_played_without() {
    let cluster = TestCluster::start(3, 12, |_| vec![0, 1, 2]);
    let session = open(&cluster).await;
    cluster.nodes[0].kill();
    cluster.nodes[2].kill();
    check_plays(&cluster, &session).await;
    assert!(session.report().complete);
}

#[tokio::test]
async fn bytes_of_a_chunk_are_a_part_of_it_and_beyond_its_end_is_an_error() {
    let cluster = TestCluster::start(3, 2, |_| vec![0, 1, 2]);
    let session = open(&cluster).await;
    let part = timeout(DEADLINE, session.bytes(0, 1_000..70_000))
        .await
        .expect("in time");
    assert_eq!(part.expect("it can be had"), cluster.media(0)[1_000..70_000]);
    let size = cluster.media(0).len();
    let beyond = timeout(DEADLINE, session.bytes(0, 0..size + 1))
        .await
        .expect("in time");
    assert!(beyond.is_err());
}

#[tokio::test]
async fn headless_playback_runs_through_with_no_stall() {
    let cluster = TestCluster::start(3, 10, |_| vec![0, 1, 2]);
    let client = cluster.connect(PolicyName::Pool).await;
    let options = HeadlessOptions {
        pace: Pace::Times(40.0),
        start_ms: 0,
    };
    let report = timeout(DEADLINE, headless::play(&client, cluster.video, options)).await;
    let report = report.expect("in time").expect("it opens");
    assert!(report.complete && report.stalls == 0, "{report:?}");
    assert_eq!(report.policy, PolicyName::Pool);
}
