//! The policy is changed while a video plays: nothing comes twice, nothing stops, every byte is the source's.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::{Behaviour, DEADLINE, Footage, TestCluster, told, until};
use tokio::time::timeout;
use vstack_client::policy::{CancelReason, DropReason};
use vstack_client::{EventKind, HeadlessOptions, Pace, PolicyName, Session, headless};
use vstack_emulator::Profile;

/// Twelve times what playback at five times the speed takes.
const PATHS: Profile = Profile {
    down_mbps: Some(8.0),
    up_mbps: None,
    delay_ms: 2,
    jitter_ms: 0,
};
const SPEED: f64 = 5.0;
/// At 8 Mbit/s a node, the first picture comes a second before the first chunk is whole.
const LARGE_CHUNKS: Footage = Footage {
    chunks: 3,
    chunk_bytes: 1_500_000,
    fragments: 8,
};

async fn open(cluster: &TestCluster, policy: PolicyName) -> Session {
    let client = cluster.connect(policy).await;
    client.open(cluster.video).await.expect("the video can be opened")
}

/// Plays in the background and compares what comes with the source, byte for byte and in order.
fn play(cluster: &TestCluster, session: &Session) -> tokio::task::JoinHandle<usize> {
    let source: Vec<u8> = (0..session.chunk_count())
        .flat_map(|seq| cluster.media(seq).to_vec())
        .collect();
    let player = session.clone();
    let options = HeadlessOptions {
        pace: Pace::Times(SPEED),
        ..HeadlessOptions::default()
    };
    tokio::spawn(async move {
        let mut taken = 0;
        let compare = |_: &_, bytes: bytes::Bytes| {
            assert!(source[taken..].starts_with(&bytes), "at byte {taken}");
            taken += bytes.len();
        };
        let played = headless::play_into(&player, options, compare).await;
        played.expect("every chunk comes");
        assert_eq!(taken, source.len());
        taken
    })
}

async fn position_reaches(session: &Session, ms: u64) {
    until("playback gets there", || session.snapshot().position_ms >= ms).await;
}

/// How often each chunk became whole.
fn times_whole(told: &[EventKind]) -> BTreeMap<u32, u32> {
    let mut times = BTreeMap::new();
    for kind in told {
        if let EventKind::Completed { seq, .. }
        | EventKind::Delivered {
            seq, blocks: None, ..
        } = kind
        {
            *times.entry(*seq).or_default() += 1;
        }
    }
    times
}

/// What a change of policies cost of what had been verified block by block, or was on its way to be.
fn given_up(told: &[EventKind]) -> Vec<&EventKind> {
    let mut ranges = false;
    let mut given_up = Vec::new();
    for kind in told {
        match kind {
            EventKind::Requested { blocks, .. } => ranges = blocks.is_some(),
            EventKind::Dropped { why, .. } if *why == DropReason::PolicyChanged => given_up.push(kind),
            EventKind::Cancelled { why, .. } if ranges && *why == CancelReason::PolicyChanged => {
                given_up.push(kind);
            }
            _ => {}
        }
    }
    given_up
}

/// Whether requests were for whole chunks, after the change to `policy`; all of one kind.
fn asks_for_whole(told: &[EventKind], policy: PolicyName) -> Option<bool> {
    let changed = |kind: &&EventKind| matches!(kind, EventKind::PolicyChanged { to, .. } if *to == policy);
    let after = told.iter().skip_while(|kind| !changed(kind)).skip(1);
    let until_next = after.take_while(|kind| !matches!(kind, EventKind::PolicyChanged { .. }));
    let whole: Vec<bool> = until_next
        .filter_map(|kind| match kind {
            EventKind::Requested { blocks, .. } => Some(blocks.is_none()),
            _ => None,
        })
        .collect();
    let first = *whole.first()?;
    assert!(whole.iter().all(|is| *is == first), "{policy}: {whole:?}");
    Some(first)
}

#[tokio::test]
async fn every_policy_takes_over_from_the_one_before_and_nobody_notices() {
    let cluster = TestCluster::start_behind(PATHS, 3, 50, |_| vec![0, 1, 2]).await;
    let session = open(&cluster, PolicyName::Pool).await;
    let mut events = session.events();
    let playing = play(&cluster, &session);
    // The pool's turns are short: it soon has much in store for who plays so fast, and leaves the next one nothing to do.
    let order = [
        (PolicyName::Seed, 5_000),
        (PolicyName::RoundRobin, 30_000),
        (PolicyName::Pool, 50_000),
        (PolicyName::Random, 55_000),
        (PolicyName::Single, 80_000),
        (PolicyName::Pool, 105_000),
        (PolicyName::Seed, 110_000),
    ];
    for (policy, at_ms) in order {
        position_reaches(&session, at_ms).await;
        session.set_policy(policy);
        until("it decides", || session.policy() == policy).await;
    }
    timeout(DEADLINE, playing)
        .await
        .expect("in time")
        .expect("it plays");
    let report = session.report();
    assert!(report.complete, "{report:?}");
    assert_eq!(
        (report.stalls, report.stall_ms, report.faults.len()),
        (0, 0, 0),
        "{report:?}"
    );
    assert_eq!((report.policy, report.policy_changes), (PolicyName::Seed, 7));
    let told = told(&mut events);
    assert_eq!(times_whole(&told), (0..50).map(|seq| (seq, 1)).collect());
    assert_eq!(given_up(&told), Vec::<&EventKind>::new());
    assert_eq!(asks_for_whole(&told, PolicyName::Single), Some(true));
    assert_eq!(asks_for_whole(&told, PolicyName::Pool), Some(false));
}

