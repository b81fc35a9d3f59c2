//! A cluster grows from one node to six, one at a time, while its videos play.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use common::lab::{field, get_json, serve, serve_in};
use common::process::{Answer, Process};
use common::{alone, ask, clip, text, until};
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(60);
/// What the planner leaves alone is a tenth, and a part of this small library is another tenth of what a node holds.
const EVEN: f64 = 0.25;

struct Growing {
    url: String,
    key: PathBuf,
    nodes: Vec<Process>,
    _roles: Vec<Process>,
    data: tempfile::TempDir,
}

impl Growing {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let key = data.path().join("cluster.key");
        std::fs::write(&key, [7; 32]).unwrap();
        let (metadata, ready) = serve("metadata", data.path(), &key, &[]);
        let url = field(&ready, "url");
        let (uploader, _) = serve("uploader", data.path(), &key, &["--metadata-url", &url]);
        Self {
            url,
            key,
            nodes: Vec::new(),
            _roles: vec![uploader, metadata],
            data,
        }
    }

    fn ask(&self, arguments: &[&str]) -> Answer {
        ask(&self.url, arguments)
    }

    /// Starts one more node, each in a rack of its own, and returns its id.
    fn grow(&mut self) -> String {
        let number = self.nodes.len() + 1;
        let (folder, rack) = (
            self.data.path().join(format!("node-{number}")),
            format!("r{number}"),
        );
        let more = [
            "--metadata-url",
            &self.url,
            "--listen",
            "127.0.0.1:0",
            "--rack",
            &rack,
            "--superblock-mib",
            "128",
        ];
        let (process, ready) = serve_in("storage", &folder, &self.key, &more);
        self.nodes.push(process);
        until("the new node is healthy", WITHIN, || {
            let status = self.ask(&["status"]);
            status.code == Some(0)
                && status.last()["healthy"] == number
                && status.last()["uploader_url"].is_string()
        });
        field(&ready, "node_id")
    }

    fn upload(&self, file: &Path) -> Answer {
        self.ask(&["upload", text(file)])
    }

    fn play(&self, video: &str) -> thread::JoinHandle<Value> {
        let (url, video) = (self.url.clone(), video.to_owned());
        thread::spawn(move || ask(&url, &["play", &video, "--speed", "8"]).succeeded())
    }

    /// Moves until nothing is left to move, and returns the plan that says so. What a node has free is as old as its last
    /// heartbeat, and all nodes here share one disk with whoever else writes to it: a second look may want another move.
    fn evened(&self) -> Value {
        let mut plan = Value::Null;
        until("nothing is left to move", WITHIN, || {
            self.ask(&["rebalance", "apply", "--wait"]).succeeded();
            plan = self.ask(&["rebalance", "plan"]).succeeded();
            plan["moves"] == 0 && plan["state"] == "idle"
        });
        assert!(plan["uneven"].as_f64().unwrap() < EVEN, "{plan}");
        plan
    }

    fn parts_on(&self, node: &str) -> u64 {
        let detail = self.ask(&["node", "info", node]).succeeded();
        detail["parts"].as_u64().unwrap()
    }

    /// Every chunk has all its parts, each good and on a node of its own.
    fn check_whole(&self, video: &str) {
        let view = get_json(&format!("{}/video/{video}/redundancy", self.url));
        for chunk in view["map"].as_array().unwrap() {
            let parts = chunk["parts"].as_array().unwrap();
            let wanted = if chunk["mode"] == "erasure" { 5 } else { 3 };
            let good = parts.iter().filter(|part| part["state"] == "good").count();
            let nodes: std::collections::BTreeSet<_> =
                parts.iter().map(|part| field(part, "node_id")).collect();
            assert_eq!((good, nodes.len()), (wanted, wanted), "{chunk}");
        }
    }
}

