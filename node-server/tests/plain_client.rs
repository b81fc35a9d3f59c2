//! Other people's clients: a script with nothing but curl and FFmpeg stores a video by hand and plays it back, and our
//! own client plays what the script stored.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::process::Command;

use common::{Dev, alone, clip};

/// Runs `plain_client.sh` in a folder of its own; what it prints last is the video's id.
fn by_hand(cluster: &Dev, kind: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plain_client.sh");
    let output = Command::new("sh")
        .args([script, cluster.url(), kind])
        .arg(clip(60))
        .current_dir(folder.path())
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{kind}:\n{stdout}\n{stderr}");
    stdout.lines().last().unwrap().to_owned()
}

fn check_that_our_client_plays_it(cluster: &Dev, video: &str, container: &str) {
    let report = cluster.ask(&["play", video, "--speed", "20"]).succeeded();
    assert_eq!(report["complete"], true);
    let manifest = common::lab::get_json(&format!("{}/manifest/{video}", cluster.url()));
    assert_eq!(manifest["container"], container);
    assert_eq!(manifest["status"], "active");
    assert!(
        manifest["codecs"].as_str().unwrap().starts_with("avc1."),
        "{}",
        manifest["codecs"]
    );
    let length = manifest["duration_sec"].as_f64().unwrap();
    assert!((length - 60.0).abs() < 0.5, "{length} s long");
}

#[test]
fn curl_and_ffmpeg_store_an_init_segment_and_media_segments() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let cluster = Dev::start(data.path());
    let video = by_hand(&cluster, "fmp4");
    check_that_our_client_plays_it(&cluster, &video, "fmp4");
}

#[test]
fn curl_and_ffmpeg_store_whole_mp4_files_as_chunks() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let cluster = Dev::start(data.path());
    let video = by_hand(&cluster, "segments");
    check_that_our_client_plays_it(&cluster, &video, "mp4-segments");
}
