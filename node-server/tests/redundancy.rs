//! Erasure-coded videos on a real cluster: converted while somebody watches, and played with any two of five nodes away.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::process::Command;
use std::time::Duration;

use common::lab::get_json;
use common::process::signal;
use common::{Dev, alone, ask, clip, until};
use rustix::process::Signal;
use serde_json::Value;

fn manifest(cluster: &Dev, video: &str) -> Value {
    get_json(&format!("{}/manifest/{video}", cluster.url()))
}

fn size_bytes(manifest: &Value) -> u64 {
    let chunks = manifest["chunks"].as_array().unwrap();
    chunks
        .iter()
        .filter_map(|chunk| chunk["size_bytes"].as_u64())
        .sum()
}

/// Everything arrived, every byte of it right, and nobody waited.
fn check_played(report: &Value, size_bytes: u64, what: &str) {
    assert_eq!(report["complete"], true, "{what}: {report}");
    // Beside the video itself: what was asked for twice, what was given up with a chunk's copies, the last rows' padding.
    let figure = |name: &str| report[name].as_u64().unwrap();
    let more = figure("hedged_bytes") + figure("wasted_bytes") + 4 * figure("chunks");
    let bytes = figure("bytes");
    assert!(
        (size_bytes..=size_bytes + more).contains(&bytes),
        "{what}: {bytes} B of {size_bytes}: {report}"
    );
    assert_eq!(
        (&report["stalls"], &report["hash_failures"]),
        (&0.into(), &0.into()),
        "{what}"
    );
}

/// What curl gets, hashed by `sha256sum`, is what the manifest says.
fn check_plain_readers(manifest: &Value) {
    for chunk in manifest["chunks"].as_array().unwrap() {
        let (url, id) = (&chunk["replicas"][0], &chunk["chunk_id"]);
        let script = format!(
            "curl -sSf {}/chunk/{} | sha256sum",
            url.as_str().unwrap(),
            id.as_str().unwrap()
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let sum = String::from_utf8(output.stdout).unwrap();
        let sum = sum.split_whitespace().next().unwrap().to_owned();
        assert_eq!(chunk["checksum"], format!("sha256:{sum}"), "{id}");
    }
}

#[test]
fn a_video_that_is_converted_while_it_plays_does_not_stall() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let cluster = Dev::start(data.path());
    // Old parts go 60 s after the conversion. Then the player has 30 s ahead and must find the rest in its new place.
    let video = cluster.upload(&clip(120));
    let (url, name) = (cluster.url().to_owned(), video.clone());
    let player = std::thread::spawn(move || ask(&url, &["play", &name]).succeeded());
    let view = cluster
        .ask(&["video", "set-redundancy", &video, "erasure", "--wait"])
        .succeeded();
    assert_eq!(
        (&view["mode"], &view["choice"]),
        (&"erasure".into(), &"erasure".into())
    );
    let report = player.join().unwrap();
    let manifest = manifest(&cluster, &video);
    check_played(&report, size_bytes(&manifest), "played through its conversion");
    let stored = view["stored_bytes"].as_u64().unwrap() as f64 / view["size_bytes"].as_u64().unwrap() as f64;
    assert!(stored < 1.8, "stored {stored} times");
    check_plain_readers(&manifest);
    assert_eq!(cluster.stop(), Some(0));
}

#[test]
fn any_two_of_five_nodes_may_hang_and_two_may_die() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let cluster = Dev::start(data.path());
    let copies = cluster.upload(&clip(60));
    let job = cluster
        .ask(&["upload", common::text(&clip(30)), "--redundancy", "erasure"])
        .succeeded();
    let shards = job["video_id"].as_str().unwrap().to_owned();
    cluster
        .ask(&["video", "set-redundancy", &shards, "erasure", "--wait"])
        .succeeded();
    let videos = [&copies, &shards].map(|video| (video, size_bytes(&manifest(&cluster, video))));
    let children = cluster.ready.children.iter();
    let nodes: Vec<u32> = children
        .filter(|child| child.role == "storage")
        .map(|child| child.pid)
        .collect();
    let play_all = |what: &str| {
        for (video, size) in videos {
            let report = cluster.ask(&["play", video, "--speed", "0"]).succeeded();
            check_played(&report, size, what);
        }
    };
    play_all("all nodes are there");
    for first in 0..nodes.len() {
        for second in first + 1..nodes.len() {
            let pair = [nodes[first], nodes[second]];
            pair.iter().for_each(|pid| signal(*pid, Signal::STOP));
            play_all(&format!("nodes {first} and {second} hang"));
            pair.iter().for_each(|pid| signal(*pid, Signal::CONT));
        }
    }
    for pid in &nodes[..2] {
        signal(*pid, Signal::KILL);
    }
    play_all("two nodes are dead");
    check_plain_readers(&manifest(&cluster, &shards));
    // Three nodes cannot make five shards: it says so once the nodes count as down and the grace is over, not before.
    until("the nodes count as down", Duration::from_secs(60), || {
        let status = cluster.ask(&["status"]).succeeded();
        status["redundancy"]["waiting"]
            .as_u64()
            .is_some_and(|waiting| waiting > 0)
    });
    assert_eq!(cluster.stop(), Some(0));
}
