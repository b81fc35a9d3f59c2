//! What is fetched before anybody asks, on real sockets: it is there when it is needed, and never in the way.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a helper that fails is a test that fails"
)]

mod stage;

use std::time::Duration;

use stage::{CHUNK_BYTES, Stage, mbps, until};
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;
use vstack_client::policy::prefetch::PauseReason;
use vstack_client::{ClientConfig, Cluster, EventKind, PolicyName, Session, SessionEvent};

const POLICIES: [PolicyName; 2] = [PolicyName::Seed, PolicyName::Pool];
/// The playhead is in the first chunk; this is in chunk 20.
const FAR_MS: u64 = 81_000;
const FAR_SEQ: u32 = 20;

async fn connect(stage: &Stage, policy: PolicyName) -> Cluster {
    let config = ClientConfig {
        policy,
        ..ClientConfig::new(stage.metadata_url.clone())
    };
    Cluster::connect(config).await.unwrap()
}

/// A session whose viewer sees a picture and whose buffer is full.
async fn filled(stage: &Stage, policy: PolicyName) -> (Cluster, Session) {
    let cluster = connect(stage, policy).await;
    let session = cluster.open(stage.videos[0]).await.unwrap();
    session.chunk(0).await.unwrap();
    session.note_first_frame();
    until("the buffer is full", || session.snapshot().buffer_ms > 25_000).await;
    (cluster, session)
}

async fn told(
    events: &mut Receiver<SessionEvent>,
    what: &str,
    is_it: impl Fn(&EventKind) -> bool,
) -> EventKind {
    let found = async {
        loop {
            let event = events.recv().await.unwrap();
            if is_it(&event.kind) {
                return event.kind;
            }
        }
    };
    timeout(Duration::from_secs(20), found)
        .await
        .unwrap_or_else(|_| panic!("not told in time: {what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_to_where_the_pointer_rests_plays_at_once_and_asks_nobody() {
    for policy in POLICIES {
        let stage = Stage::start(&[mbps(16.0); 3], &[30]).await;
        let (_cluster, session) = filled(&stage, policy).await;
        session.hint_pointer(Some(FAR_MS));
        until("it lies ready", || {
            session.report().prefetch.bytes == CHUNK_BYTES as u64
        })
        .await;
        let asked = stage.requests_for(stage.videos[0], FAR_SEQ).len();
        // Nobody could bring it now.
        stage.paths.iter().for_each(|path| path.handle.cut());
        session.seek(FAR_MS);
        let chunk = timeout(Duration::from_secs(5), session.chunk(FAR_SEQ)).await;
        assert_eq!(chunk.unwrap().unwrap().len(), CHUNK_BYTES, "{policy}");
        until("the jump has ended", || !session.report().seek_ms.is_empty()).await;
        let report = session.report();
        assert_eq!(
            stage.requests_for(stage.videos[0], FAR_SEQ).len(),
            asked,
            "{policy}"
        );
        assert!(report.seek_ms[0] < 500, "{policy}: {report:?}");
        let prefetch = report.prefetch;
        assert_eq!(
            (prefetch.used_bytes, prefetch.wasted_bytes),
            (CHUNK_BYTES as u64, 0)
        );
        // It is in the buffer, and the pointer still rests there.
        session.note_stall(false);
        check_left_alone(&session, |session| session.hint_pointer(Some(FAR_MS + 1))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_video_begins_with_what_was_fetched_while_the_one_before_played() {
    for policy in POLICIES {
        let stage = Stage::start(&[mbps(16.0); 3], &[12, 12]).await;
        let (cluster, session) = filled(&stage, policy).await;
        session.hint_next(Some((stage.videos[1], 9_000)));
        // From chunk 2, in which it will begin, 10 s: chunks 2, 3 and 4.
        until("its beginning lies ready", || {
            session.report().prefetch.bytes == 3 * CHUNK_BYTES as u64
        })
        .await;
        drop(session);
        let next = cluster.open(stage.videos[1]).await.unwrap();
        next.seek(9_000);
        timeout(Duration::from_secs(5), next.chunk(2))
            .await
            .unwrap()
            .unwrap();
        let used = next.report().prefetch.used_bytes;
        assert_eq!(used, 3 * CHUNK_BYTES as u64, "{policy}");
        assert!(next.report().seek_ms.iter().all(|ms| *ms < 500), "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefetch_is_given_up_at_once_when_playback_needs_the_network() {
    for policy in POLICIES {
        let stage = Stage::start(&[mbps(16.0); 3], &[30]).await;
        let (_cluster, session) = filled(&stage, policy).await;
        let mut events = session.events();
        let begin = async |events: &mut Receiver<SessionEvent>| {
            stage
                .paths
                .iter()
                .for_each(|path| path.handle.set_profile(mbps(0.1)));
            session.hint_pointer(Some(FAR_MS));
            let began = |kind: &EventKind| matches!(kind, EventKind::PrefetchStarted { .. });
            told(events, "the prefetch begins", began).await;
        };
        let stopped = |kind: &EventKind| matches!(kind, EventKind::PrefetchStopped { .. });
        // The playhead moves on, and little is left ahead of it.
        begin(&mut events).await;
        session.set_position(session.snapshot().buffer_ms - 9_000);
        let kind = told(&mut events, "it stops", stopped).await;
        let EventKind::PrefetchStopped { why, .. } = kind else {
            unreachable!("it was asked for");
        };
        assert_eq!(why, PauseReason::Level, "{policy}");
        session.hint_pointer(None);
        // The viewer jumps to what nobody foresaw.
        stage
            .paths
            .iter()
            .for_each(|path| path.handle.set_profile(mbps(16.0)));
        until("the buffer is full", || session.snapshot().buffer_ms > 25_000).await;
        begin(&mut events).await;
        session.seek(FAR_MS + 24_000);
        let kind = told(&mut events, "it stops", stopped).await;
        assert!(
            matches!(
                kind,
                EventKind::PrefetchStopped {
                    why: PauseReason::Needed,
                    ..
                }
            ),
            "{policy}: {kind:?}"
        );
        let prefetch = session.report().prefetch;
        assert!(prefetch.wasted_bytes < CHUNK_BYTES as u64 && prefetch.used_bytes == 0);
    }
}

/// Nothing of that kind happens for a while after the hints.
async fn check_left_alone(session: &Session, hint: impl FnOnce(&Session)) {
    let mut events = session.events();
    hint(session);
    let begins = async {
        loop {
            let event = events.recv().await.unwrap();
            if matches!(event.kind, EventKind::PrefetchStarted { .. }) {
                return event;
            }
        }
    };
    let begun = timeout(Duration::from_millis(700), begins).await;
    assert!(begun.is_err(), "{begun:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_fetched_in_advance_without_a_budget_or_for_what_is_there() {
    let stage = Stage::start(&[mbps(16.0); 3], &[12, 12]).await;
    let config = ClientConfig {
        prefetch_budget_bytes: 0,
        ..ClientConfig::new(stage.metadata_url.clone())
    };
    let cluster = Cluster::connect(config).await.unwrap();
    let session = cluster.open(stage.videos[0]).await.unwrap();
    session.chunk(0).await.unwrap();
    session.note_first_frame();
    until("the buffer is full", || session.snapshot().buffer_ms > 25_000).await;
    check_left_alone(&session, |session| {
        session.hint_next(Some((stage.videos[1], 0)));
        session.hint_pointer(Some(45_000));
    })
    .await;
    let (_cluster, session) = filled(&stage, PolicyName::Pool).await;
    check_left_alone(&session, |session| session.hint_resume(Some(5_000))).await;
}
