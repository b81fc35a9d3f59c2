//! One role as a child process: started with `vstack serve --json`, ready when it says so, ended with its parent.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;
use vstack_api::Problem;
use vstack_core::id::NodeId;

use super::folder::Folder;
use super::{DevConfig, DevError};

/// A node scans its superblocks before it listens: 1 s for each TB is the aim.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A role drains for 10 s at most; the rest is for closing files.
const STOP_WITHIN: Duration = Duration::from_secs(12);

/// Room is reserved for whole superblocks; five nodes with production's 1 GiB each would take it from their owner.
const SUPERBLOCK_MIB: &str = "256";

/// The line that `vstack serve --json` prints for a role that listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServeReady {
    pub role: String,
    pub url: String,
    /// Of a storage node.
    pub node_id: Option<NodeId>,
    /// What the node was told to be called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub pid: u32,
}

/// Everything that is needed to start a child, and to start it again.
#[derive(Debug, Clone)]
pub(super) struct Order {
    program: PathBuf,
    name: String,
    role: &'static str,
    listen: String,
    data: PathBuf,
    key_file: PathBuf,
    metadata_url: Option<String>,
}

impl Order {
    pub(super) fn new(
        config: &DevConfig,
        folder: &Folder,
        role: &'static str,
        name: &str,
        port_offset: u16,
    ) -> Self {
        let port = if config.port_base == 0 {
            0
        } else {
            config.port_base.saturating_add(port_offset)
        };
        Self {
            program: config.program.clone(),
            name: name.to_owned(),
            role,
            listen: format!("127.0.0.1:{port}"),
            data: folder.of(name),
            key_file: folder.key_file(),
            metadata_url: None,
        }
    }

    pub(super) fn knowing(mut self, metadata_url: &str) -> Self {
        self.metadata_url = Some(metadata_url.to_owned());
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["serve", "--json", "--role", self.role, "--listen", &self.listen]);
        command
            .arg("--data")
            .arg(&self.data)
            .arg("--cluster-key-file")
            .arg(&self.key_file);
        command.args(["--parent-pid", &std::process::id().to_string()]);
        if let Some(url) = &self.metadata_url {
            command.args(["--metadata-url", url]);
        }
        if self.role == "storage" {
            command.args(["--superblock-mib", SUPERBLOCK_MIB, "--name", &self.name]);
        }
        if std::env::var_os("RUST_LOG").is_none() {
            // Each role has its own log file; the terminal is for what matters.
            command.env("RUST_LOG", "warn");
        }
        // A group of its own: Ctrl-C reaches the supervisor alone, which then ends the children in order.
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

/// A child that has said it is ready.
#[derive(Debug)]
pub(super) struct Child {
    order: Order,
    ready: ServeReady,
    process: tokio::process::Child,
    runs: bool,
}

impl Child {
    /// Starts it and waits for its ready line.
    pub(super) async fn start(order: Order) -> Result<Self, DevError> {
        let failed = |reason: String| DevError::Child {
            name: order.name.clone(),
            reason,
        };
        let mut process = order
            .command()
            .spawn()
            .map_err(|cause| failed(cause.to_string()))?;
        let stdout = process
            .stdout
            .take()
            .ok_or_else(|| failed("it has no output".to_owned()))?;
        let mut lines = BufReader::new(stdout).lines();
        let first = timeout(READY_WITHIN, lines.next_line()).await;
        let ready = match first {
            Ok(Ok(Some(line))) => parse_ready(&line).map_err(failed)?,
            Ok(Ok(None)) => return Err(failed(silent_end(&mut process).await)),
            Ok(Err(cause)) => return Err(failed(cause.to_string())),
            Err(_) => {
                return Err(failed(format!(
                    "it was not ready within {} s",
                    READY_WITHIN.as_secs()
                )));
            }
        };
        tokio::spawn(drain(lines));
        Ok(Self {
            order,
            ready,
            process,
            runs: true,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.order.name
    }

    pub(super) const fn order(&self) -> &Order {
        &self.order
    }

    pub(super) const fn ready(&self) -> &ServeReady {
        &self.ready
    }

    /// Whether its end has not been seen yet.
    pub(super) const fn runs(&self) -> bool {
        self.runs
    }

    /// Returns when it has ended. Cancel-safe.
    pub(super) async fn ended(&mut self) -> ExitStatus {
        let status = self.process.wait().await.unwrap_or_default();
        self.runs = false;
        status
    }

    /// Asks it to drain, and kills it when it does not end in time.
    pub(super) async fn stop(&mut self) {
        // A process that was stopped (SIGSTOP) hears the request only when it runs.
        for signal in [Signal::TERM, Signal::CONT] {
            self.signal(signal);
        }
        if timeout(STOP_WITHIN, self.process.wait()).await.is_err() {
            tracing::warn!(child = %self.order.name, "still running after the drain limit, killing it");
            // It fails only for a process that is gone.
            let _ = self.process.kill().await;
        }
        self.runs = false;
    }

    fn signal(&self, signal: Signal) {
        let pid = self
            .process
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It fails only for a process that is gone.
            let _ = kill_process(pid, signal);
        }
    }
}

/// The ready line, or the reason that the child gives for not being ready.
fn parse_ready(line: &str) -> Result<ServeReady, String> {
    serde_json::from_str(line).map_err(|_| match serde_json::from_str::<Problem>(line) {
        Ok(problem) => problem.detail,
        Err(_) => format!("it said: {line}"),
    })
}

async fn silent_end(process: &mut tokio::process::Child) -> String {
    match process.wait().await {
        Ok(status) => format!("it ended without a word ({status})"),
        Err(cause) => cause.to_string(),
    }
}

/// A full pipe would stop the child.
async fn drain(mut lines: Lines<BufReader<ChildStdout>>) {
    while let Ok(Some(_)) = lines.next_line().await {}
}

/// Makes the system kill this process when its parent ends, even when the parent is killed.
///
/// # Errors
/// The system refuses, or the parent `expected_pid` has ended already.
pub fn die_with_parent(expected_pid: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended between starting us and the line above.
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent == i32::try_from(expected_pid).ok() {
        Ok(())
    } else {
        Err(io::Error::other("the parent process has ended"))
    }
}
