//! A metadata role and nodes behind lines of a known speed; nodes come and go.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use vstack_api::wire::NodeAction;
use vstack_api::{HttpTransport, MetadataClient, Transport};
use vstack_core::id::NodeId;
use vstack_core::node::NodeHealth;
use vstack_emulator::{Emulated, Emulator, Profile};

use crate::peers::{fresh, key_file};
use crate::process::Process;

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
        let (metadata, ready) = role(program, &folder.join("metadata"), &key, &["--role", "metadata"])?;
        let transport: Arc<dyn Transport> = Arc::new(HttpTransport::new());
        let catalogue = MetadataClient::with_transport(text(&ready, "url")?, Arc::clone(&transport));
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
        let more = [
            "--role",
            "storage",
            "--metadata-url",
            self.catalogue.0.base_url(),
            "--advertise-url",
            &url,
        ];
        let listen = listen.to_string();
        let more = [
            &more[..],
            &[
                "--superblock-mib",
                "256",
                "--reserve-mib",
                "0",
                "--listen",
                &listen,
            ],
        ]
        .concat();
        let (process, ready) = role(&self.program, &folder, &self.key, &more)?;
        let id = text(&ready, "node_id")?.parse()?;
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

fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("there is no free port")?;
    Ok(listener.local_addr()?)
}

fn role(program: &Path, folder: &Path, key: &Path, more: &[&str]) -> Result<(Process, Value)> {
    let mut command = Command::new(program);
    command.args(["serve", "--json", "--parent-pid", &std::process::id().to_string()]);
    if !more.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command
        .args(more)
        .arg("--data")
        .arg(folder)
        .arg("--cluster-key-file")
        .arg(key)
        .env("RUST_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let output = child.stdout.take().context("vstack has no output")?;
    let process = Process::from_child(child);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let ready = serde_json::from_str(&line).with_context(|| format!("vstack serve said: {line}"))?;
    Ok((process, ready))
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name]
        .as_str()
        .with_context(|| format!("vstack serve names no {name}: {value}"))
}
