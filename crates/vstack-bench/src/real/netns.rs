//! nginx in network namespaces behind `tc tbf`, the policies and aria2 in turns.
//!
//! Each node is a namespace of its own with one nginx process and a queue of `tbf` on its way out, so that the kernel's
//! own TCP is slowed down and nothing of ours is between. nginx serves files: chunks, their leaf hashes, and all chunks
//! in one file for aria2, which knows no chunks. Needs root; everything made is named after this process and taken away
//! at the end.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;
use vstack_api::wire::LeavesAnswer;
use vstack_client::PolicyName;
use vstack_core::digest::{LEAF_BYTES, Sha256Digest, leaf_hash};
use vstack_core::id::NodeId;

use super::scenario::{Event, Line, Turn, in_namespaces};
use super::{Bench, Played, RealOptions, Row, Run, its_turn, play};
use crate::output;
use crate::peers::fresh;
use crate::process::{Process, own_usage, wait_for_listener};
use crate::stage::{Content, Holder};

const ALL_IN_ONE: &str = "all.bin";
const ARIA2: &str = "aria2";

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
    /// The ends of its line, here and there.
    outer: String,
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
        let network = format!("10.{}.{}", 77 + number / 250, number % 250 + 1);
        let mut node = Self {
            namespace: format!("vsn{tag}"),
            outer,
            inner,
            address: format!("{network}.2:8080"),
            folder: folder.join(format!("nginx-{number}")),
            node_id: NodeId(Uuid::new_v4()),
            nginx: None,
        };
        node.connect(&network)?;
        node.shape("add", line.mbps)?;
        node.serve(&folder.join("good"), nginx)?;
        Ok(node)
    }

    fn connect(&self, network: &str) -> Result<()> {
        let (namespace, outer, inner) = (self.namespace.as_str(), self.outer.as_str(), self.inner.as_str());
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
        location ~ ^/chunk/(?<id>[^/]+)/leaves$ {{ default_type application/json; alias {folder}/files/leaves/$id; }}
    }}
}}
",
            self.address, self.node_id
        )
    }

    fn take_turn(&self, turn: Turn, mbps: f64, folder: &Path) -> Result<()> {
        let nginx = self.nginx.as_ref().context("nginx runs")?;
        match turn {
            Turn::Share(share) => self.shape("change", mbps * share)?,
            Turn::Stall => nginx.signal(Signal::STOP),
            Turn::Die => nginx.signal(Signal::KILL),
            Turn::Corrupt => self.show(&folder.join("bad"))?,
            Turn::Well => {
                nginx.signal(Signal::CONT);
                self.show(&folder.join("good"))?;
            }
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
        // The line first: with its namespace alone it would go some time later, and the next node's has the same name.
        for words in [["link", "del", &self.outer], ["netns", "del", &self.namespace]] {
            if let Err(error) = tool("ip", &words) {
                output::error(&format!("{error:#}"));
            }
        }
    }
}

/// Who fetches.
#[derive(Debug, Clone, Copy)]
enum Contestant<'a> {
    Policy(PolicyName),
    Aria2(&'a Path),
}

