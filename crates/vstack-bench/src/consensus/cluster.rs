//! Our side: a metadata role and three storage nodes, started as an operator starts them.

use std::path::Path;

use anyhow::Result;
use vstack_core::keys::ClusterKey;

use crate::peers::{fresh, key_file};
use crate::process::Process;
use crate::role;

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
        let (metadata, metadata_url) = listening(program, &folder, &key, "metadata", None)?;
        let mut processes = vec![metadata];
        for number in 0..NODES {
            let name = format!("storage-{number}");
            processes.push(listening(program, &folder, &key, &name, Some(&metadata_url))?.0);
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

fn listening(
    program: &Path,
    folder: &Path,
    key: &Path,
    name: &str,
    metadata_url: Option<&str>,
) -> Result<(Process, String)> {
    let kind = name.split('-').next().unwrap_or(name);
    let mut command = role::serve(program, kind, &folder.join(name), key);
    command.args(["--listen", "127.0.0.1:0"]);
    if let Some(url) = metadata_url {
        command.args(["--metadata-url", url]);
    }
    let (process, ready) = role::start(&mut command)?;
    Ok((process, role::text(&ready, "url")?.to_owned()))
}
