//! Sessions of the base policy over real sockets, against nodes that serve, hang, lie and die: the bytes are always the source's bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Behaviour, CHUNK_MS, DEADLINE, TestCluster, told, until};
use tokio::time::timeout;
use vstack_api::ErrorCode;
use vstack_client::policy::Failure;
use vstack_client::{
    ClientError, EventKind, HeadlessOptions, Pace, PolicyName, Session, SpanState, headless,
};
use vstack_core::id::ChunkId;

/// Three replicas of five, as a cluster places them.
fn three_of_five(seq: u32) -> Vec<usize> {
    (0..3).map(|step| (seq as usize + step * 2) % 5).collect()
}

async fn open(cluster: &TestCluster) -> Session {
    cluster
        .connect(PolicyName::Seed)
        .await
        .open(cluster.video)
        .await
        .expect("the video can be opened")
}

/// Waits for a chunk and compares every byte with the source.
async fn check_chunk(cluster: &TestCluster, session: &Session, seq: u32) {
    let bytes = timeout(DEADLINE, session.chunk(seq))
        .await
        .expect("in time")
        .expect("it can be had");
    assert!(bytes == cluster.media(seq), "chunk {seq} differs from the source");
}

/// Takes chunk by chunk, moving the position.
async fn check_plays(cluster: &TestCluster, session: &Session, from: u32) {
    for seq in from..session.chunk_count() {
        session.set_position(u64::from(seq) * CHUNK_MS);
        check_chunk(cluster, session, seq).await;
    }
}

#[tokio::test]
async fn every_byte_is_the_sources_and_healthy_nodes_are_asked_once_a_chunk() {
    let cluster = TestCluster::start(5, 30, three_of_five);
    let session = open(&cluster).await;
    assert_eq!(
        session.init_segment().as_ref(),
        cluster.source.get(&ChunkId::init(cluster.video))
    );
    check_plays(&cluster, &session, 0).await;
    let report = session.report();
    assert!(report.complete && report.faults.is_empty(), "{report:?}");
    assert_eq!((report.requests, report.chunks, report.wasted_bytes), (30, 30, 0));
    let total: u64 = (0..30).map(|seq| cluster.media(seq).len() as u64).sum();
    assert_eq!(
        (report.bytes, report.bytes_by_node.values().sum::<u64>()),
        (total, total)
    );
    let shares: f64 = report.share_percent_by_node.values().sum();
    assert!(
        (shares - 100.0).abs() < 1e-6,
        "{:?}",
        report.share_percent_by_node
    );
}

