//! What the window's tests stand on: a display without a screen, real processes, a WebDriver client.

pub mod file_manager;
pub mod process;
pub mod screen;
pub mod webdriver;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use process::Process;

/// Between two looks at something that is awaited.
const POLL: Duration = Duration::from_millis(100);
/// For anything that a busy machine may take its time for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` finds it.
pub fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(POLL);
    }
}

/// `vstack` of the same build: named by the environment, or beside the player.
pub fn vstack() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_vstack-player")).with_file_name("vstack");
    let program = std::env::var_os("VSTACK_BIN").map_or(beside, PathBuf::from);
    assert!(
        program.is_file(),
        "{} is missing: cargo build -p vstack-node-server",
        program.display()
    );
    program
}

/// A running `vstack dev`.
pub struct Cluster {
    _process: Process,
    pub metadata_url: String,
    pub children: Vec<Value>,
}

impl Cluster {
    pub fn start(data: &Path) -> Self {
        let mut command = Command::new(vstack());
        command
            .args(["dev", "--json", "--port-base", "0", "--data"])
            .arg(data);
        let (process, line) = Process::with_first_line(command);
        let ready: Value = serde_json::from_str(&line).expect("the ready line is JSON");
        let metadata_url = ready["metadata_url"]
            .as_str()
            .expect("a metadata address")
            .to_owned();
        let children = ready["children"].as_array().expect("children").clone();
        Self {
            _process: process,
            metadata_url,
            children,
        }
    }

    /// Uploads a file; returns the video's id when it can be watched.
    pub fn upload(&self, file: &Path) -> String {
        let mut command = Command::new(vstack());
        command
            .args(["upload", "--json", "--metadata-url", &self.metadata_url])
            .arg(file);
        let output = command.output().expect("vstack runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let last: Value =
            serde_json::from_str(text.lines().last().unwrap_or_default()).expect("a last line of JSON");
        assert!(output.status.success(), "the upload failed: {last}");
        last["video_id"].as_str().expect("the video's id").to_owned()
    }

    /// The process of the node with this name.
    pub fn pid_of(&self, name: &str) -> u32 {
        let child = self
            .children
            .iter()
            .find(|child| child["name"] == name)
            .expect("the node's process");
        child["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
            .expect("a pid")
    }
}
