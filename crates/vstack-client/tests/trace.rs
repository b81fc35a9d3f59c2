//! Sessions on real sockets are written down, and play back to the same decisions.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a helper that fails is a test that fails"
)]

mod stage;

use std::io::Write;
use std::sync::{Arc, Mutex};

use stage::{Stage, mbps, until};
use vstack_client::policy::PolicyConfig;
use vstack_client::policy::trace::{Replay, Replayer};
use vstack_client::{ClientConfig, Cluster, HeadlessOptions, Pace, PolicyName, TraceSink, headless};

/// A file in memory.
#[derive(Debug, Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Of twelve chunks from three nodes, the quickest of which dies on the way.
async fn recorded(policy: PolicyName) -> Vec<String> {
    let stage = Stage::start(&[mbps(16.0), mbps(8.0), mbps(8.0)], &[12]).await;
    let config = ClientConfig {
        policy,
        ..ClientConfig::new(stage.metadata_url.clone())
    };
    let cluster = Cluster::connect(config).await.unwrap();
    let page = Page::default();
    let (sink, writing) = TraceSink::to(page.clone());
    let session = cluster.open_traced(stage.videos[0], sink).await.unwrap();
    let watched = session.clone();
    let pace = HeadlessOptions {
        pace: Pace::Times(16.0),
        start_ms: 0,
    };
    let playing = tokio::spawn(async move { headless::play_session(&watched, pace).await });
    until("half of it has come", || session.report().chunks >= 4).await;
    stage.paths[0].handle.cut();
    playing.await.unwrap().unwrap();
    let report = session.report();
    assert!(report.complete && !report.faults.is_empty(), "{report:?}");
    drop((session, cluster));
    let lines = tokio::task::spawn_blocking(|| writing.wait())
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
    let written: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(written.len() as u64, lines);
    written
}

fn replayed(lines: &[String], other: Option<PolicyConfig>) -> Replay {
    let mut replayer = Replayer::new(other);
    for line in lines {
        replayer.take(line).unwrap();
    }
    replayer.finish().unwrap()
}

async fn check_replays(policy: PolicyName) {
    let lines = recorded(policy).await;
    let replay = replayed(&lines, None);
    assert_eq!(replay.parted, None);
    assert!(
        replay.complete && replay.facts > 24 && replay.records > 3,
        "{replay:?}"
    );
    let actions = lines
        .iter()
        .filter(|line| line.starts_with("{\"action\""))
        .count();
    assert_eq!(replay.actions, actions as u64);
    // What ended an attempt is told; without it the decision that followed does not come.
    let failure = lines
        .iter()
        .position(|line| line.contains("\"failed\"") || line.contains("\"silent\""))
        .unwrap();
    let fact = (0..=failure)
        .rev()
        .find(|at| lines[*at].starts_with("{\"fact\""))
        .unwrap();
    let mut changed = lines.clone();
    changed[fact] = "{\"fact\":{\"at_us\":0,\"is\":\"manifest_read\"}}".to_owned();
    let parted = replayed(&changed, None).parted.unwrap();
    assert!(parted.line > fact as u64, "{parted:?}");
    assert!(parted.recorded != parted.replayed, "{parted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_the_base_policy_with_a_dying_node_replays_bit_for_bit() {
    check_replays(PolicyName::Seed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_the_pooled_policy_with_a_dying_node_replays_bit_for_bit() {
    check_replays(PolicyName::Pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_policy_would_have_decided_otherwise_from_the_first_request_on() {
    let lines = recorded(PolicyName::Seed).await;
    let other = ClientConfig {
        policy: PolicyName::Pool,
        ..ClientConfig::new("")
    };
    let parted = replayed(&lines, Some(other.policy_config())).parted.unwrap();
    assert!(parted.recorded.unwrap().contains("\"piece\":\"chunk\""));
    assert!(parted.replayed.unwrap().contains("\"blocks\""));
}
