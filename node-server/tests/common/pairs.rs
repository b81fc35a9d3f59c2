//! Five nodes with a library on them, of which any two can be broken: killed, stopped, made to lie, or emptied.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::lab::{field, get_json, serve, serve_in};
use super::liar::Liar;
use super::process::{Process, signal};
use super::{ask, clip, text, until};

const NODES: usize = 5;
/// Short, so that a run does not wait for it; the default is 10 minutes.
const GRACE_S: &str = "1";
/// Long enough for what is looked at while a node is not trusted.
const QUARANTINE_S: &str = "45";
/// A node counts as down after 30 s; what follows takes seconds.
const WITHIN: Duration = Duration::from_secs(120);
/// Copies, then shards. Each has several chunks of 10 s.
const LIBRARY: [(&str, u32); 4] = [
    ("replicated", 30),
    ("replicated", 20),
    ("erasure", 30),
    ("erasure", 20),
];

/// What is done to two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; later started again.
    Killed,
    /// SIGSTOP; later SIGCONT.
    Stopped,
    /// Every answer of more than a few hundred bytes has wrong bytes in it; later it has not.
    Lying,
    /// SIGKILL, the whole folder deleted, started again at once: an empty node at the old address.
    Emptied,
}

struct Machine {
    process: Process,
    node_id: String,
    listen: SocketAddr,
    path: Liar,
    folder: PathBuf,
}

pub struct Five {
    metadata_url: String,
    gateway_url: String,
    machines: Vec<Machine>,
    /// Each video, and what its chunks hash to.
    videos: BTreeMap<String, Vec<(String, String)>>,
    key: PathBuf,
    // In the order of their ends.
    _roles: Vec<Process>,
    _data: tempfile::TempDir,
}

/// Chunks of the library, as the API tells them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    /// Good parts of each replicated chunk, and of each erasure-coded one.
    copies: Vec<usize>,
    shards: Vec<usize>,
    /// A node of the pair is not healthy, or a part is not good.
    noticed: bool,
    status: Value,
}

impl Seen {
    fn is_calm(&self) -> bool {
        let none = ["waiting", "degraded", "unreadable"].map(|name| self.status[name] == 0);
        none == [true; 3] && self.status["repair"]["active"] == false && self.status["advice"] == ""
    }

    fn is_whole(&self) -> bool {
        self.copies.iter().all(|good| *good == 3)
            && self.shards.iter().all(|good| *good == 5)
            && self.is_calm()
    }

    /// Three nodes can hold three copies, and of five shards three: that cannot be mended, and is said.
    fn is_as_whole_as_three_nodes_can_be(&self) -> bool {
        let lacking = self.shards.iter().filter(|good| **good < 5).count();
        let advice = self.status["advice"].as_str().unwrap_or_default();
        self.copies.iter().all(|good| *good == 3)
            && self.shards.iter().all(|good| *good >= 3)
            && lacking > 0
            && self.status["degraded"] == lacking
            && advice.contains("degraded, add a node")
    }
}