pub(super) async fn run(bench: &Bench<'_>, content: &Content) -> Result<Played> {
    let folder = fresh(bench.work, "netns")?.canonicalize()?;
    write_files(&folder, content)?;
    let nginx = bench.options.nginx.as_deref().context("nginx is there")?;
    let contestants = contestants(bench.options);
    let (began, before) = (Instant::now(), own_usage().0);
    let mut rows = Vec::new();
    for scenario in &bench.scenarios(in_namespaces()) {
        output::step(&format!("netns: {} {}", scenario.id, scenario.name));
        for group in bench.groups(scenario, content, &contestants) {
            for row in contest(&group, &folder, nginx).await? {
                output::note(&row.sentence());
                rows.push(row);
            }
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    Ok(Played {
        rows,
        busy_percent: 100.0 * (own_usage().0 - before) / began.elapsed().as_secs_f64() / cores,
    })
}

fn contestants(options: &RealOptions) -> Vec<Contestant<'_>> {
    let policies = options.policy.iter().map(|policy| Contestant::Policy(*policy));
    let aria2 = options.aria2.iter().map(|program| Contestant::Aria2(program));
    policies.chain(aria2).collect()
}

/// The runs of a group, at the same time, each with nodes of its own.
async fn contest(group: &[(Run<'_>, Contestant<'_>)], folder: &Path, nginx: &Path) -> Result<Vec<Row>> {
    let mut stages = Vec::new();
    for (place, (run, contestant)) in group.iter().enumerate() {
        stages.push((*contestant, Stage::start(run, place, folder, nginx)?));
    }
    let fetched = (0..).zip(&stages).map(|(place, (contestant, stage))| async move {
        its_turn(place).await;
        stage.fetch(*contestant).await
    });
    try_join_all(fetched).await
}

/// The right files, and others of the same names and sizes. Leaf hashes are right in both: it is the data that lies.
fn write_files(folder: &Path, content: &Content) -> Result<()> {
    for (name, right) in [("good", true), ("bad", false)] {
        let (chunks, leaves) = (folder.join(name).join("chunk"), folder.join(name).join("leaves"));
        std::fs::create_dir_all(&chunks)?;
        std::fs::create_dir_all(&leaves)?;
        let mut all = Vec::new();
        for (id, bytes) in &content.chunks {
            let list = LeavesAnswer {
                leaf_bytes: LEAF_BYTES as u64,
                leaves: bytes.chunks(LEAF_BYTES).map(leaf_hash).collect(),
            };
            std::fs::write(leaves.join(id.to_string()), serde_json::to_vec(&list)?)?;
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

/// The nodes of one run, in the order of its lines.
struct Stage<'a> {
    run: &'a Run<'a>,
    nodes: Arc<Vec<PlainNode>>,
    folder: PathBuf,
    /// Where aria2 puts what it fetched.
    target: PathBuf,
}

impl<'a> Stage<'a> {
    /// `place` tells the stages of a group apart.
    fn start(run: &'a Run<'a>, place: usize, folder: &Path, nginx: &Path) -> Result<Self> {
        let mut nodes = Vec::new();
        for (index, line) in run.scenario.lines.iter().enumerate() {
            // Clients name nodes by address, so addresses are in the order of the lines.
            nodes.push(PlainNode::start(place * 10 + index + 1, folder, nginx, *line)?);
        }
        Ok(Self {
            run,
            nodes: Arc::new(nodes),
            folder: folder.to_owned(),
            target: folder.join(format!("fetched-{place}")),
        })
    }

    fn holders(&self) -> Vec<Holder> {
        let holder = |node: &PlainNode| Holder {
            node_id: node.node_id,
            url: format!("http://{}", node.address),
        };
        self.nodes.iter().map(holder).collect()
    }

    async fn fetch(&self, contestant: Contestant<'_>) -> Result<Row> {
        let catalogue = self.run.catalogue(&self.holders()).await?;
        let mut happening = self.happen()?;
        let row = match contestant {
            Contestant::Policy(policy) => play("netns", self.run, policy, &catalogue).await,
            Contestant::Aria2(program) => self.fetch_with(program).await,
        };
        // It holds the nodes, whose names the next stage takes again.
        happening.shutdown().await;
        row
    }

    /// Lets happen what happens; what is due at once has happened on return, and the rest ends with what is returned.
    fn happen(&self) -> Result<JoinSet<()>> {
        let (at_once, later): (Vec<Event>, Vec<Event>) = self
            .run
            .scenario
            .events
            .iter()
            .partition(|event| event.at_s <= 0.0);
        let lines = self.run.scenario.lines.clone();
        let (nodes, folder, began) = (Arc::clone(&self.nodes), self.folder.clone(), Instant::now());
        let take = move |event: &Event| -> Result<()> {
            match (nodes.get(event.line), lines.get(event.line)) {
                (Some(node), Some(line)) => node.take_turn(event.turn, line.mbps, &folder),
                _ => Ok(()),
            }
        };
        at_once.iter().try_for_each(&take)?;
        let mut happening = JoinSet::new();
        happening.spawn(async move {
            for event in later {
                sleep_until(began + Duration::from_secs_f64(event.at_s)).await;
                if let Err(error) = take(&event) {
                    output::error(&format!("the trouble did not come: {error:#}"));
                }
            }
        });
        Ok(happening)
    }

    /// One file of all chunks, from all nodes as mirrors, as aria2 is used for streaming: in order, in pieces of 1 MiB.
    async fn fetch_with(&self, aria2: &Path) -> Result<Row> {
        std::fs::create_dir_all(&self.target)?;
        let file = self.target.join(ALL_IN_ONE);
        drop(std::fs::remove_file(&file));
        let started = Instant::now();
        let status = self.command(aria2).status().await.context("cannot run aria2c")?;
        let took_s = started.elapsed().as_secs_f64();
        let fetched = std::fs::read(&file).unwrap_or_default();
        let chunks = self.run.content.chunks.iter();
        let source: Vec<u8> = chunks.flat_map(|(_, bytes)| bytes.to_vec()).collect();
        let mut row = Row::new("netns", self.run, ARIA2.to_owned());
        row.took_s = status.success().then_some(took_s);
        row.right = Sha256Digest::of(&fetched) == Sha256Digest::of(&source);
        Ok(row)
    }

    fn command(&self, aria2: &Path) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("timeout");
        let urls = self
            .nodes
            .iter()
            .map(|node| format!("http://{}/{ALL_IN_ONE}", node.address));
        command
            .arg(self.run.limit.as_secs_f64().to_string())
            .arg(aria2)
            .args([
                "--quiet",
                "--no-conf",
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
            .arg(&self.target)
            .args(["--out", ALL_IN_ONE])
            .args(urls)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}
