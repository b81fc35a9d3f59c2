//! A cluster whose nodes stand behind network paths that can be throttled: each role is a `vstack serve` of its own, and
//! every node tells the catalogue the address of its path.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;
use vstack_emulator::{Emulated, Emulator, Fault, Profile};

use super::process::{Answer, Process};
use super::{ask, text, until, vstack};

const READY_WITHIN: Duration = Duration::from_secs(60);

/// A storage node and the path in front of it.
pub struct Node {
    pub process: Process,
    pub node_id: String,
    pub path: Emulated,
    number: usize,
    listen: SocketAddr,
}

pub struct Lab {
    pub metadata: Process,
    pub metadata_url: String,
    pub nodes: Vec<Node>,
    uploader: Process,
    // Paths run on it; it ends after them.
    runtime: Runtime,
    data: tempfile::TempDir,
}

impl Lab {
    /// `count` nodes behind paths of this kind, all healthy, and an uploader.
    pub fn start(count: usize, profile: Profile) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let key = data.path().join("cluster.key");
        std::fs::write(&key, [7; 32]).expect("a key file");
        let runtime = Runtime::new().expect("a runtime");
        let (metadata, ready) = serve("metadata", data.path(), &key, &[]);
        let metadata_url = field(&ready, "url");
        let nodes: Vec<Node> = (1..=count)
            .map(|number| start_node(&runtime, data.path(), number, &key, &metadata_url, profile))
            .collect();
        let (uploader, _) = serve("uploader", data.path(), &key, &["--metadata-url", &metadata_url]);
        let lab = Self {
            metadata,
            metadata_url,
            nodes,
            uploader,
            runtime,
            data,
        };
        lab.until_ready(count);
        lab
    }

    fn until_ready(&self, count: usize) {
        until(
            "all nodes are healthy and the uploader is known",
            READY_WITHIN,
            || {
                let status = self.ask(&["status"]);
                status.code == Some(0)
                    && status.last()["healthy"] == count
                    && status.last()["uploader_url"].is_string()
            },
        );
    }

    pub fn ask(&self, arguments: &[&str]) -> Answer {
        ask(&self.metadata_url, arguments)
    }

    pub fn upload(&self, file: &Path) -> String {
        let job = self.ask(&["upload", text(file)]).succeeded();
        field(&job, "video_id")
    }

    pub fn set_profile(&self, profile: Profile) {
        for node in &self.nodes {
            node.path.handle.set_profile(profile);
        }
    }

    /// Within the paths' runtime: a flapping path is a task.
    pub fn set_faults(&self, index: usize, faults: Vec<Fault>) {
        let _runtime = self.runtime.enter();
        self.nodes[index].path.handle.set_faults(faults);
    }

    pub fn node(&mut self, node_id: &str) -> &mut Node {
        let node = self.nodes.iter_mut().find(|node| node.node_id == node_id);
        node.unwrap_or_else(|| panic!("there is no node {node_id}"))
    }

    /// Starts a killed node again: the same folder, address and path.
    pub fn restart(&mut self, index: usize) {
        let key = self.data.path().join("cluster.key");
        let node = &mut self.nodes[index];
        let url = node.path.url();
        let place = Place {
            data: self.data.path(),
            key: &key,
            metadata_url: &self.metadata_url,
        };
        let (process, ready) = place.serve(node.number, &url, node.listen);
        assert_eq!(field(&ready, "node_id"), node.node_id, "it is the same node");
        node.process = process;
    }

    /// The manifest, with `curl`-like plainness: what the wire carries.
    pub fn manifest(&self, video: &str) -> Value {
        let url = format!("{}/manifest/{video}", self.metadata_url);
        get_json(&url)
    }

    pub fn uploader_pid(&self) -> u32 {
        self.uploader.pid()
    }
}

/// A GET with curl: the tests then share no code with what they test.
pub fn get_json(url: &str) -> Value {
    let output = std::process::Command::new("curl")
        .args(["-sS", "--max-time", "10", url])
        .output()
        .expect("curl runs");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{url} answered: {output:?}"))
}

pub fn serve(role: &str, data: &Path, key: &Path, more: &[&str]) -> (Process, Value) {
    let more = [more, &["--listen", "127.0.0.1:0"]].concat();
    serve_in(role, &data.join(role), key, &more)
}

pub fn serve_in(role: &str, data: &Path, key: &Path, more: &[&str]) -> (Process, Value) {
    let mut command = vstack();
    let pid = std::process::id().to_string();
    command
        .args(["serve", "--json", "--role", role, "--parent-pid", &pid])
        .args(more);
    command
        .arg("--data")
        .arg(data)
        .arg("--cluster-key-file")
        .arg(key)
        .env("RUST_LOG", "error");
    let (process, lines) = Process::start(command);
    let ready = lines
        .next(READY_WITHIN)
        .unwrap_or_else(|| panic!("{role} did not start"));
    (process, ready)
}

/// Where nodes live, and whom they tell.
struct Place<'a> {
    data: &'a Path,
    key: &'a Path,
    metadata_url: &'a str,
}

impl Place<'_> {
    fn serve(&self, number: usize, url: &str, listen: SocketAddr) -> (Process, Value) {
        let address = listen.to_string();
        let more = [
            "--metadata-url",
            self.metadata_url,
            "--advertise-url",
            url,
            "--listen",
            &address,
            "--superblock-mib",
            "128",
        ];
        let folder = self.data.join(format!("node-{number}"));
        let (process, ready) = serve_in("storage", &folder, self.key, &more);
        assert_eq!(
            field(&ready, "url"),
            format!("http://{listen}"),
            "a node prints where it listens"
        );
        (process, ready)
    }
}

fn start_node(
    runtime: &Runtime,
    data: &Path,
    number: usize,
    key: &Path,
    metadata_url: &str,
    profile: Profile,
) -> Node {
    // The path needs the node's address and the node its path's: the node's port is found first.
    let free = closed_address();
    let path = runtime
        .block_on(Emulator::start(free, profile))
        .expect("a path to a node");
    let place = Place {
        data,
        key,
        metadata_url,
    };
    let (process, ready) = place.serve(number, &path.url(), free);
    Node {
        process,
        node_id: field(&ready, "node_id"),
        path,
        number,
        listen: free,
    }
}

pub fn field(value: &Value, name: &str) -> String {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name} in {value}"))
        .to_owned()
}

/// Where something listened that is gone by now.
pub fn closed_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}
