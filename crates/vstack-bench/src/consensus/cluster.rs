//! Our side: a metadata role and three storage nodes, started as an operator starts them.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;
use vstack_core::keys::ClusterKey;

use crate::peers::{fresh, key_file};
use crate::process::Process;

const NODES: usize = 3;
const KEY: [u8; 32] = [7; 32];

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) metadata_url: String,
    pub(super) key: ClusterKey,
    processes: Vec<Process>,
}

impl Cluster {
    pub(super) fn start(program: &Path, work: &Path) -> Result<Self> {
        let folder = fresh(work, "vstack")?;
        let key = key_file(&folder)?;
        let (metadata, metadata_url) = role(program, &folder, &key, "metadata", None)?;
        let mut processes = vec![metadata];
        for number in 0..NODES {
            let name = format!("storage-{number}");
            processes.push(role(program, &folder, &key, &name, Some(&metadata_url))?.0);
        }
        Ok(Self {
            metadata_url,
            key: ClusterKey::from_bytes(&KEY)?,
            processes,
        })
    }

    /// Processor time of all roles so far.
    pub(super) fn cpu_sec(&self) -> f64 {
        self.processes.iter().map(|process| process.usage().cpu_sec).sum()
    }

    /// Of the metadata role alone.
    pub(super) fn metadata_cpu_sec(&self) -> f64 {
        self.processes
            .first()
            .map_or(0.0, |process| process.usage().cpu_sec)
    }
}

fn role(
    program: &Path,
    folder: &Path,
    key: &PathBuf,
    name: &str,
    metadata_url: Option<&str>,
) -> Result<(Process, String)> {
    let kind = name.split('-').next().unwrap_or(name);
    let mut command = Command::new(program);
    command
        .args(["serve", "--json", "--role", kind, "--listen", "127.0.0.1:0"])
        .args(["--parent-pid", &std::process::id().to_string()])
        .arg("--data")
        .arg(folder.join(name))
        .arg("--cluster-key-file")
        .arg(key)
        .env("RUST_LOG", "error");
    if let Some(url) = metadata_url {
        command.args(["--metadata-url", url]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let output = child.stdout.take().context("vstack has no output")?;
    let process = Process::from_child(child);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let ready: Value = serde_json::from_str(&line).with_context(|| format!("vstack serve said: {line}"))?;
    let url = ready["url"].as_str().context("vstack serve names no address")?;
    Ok((process, url.to_owned()))
}