impl Five {
    pub fn start() -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let key = data.path().join("cluster.key");
        std::fs::write(&key, [7; 32]).expect("a key file");
        let settings = ["--repair-grace-s", GRACE_S, "--quarantine-s", QUARANTINE_S];
        let (metadata, ready) = serve("metadata", data.path(), &key, &settings);
        let metadata_url = field(&ready, "url");
        let known = ["--metadata-url", &metadata_url];
        let (uploader, _) = serve("uploader", data.path(), &key, &known);
        let (gateway, ready) = serve("gateway", data.path(), &key, &known);
        let gateway_url = field(&ready, "url");
        let machines = (0..NODES)
            .map(|number| Machine::start(data.path().join(format!("node-{number}")), &key, &metadata_url))
            .collect();
        let mut five = Self {
            gateway_url,
            machines,
            videos: BTreeMap::new(),
            key,
            _roles: vec![uploader, gateway, metadata],
            metadata_url,
            _data: data,
        };
        five.fill();
        five
    }

    fn fill(&mut self) {
        until("all roles are known", WITHIN, || {
            let status = ask(&self.metadata_url, &["status"]);
            status.code == Some(0)
                && status.last()["healthy"] == NODES
                && status.last()["uploader_url"].is_string()
                && status.last()["gateway_url"].is_string()
        });
        for (mode, seconds) in LIBRARY {
            let file = clip(seconds);
            let job = ask(&self.metadata_url, &["upload", text(&file)]).succeeded();
            let video = field(&job, "video_id");
            ask(
                &self.metadata_url,
                &["video", "set-redundancy", &video, mode, "--wait"],
            )
            .succeeded();
            let manifest = get_json(&format!("{}/manifest/{video}", self.metadata_url));
            let chunks = manifest["chunks"].as_array().expect("a manifest has chunks");
            let sums = chunks
                .iter()
                .map(|chunk| (field(chunk, "chunk_id"), field(chunk, "checksum")));
            self.videos.insert(video, sums.collect());
        }
        self.wait("the library is whole before anything breaks", Seen::is_whole);
    }

    /// Breaks two nodes while the library is watched, looks what becomes of it, mends them, and looks again.
    pub fn survive(&mut self, fault: Fault, pair: [usize; 2]) -> Value {
        let what = format!("nodes {} and {} {fault:?}", pair[0], pair[1]);
        let began = Instant::now();
        let players = self.players();
        pair.iter().for_each(|&number| self.strike(fault, number));
        let noticed_ms = self.time_until(&format!("{what}: noticed"), began, |seen| seen.noticed);
        let reports: Vec<Value> = players
            .into_iter()
            .map(|player| player.join().expect("a player ends"))
            .collect();
        for (report, video) in reports.iter().zip(self.videos.keys()) {
            assert_eq!(report["complete"], true, "{what}, {video}: {report}");
        }
        if fault == Fault::Lying {
            self.read_until_nobody_trusts(pair);
        }
        let protected_ms = self.time_until(
            &what,
            began,
            match fault {
                Fault::Emptied => Seen::is_whole,
                _ => Seen::is_as_whole_as_three_nodes_can_be,
            },
        );
        let says = self.look(&[]).status["advice"].clone();
        let mut wrong_bytes = self.wrong_bytes();
        self.play_all(&what);
        let mended = Instant::now();
        pair.iter().for_each(|&number| self.mend(fault, number));
        let whole_ms = self.time_until(&format!("{what}, and back"), mended, Seen::is_whole);
        wrong_bytes += self.wrong_bytes();
        self.play_all(&format!("{what}, and back"));
        assert_eq!(wrong_bytes, 0, "{what}");
        let sum = |name: &str| {
            reports
                .iter()
                .filter_map(|report| report[name].as_u64())
                .sum::<u64>()
        };
        json!({
            "fault": format!("{fault:?}"), "pair": pair, "videos": self.videos.len(), "noticed_ms": noticed_ms,
            "protected_ms": protected_ms, "whole_ms": whole_ms, "stalls": sum("stalls"), "stall_ms": sum("stall_ms"),
            "bad_answers_refused": sum("hash_failures"), "failovers": sum("failovers"), "wrong_bytes": wrong_bytes,
            "says": says,
        })
    }

    fn strike(&mut self, fault: Fault, number: usize) {
        let (url, key) = (self.metadata_url.clone(), self.key.clone());
        let machine = &mut self.machines[number];
        match fault {
            Fault::Killed => machine.process.kill(),
            Fault::Stopped => signal(machine.process.pid(), Signal::STOP),
            Fault::Lying => machine.path.lie(true),
            Fault::Emptied => {
                machine.process.kill();
                std::fs::remove_dir_all(&machine.folder).expect("the folder can be deleted");
                let old = machine.node_id.clone();
                machine.start_again(&key, &url);
                assert_ne!(machine.node_id, old, "an emptied folder is a new node");
            }
        }
    }

    fn mend(&mut self, fault: Fault, number: usize) {
        let (url, key) = (self.metadata_url.clone(), self.key.clone());
        let machine = &mut self.machines[number];
        match fault {
            Fault::Killed => machine.start_again(&key, &url),
            Fault::Stopped => signal(machine.process.pid(), Signal::CONT),
            Fault::Lying => machine.path.lie(false),
            // Nothing is to be mended: it has been filled again. The nodes that are no more are struck off the list.
            Fault::Emptied => {
                let known = get_json(&format!("{url}/nodes"));
                let here: Vec<&str> = self
                    .machines
                    .iter()
                    .map(|machine| machine.node_id.as_str())
                    .collect();
                for node in known.as_array().expect("a list") {
                    let id = field(node, "node_id");
                    if !here.contains(&id.as_str()) {
                        ask(&url, &["node", "remove", &id]).succeeded();
                    }
                }
            }
        }
    }

    /// A node that lies is found out by those who read from it.
    fn read_until_nobody_trusts(&self, pair: [usize; 2]) {
        until("both liars are found out", WITHIN, || {
            let nodes = get_json(&format!("{}/nodes", self.metadata_url));
            let is_out = |number: usize| {
                let id = &self.machines[number].node_id;
                let nodes = nodes.as_array().expect("a list");
                nodes
                    .iter()
                    .any(|node| node["node_id"] == **id && node["quarantined"] == true)
            };
            let found_out = pair.into_iter().all(is_out);
            if !found_out {
                self.play_all("two nodes lie");
            }
            found_out
        });
    }

    /// A player for each video, all at once, four times as fast as they are.
    fn players(&self) -> Vec<thread::JoinHandle<Value>> {
        let player = |video: &String| {
            let (url, video) = (self.metadata_url.clone(), video.clone());
            thread::spawn(move || ask(&url, &["play", &video, "--speed", "4"]).succeeded())
        };
        self.videos.keys().map(player).collect()
    }

    fn play_all(&self, what: &str) {
        for video in self.videos.keys() {
            let report = ask(&self.metadata_url, &["play", video, "--speed", "0"]).succeeded();
            assert_eq!(report["complete"], true, "{what}, {video}: {report}");
        }
    }

    /// Chunks that a plain reader does not get as they were uploaded: fetched with curl, hashed by `sha256sum`.
    fn wrong_bytes(&self) -> usize {
        let right = |(chunk, sum): &&(String, String)| {
            let script = format!("curl -sSf {}/chunk/{chunk} | sha256sum", self.gateway_url);
            let output = Command::new("sh")
                .args(["-c", &script])
                .output()
                .expect("a shell");
            let found = String::from_utf8_lossy(&output.stdout).into_owned();
            found
                .split_whitespace()
                .next()
                .map(|found| format!("sha256:{found}"))
                .as_ref()
                == Some(sum)
        };
        self.videos
            .values()
            .flatten()
            .filter(|chunk| !right(chunk))
            .count()
    }

    fn wait(&self, what: &str, condition: fn(&Seen) -> bool) {
        self.time_until(what, Instant::now(), condition);
    }

    /// Milliseconds from `since` until the condition holds.
    fn time_until(&self, what: &str, since: Instant, condition: fn(&Seen) -> bool) -> u64 {
        let deadline = Instant::now() + WITHIN;
        let here: Vec<String> = self
            .machines
            .iter()
            .map(|machine| machine.node_id.clone())
            .collect();
        loop {
            let seen = self.look(&here);
            if condition(&seen) {
                return u64::try_from(since.elapsed().as_millis()).expect("a run ends");
            }
            assert!(
                Instant::now() < deadline,
                "not within {WITHIN:?}: {what}: {seen:?}"
            );
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn look(&self, here: &[String]) -> Seen {
        let mut seen = Seen {
            status: get_json(&format!("{}/redundancy", self.metadata_url)),
            ..Seen::default()
        };
        let nodes = get_json(&format!("{}/nodes", self.metadata_url));
        let odd = |node: &Value| node["status"] != "healthy" || node["quarantined"] == true;
        seen.noticed = nodes.as_array().expect("a list").iter().any(odd);
        for video in self.videos.keys() {
            let view = get_json(&format!("{}/video/{video}/redundancy", self.metadata_url));
            for chunk in view["map"].as_array().expect("a map") {
                let parts = chunk["parts"].as_array().expect("parts");
                let is_good = |part: &&Value| {
                    part["state"] == "good"
                        && (here.is_empty() || here.iter().any(|id| part["node_id"] == **id))
                };
                let good = parts.iter().filter(is_good).count();
                seen.noticed |= good < parts.len();
                match chunk["mode"] == "erasure" {
                    true => seen.shards.push(good),
                    false => seen.copies.push(good),
                }
            }
        }
        seen
    }
}

impl Machine {
    fn start(folder: PathBuf, key: &std::path::Path, metadata_url: &str) -> Self {
        let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
        let listen = free.expect("a free port");
        let path = Liar::start(listen);
        let (process, node_id) = start_node(&folder, listen, &path, key, metadata_url);
        Self {
            process,
            node_id,
            listen,
            path,
            folder,
        }
    }

    fn start_again(&mut self, key: &std::path::Path, metadata_url: &str) {
        let (process, node_id) = start_node(&self.folder, self.listen, &self.path, key, metadata_url);
        self.process = process;
        self.node_id = node_id;
    }
}

fn start_node(
    folder: &std::path::Path,
    listen: SocketAddr,
    path: &Liar,
    key: &std::path::Path,
    metadata_url: &str,
) -> (Process, String) {
    let (listen, advertised) = (listen.to_string(), format!("http://{}", path.address));
    let more = [
        "--metadata-url",
        metadata_url,
        "--advertise-url",
        &advertised,
        "--listen",
        &listen,
        "--superblock-mib",
        "128",
    ];
    let (process, ready) = serve_in("storage", folder, key, &more);
    (process, field(&ready, "node_id"))
}
