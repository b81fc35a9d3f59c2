//! The servers that are compared: ours, nginx serving plain files, SeaweedFS's volume server.
//!
//! A peer that is not installed is left out, and the report says so.

mod nginx;
mod seaweed;
mod vstack;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

pub(crate) use nginx::nginx;
pub(crate) use seaweed::seaweed;
pub(crate) use vstack::{Node, key_file, new_paths, store_chunks, vstack};

use crate::http::{Connection, put};
use crate::process::Process;

/// Where the programs are, and where the servers may keep files.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) vstack: PathBuf,
    pub(crate) nginx: Option<PathBuf>,
    pub(crate) weed: Option<PathBuf>,
    pub(crate) work: PathBuf,
}

/// A running server that holds the chunks of the bench.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    /// What must run beside it and is not measured.
    pub(crate) _beside: Option<Process>,
    /// One GET for each chunk.
    pub(crate) reads: Vec<Vec<u8>>,
}

/// Reads every chunk once and compares it: a server that answers something else is not worth measuring. Afterwards
/// every chunk is in memory, and ours has checked each against its SHA-256.
pub(crate) fn check_and_warm(target: &Target, chunks: &[Vec<u8>]) -> Result<()> {
    let mut connection = Connection::open(target.address)?;
    for (head, chunk) in target.reads.iter().zip(chunks) {
        let answer = connection.exchange(head, &[], true)?;
        if answer.status != 200 || &answer.body != chunk {
            bail!("{} does not give back what it was given", target.name);
        }
    }
    Ok(())
}

/// Stores chunks over HTTP, one after another.
fn upload(address: SocketAddr, paths: &[String], chunks: &[Vec<u8>]) -> Result<()> {
    let mut connection = Connection::open(address)?;
    for (path, chunk) in paths.iter().zip(chunks) {
        let answer = connection.exchange(&put(address, path, chunk.len()), chunk, true)?;
        if !answer.is_success() {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            bail!("PUT {path} was answered {}: {text}", answer.status);
        }
    }
    Ok(())
}

/// A new folder for a server's files.
pub(crate) fn fresh(work: &Path, name: &str) -> Result<PathBuf> {
    let folder = work.join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