#[tokio::test]
async fn a_change_waits_for_the_chunk_that_is_played_from_its_beginning() {
    let cluster = TestCluster::behind(PATHS, 2, LARGE_CHUNKS, |_| vec![0, 1]).await;
    let session = open(&cluster, PolicyName::Pool).await;
    let mut events = session.events();
    let playing = tokio::spawn({
        let session = session.clone();
        async move { headless::play_session(&session, HeadlessOptions::default()).await }
    });
    until("the first picture", || session.snapshot().startup_ms.is_some()).await;
    session.set_policy(PolicyName::Seed);
    until("it decides", || session.policy() == PolicyName::Seed).await;
    timeout(DEADLINE, playing)
        .await
        .expect("in time")
        .expect("no panic")
        .expect("it plays");
    let report = session.report();
    assert_eq!((report.stalls, report.complete), (0, true), "{report:?}");
    let told = told(&mut events);
    let place = |wanted: &dyn Fn(&EventKind) -> bool| told.iter().position(wanted);
    let picture = place(&|kind| matches!(kind, EventKind::FirstFrame { .. }));
    let whole = place(&|kind| matches!(kind, EventKind::Completed { seq: 0, .. }));
    let changed = place(&|kind| matches!(kind, EventKind::PolicyChanged { .. }));
    assert!(picture < whole && whole < changed, "{told:?}");
    assert_eq!(times_whole(&told), (0..3).map(|seq| (seq, 1)).collect());
}

#[tokio::test]
async fn a_pool_that_brings_nothing_more_is_not_waited_for_long() {
    let cluster = TestCluster::behind(PATHS, 2, LARGE_CHUNKS, |_| vec![0, 1]).await;
    let session = open(&cluster, PolicyName::Pool).await;
    let mut events = session.events();
    until("blocks come", || session.report().bytes > 200_000).await;
    cluster.nodes.iter().for_each(|node| node.set(Behaviour::Mute));
    session.set_policy(PolicyName::Seed);
    until("it decides", || session.policy() == PolicyName::Seed).await;
    assert!(
        !given_up(&told(&mut events)).is_empty(),
        "a part of a chunk is given up"
    );
    cluster.nodes.iter().for_each(|node| node.set(Behaviour::Serve));
    let bytes = timeout(DEADLINE, session.chunk(0)).await.expect("in time");
    assert!(bytes.expect("it can be had") == cluster.media(0));
}

#[tokio::test]
async fn a_wish_that_is_taken_back_changes_nothing() {
    let cluster = TestCluster::behind(PATHS, 2, LARGE_CHUNKS, |_| vec![0, 1]).await;
    let session = open(&cluster, PolicyName::Pool).await;
    let mut events = session.events();
    let playing = tokio::spawn({
        let session = session.clone();
        async move { headless::play_session(&session, HeadlessOptions::default()).await }
    });
    until("blocks come", || session.report().bytes > 200_000).await;
    session.set_policy(PolicyName::Seed);
    session.set_policy(PolicyName::Pool);
    timeout(DEADLINE, playing)
        .await
        .expect("in time")
        .expect("no panic")
        .expect("it plays");
    let report = session.report();
    assert_eq!((report.policy_changes, report.complete), (0, true), "{report:?}");
    assert_eq!(given_up(&told(&mut events)), Vec::<&EventKind>::new());
}

#[tokio::test]
async fn a_change_helps_at_once_where_playback_waits() {
    let cluster = TestCluster::start(3, 6, |_| vec![0, 1, 2]);
    cluster.nodes.iter().for_each(|node| node.set(Behaviour::Mute));
    let session = open(&cluster, PolicyName::Seed).await;
    until("something is asked for", || session.report().requests > 0).await;
    session.set_policy(PolicyName::Pool);
    until("it decides", || session.policy() == PolicyName::Pool).await;
    cluster.nodes.iter().for_each(|node| node.set(Behaviour::Serve));
    let bytes = timeout(Duration::from_secs(5), session.chunk(0))
        .await
        .expect("in time");
    assert!(bytes.expect("it can be had") == cluster.media(0));
}

#[tokio::test]
async fn later_sessions_of_a_client_begin_with_the_policy_that_was_set() {
    let cluster = TestCluster::start(1, 2, |_| vec![0]);
    let client = cluster.connect(PolicyName::Pool).await;
    client.set_policy(PolicyName::Single);
    let session = client.open(cluster.video).await.expect("the video can be opened");
    assert_eq!(
        (client.policy(), session.policy()),
        (PolicyName::Single, PolicyName::Single)
    );
    assert_eq!(session.report().policy_changes, 0);
}
