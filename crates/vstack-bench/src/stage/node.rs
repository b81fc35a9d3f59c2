//! A storage node as an operator starts it, that can be stopped and started again at the same address.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Content;
use crate::http::{Connection, put};
use crate::peers::key_file;
use crate::process::{Process, Usage, free_address, wait_for_listener};

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
    /// Starts a node on the folder `data`, whose parent keeps its key and log.
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
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--json", "--role", "storage", "--superblock-mib", "128"])
            // No catalogue listens there: a node serves without one.
            .args(["--metadata-url", "http://127.0.0.1:9"])
            .args(["--parent-pid", &std::process::id().to_string()])
            .args(["--listen", &self.address.to_string()])
            .arg("--data")
            .arg(&self.data)
            .arg("--cluster-key-file")
            .arg(key_file(beside)?)
            .env("RUST_LOG", "error");
        if let Some(mbit) = self.egress_mbit {
            command.args(["--egress-mbit", &mbit.to_string()]);
        }
        let name = self.data.file_name().context("a data folder has a name")?;
        let log = beside.join(format!("{}.log", name.to_string_lossy()));
        self.process = Some(Process::start(&mut command, &log)?);
        wait_for_listener(self.address)
    }

    /// Stores the content as a plain client does.
    pub(crate) fn store(&self, content: &Content) -> Result<()> {
        let mut connection = Connection::open(self.address)?;
        for (id, bytes) in &content.chunks {
            let head = put(self.address, &format!("/chunk/{id}"), bytes.len());
            let answer = connection.exchange(&head, bytes, true)?;
            if !answer.is_success() {
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                bail!("{id} was answered {}: {text}", answer.status);
            }
        }
        Ok(())
    }
}
