//! nginx in network namespaces behind `tc tbf`, the policies and aria2 in turns.
//!
//! Each node is a namespace of its own with one nginx process and a queue of `tbf` on its way out, so that the kernel's
//! own TCP is slowed down and nothing of ours is between. Needs root; everything made is named after this process and
//! taken away at the end.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use tokio::task::JoinSet;
use uuid::Uuid;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::NodeId;

use super::scenario::{Line, Scenario, Trouble, in_namespaces};
use super::{Bench, CHUNK_BYTES, PATIENCE, RealOptions, Row, play};
use crate::output;
use crate::peers::fresh;
use crate::process::{Process, wait_for_listener};
use crate::stage::{Catalogue, Content, Holder};

const ALL_IN_ONE: &str = "all.bin";

/// Why it cannot be done here.
pub(super) fn obstacle(options: &RealOptions) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    if options.nginx.is_none() {
        return Some("there is no nginx".to_owned());
    }
    let probe = format!("vsp{}", std::process::id());
    if let Err(error) = tool("ip", &["netns", "add", &probe]) {
        return Some(format!("no network namespace can be made: {error}"));
    }
    // It was there a moment ago.
    drop(tool("ip", &["netns", "del", &probe]));
    None
}

fn tool(program: &str, words: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("{program} {}: {said}", words.join(" "));
    }
    Ok(())
}

/// A namespace with an nginx in it.
#[derive(Debug)]
struct PlainNode {
    namespace: String,
    inner: String,
    address: String,
    folder: PathBuf,
    node_id: NodeId,
    nginx: Option<Process>,
}

impl PlainNode {
    fn start(number: usize, folder: &Path, nginx: &Path, line: Line) -> Result<Self> {
        // Interface names have at most 15 bytes.
        let tag = format!("{}{number}", std::process::id() % 100_000);
        let (outer, inner) = (format!("vso{tag}"), format!("vsi{tag}"));
        let network = format!("10.77.{number}");
        let mut node = Self {
            namespace: format!("vsn{tag}"),
            inner,
            address: format!("{network}.2:8080"),
            folder: folder.join(format!("nginx-{number}")),
            node_id: NodeId(Uuid::new_v4()),
            nginx: None,
        };
        node.connect(&outer, &network)?;
        node.shape("add", line.mbps)?;
        node.serve(&folder.join("good"), nginx)?;
        Ok(node)
    }

    fn connect(&self, outer: &str, network: &str) -> Result<()> {
        let (namespace, inner) = (self.namespace.as_str(), self.inner.as_str());
        let (here, there) = (format!("{network}.1/24"), format!("{network}.2/24"));
        tool("ip", &["netns", "add", namespace])?;
        tool(
            "ip",
            &["link", "add", outer, "type", "veth", "peer", "name", inner],
        )?;
        tool("ip", &["link", "set", inner, "netns", namespace])?;
        tool("ip", &["addr", "add", &here, "dev", outer])?;
        tool("ip", &["link", "set", outer, "up"])?;
        self.inside(&["ip", "addr", "add", &there, "dev", inner])?;
        self.inside(&["ip", "link", "set", inner, "up"])?;
        self.inside(&["ip", "link", "set", "lo", "up"])
    }

    fn inside(&self, words: &[&str]) -> Result<()> {
        tool(
            "ip",
            &[&["netns", "exec", self.namespace.as_str()], words].concat(),
        )
    }

    fn shape(&self, verb: &str, mbps: f64) -> Result<()> {
        let rate = format!("{}bit", (mbps * 1e6).round());
        let queue = ["root", "tbf", "rate", &rate, "burst", "32kb", "latency", "100ms"];
        self.inside(&[&["tc", "qdisc", verb, "dev", &self.inner], &queue[..]].concat())
    }

