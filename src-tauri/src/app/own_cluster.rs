//! A cluster of one's own: `vstack dev` as a child of the player, for people who have no cluster yet.
//!
//! The program is looked for in three places, and all three are named when it is in none. A cluster that a killed
//! player left behind holds the data folder; it is taken over, and stopped on exit like one that was started here.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};

use crate::dto::UiError;

/// Names the program where it is neither beside this one nor in PATH.
const PROGRAM_VARIABLE: &str = "VSTACK_BIN";
const PROGRAM: &str = "vstack";
/// A node scans its data before it listens; minutes only after a crash with a very full disk.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// The roles drain for 10 s at most.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// Lines of the child's log that are shown when it fails.
const LAST_WORDS: usize = 6;

/// What is read of the ready line of `vstack dev --json`, and of the `cluster.json` of one that runs.
#[derive(Debug, Clone, Deserialize)]
struct Ready {
    metadata_url: String,
    supervisor_pid: Option<i32>,
}

/// A running cluster that ends with the player.
#[derive(Debug)]
pub(super) struct OwnCluster {
    pub(super) metadata_url: String,
    supervisor: Supervisor,
}

#[derive(Debug)]
enum Supervisor {
    Child {
        child: Box<Child>,
        last_words: LastWords,
    },
    TakenOver(Pid),
}

type LastWords = Arc<Mutex<VecDeque<String>>>;

impl OwnCluster {
    /// Starts the cluster whose data is in `data`. Returns when it is ready.
    pub(super) async fn start(data: &Path) -> Result<Self, UiError> {
        if let Some(running) = running_in(data) {
            return Ok(running);
        }
        let program = find_program()?;
        tracing::info!(program = %program.display(), data = %data.display(), "starting a cluster");
        let mut child = Command::new(&program)
            .args(["dev", "--json", "--port-base", "0", "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&format!("{} cannot be started: {error}", program.display()), ""))?;
        let last_words = LastWords::default();
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(pass_on(stderr, Arc::clone(&last_words)));
        }
        match tokio::time::timeout(READY_WITHIN, read_ready(&mut child)).await {
            Ok(Some(ready)) => {
                let supervisor = Supervisor::Child {
                    child: Box::new(child),
                    last_words,
                };
                Ok(Self {
                    metadata_url: ready.metadata_url,
                    supervisor,
                })
            }
            Ok(None) => Err(ended_early(&mut child, &last_words).await),
            Err(_) => Err(failed(
                "The cluster on this computer did not become ready",
                &words(&last_words),
            )),
        }
    }

    /// Returns when the cluster has ended without being told to.
    pub(super) async fn ended(&mut self) -> UiError {
        match &mut self.supervisor {
            Supervisor::Child { child, last_words } => ended_early(child, last_words).await,
            Supervisor::TakenOver(pid) => {
                while is_running(*pid) {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                failed("The cluster on this computer has ended", "")
            }
        }
    }

    /// Asks the cluster to end and waits until it has.
    pub(super) async fn stop(mut self) {
        let pid = match &self.supervisor {
            Supervisor::Child { child, .. } => child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .and_then(Pid::from_raw),
            Supervisor::TakenOver(pid) => Some(*pid),
        };
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, Signal::TERM)
        {
            tracing::warn!(%error, "the cluster could not be told to stop");
        }
        if tokio::time::timeout(STOP_WITHIN, self.ended()).await.is_err() {
            tracing::warn!("the cluster did not stop in time and is killed");
        }
    }
}

/// The cluster that runs in `data` already.
fn running_in(data: &Path) -> Option<OwnCluster> {
    let ready: Ready = serde_json::from_slice(&std::fs::read(data.join("cluster.json")).ok()?).ok()?;
    let pid = Pid::from_raw(ready.supervisor_pid?).filter(|&pid| is_running(pid))?;
    tracing::info!(
        pid = pid.as_raw_nonzero(),
        "taking over the cluster that runs already"
    );
    Some(OwnCluster {
        metadata_url: ready.metadata_url,
        supervisor: Supervisor::TakenOver(pid),
    })
}

/// Whether the process is there and is a `vstack`: numbers of processes are used again.
fn is_running(pid: Pid) -> bool {
    let command = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&command).contains(PROGRAM)
}

/// The `vstack` program: named by the environment, beside this program, or in PATH.
fn find_program() -> Result<PathBuf, UiError> {
    let named = std::env::var_os(PROGRAM_VARIABLE).map(PathBuf::from);
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(PROGRAM)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join(PROGRAM));
    let found = named
        .iter()
        .cloned()
        .chain(beside.clone())
        .chain(in_path)
        .find(|candidate| candidate.is_file());
    found.ok_or_else(|| {
        let named = named.map_or("which is not set".to_owned(), |file| format!("which says {}", file.display()));
        let beside = beside.map_or("nowhere".to_owned(), |file| file.display().to_string());
        UiError::new(
            "vstack_missing",
            format!(
                "The program vstack, which runs a cluster on this computer, was not found: not by {PROGRAM_VARIABLE}, {named}; \
                 not at {beside}; not in PATH."
            ),
            format!("Install vstack, or set {PROGRAM_VARIABLE} to its file, or connect to a cluster with --metadata-url."),
        )
    })
}

/// The ready line; `None` when the child ended before.
async fn read_ready(child: &mut Child) -> Option<Ready> {
    let mut lines = BufReader::new(child.stdout.take()?).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(ready) = serde_json::from_str::<Ready>(&line) {
            // What comes later must be read, or the child stops at a full pipe.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Some(ready);
        }
    }
    None
}

async fn pass_on(stderr: ChildStderr, last_words: LastWords) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::debug!(target: "vstack", "{line}");
        let mut words = last_words
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        words.push_back(line);
        if words.len() > LAST_WORDS {
            words.pop_front();
        }
    }
}

async fn ended_early(child: &mut Child, last_words: &LastWords) -> UiError {
    let status = child.wait().await;
    let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    failed(
        &format!("The cluster on this computer has ended ({how})"),
        &words(last_words),
    )
}

fn words(last_words: &LastWords) -> String {
    let words = last_words
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    words.iter().cloned().collect::<Vec<_>>().join(" ")
}

fn failed(what: &str, words: &str) -> UiError {
    let message = if words.is_empty() {
        format!("{what}.")
    } else {
        format!("{what}: {words}")
    };
    UiError::new(
        "own_cluster",
        message,
        "V-Stack tries again in a few seconds. The message names what has to change.",
    )
}
