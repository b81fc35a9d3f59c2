//! The redundancy policy on a real cluster: a small library watched by Zipf's law, and conversions whose role is killed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use common::lab::get_json;
use common::process::{finish, signal};
use common::{Dev, alone, clip, port_base, text, until, vstack};
use rustix::process::Signal;
use serde_json::Value;

/// Posts so many views of a video; each is a session of its own.
fn watch(cluster: &Dev, video: &str, views: usize) {
    let url = format!("{}/video/{video}/view", cluster.url());
    let mut command = Command::new("curl");
    for view in 0..views {
        if view > 0 {
            command.arg("--next");
        }
        let body = format!("{{\"session_id\": \"{video}-{view}\"}}");
        command.args(["-sSf", "-H", "content-type: application/json", "-d", &body, &url]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// As a plain client uploads, with a wish for shards; returns when the video is complete.
fn upload_form(cluster: &Dev, file: &std::path::Path) -> String {
    let form = format!("file=@{}", text(file));
    let url = format!("{}/upload", cluster.ready.uploader_url);
    let mut command = Command::new("curl");
    command.args([
        "-sSf",
        "-F",
        "redundancy=erasure",
        "-F",
        "title=pinned",
        "-F",
        &form,
        &url,
    ]);
    let accepted: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    let video = accepted["video_id"].as_str().unwrap().to_owned();
    until("the video is complete", Duration::from_secs(60), || {
        let entry = get_json(&format!("{}/video/{video}", cluster.url()));
        entry["status"] == "active"
    });
    video
}

fn explained(cluster: &Dev, video: &str) -> Value {
    cluster.ask(&["policy", "explain", video]).succeeded()
}

fn check_plays(cluster: &Dev, video: &str, what: &str) {
    let report = cluster.ask(&["play", video, "--speed", "0"]).succeeded();
    assert_eq!(
        (&report["complete"], &report["hash_failures"]),
        (&true.into(), &0.into()),
        "{what}: {report}"
    );
}

/// What is said of a library that is partly hot and partly cold.
fn check_reports(cluster: &Dev, video: &str) {
    let report = cluster
        .ask(&["policy", "simulate", "--threshold", "1000000"])
        .succeeded();
    let now = &report["now"];
    assert!(now["saved_share"].as_f64().unwrap() > 0.1, "{now}");
    // At a threshold that nothing reaches all would be shards, which saves four ninths.
    let asked = report["asked"]["cost"]["saved_share"].as_f64().unwrap();
    assert!((asked - 4.0 / 9.0).abs() < 0.01, "{asked}");
    let durability = cluster.ask(&["status", "--durability"]).succeeded();
    assert!(
        durability["assessment"]["nines_a_year"].as_f64().unwrap() > 3.0,
        "{durability}"
    );
    assert_eq!(
        durability["repair"]["speed_source"], "conversions",
        "{durability}"
    );
    for command in [
        &["policy", "cost"][..],
        &["policy", "explain", video],
        &["status", "--durability"],
    ] {
        let mut plain = vstack();
        plain.args(command).args(["--metadata-url", cluster.url()]);
        let output = plain.output().unwrap();
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && table.contains("MTTDL of a chunk"),
            "{table}"
        );
    }
}

#[test]
fn a_library_watched_by_zipfs_law_ends_with_copies_of_what_is_hot_and_shards_of_the_rest() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let settings = [
        ("VSTACK_HOT_ABOVE_VIEWS", "20"),
        ("VSTACK_COOL_AFTER_HOURS", "0"),
        ("VSTACK_CONVERSION_PERIOD_HOURS", "0"),
        ("VSTACK_SMALL_VIDEO_KIB", "0"),
    ];
    let cluster = Dev::start_set(data.path(), &[], &settings);
    let file = clip(30);
    let videos: Vec<String> = (1..=8)
        .map(|rank| {
            let title = format!("rank {rank}");
            let job = cluster
                .ask(&["upload", text(&file), "--title", &title])
                .succeeded();
            job["video_id"].as_str().unwrap().to_owned()
        })
        .collect();
    for (rank, video) in (1..).zip(&videos) {
        watch(&cluster, video, 60 / rank);
    }
    let pinned = upload_form(&cluster, &file);
    watch(&cluster, &pinned, 40);
    until("every video has its mode", Duration::from_secs(120), || {
        let mut all = videos
            .iter()
            .chain([&pinned])
            .map(|video| explained(&cluster, video));
        all.all(|video| video["mode"] == video["wanted"])
    });
    for (rank, video) in (1..).zip(&videos) {
        let explained = explained(&cluster, video);
        // 60, 30 | 20, 15, 12, 10 lie in the band or on its edge | 8, 7
        match rank {
            1..=2 => assert_eq!(
                (&explained["mode"], &explained["why"]),
                (&"replicated".into(), &"hot".into())
            ),
            7..=8 => assert_eq!(
                (&explained["mode"], &explained["why"]),
                (&"erasure".into(), &"cold".into())
            ),
            _ => {}
        }
        check_plays(&cluster, video, &format!("rank {rank}"));
    }
    // What was wished at the upload is obeyed, however often it is watched.
    let of_pinned = explained(&cluster, &pinned);
    assert_eq!(
        (&of_pinned["mode"], &of_pinned["why"], &of_pinned["choice"]),
        (&"erasure".into(), &"pinned".into(), &"erasure".into())
    );
    check_plays(&cluster, &pinned, "pinned");
    check_reports(&cluster, &videos[0]);
    assert_eq!(cluster.stop(), Some(0));
}

/// Every chunk is on three nodes as copies or on five as shards, never on something in between.
fn check_whole(manifest: &Value) -> (usize, usize) {
    let mut modes = (0, 0);
    for chunk in manifest["chunks"].as_array().unwrap() {
        let parts = chunk["placement"]["parts"].as_array().unwrap();
        let nodes: BTreeSet<&str> = parts.iter().filter_map(|part| part["node_id"].as_str()).collect();
        let shards: BTreeSet<u64> = parts.iter().filter_map(|part| part["shard"].as_u64()).collect();
        match (nodes.len(), shards.len()) {
            (3, 0) => modes.0 += 1,
            (5, 5) => modes.1 += 1,
            _ => panic!("neither the old nor the new placement: {chunk}"),
        }
    }
    modes
}

#[test]
fn a_conversion_whose_role_is_killed_leaves_each_chunk_whole_and_goes_on() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let arguments = ["--restart", "--port-base", &port_base()];
    let cluster = Dev::start_with(data.path(), &arguments);
    let video = cluster.upload(&clip(300));
    let url = format!("{}/manifest/{video}", cluster.url());
    let total = get_json(&url)["chunks"].as_array().unwrap().len();
    assert!(total >= 20, "{total} chunks are too few to be killed among");
    cluster
        .ask(&["video", "set-redundancy", &video, "erasure"])
        .succeeded();
    let mut killed_at = BTreeSet::new();
    for kill in 1..=3 {
        // Kills are spread over the conversion; a chunk takes some hundredths of a second and a rest as long.
        until("the conversion is under way", Duration::from_secs(120), || {
            check_whole(&get_json(&url)).1 >= kill * total / 5
        });
        let pid = cluster.role_pid("metadata").unwrap();
        signal(pid, Signal::KILL);
        until("the role is back", Duration::from_secs(60), || {
            let status = cluster.ask(&["status"]);
            status.code == Some(0) && cluster.role_pid("metadata").is_some_and(|now| now != pid)
        });
        let (copies, shards) = check_whole(&get_json(&url));
        assert_eq!(copies + shards, total);
        killed_at.insert(shards);
        check_plays(&cluster, &video, "after a kill");
    }
    assert!(
        killed_at.iter().any(|done| *done < total),
        "every kill came after the conversion: {killed_at:?} of {total}"
    );
    until("the conversion has ended", Duration::from_secs(180), || {
        check_whole(&get_json(&url)) == (0, total)
    });
    check_plays(&cluster, &video, "converted");
    assert_eq!(cluster.stop(), Some(0));
    let mut check = vstack();
    check.args(["meta", "check", "--json", "--data"]).arg(data.path());
    finish(check).succeeded();
}
