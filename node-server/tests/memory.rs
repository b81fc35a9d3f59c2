//! A storage node under memory pressure: what its clients do does not decide how much it takes, and where there is a
//! limit it lives below it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::lab::{closed_address, field, get_json, serve};
use common::process::{Process, runs};
use common::{alone, until};

/// Clients at once: as many as the bench of the store has.
const CLIENTS: usize = 100;
/// Anonymous memory that bodies may take while they arrive, all together, beside 32 MiB for everything else.
const WRITERS_MOST_BYTES: u64 = (256 + 32) << 20;
/// The same of readers: two pieces of 128 KiB each beside the 32 MiB, and what the allocator keeps of the writers' time.
const READERS_MOST_BYTES: u64 = 96 << 20;
const ANNOUNCED_BYTES: usize = 64 << 20;
const VIDEO: &str = "0198c0de-0000-7000-8000-000000000041";

struct Node {
    process: Process,
    address: String,
    _folder: tempfile::TempDir,
}

impl Node {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = folder.path().join("cluster.key");
        std::fs::write(&key, [7; 32]).expect("the key is written");
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("only ours");
        let nobody = format!("http://{}", closed_address());
        let (process, ready) = serve("storage", folder.path(), &key, &["--metadata-url", &nobody]);
        let address = field(&ready, "url").trim_start_matches("http://").to_owned();
        Self {
            process,
            address,
            _folder: folder,
        }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(&self.address).expect("the node listens");
        let limit = Some(Duration::from_secs(60));
        socket.set_read_timeout(limit).expect("a socket");
        socket.set_write_timeout(limit).expect("a socket");
        socket
    }

    /// Sends `body`, of which more is announced than there may be, and does not wait for the answer.
    fn begin_put(&self, number: usize, announced: usize, body: &[u8]) -> TcpStream {
        let mut socket = self.connect();
        let head = format!(
            "PUT /chunk/{VIDEO}-chunk-{number:03} HTTP/1.1\r\nhost: {}\r\ncontent-length: {announced}\r\nconnection: close\r\n\r\n",
            self.address
        );
        socket.write_all(head.as_bytes()).expect("the head is sent");
        socket.write_all(body).expect("the body is sent");
        socket
    }

    fn anonymous_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        let kib = line
            .and_then(|line| line.split_whitespace().nth(1))
            .expect("the kernel says so");
        kib.parse::<u64>().expect("a number") * 1024
    }
}

fn status_of(mut socket: TcpStream) -> String {
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned()
}

/// A hundred uploads at once, each whole and new, together more than may be in memory.
fn store_a_hundred(node: &Node, first: usize) {
    let body = vec![0x5a; 4 << 20];
    std::thread::scope(|scope| {
        let puts: Vec<_> = (first..first + CLIENTS)
            .map(|number| {
                let body = &body;
                scope.spawn(move || status_of(node.begin_put(number, body.len(), body)))
            })
            .collect();
        for put in puts {
            assert_eq!(put.join().expect("a client"), "HTTP/1.1 201");
        }
    });
}

#[test]
fn clients_that_stop_in_the_middle_hold_little_of_a_node_s_memory() {
    let _alone = alone();
    let node = Node::start();
    let begun = vec![0xa5; 3 << 20];
    let uploads: Vec<_> = (0..CLIENTS)
        .map(|number| node.begin_put(number, ANNOUNCED_BYTES, &begun))
        .collect();
    let held = node.anonymous_bytes();
    assert!(
        held < WRITERS_MOST_BYTES,
        "{CLIENTS} half uploads hold {} MiB",
        held >> 20
    );
    drop(uploads);
}

#[test]
fn clients_that_read_nothing_of_what_they_asked_for_hold_little_of_a_node_s_memory() {
    let _alone = alone();
    let node = Node::start();
    store_a_hundred(&node, 0);
    // Each asks for a chunk and reads nothing of it.
    let downloads: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let mut socket = node.connect();
            let head = format!(
                "GET /chunk/{VIDEO}-chunk-{number:03} HTTP/1.1\r\nhost: {}\r\n\r\n",
                node.address
            );
            socket.write_all(head.as_bytes()).expect("asked");
            let mut first = [0; 12];
            socket.read_exact(&mut first).expect("the answer begins");
            assert_eq!(&first, b"HTTP/1.1 200");
            socket
        })
        .collect();
    let held = node.anonymous_bytes();
    assert!(
        held < READERS_MOST_BYTES,
        "{CLIENTS} readers that do not read hold {} MiB",
        held >> 20
    );
    drop(downloads);
}

/// A memory cgroup of its own, where this user may make one.
struct Cgroup(PathBuf);

impl Cgroup {
    /// Version 2 or 1; only root may, and not in every container.
    fn with_limit(bytes: u64) -> Option<Self> {
        let name = format!("vstack-test-{}", std::process::id());
        [
            ("/sys/fs/cgroup", "memory.max"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ]
        .into_iter()
        .find_map(|(root, limit)| {
            let folder = Path::new(root).join(&name);
            std::fs::create_dir(&folder).ok()?;
            let group = Self(folder);
            let is_one = group.0.join("cgroup.procs").exists();
            let set = is_one && std::fs::write(group.0.join(limit), bytes.to_string()).is_ok();
            set.then_some(group)
        })
    }

    fn take(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("the process is put in");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel lets go of it when the last process has; left over it costs nothing.
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_node_with_a_memory_limit_serves_a_hundred_clients_below_it() {
    let _alone = alone();
    let Some(group) = Cgroup::with_limit(WRITERS_MOST_BYTES + (32 << 20)) else {
        eprintln!("SKIPPED: no memory cgroup can be made here (it takes root), so nothing was limited");
        return;
    };
    let mut node = Node::start();
    group.take(node.process.pid());
    for round in 0..3 {
        store_a_hundred(&node, round * CLIENTS);
    }
    assert!(runs(node.process.pid()), "the kernel ended it for its memory");
    let health = get_json(&format!("http://{}/health", node.address));
    assert_eq!(health["chunk_count"], 3 * CLIENTS);
    node.process.stop();
    until("the process has left its group", Duration::from_secs(10), || {
        std::fs::read_to_string(group.0.join("cgroup.procs")).is_ok_and(|pids| pids.trim().is_empty())
    });
}
