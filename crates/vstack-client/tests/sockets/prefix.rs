//! Playback begins with the verified beginning of a chunk, while the rest is still coming.

use std::time::Duration;

use crate::support::{Footage, TestCluster, told};
use tokio::time::timeout;
use vstack_client::{EventKind, HeadlessOptions, Pace, PolicyName, SessionReport, headless};
use vstack_emulator::Profile;

/// Chunks of 1.5 MB: 3 Mbit/s, of which the three paths together carry four times.
const FOOTAGE: Footage = Footage {
    chunks: 3,
    chunk_bytes: 1_500_000,
    fragments: 8,
};
const PATHS: Profile = Profile {
    down_mbps: Some(4.0),
    up_mbps: None,
    delay_ms: 2,
    jitter_ms: 0,
};
const LIMIT: Duration = Duration::from_secs(30);

/// Plays all of it; what was told, in order. Every byte is the source's, in order and once.
async fn played(policy: PolicyName, footage: Footage) -> (Vec<EventKind>, SessionReport) {
    let cluster = TestCluster::behind(PATHS, 3, footage, |_| vec![0, 1, 2]).await;
    let client = cluster.connect(policy).await;
    let session = client.open(cluster.video).await.expect("the video can be opened");
    let mut events = session.events();
    let options = HeadlessOptions {
        pace: Pace::Times(2.0),
        ..HeadlessOptions::default()
    };
    let mut taken = Vec::new();
    let playing = headless::play_into(&session, options, |_, bytes| taken.extend_from_slice(&bytes));
    timeout(LIMIT, playing).await.expect("in time").expect("it plays");
    let source: Vec<u8> = (0..footage.chunks)
        .flat_map(|seq| cluster.media(seq).to_vec())
        .collect();
    assert!(taken == source, "{} bytes of {}", taken.len(), source.len());
    (told(&mut events), session.report())
}

/// Places in the order of events: the first picture, and the first chunk being whole.
fn places(told: &[EventKind]) -> (Option<usize>, Option<usize>) {
    let picture = |kind: &EventKind| matches!(kind, EventKind::FirstFrame { .. });
    let whole = |kind: &EventKind| {
        matches!(
            kind,
            EventKind::Completed { seq: 0, .. }
                | EventKind::Delivered {
                    seq: 0,
                    blocks: None,
                    ..
                }
        )
    };
    (told.iter().position(picture), told.iter().position(whole))
}

#[tokio::test]
async fn the_first_picture_needs_only_the_beginning_of_the_first_chunk() {
    let (told, report) = played(PolicyName::Pool, FOOTAGE).await;
    let (picture, whole) = places(&told);
    assert!(picture.is_some() && picture < whole, "{told:?}");
    // A busy machine is a moment late now and then; without the chunk's beginning it would be a second and more.
    assert!(report.stall_ms < 300, "{report:?}");
    // All of the first chunk takes a second and more at 12 Mbit/s.
    assert!(report.startup_ms < Some(1_000), "{report:?}");
}

#[tokio::test]
async fn a_policy_of_whole_chunks_begins_with_a_whole_one() {
    let (told, _) = played(PolicyName::Seed, FOOTAGE).await;
    let (picture, whole) = places(&told);
    assert!(whole.is_some() && whole < picture, "{told:?}");
}

#[tokio::test]
async fn without_fragments_a_chunk_is_taken_whole() {
    let footage = Footage {
        fragments: 0,
        ..FOOTAGE
    };
    let (told, _) = played(PolicyName::Pool, footage).await;
    let (picture, whole) = places(&told);
    assert!(whole.is_some() && whole < picture, "{told:?}");
}