    fn serve(&mut self, files: &Path, nginx: &Path) -> Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        self.show(files)?;
        let config = self.folder.join("nginx.conf");
        std::fs::write(&config, self.config())?;
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(nginx)
            .arg("-c")
            .arg(&config)
            .arg("-e")
            .arg(self.folder.join("error.log"));
        self.nginx = Some(Process::start(&mut command, &self.folder.join("log"))?);
        wait_for_listener(self.address.parse()?)
    }

    /// Which files it serves from now on.
    fn show(&self, files: &Path) -> Result<()> {
        let (link, fresh) = (self.folder.join("files"), self.folder.join("files.new"));
        symlink(files, &fresh)?;
        std::fs::rename(fresh, link)?;
        Ok(())
    }

    /// One process, so that one signal stops it.
    fn config(&self) -> String {
        let folder = self.folder.display();
        format!(
            "daemon off; master_process off; pid {folder}/pid;
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; keepalive_requests 100000; default_type application/octet-stream;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{
        listen {}; root {folder}/files;
        location = /ping {{ add_header x-node-id {}; return 200; }}
    }}
}}
",
            self.address, self.node_id
        )
    }

    fn strike(&self, trouble: Trouble, mbps: f64, bad: &Path) -> Result<()> {
        let nginx = self.nginx.as_ref().context("nginx runs")?;
        match trouble {
            Trouble::Collapse => self.shape("change", mbps / 100.0)?,
            Trouble::Stall | Trouble::Flap => nginx.signal(Signal::STOP),
            Trouble::Die => nginx.signal(Signal::KILL),
            Trouble::Corrupt => self.show(bad)?,
        }
        Ok(())
    }
}

impl Drop for PlainNode {
    fn drop(&mut self) {
        if let Some(nginx) = self.nginx.take() {
            nginx.signal(Signal::CONT);
            drop(nginx);
        }
        if let Err(error) = tool("ip", &["netns", "del", &self.namespace]) {
            output::error(&format!("{error:#}"));
        }
    }
}