#[test]
fn a_cluster_grows_from_one_node_to_six_while_its_videos_play() {
    let _alone = alone();
    let mut cluster = Growing::start();
    for _ in 0..2 {
        cluster.grow();
        let refused = cluster.upload(&clip(30));
        let problem = refused.failed(1).to_string();
        assert!(
            problem.contains("not_enough_nodes") && problem.contains("3 copies need 3 nodes"),
            "{problem}"
        );
        assert!(problem.contains("add a node"), "it says the next step: {problem}");
    }
    cluster.grow();
    let mut videos: Vec<String> = Vec::new();
    for seconds in [120, 60, 40] {
        let job = cluster.upload(&clip(seconds)).succeeded();
        videos.push(field(&job, "video_id"));
    }
    for count in 4..=6 {
        let players: Vec<_> = videos.iter().map(|video| cluster.play(video)).collect();
        let newcomer = cluster.grow();
        assert_eq!(cluster.parts_on(&newcomer), 0);
        let plan = cluster.ask(&["rebalance", "plan"]).succeeded();
        // What moves goes to the newcomer, and is no more than its share of the whole.
        let (bytes, all) = (plan["move_bytes"].as_u64().unwrap(), used_bytes(&plan));
        assert!(bytes > 0 && bytes <= all / count * 5 / 4 + (256 << 10), "{plan}");
        let even = cluster.evened();
        let own = node_use(&even, &newcomer) * count as f64 / used_bytes(&even) as f64;
        assert!((own - 1.0).abs() < EVEN, "{own:.2} of its share: {even}");
        for player in players {
            let report = player.join().unwrap();
            assert_eq!(
                (&report["complete"], &report["stalls"]),
                (&true.into(), &0.into()),
                "{report}"
            );
        }
        let coded = cluster.ask(&["video", "set-redundancy", &videos[0], "erasure", "--wait"]);
        match count {
            4 => assert!(coded.failed(1).to_string().contains("not_enough_nodes")),
            _ => assert_eq!(coded.succeeded()["mode"], "erasure"),
        }
        for video in &videos {
            cluster.check_whole(video);
        }
    }
    // The last conversion has made other parts.
    cluster.evened();
    for video in &videos {
        cluster.check_whole(video);
    }
    let last = cluster.play(&videos[0]).join().unwrap();
    assert_eq!(last["complete"], true);
}

#[test]
fn a_node_is_drained_with_progress_and_a_paused_rebalance_stays_paused() {
    let _alone = alone();
    let mut cluster = Growing::start();
    let mut nodes: Vec<String> = (0..3).map(|_| cluster.grow()).collect();
    let job = cluster.upload(&clip(60)).succeeded();
    let video = field(&job, "video_id");
    // Three nodes for three copies: nobody could take what lies on one of them, and it is said.
    let stuck = cluster.ask(&["node", "drain", &nodes[0], "--wait"]);
    let problem = stuck.failed(1).to_string();
    assert!(problem.contains("add a node"), "{problem}");
    nodes.push(cluster.grow());
    let drained = cluster.ask(&["node", "drain", &nodes[0], "--wait"]);
    let left: Vec<u64> = drained
        .lines
        .iter()
        .filter_map(|line| line["parts"].as_u64())
        .collect();
    assert!(left.len() > 1 && left.is_sorted_by(|a, b| a >= b), "{left:?}");
    assert_eq!(drained.succeeded()["parts"], 0);
    cluster.check_whole(&video);
    cluster.ask(&["node", "drain", &nodes[0], "--cancel"]).succeeded();
    cluster.ask(&["rebalance", "apply"]).succeeded();
    let paused = cluster.ask(&["rebalance", "pause"]).succeeded();
    assert_eq!(paused["state"], "paused", "{paused}");
    let plan = cluster.ask(&["rebalance", "plan"]).succeeded();
    assert!(plan["moves"].as_u64().unwrap() > 0, "{plan}");
    let done = cluster.ask(&["rebalance", "apply", "--wait"]).succeeded();
    assert_eq!(done["moves"], 0, "{done}");
    assert!(cluster.parts_on(&nodes[0]) > 0);
    let removed = cluster.ask(&["node", "remove", &nodes[1], "--wait"]).succeeded();
    assert_eq!(removed["state"], "removed");
    cluster.check_whole(&video);
}

/// Bytes on one node of a plan.
fn node_use(plan: &Value, node: &str) -> f64 {
    let nodes = plan["nodes"].as_array().unwrap();
    let own = nodes.iter().find(|other| other["node_id"] == node).unwrap();
    own["used_bytes"].as_f64().unwrap()
}

/// Of all nodes of a plan.
fn used_bytes(plan: &Value) -> u64 {
    let nodes = plan["nodes"].as_array().unwrap();
    nodes.iter().filter_map(|node| node["used_bytes"].as_u64()).sum()
}
