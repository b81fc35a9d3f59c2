//! Our storage node: the release binary, started as an operator starts it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use uuid::Uuid;

use super::{Programs, Target, fresh, upload};
use crate::http::get;
use crate::process::Process;
use crate::role::{self, NO_CATALOGUE};

/// A node on a folder.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    /// From the start of the process to the line that says it listens.
    pub(crate) ready_after: Duration,
}

impl Node {
    /// Starts a node on the data folder `data`, whose parent keeps its key.
    pub(crate) fn start(program: &Path, data: &Path) -> Result<Self> {
        let beside = data.parent().context("a data folder has a parent")?;
        let key = key_file(beside)?;
        let started = Instant::now();
        let mut command = role::serve(program, "storage", data, &key);
        command.args(["--listen", "127.0.0.1:0", "--metadata-url", NO_CATALOGUE]);
        let (process, ready) = role::start(&mut command)?;
        let ready_after = started.elapsed();
        let url = role::text(&ready, "url")?;
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
