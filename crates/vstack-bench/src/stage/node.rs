//! A storage node as an operator starts it, that can be stopped and started again at the same address.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use vstack_core::id::ChunkId;
use vstack_erasure::encode;

use super::Content;
use crate::http::{Connection, put};
use crate::peers::key_file;
use crate::process::{Process, Usage, free_address};
use crate::role::{self, NO_CATALOGUE};

/// A running node.
#[derive(Debug)]
pub(crate) struct StorageNode {
    pub(crate) address: SocketAddr,
    program: PathBuf,
    data: PathBuf,
    egress_mbit: Option<f64>,
    process: Option<Process>,
}

impl StorageNode {
    /// Starts a node on the folder `data`, whose parent keeps its key.
    pub(crate) fn start(program: &Path, data: PathBuf, egress_mbit: Option<f64>) -> Result<Self> {
        let mut node = Self {
            address: free_address()?,
            program: program.to_owned(),
            data,
            egress_mbit,
            process: None,
        };
        node.begin()?;
        Ok(node)
    }

    /// SIGTERM, the end, and a new process at the same address.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.process = None;
        self.begin()
    }

    pub(crate) fn usage(&self) -> Usage {
        self.process.as_ref().map(Process::usage).unwrap_or_default()
    }

    fn begin(&mut self) -> Result<()> {
        let beside = self.data.parent().context("a data folder has a parent")?;
        let mut command = role::serve(&self.program, "storage", &self.data, &key_file(beside)?);
        command
            .args(["--superblock-mib", "128", "--metadata-url", NO_CATALOGUE])
            .args(["--listen", &self.address.to_string()]);
        if let Some(mbit) = self.egress_mbit {
            command.args(["--egress-mbit", &mbit.to_string()]);
        }
        self.process = Some(role::start(&mut command)?.0);
        Ok(())
    }

    /// Stores the content as a plain client does.
    pub(crate) fn store(&self, content: &Content) -> Result<()> {
        let mut connection = Connection::open(self.address)?;
        for (id, bytes) in &content.chunks {
            self.put(&mut connection, *id, bytes)?;
        }
        Ok(())
    }

    /// Stores of each chunk the shard that `shard_of` names, by the chunk's sequence number.
    pub(crate) fn store_shards(&self, content: &Content, shard_of: impl Fn(u32) -> u8) -> Result<()> {
        let mut connection = Connection::open(self.address)?;
        for (id, bytes) in &content.chunks {
            let index = shard_of(id.seq());
            let shards = encode(bytes)?;
            let shard = shards.get(usize::from(index)).context("there is such a shard")?;
            self.put(&mut connection, id.with_shard(index)?, shard)?;
        }
        Ok(())
    }

    fn put(&self, connection: &mut Connection, id: ChunkId, bytes: &[u8]) -> Result<()> {
        let head = put(self.address, &format!("/chunk/{id}"), bytes.len());
        let answer = connection.exchange(&head, bytes, true)?;
        if !answer.is_success() {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            bail!("{id} was answered {}: {text}", answer.status);
        }
        Ok(())
    }
}
