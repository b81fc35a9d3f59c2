//! A node is lost in the middle of playback, behind slow paths, with a request to it open: nobody notices.
//!
//! The paths carry little more than playback takes, so the buffer alone cannot hide the loss.

use std::time::Duration;

use crate::support::{CHUNK_MS, DEADLINE, TestCluster, told, until};
use tokio::time::timeout;
use vstack_client::policy::Failure;
use vstack_client::{
    EventKind, HeadlessOptions, NodeRef, Pace, PolicyName, Session, SessionReport, headless,
};
use vstack_emulator::{Handle, Profile};

/// Five minutes of video at this speed; 2 s without a byte are 6 s of playback.
const SPEED: f64 = 3.0;
const CHUNKS: u32 = 75;

fn three_of_five(seq: u32) -> Vec<usize> {
    (0..3).map(|step| (seq as usize + step * 2) % 5).collect()
}

async fn open(cluster: &TestCluster, policy: PolicyName) -> Session {
    let client = cluster.connect(policy).await;
    client.open(cluster.video).await.expect("the video can be opened")
}

/// What a loss came to.
struct Loss {
    victim: NodeRef,
    /// Of the last request that was under way.
    seq: u32,
    report: SessionReport,
    told: Vec<EventKind>,
}

/// The next node that is asked for a chunk after 20 s of the video.
async fn next_asked(session: &Session) -> (NodeRef, u32) {
    let mut events = session.events();
    let asked = async {
        loop {
            let event = events.recv().await.expect("the session lives");
            if let EventKind::Requested { seq, node, .. } = event.kind
                && u64::from(seq) * CHUNK_MS > 20_000
            {
                return (node, seq);
            }
        }
    };
    timeout(DEADLINE, asked).await.expect("chunks are asked for")
}

/// Plays on through the loss; the session as it was 45 s of video later, and what it told meanwhile.
async fn play_through(policy: PolicyName, lose: impl Fn(&Handle)) -> Loss {
    let slow = Profile {
        down_mbps: Some(1.0),
        ..Profile::default()
    };
    let cluster = TestCluster::start_behind(slow, 5, CHUNKS, three_of_five).await;
    let session = open(&cluster, policy).await;
    let player = session.clone();
    let options = HeadlessOptions {
        pace: Pace::Times(SPEED),
        ..HeadlessOptions::default()
    };
    let playing = tokio::spawn(async move { headless::play_session(&player, options).await });

    let (victim, seq) = next_asked(&session).await;
    let index = usize::from(victim.index);
    let later = (seq + 1..CHUNKS)
        .filter(|later| three_of_five(*later).contains(&index))
        .count();
    assert!(later >= 3, "{later} later chunks name {}", victim.name);
    let mut events = session.events();
    lose(
        &cluster.nodes[index]
            .path
            .as_ref()
            .expect("there is a path")
            .handle,
    );
    let lost_at_ms = session.snapshot().position_ms;
    let bytes_before = session.report().bytes;
    until("45 s more are played", || {
        session.snapshot().position_ms > lost_at_ms + 45_000
    })
    .await;

    let report = session.report();
    assert_eq!((report.stalls, report.stall_ms), (0, 0), "{report:?}");
    assert!(
        report.bytes > bytes_before && report.min_buffer_s > 0.0,
        "{report:?}"
    );
    playing.abort();
    Loss {
        told: told(&mut events),
        victim,
        seq,
        report,
    }
}

/// The base policy waits for the node it has asked, and says what it did then.
async fn check_seed(lose: impl Fn(&Handle), expected: impl Fn(&Failure) -> bool) {
    let Loss {
        victim,
        seq,
        report,
        told,
    } = play_through(PolicyName::Seed, lose).await;
    let failover = |kind: &EventKind| matches!(kind, EventKind::Failover { from, to, .. } if *from == victim && to != from);
    assert!(
        told.iter().any(failover),
        "no failover from {}: {told:?}",
        victim.name
    );
    assert!(
        report.faults.iter().all(|fault| fault.node == victim),
        "{:?}",
        report.faults
    );
    let fault = report.faults.first().expect("the loss is a fault");
    // An earlier chunk may still be on its way from the same node.
    assert!(fault.seq <= seq && expected(&fault.failure), "{fault:?}");
}

/// Nobody but the lost node is blamed.
async fn check_pool(lose: impl Fn(&Handle)) {
    let Loss { victim, report, .. } = play_through(PolicyName::Pool, lose).await;
    assert!(
        report.faults.iter().all(|fault| fault.node == victim),
        "{:?}",
        report.faults
    );
}

#[tokio::test]
async fn a_node_that_is_stopped_while_others_send_too_costs_no_stall() {
    check_pool(Handle::freeze).await;
}

#[tokio::test]
async fn a_node_that_is_killed_while_others_send_too_costs_no_stall() {
    check_pool(Handle::cut).await;
}

#[tokio::test]
async fn a_node_that_is_stopped_while_it_sends_costs_no_stall() {
    check_seed(Handle::freeze, |failure| {
        *failure == Failure::Silent { after_ms: 2_000 }
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_killed_while_it_sends_costs_no_stall() {
    // Before its first byte, or after.
    check_seed(Handle::cut, |failure| {
        matches!(failure, Failure::Broken { .. } | Failure::Connect)
    })
    .await;
}

#[tokio::test]
async fn an_outage_of_all_paths_ends_as_soon_as_they_are_back() {
    let cluster = TestCluster::start_behind(Profile::default(), 3, 30, |_| vec![0, 1, 2]).await;
    let session = open(&cluster, PolicyName::Seed).await;
    timeout(DEADLINE, session.chunk(0)).await.unwrap().unwrap();
    let paths = || cluster.nodes.iter().filter_map(|node| node.path.as_ref());
    paths().for_each(|path| path.handle.cut());
    session.seek(20 * CHUNK_MS);
    until("every node has failed twice", || {
        session.snapshot().nodes.iter().all(|node| node.failures >= 2)
    })
    .await;
    paths().for_each(|path| path.handle.restore());
    let back = timeout(Duration::from_secs(6), session.chunk(20)).await;
    assert!(back.expect("the search goes on within a rest").unwrap() == cluster.media(20));
}
