//! Our storage node: the release binary, started as an operator starts it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;
use uuid::Uuid;

use super::{Programs, Target, fresh, upload};
use crate::http::get;
use crate::process::Process;

/// A node on a folder.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    /// From the start of the process to the line that says it listens.
    pub(crate) ready_after: Duration,
}

impl Node {
    /// Starts a node on the data folder `data`, whose parent keeps its key and log.
    pub(crate) fn start(program: &Path, data: &Path) -> Result<Self> {
        let beside = data.parent().context("a data folder has a parent")?;
        let key = key_file(beside)?;
        let started = Instant::now();
        let mut child = Command::new(program)
            .args(["serve", "--json", "--role", "storage", "--listen", "127.0.0.1:0"])
            // No catalogue listens there: a node serves without one.
            .args(["--metadata-url", "http://127.0.0.1:9"])
            .args(["--parent-pid", &std::process::id().to_string()])
            .arg("--data")
            .arg(data)
            .arg("--cluster-key-file")
            .arg(key)
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let output = child.stdout.take().context("vstack has no output")?;
        let process = Process::from_child(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let ready_after = started.elapsed();
        let ready: Value =
            serde_json::from_str(&line).with_context(|| format!("vstack serve said: {line}"))?;
        let url = ready["url"].as_str().context("vstack serve names no address")?;
        let address = url.trim_start_matches("http://").parse()?;
        Ok(Self {
            address,
            process,
            ready_after,
        })
    }

    /// The node as a server of these paths.
    pub(crate) fn serving(self, paths: &[String]) -> Target {
        Target {
            name: "V-Stack",
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reads: paths.iter().map(|path| get(self.address, path)).collect(),
            address: self.address,
            process: self.process,
            _beside: None,
        }
    }
}

pub(crate) fn key_file(folder: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = folder.join("cluster.key");
    if !file.exists() {
        let mut key = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)?;
        std::io::Write::write_all(&mut key, &[7; 32])?;
    }
    Ok(file)
}

/// Paths of new chunks.
pub(crate) fn new_paths(count: usize) -> Vec<String> {
    let video = Uuid::new_v4();
    (0..count)
        .map(|number| format!("/chunk/{video}-chunk-{number:03}"))
        .collect()
}

/// Starts a node with `chunks` stored.
pub(crate) fn vstack(programs: &Programs, chunks: &[Vec<u8>]) -> Result<Target> {
    let folder = fresh(&programs.work, "vstack")?;
    let node = Node::start(&programs.vstack, &folder.join("node"))?;
    let paths = new_paths(chunks.len());
    upload(node.address, &paths, chunks)?;
    Ok(node.serving(&paths))
}

/// Stores `chunks` in the data folder `data`; returns their paths on any node that starts on it.
pub(crate) fn store_chunks(program: &Path, data: &Path, chunks: &[Vec<u8>]) -> Result<Vec<String>> {
    let node = Node::start(program, data)?;
    let paths = new_paths(chunks.len());
    upload(node.address, &paths, chunks)?;
    Ok(paths)
}