/// One node misbehaves in mid-play; what playback gets is right, and the events name the node.
async fn check_fault(behaviour: Behaviour, expected: impl Fn(&Failure) -> bool) {
    let cluster = TestCluster::start(3, 40, |_| vec![0, 1, 2]);
    let session = open(&cluster).await;
    let mut events = session.events();
    check_chunk(&cluster, &session, 0).await;
    let bad = &cluster.nodes[1];
    bad.set(behaviour);
    let started = Instant::now();
    check_plays(&cluster, &session, 0).await;
    let told = told(&mut events);
    let failed = told.iter().find_map(|kind| match kind {
        EventKind::Failed { node, failure, .. } => Some((node.clone(), failure.clone())),
        _ => None,
    });
    let (node, failure) = failed.expect("the fault is noticed");
    assert_eq!((node.node_id, node.name.as_str()), (bad.id, "node-2"));
    assert!(expected(&failure), "{behaviour:?} was taken for {failure:?}");
    let failover = |kind: &EventKind| matches!(kind, EventKind::Failover { from, to, .. } if from == &node && to != from);
    assert!(told.iter().any(failover), "no failover from {}", node.name);
    let report = session.report();
    assert!(report.complete && report.faults.iter().all(|fault| fault.node == node));
    assert!(
        report
            .faults
            .iter()
            .all(|fault| fault.recovered_ms.is_some() && fault.recovered_by.is_some())
    );
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{behaviour:?} took {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_node_that_falls_silent_in_the_middle_is_left_after_two_seconds() {
    check_fault(Behaviour::Hang, |failure| {
        *failure == Failure::Silent { after_ms: 2_000 }
    })
    .await;
}

#[tokio::test]
async fn a_node_that_never_answers_is_left_after_two_seconds() {
    check_fault(Behaviour::Mute, |failure| {
        *failure == Failure::Silent { after_ms: 2_000 }
    })
    .await;
}

#[tokio::test]
async fn a_node_that_breaks_off_is_left_at_once() {
    check_fault(Behaviour::Truncate, |failure| {
        matches!(failure, Failure::Broken { .. })
    })
    .await;
}

#[tokio::test]
async fn a_node_that_lies_is_found_out_by_the_hash() {
    check_fault(Behaviour::Corrupt, |failure| *failure == Failure::WrongBytes).await;
}

#[tokio::test]
async fn a_node_that_sends_too_much_is_left_at_the_header() {
    check_fault(Behaviour::TooLong, |failure| {
        matches!(failure, Failure::WrongLength { .. })
    })
    .await;
}

#[tokio::test]
async fn a_node_that_lost_chunks_is_passed_over() {
    check_fault(Behaviour::NotFound, |failure| *failure == Failure::NotFound).await;
}

#[tokio::test]
async fn a_node_with_damaged_chunks_is_passed_over() {
    let damaged = Failure::Refused {
        status: 500,
        code: Some("chunk_corrupt".to_owned()),
    };
    check_fault(Behaviour::Fail, move |failure| *failure == damaged).await;
}

#[tokio::test]
async fn a_killed_node_and_a_lying_one_together_change_no_byte() {
    let cluster = TestCluster::start(5, 40, three_of_five);
    let session = open(&cluster).await;
    check_chunk(&cluster, &session, 0).await;
    cluster.nodes[0].kill();
    cluster.nodes[3].set(Behaviour::Corrupt);
    check_plays(&cluster, &session, 0).await;
    assert!(session.report().complete);
}

#[tokio::test]
async fn a_failover_reads_as_a_sentence() {
    let cluster = TestCluster::start(2, 4, |_| vec![0, 1]);
    cluster.nodes[0].set(Behaviour::Mute);
    let session = open(&cluster).await;
    check_chunk(&cluster, &session, 0).await;
    check_chunk(&cluster, &session, 1).await;
    let log = session.snapshot().log;
    let sentence = |seq| format!("node-1 silent for 2.0 s: chunk {seq} goes on from node-2");
    assert!(
        log.iter()
            .any(|line| (0..4).any(|seq| line.text == sentence(seq))),
        "{log:?}"
    );
}

#[tokio::test]
async fn a_video_that_is_open_plays_to_its_end_without_the_metadata_role() {
    let cluster = TestCluster::start(3, 40, |_| vec![0, 1, 2]);
    let session = open(&cluster).await;
    check_chunk(&cluster, &session, 0).await;
    cluster.stop_metadata();
    cluster.nodes[2].set(Behaviour::NotFound); // and the manifest cannot be read again either
    check_plays(&cluster, &session, 0).await;
}

#[tokio::test]
async fn a_seek_leaves_the_old_place_and_goes_on_from_the_new_one() {
    let cluster = TestCluster::start(3, 100, |_| vec![0, 1, 2]);
    cluster.nodes.iter().for_each(|node| node.set(Behaviour::Hang));
    let session = open(&cluster).await;
    let hanging = || {
        cluster
            .nodes
            .iter()
            .map(|node| node.shared.hanging.load(Ordering::SeqCst))
            .sum::<usize>()
    };
    until("four downloads hang", || hanging() == 4).await;
    let mut events = session.events();
    cluster.nodes.iter().for_each(|node| node.set(Behaviour::Serve));
    session.seek(80 * CHUNK_MS + 100);
    check_chunk(&cluster, &session, 80).await;
    until("the old connections are closed", || hanging() == 0).await;
    let told = told(&mut events);
    let cancelled = told
        .iter()
        .filter(|kind| matches!(kind, EventKind::Cancelled { .. }))
        .count();
    assert_eq!(cancelled, 4, "{told:?}");
    until("the jump is timed", || session.report().seek_ms.len() == 1).await;
    assert!(session.report().wasted_bytes > 0);
    check_plays(&cluster, &session, 80).await;
}

#[tokio::test]
async fn a_chunk_that_moved_is_found_by_reading_the_manifest_again() {
    let cluster = TestCluster::start(5, 12, |_| vec![0, 1, 2]);
    let session = open(&cluster).await;
    let mut events = session.events();
    (8..12).for_each(|seq| cluster.move_chunk(seq, &[3, 4]));
    check_plays(&cluster, &session, 0).await;
    let told = told(&mut events);
    let read = |kind: &EventKind| {
        matches!(
            kind,
            EventKind::ManifestRead {
                moved_chunks: 4,
                error: None
            }
        )
    };
    assert!(told.iter().any(read), "{told:?}");
}

#[tokio::test]
async fn when_all_replicas_lie_the_reader_gets_an_error_and_never_the_bytes() {
    let cluster = TestCluster::start(3, 3, |_| vec![0, 1, 2]);
    cluster.nodes.iter().for_each(|node| node.set(Behaviour::Corrupt));
    let session = open(&cluster).await;
    let error = timeout(DEADLINE, session.chunk(0)).await.unwrap().unwrap_err();
    assert!(
        matches!(error, ClientError::Unobtainable { replicas: 3, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("sent wrong bytes"), "{error}");
    // The search has not ended.
    cluster.nodes[2].set(Behaviour::Serve);
    check_chunk(&cluster, &session, 0).await;
}

#[tokio::test]
async fn a_thread_waits_for_chunks_and_can_be_woken() {
    let cluster = TestCluster::start(3, 4, |_| vec![0, 1, 2]);
    let session = open(&cluster).await;
    let reader = session.clone();
    let read = tokio::task::spawn_blocking(move || reader.chunk_blocking(2, &|| false));
    let bytes = timeout(DEADLINE, read).await.unwrap().unwrap().unwrap().unwrap();
    assert!(bytes == cluster.media(2));

    cluster.nodes.iter().for_each(|node| node.set(Behaviour::Mute));
    let (session, cancelled) = (open(&cluster).await, Arc::new(AtomicBool::new(false)));
    let (reader, flag) = (session.clone(), Arc::clone(&cancelled));
    let read = tokio::task::spawn_blocking(move || reader.chunk_blocking(0, &|| flag.load(Ordering::SeqCst)));
    until("the chunk is asked for", || {
        cluster.nodes.iter().any(|node| node.asked().len() > 4)
    })
    .await;
    cancelled.store(true, Ordering::SeqCst);
    session.wake();
    assert!(
        timeout(Duration::from_secs(1), read)
            .await
            .unwrap()
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn dropping_the_session_closes_its_connections() {
    let cluster = TestCluster::start(3, 20, |_| vec![0, 1, 2]);
    cluster.nodes.iter().for_each(|node| node.set(Behaviour::Hang));
    let client = cluster.connect(PolicyName::Seed).await;
    let session = client.open(cluster.video).await.unwrap();
    let hanging = || {
        cluster
            .nodes
            .iter()
            .map(|node| node.shared.hanging.load(Ordering::SeqCst))
            .sum::<usize>()
    };
    until("downloads hang", || hanging() > 0).await;
    drop(session);
    let dropped = Instant::now();
    until("they are closed", || hanging() == 0).await;
    assert!(
        dropped.elapsed() < Duration::from_secs(1),
        "only their own time-out ended them"
    );
}

#[tokio::test]
async fn chunks_that_do_not_exist_are_refused() {
    let cluster = TestCluster::start(1, 2, |_| vec![0]);
    let session = open(&cluster).await;
    let error = session.chunk(2).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ChunkNotFound);
}

#[tokio::test]
async fn a_poster_comes_verified_from_whoever_has_it() {
    let cluster = TestCluster::start(3, 1, |_| vec![0]);
    cluster.nodes[0].set(Behaviour::Corrupt);
    cluster.nodes[1].set(Behaviour::Truncate);
    let client = cluster.connect(PolicyName::Seed).await;
    let poster = cluster.manifest.lock().unwrap().poster.clone().unwrap();
    let bytes = timeout(DEADLINE, client.fetch_verified(&poster))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&bytes, &cluster.source[&poster.chunk_id]);
    cluster.nodes[2].set(Behaviour::Fail);
    let error = timeout(DEADLINE, client.fetch_verified(&poster))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
}

#[tokio::test]
async fn headless_playback_reports_what_a_viewer_would_have_seen() {
    let cluster = TestCluster::start(3, 12, |_| vec![0, 1, 2]);
    let client = cluster.connect(PolicyName::Seed).await;
    let options = HeadlessOptions {
        pace: Pace::Times(40.0),
        ..HeadlessOptions::default()
    };
    let started = Instant::now();
    let report = headless::play(&client, cluster.video, options).await.unwrap();
    assert!(
        started.elapsed() >= Duration::from_millis(1_200),
        "48 s at 40 times the speed"
    );
    assert!(report.complete && report.startup_ms.is_some());
    assert_eq!(
        (report.stalls, report.chunks, report.requests_per_chunk),
        (0, 12, 1.0)
    );
    let json = serde_json::to_value(&report).unwrap();
    for field in [
        "startup_ms",
        "stalls",
        "stall_ms",
        "avg_buffer_s",
        "min_buffer_s",
        "bytes",
        "wasted_bytes",
    ] {
        assert!(json[field].is_number(), "{field} in {json}");
    }
    assert!(
        json["nodes"][0]["measurements"]["latency_ms"].is_array(),
        "{json}"
    );
    assert_eq!(json["nodes"][0]["status"], "healthy");
}

#[tokio::test]
async fn headless_playback_counts_stalls_and_goes_on() {
    let cluster = TestCluster::start(2, 12, |_| vec![0, 1]);
    let client = cluster.connect(PolicyName::Seed).await;
    let session = client.open(cluster.video).await.unwrap();
    check_chunk(&cluster, &session, 0).await;
    cluster.nodes.iter().for_each(|node| node.set(Behaviour::Mute));
    let playing = tokio::spawn({
        let session = session.clone();
        let options = HeadlessOptions {
            pace: Pace::Times(100.0),
            ..HeadlessOptions::default()
        };
        async move { headless::play_session(&session, options).await }
    });
    until("it stalls", || session.snapshot().stalls == 1).await;
    cluster.nodes.iter().for_each(|node| node.set(Behaviour::Serve));
    timeout(DEADLINE, playing).await.unwrap().unwrap().unwrap();
    let report = session.report();
    assert!(report.complete && report.stall_ms > 0, "{report:?}");
}

#[tokio::test]
async fn headless_playback_as_fast_as_possible_takes_everything() {
    let cluster = TestCluster::start(3, 60, |_| vec![0, 1, 2]);
    let client = cluster.connect(PolicyName::Seed).await;
    let options = HeadlessOptions {
        pace: Pace::AsFastAsPossible,
        ..HeadlessOptions::default()
    };
    let report = timeout(DEADLINE, headless::play(&client, cluster.video, options))
        .await
        .unwrap()
        .unwrap();
    assert!(report.complete);
    assert_eq!((report.chunks, report.stalls), (60, 0));
}

#[tokio::test]
async fn the_snapshot_shows_who_sent_what() {
    let cluster = TestCluster::start(3, 30, |_| vec![0, 1, 2]);
    let session = open(&cluster).await;
    for seq in 0..8 {
        session.set_position(u64::from(seq) * CHUNK_MS);
        check_chunk(&cluster, &session, seq).await;
    }
    until("the position is known", || {
        session.snapshot().position_ms == 7 * CHUNK_MS
    })
    .await;
    let snapshot = session.snapshot();
    let state_at = |ms: u64| {
        let span = snapshot
            .spans
            .iter()
            .find(|span| (span.start_ms..span.end_ms).contains(&ms));
        span.map(|span| span.state)
    };
    assert_eq!(state_at(0), Some(SpanState::Played), "{:?}", snapshot.spans);
    assert_eq!(
        state_at(7 * CHUNK_MS),
        Some(SpanState::Buffered),
        "{:?}",
        snapshot.spans
    );
    assert_eq!((snapshot.lanes.len(), snapshot.nodes.len()), (3, 3));
    assert!(snapshot.nodes.iter().map(|node| node.chunks).sum::<u64>() >= 8);
    assert!(snapshot.buffer_ms >= CHUNK_MS);
    assert!(
        snapshot
            .lanes
            .iter()
            .flat_map(|lane| &lane.bars)
            .all(|bar| 0.0 <= bar.start && bar.end <= 1.0)
    );
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_an_error_with_a_code() {
    let cluster = TestCluster::start(1, 1, |_| vec![0]);
    cluster.stop_metadata();
    let config = vstack_client::ClientConfig::new(&cluster.metadata_url);
    until("it is gone", || {
        std::net::TcpStream::connect(cluster.metadata_url.trim_start_matches("http://")).is_err()
    })
    .await;
    let error = vstack_client::Cluster::connect(config).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unreachable);
}

#[tokio::test]
async fn nodes_are_named_in_the_order_of_their_addresses_and_watched() {
    let cluster = TestCluster::start(3, 1, |_| vec![0]);
    let client = cluster.connect(PolicyName::Seed).await;
    let names: Vec<_> = client
        .nodes()
        .into_iter()
        .map(|node| (node.name.clone(), node.node_id, node.colour()))
        .collect();
    let expected = (0..)
        .zip(&cluster.nodes)
        .map(|(index, node)| (format!("node-{}", index + 1), node.id, index));
    let expected: Vec<_> = expected.collect();
    assert_eq!(names, expected);
    assert!(
        client.nodes().iter().all(|node| node.latency_ms().is_some()),
        "the first round is awaited"
    );
    cluster.nodes[2].kill();
    let status = |index: usize| client.nodes()[index].status;
    until("the dead node is noticed", || {
        status(2) == vstack_core::node::NodeHealth::Down
    })
    .await;
    assert_eq!(status(0), vstack_core::node::NodeHealth::Healthy);
}
