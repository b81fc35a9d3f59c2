//! A metadata role and nodes behind lines of a known speed; nodes come and go.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use vstack_api::wire::NodeAction;
use vstack_api::{HttpTransport, MetadataClient, Transport};
use vstack_core::id::NodeId;
use vstack_core::node::NodeHealth;
use vstack_emulator::{Emulated, Emulator, Profile};

use crate::peers::{fresh, key_file};
use crate::process::{Process, free_address};
use crate::role;

const READY_WITHIN: Duration = Duration::from_secs(30);

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) url: String,
    line: Emulated,
    process: Process,
}

pub(super) struct Cluster {
    pub(super) catalogue: MetadataClient,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) nodes: Vec<Node>,
    folder: PathBuf,
    key: PathBuf,
    program: PathBuf,
    started: usize,
    _metadata: Process,
}

impl Cluster {
    pub(super) async fn start(program: &Path, work: &Path, nodes: usize) -> Result<Self> {
        let folder = fresh(work, "vstack")?;
        let key = key_file(&folder)?;
        let mut command = role::serve(program, "metadata", &folder.join("metadata"), &key);
        let (metadata, ready) = role::start(command.args(["--listen", "127.0.0.1:0"]))?;
        let transport: Arc<dyn Transport> = Arc::new(HttpTransport::new());
        let catalogue = MetadataClient::with_transport(role::text(&ready, "url")?, Arc::clone(&transport));
        let mut cluster = Self {
            catalogue,
            transport,
            nodes: Vec::new(),
            folder,
            key,
            program: program.to_path_buf(),
            started: 0,
            _metadata: metadata,
        };
        for _ in 0..nodes {
            cluster.join(Profile::default()).await?;
        }
        Ok(cluster)
    }

    /// Starts an empty node behind a line and waits until it takes parts.
    pub(super) async fn join(&mut self, profile: Profile) -> Result<()> {
        self.started += 1;
        let listen = free_address()?;
        let line = Emulator::start(listen, profile).await?;
        let folder = self.folder.join(format!("node-{}", self.started));
        let url = line.url();
        let mut command = role::serve(&self.program, "storage", &folder, &self.key);
        command
            .args(["--metadata-url", self.catalogue.0.base_url()])
            .args(["--advertise-url", &url, "--listen", &listen.to_string()])
            .args(["--superblock-mib", "256", "--reserve-mib", "0"]);
        let (process, ready) = role::start(&mut command)?;
        let id = role::text(&ready, "node_id")?.parse()?;
        self.nodes.push(Node {
            id,
            url,
            line,
            process,
        });
        self.until_healthy().await
    }

    /// Takes the node that joined last away for good.
    pub(super) async fn lose_last(&mut self) -> Result<()> {
        let node = self.nodes.pop().context("there is no node to lose")?;
        drop(node.process);
        self.catalogue
            .change_node(node.id, NodeAction::Remove, true)
            .await?;
        Ok(())
    }

    pub(super) fn set_profile(&self, profile: Profile) {
        for node in &self.nodes {
            node.line.handle.set_profile(profile);
        }
    }

    async fn until_healthy(&self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let nodes = self.catalogue.nodes().await?;
            let healthy = nodes
                .iter()
                .filter(|node| node.status == NodeHealth::Healthy)
                .count();
            if healthy >= self.nodes.len() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{healthy} of {} nodes are healthy", self.nodes.len());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
