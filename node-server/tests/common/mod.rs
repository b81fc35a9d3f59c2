//! What the end-to-end tests share: real `vstack` processes on free ports, in temporary folders, with deadlines.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

pub mod lab;
pub mod liar;
pub mod pairs;
pub mod process;
pub mod timeline;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use vstack_server::dev::ClusterReady;

use process::{Answer, Lines, Process};

/// Clusters would spoil each other's timing on two cores. (cargo-nextest has its own rule for that: .config/nextest.toml)
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Hold it for the whole of a test that starts a cluster.
pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The binary under test.
pub fn vstack() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vstack"));
    for name in ["VSTACK_METADATA_URL", "RUST_LOG"] {
        command.env_remove(name);
    }
    // What a test measures is nothing for the user's own cache.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    command.env("XDG_CACHE_HOME", cache);
    command
}

/// Runs `vstack ARGUMENTS --json` against a cluster to its end.
pub fn ask(metadata_url: &str, arguments: &[&str]) -> Answer {
    let mut command = vstack();
    command
        .args(arguments)
        .args(["--json", "--metadata-url", metadata_url]);
    process::finish(command)
}

/// Ports that stay the same over a restart of a role; below those that the system gives out by itself.
pub fn port_base() -> String {
    (20_000 + std::process::id() % 10_000).to_string()
}

/// Waits until `condition` holds.
///
/// # Panics
/// It does not within `within`.
pub fn until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A generated clip of 320x180, made once for all tests.
pub fn clip(seconds: u32) -> PathBuf {
    // Tests make it side by side, in threads as in processes, each its own: the last to finish wins.
    static MADE: AtomicU32 = AtomicU32::new(0);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join(format!("clip-{seconds}.mp4"));
    if !file.exists() {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let own = folder.join(format!("clip-{seconds}-{}-{number}.mp4", std::process::id()));
        let mut command = vstack();
        command
            .arg("make-clip")
            .arg(&own)
            .args(["--small", "--json", "--seconds", &seconds.to_string()]);
        process::finish(command).succeeded();
        std::fs::rename(&own, &file).expect("the clip can be renamed");
    }
    file
}

/// A text of this path; temporary folders have no strange names.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// `vstack dev` on free ports.
pub struct Dev {
    process: Process,
    pub ready: ClusterReady,
}

impl Dev {
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    pub fn start_with(data: &Path, arguments: &[&str]) -> Self {
        Self::start_set(data, arguments, &[])
    }

    /// The same with settings in the environment, which every role inherits.
    pub fn start_set(data: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut command = vstack();
        command
            .args(["dev", "--json", "--data"])
            .arg(data)
            .args(arguments)
            .envs(settings.iter().copied());
        if !arguments.contains(&"--port-base") {
            command.args(["--port-base", "0"]);
        }
        let (process, lines) = Process::start(command);
        let line = lines
            .next(Duration::from_secs(60))
            .expect("vstack dev says when it is ready");
        let ready = serde_json::from_value(line.clone()).unwrap_or_else(|_| unready(&line));
        Self { process, ready }
    }

    pub fn url(&self) -> &str {
        &self.ready.metadata_url
    }

    pub fn ask(&self, arguments: &[&str]) -> Answer {
        ask(self.url(), arguments)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The process of the only role of this name, if it runs.
    pub fn role_pid(&self, role: &str) -> Option<u32> {
        let status = self.ask(&["status", "--data", &self.ready.data_dir]);
        let children = status.last()["children"].as_array()?.clone();
        let child = children.iter().find(|child| child["role"] == role)?;
        u32::try_from(child["pid"].as_u64()?).ok()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        process::signal(self.pid(), signal);
    }

    /// Uploads a file and returns the video's id.
    pub fn upload(&self, file: &Path) -> String {
        let job = self.ask(&["upload", text(file)]).succeeded();
        job["video_id"]
            .as_str()
            .expect("a finished job names its video")
            .to_owned()
    }

    /// SIGTERM; the exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.process.stop()
    }
}

fn unready(line: &Value) -> ClusterReady {
    panic!("vstack dev did not become ready: {line}")
}

/// Lines of all log files under `folder` that tell of something odd.
pub fn warnings(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(warnings(&path));
        } else if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().contains(".log"))
        {
            let text = std::fs::read_to_string(&path).expect("a log file is text");
            let odd = text
                .lines()
                .filter(|line| line.contains("\"level\":\"WARN\"") || line.contains("\"level\":\"ERROR\""));
            found.extend(odd.map(str::to_owned));
        }
    }
    found
}

/// The stream of JSON lines of a command that still runs.
pub fn follow(metadata_url: &str, arguments: &[&str]) -> (Process, Lines) {
    let mut command = vstack();
    command
        .args(arguments)
        .args(["--json", "--metadata-url", metadata_url]);
    Process::start(command)
}
