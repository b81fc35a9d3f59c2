//! The product's main job, as a user does it: a cluster starts, a video goes in, it is listed, played and removed, and
//! everything is still there after a restart.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::path::Path;
use std::time::Duration;

use common::lab::get_json;
use common::process::runs;
use common::{Dev, alone, clip, text, until, warnings};
use rustix::process::Signal;

const CLIP_SECONDS: u32 = 60;

#[test]
fn a_video_goes_in_and_plays_and_survives_a_restart_of_the_cluster() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let cluster = Dev::start(data.path());
    assert_eq!(cluster.ready.storage_urls.len(), 5);
    assert!(cluster.ready.gateway_url.is_some());

    let video = cluster.upload(&clip(CLIP_SECONDS));
    check_library(&cluster, &video);
    check_playback(&cluster, &video);
    assert_eq!(cluster.stop(), Some(0), "SIGTERM drains");

    let cluster = Dev::start(data.path());
    check_library(&cluster, &video);
    check_playback(&cluster, &video);
    check_trace(&cluster, &video, data.path());
    check_next(&cluster, &video);

    cluster.ask(&["video", "rm", &video]).succeeded();
    assert_eq!(cluster.ask(&["video", "list"]).succeeded()["total"], 0);
    assert_eq!(
        cluster.ask(&["video", "info", &video]).failed(1)["code"],
        "video_not_found"
    );
    assert_eq!(cluster.stop(), Some(0));
    assert_eq!(
        warnings(data.path()),
        Vec::<String>::new(),
        "nothing odd happened, so nobody warned"
    );
}

