//! What agreement costs, read from the counters of a running cluster, with and without trouble.
//!
//! The figures that this prints are those of `docs/evaluation/consensus-messages.md`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::time::Duration;

use common::{Dev, alone, clip, follow, port_base, process, text, until};
use rustix::process::Signal;
use serde_json::Value;

fn pid_of(dev: &Dev, role: &str) -> u32 {
    let status = dev.ask(&["status", "--data", &dev.ready.data_dir]).succeeded();
    let mut children = status["children"].as_array().unwrap().iter();
    let found = children.find(|child| child["role"] == role).unwrap();
    u32::try_from(found["pid"].as_u64().unwrap()).unwrap()
}

/// The counters of the one uploader, and of the metadata role. After a restart it first has to hear of the uploader.
fn consensus(dev: &Dev) -> (Value, Value) {
    let mut counts = Value::Null;
    until("the uploader is known", Duration::from_secs(30), || {
        counts = dev.ask(&["status", "--consensus"]).succeeded();
        counts["proposers"][0].is_object()
    });
    (counts["proposers"][0].take(), counts["catalogue"].take())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn tell(what: &str, proposer: &Value, path: &str) {
    let (counts, cost) = (&proposer["counts"][path], &proposer[path]);
    println!(
        "{what}: {} chunks, {} ballots, {} prepare, {} accept, {} adopt; {:.2} requests a chunk, {:.2} one-way messages",
        counts["chunks"],
        counts["ballots"],
        counts["prepare"],
        counts["accept"],
        counts["adopt"],
        cost["http_requests"].as_f64().unwrap_or(f64::NAN),
        cost["one_way_messages"].as_f64().unwrap_or(f64::NAN),
    );
}

#[test]
fn an_undisturbed_chunk_costs_three_accepts_and_its_share_of_open_and_commit() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let dev = Dev::start(&data.path().join("cluster"));
    let file = clip(300);
    for _ in 0..3 {
        dev.upload(&file);
    }
    let (proposer, catalogue) = consensus(&dev);
    tell("fast path", &proposer, "fast");
    let fast = &proposer["counts"]["fast"];
    let chunks = number(&fast["chunks"]);
    // 300 s are 30 chunks, an init segment and a poster.
    assert_eq!(chunks, 3 * 32);
    assert_eq!(number(&fast["accept"]), 3 * chunks);
    assert_eq!((number(&fast["prepare"]), number(&fast["adopt"])), (0, 0));
    assert_eq!(number(&proposer["counts"]["contended"]["chunks"]), 0);
    let requests = proposer["fast"]["http_requests"].as_f64().unwrap();
    assert!((3.0..=5.0).contains(&requests), "{requests}");
    // Both ends counted the same.
    for kind in ["open", "commit"] {
        assert_eq!(catalogue[kind], proposer["counts"][kind], "{kind}");
    }
    assert_eq!(number(&catalogue["decided"]), chunks);
    let mut curl = std::process::Command::new("curl");
    let metrics = curl
        .args(["-sS", &format!("{}/metrics", dev.url())])
        .output()
        .unwrap();
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    let line = format!("vstack_consensus_decided_total {chunks}");
    assert!(metrics.contains(&line), "no {line} in {metrics}");
    dev.stop();
}

#[test]
fn uploader_and_catalogue_die_in_mid_upload_and_no_stored_chunk_is_sent_again() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let arguments = ["--nodes", "3", "--restart", "--port-base", &port_base()];
    let dev = Dev::start_with(&data.path().join("cluster"), &arguments);
    let (metadata, uploader) = (pid_of(&dev, "metadata"), pid_of(&dev, "uploader"));
    let (mut upload, lines) = follow(dev.url(), &["upload", text(&clip(300))]);
    let mut line = Value::Null;
    while number_or_0(&line["stored_chunks"]) < 2 {
        line = lines
            .next(Duration::from_secs(60))
            .expect("the upload tells how it goes");
    }
    // From here on nothing is decided: what is on its way to the nodes gets there and stays undecided.
    process::signal(metadata, Signal::STOP);
    let mut before = u64::MAX;
    until("what is on its way has arrived", Duration::from_secs(30), || {
        let now = dev.ready.storage_urls.iter().map(|url| held(url)).sum();
        std::mem::replace(&mut before, now) == now
    });
    process::signal(uploader, Signal::KILL);
    process::signal(metadata, Signal::KILL);
    until("both are back", Duration::from_secs(60), || {
        pid_of_or_0(&dev, "metadata") != metadata && pid_of_or_0(&dev, "uploader") != uploader
    });
    while let Some(next) = lines.next(Duration::from_secs(120)) {
        line = next;
    }
    assert_eq!(upload.wait(Duration::from_secs(10)), Some(0), "{line}");
    assert_eq!(line["state"], "done", "{line}");
    let (proposer, _) = consensus(&dev);
    for path in ["fast", "contended", "known"] {
        tell(path, &proposer, path);
    }
    let bytes = |field: &str| number(&line[field]);
    println!(
        "{} bytes stored, {} sent after the restart, {} spared",
        bytes("stored_bytes"),
        bytes("sent_bytes"),
        bytes("spared_bytes")
    );
    assert_eq!(
        bytes("sent_bytes") + bytes("spared_bytes"),
        3 * bytes("stored_bytes")
    );
    let counts = &proposer["counts"];
    assert!(number(&counts["known"]["chunks"]) >= 2, "{counts}");
    assert_eq!(number(&counts["failed"]["chunks"]), 0, "{counts}");
    dev.stop();
}

/// Objects on a node.
fn held(url: &str) -> u64 {
    number(&common::lab::get_json(&format!("{url}/health"))["chunk_count"])
}

fn number_or_0(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// While the roles are away there is no answer.
fn pid_of_or_0(dev: &Dev, role: &str) -> u32 {
    let answer = dev.ask(&["status", "--data", &dev.ready.data_dir]);
    let children = answer.last()["children"].as_array().cloned().unwrap_or_default();
    let found = children.iter().find(|child| child["role"] == role);
    found
        .and_then(|child| u32::try_from(number_or_0(&child["pid"])).ok())
        .unwrap_or(0)
}