pub(super) async fn run(bench: &Bench<'_>, content: &Content) -> Result<Vec<Row>> {
    let folder = fresh(bench.work, "netns")?.canonicalize()?;
    write_files(&folder, content)?;
    let nginx = bench.options.nginx.as_deref().context("nginx is there")?;
    let mut rows = Vec::new();
    for scenario in &bench.scenarios(in_namespaces()) {
        output::step(&format!("netns: {}", scenario.name));
        for round in 0..bench.options.rounds {
            for policy in &bench.options.policy {
                let stage = Stage::start(scenario, round, &folder, nginx)?;
                let catalogue = stage.catalogue(content).await?;
                let _striking = stage.strike_later();
                let row = play("netns", scenario, round, *policy, &catalogue, content).await?;
                output::note(&row.sentence());
                rows.push(row);
            }
            if let Some(aria2) = &bench.options.aria2 {
                let stage = Stage::start(scenario, round, &folder, nginx)?;
                let _striking = stage.strike_later();
                let row = stage.fetch_with(aria2, content, &folder).await?;
                output::note(&row.sentence());
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

/// The right files, and others of the same names and sizes.
fn write_files(folder: &Path, content: &Content) -> Result<()> {
    for (name, right) in [("good", true), ("bad", false)] {
        let chunks = folder.join(name).join("chunk");
        std::fs::create_dir_all(&chunks)?;
        let mut all = Vec::new();
        for (id, bytes) in &content.chunks {
            let bytes = if right {
                bytes.to_vec()
            } else {
                vec![0; bytes.len()]
            };
            std::fs::write(chunks.join(id.to_string()), &bytes)?;
            all.extend_from_slice(&bytes);
        }
        std::fs::write(folder.join(name).join(ALL_IN_ONE), all)?;
    }
    Ok(())
}

/// The nodes of one run; the first line's first.
struct Stage<'a> {
    scenario: &'a Scenario,
    round: u16,
    nodes: std::sync::Arc<Vec<PlainNode>>,
    bad: PathBuf,
}

impl<'a> Stage<'a> {
    fn start(scenario: &'a Scenario, round: u16, folder: &Path, nginx: &Path) -> Result<Self> {
        let count = scenario.lines.len();
        let mut nodes = Vec::new();
        for (index, line) in scenario.lines.iter().enumerate() {
            // Clients name nodes by address; which line has the lowest moves on.
            let number = (index + usize::from(round)) % count + 1;
            nodes.push(PlainNode::start(number, folder, nginx, *line)?);
        }
        Ok(Self {
            scenario,
            round,
            nodes: std::sync::Arc::new(nodes),
            bad: folder.join("bad"),
        })
    }

    async fn catalogue(&self, content: &Content) -> Result<Catalogue> {
        let holder = |node: &PlainNode| Holder {
            node_id: node.node_id,
            url: format!("http://{}", node.address),
        };
        let holders: Vec<Holder> = self.nodes.iter().map(holder).collect();
        let manifest = content.manifest(&holders, |_| (0..holders.len()).collect());
        Catalogue::start(&holders, &manifest).await
    }

    fn strike_later(&self) -> JoinSet<()> {
        let mut coming = JoinSet::new();
        if let (Some((at_s, trouble)), Some(line)) = (self.scenario.trouble, self.scenario.lines.first()) {
            let (nodes, bad, mbps) = (std::sync::Arc::clone(&self.nodes), self.bad.clone(), line.mbps);
            coming.spawn(async move {
                tokio::time::sleep(Duration::from_secs_f64(at_s)).await;
                if let Some(Err(error)) = nodes.first().map(|node| node.strike(trouble, mbps, &bad)) {
                    output::error(&format!("the trouble did not come: {error:#}"));
                }
            });
        }
        coming
    }

    /// One file of all chunks, from all nodes as mirrors, as aria2 is used for streaming: in order, in pieces of 1 MiB.
    async fn fetch_with(&self, aria2: &Path, content: &Content, folder: &Path) -> Result<Row> {
        let bound_s = self.scenario.bound_s(content.bytes());
        let target = folder.join("aria2");
        std::fs::create_dir_all(&target)?;
        drop(std::fs::remove_file(target.join(ALL_IN_ONE)));
        let limit_s = bound_s * PATIENCE + 5.0;
        let mut command = tokio::process::Command::new("timeout");
        command
            .arg(format!("{limit_s}"))
            .arg(aria2)
            .args([
                "--quiet",
                "--allow-overwrite=true",
                "--auto-file-renaming=false",
                "--file-allocation=none",
            ])
            .args([
                "--min-split-size=1M",
                "--piece-length=1M",
                "--stream-piece-selector=inorder",
            ])
            .args([
                "--uri-selector=adaptive",
                "--max-connection-per-server=1",
                "--connect-timeout=2",
                "--timeout=2",
            ])
            .arg(format!("--split={}", self.nodes.len()))
            .arg("--dir")
            .arg(&target)
            .args(["--out", ALL_IN_ONE]);
        command.args(
            self.nodes
                .iter()
                .map(|node| format!("http://{}/{ALL_IN_ONE}", node.address)),
        );
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let started = Instant::now();
        let status = command.status().await.context("cannot run aria2c")?;
        let took_s = started.elapsed().as_secs_f64();
        let fetched = std::fs::read(target.join(ALL_IN_ONE)).unwrap_or_default();
        let source: Vec<u8> = content
            .chunks
            .iter()
            .flat_map(|(_, bytes)| bytes.to_vec())
            .collect();
        Ok(Row {
            layer: "netns",
            scenario: self.scenario.name.to_owned(),
            round: self.round,
            contestant: "aria2".to_owned(),
            took_s: status.success().then_some(took_s),
            bound_s,
            startup_s: None,
            startup_bound_s: self.scenario.bound_s(CHUNK_BYTES as u64),
            wasted_percent: 0.0,
            requests_per_chunk: 0.0,
            hash_failures: 0,
            right: Sha256Digest::of(&fetched) == Sha256Digest::of(&source),
            faults: 0,
            detect_ms: None,
        })
    }
}