fn check_library(cluster: &Dev, video: &str) {
    let page = cluster.ask(&["video", "list"]).succeeded();
    assert_eq!(page["total"], 1);
    let listed = &page["videos"][0];
    assert_eq!(
        (listed["video_id"].as_str(), listed["status"].as_str()),
        (Some(video), Some("active"))
    );
    assert_eq!(listed["title"], format!("clip-{CLIP_SECONDS}"));
    assert_eq!(listed["under_replicated"], 0);
    let length = listed["duration_sec"].as_f64().unwrap();
    assert!((length - f64::from(CLIP_SECONDS)).abs() < 0.1, "{length} s long");

    let facts = cluster
        .ask(&["video", "info", listed["title"].as_str().unwrap()])
        .succeeded();
    assert_eq!(facts["video_id"], video, "a title names its video too");
    let copies: u64 = facts["chunks_by_node"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(serde_json::Value::as_u64)
        .sum();
    // Six media chunks of 10 s, the init segment and the poster, on three nodes each.
    assert_eq!(copies, (6 + 1 + 1) * 3);
}

fn check_playback(cluster: &Dev, video: &str) {
    let report = cluster
        .ask(&["play", video, "--sink", "null", "--speed", "20"])
        .succeeded();
    assert_eq!(report["complete"], true);
    assert_eq!(
        (&report["stalls"], &report["hash_failures"]),
        (&0.into(), &0.into())
    );
    let manifest = get_json(&format!("{}/manifest/{video}", cluster.url()));
    let chunks = manifest["chunks"].as_array().unwrap();
    let bytes: u64 = chunks
        .iter()
        .filter_map(|chunk| chunk["size_bytes"].as_u64())
        .sum();
    // What was asked for twice may have come twice.
    let (verified, twice) = (
        report["bytes"].as_u64().unwrap(),
        report["hedged_bytes"].as_u64().unwrap(),
    );
    assert!(
        (bytes..=bytes + twice).contains(&verified),
        "every byte of the video was delivered and verified: {report}"
    );
    assert!(
        report["startup_ms"].as_u64().unwrap() < 2_000,
        "start-up {}",
        report["startup_ms"]
    );
}

/// The video twice: what the second playing needs first is fetched while the first one goes on.
fn check_next(cluster: &Dev, video: &str) {
    let answer = cluster.ask(&["play", video, "--speed", "12", "--next", video]);
    let report = answer.succeeded();
    let reports: Vec<_> = answer
        .lines
        .iter()
        .filter(|line| line["prefetch"].is_object())
        .collect();
    assert_eq!(reports.len(), 2);
    assert!(
        reports[0]["prefetch"]["bytes"].as_u64().unwrap() > 0,
        "{}",
        reports[0]
    );
    assert_eq!(report["prefetch"]["used_bytes"], reports[0]["prefetch"]["bytes"]);
    assert_eq!(report["stalls"], 0);
}

/// The way of a trace over the command line; that any session's replays is tested in the client.
fn check_trace(cluster: &Dev, video: &str, folder: &Path) {
    let file = folder.join("session.trace");
    cluster
        .ask(&[
            "play",
            video,
            "--speed",
            "0",
            "--policy",
            "pool",
            "--trace",
            text(&file),
        ])
        .succeeded();
    let replay = cluster.ask(&["trace", "replay", text(&file)]).succeeded();
    assert!(
        replay["complete"] == true && replay["parted"].is_null(),
        "{replay}"
    );
    assert!(replay["actions"].as_u64().unwrap() > 20, "{replay}");
    let other = cluster.ask(&["trace", "replay", text(&file), "--policy", "seed"]);
    assert_eq!(other.failed(1)["code"], "trace_differs");

    let told = std::fs::read_to_string(&file).unwrap();
    let earlier = told.replacen(
        "{\"action\":{\"start\":{\"attempt\":0",
        "{\"action\":{\"start\":{\"attempt\":9",
        1,
    );
    std::fs::write(&file, &earlier).unwrap();
    let parted = cluster.ask(&["trace", "replay", text(&file)]);
    let line = earlier
        .lines()
        .position(|line| line.contains("\"attempt\":9"))
        .unwrap()
        + 1;
    let detail = parted.failed(1)["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("at line {line},")), "{detail}");
    std::fs::write(&file, "not a trace\n").unwrap();
    assert_eq!(
        cluster.ask(&["trace", "replay", text(&file)]).failed(1)["code"],
        "bad_request"
    );
}

#[test]
fn the_roles_end_with_their_supervisor_even_when_it_is_killed() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let cluster = Dev::start_with(data.path(), &["--nodes", "3"]);
    let pids: Vec<u32> = cluster.ready.children.iter().map(|child| child.pid).collect();
    assert_eq!(pids.len(), 6);
    assert!(pids.iter().all(|pid| runs(*pid)));
    cluster.signal(Signal::KILL);
    until("all roles have ended", Duration::from_secs(5), || {
        !pids.iter().any(|pid| runs(*pid))
    });
    // The folder's locks went with them.
    assert_eq!(Dev::start_with(data.path(), &["--nodes", "3"]).stop(), Some(0));
}

#[test]
fn a_node_that_dies_stays_down_unless_restarting_was_asked_for() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let cluster = Dev::start_with(data.path(), &["--nodes", "3", "--restart"]);
    let victim = cluster
        .ready
        .children
        .iter()
        .find(|child| child.role == "storage")
        .unwrap()
        .clone();
    common::process::signal(victim.pid, Signal::KILL);
    let state = || {
        let folder = data.path().to_str().unwrap().to_owned();
        let status = cluster.ask(&["status", "--data", &folder]).succeeded();
        let children = status["children"].as_array().unwrap().clone();
        children
            .into_iter()
            .find(|child| child["node_id"] == victim.node_id.unwrap().to_string())
    };
    until(
        "the node runs again under another pid",
        Duration::from_secs(20),
        || {
            state().is_some_and(|child| {
                child["pid"] != victim.pid && runs(u32::try_from(child["pid"].as_u64().unwrap()).unwrap())
            })
        },
    );
    until("each node's scrub is shown", Duration::from_secs(20), || {
        let status = cluster.ask(&["status"]).succeeded();
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().all(|node| node["scrub"]["running"].is_boolean())
    });
    drop(cluster);

    let cluster = Dev::start_with(data.path(), &["--nodes", "3"]);
    let victim = cluster
        .ready
        .children
        .iter()
        .find(|child| child.role == "storage")
        .unwrap()
        .clone();
    common::process::signal(victim.pid, Signal::KILL);
    until("the node is missed", Duration::from_secs(20), || {
        cluster.ask(&["status"]).succeeded()["healthy"] == 2
    });
    assert_eq!(cluster.stop(), Some(0));
}
