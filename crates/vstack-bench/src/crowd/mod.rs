//! `crowd`: many sessions at once on real nodes, at a reduced bitrate: a flash crowd, a large one, and a rolling restart
//! of every node under one.
//!
//! Sessions of a cell run in a process of their own, so that their processor time and memory are theirs; each has its
//! own connections and its own measurements, as players have. Gates: no failed session, no stall, start-up within 2 s
//! for 95 of 100, and a session among two hundred costs no more than one among ten.

mod page;
mod sessions;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use uuid::Uuid;
use vstack_client::PolicyName;
use vstack_core::id::NodeId;

use crate::output;
use crate::peers::fresh;
use crate::stage::{Catalogue, Content, Holder, StorageNode};
pub(crate) use sessions::{Arguments, Figures, run as run_sessions};

/// 0.25 Mbit/s: two cores carry everything here.
const SMALL: Footage = Footage {
    chunk_bytes: 125_000,
    chunk_ms: 4_000,
    fragment_bytes: 32 * 1024,
};
/// 1.6 Mbit/s, as in the simulator.
const FULL: Footage = Footage {
    chunk_bytes: 2_000_000,
    chunk_ms: 10_000,
    fragment_bytes: 128 * 1024,
};
/// 1.4 times what a hundred viewers of 1.6 Mbit/s need, and of 0.25.
const FULL_MBIT: [f64; 3] = [120.0, 60.0, 40.0];
const SMALL_MBIT: [f64; 3] = [18.75, 9.375, 6.25];

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The release binary.
    #[arg(long, value_name = "FILE")]
    vstack: PathBuf,
    /// Folder for the nodes' files; emptied at the end.
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// The page to write; JSON lines go beside it.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_value = "pool")]
    policy: Vec<PolicyName>,
    /// Chunks of the video, of 4 s (of 10 s where it has 1.6 Mbit/s).
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    chunks: u32,
    /// Sessions at a time in the cells that compare what one costs.
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1,10,50,100,200"
    )]
    growth: Vec<u32>,
    /// Only cells whose name has this in it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Keep the traces of sessions that stalled or ended early there, a folder a cell and policy.
    #[arg(long, value_name = "DIR")]
    traces: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy)]
struct Footage {
    chunk_bytes: usize,
    chunk_ms: u64,
    /// A second or less, as our ingest makes them.
    fragment_bytes: usize,
}

/// One crowd.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) name: String,
    sessions: u32,
    arrive: Duration,
    footage: Footage,
    egress_mbit: [Option<f64>; 3],
    rolling_restart: bool,
    /// Whether the gates of crowds hold for it.
    pub(crate) gated: bool,
}

fn cells(options: &Options) -> Vec<Cell> {
    let free = [None; 3];
    let cell = |name: &str, sessions, arrive_s, egress_mbit, rolling_restart| Cell {
        name: name.to_owned(),
        sessions,
        arrive: Duration::from_secs(arrive_s),
        footage: SMALL,
        egress_mbit,
        rolling_restart,
        gated: true,
    };
    let growth = options.growth.iter().map(|sessions| Cell {
        gated: false,
        ..cell(&format!("cost of {sessions}"), *sessions, 1, free, false)
    });
    let crowds = [
        cell("100 in 10 s", 100, 10, free, false),
        cell(
            "100 in 10 s, nodes of 19, 9 and 6 Mbit/s",
            100,
            10,
            SMALL_MBIT.map(Some),
            false,
        ),
        Cell {
            footage: FULL,
            ..cell(
                "100 of 1.6 Mbit/s in 10 s, nodes of 120, 60 and 40 Mbit/s",
                100,
                10,
                FULL_MBIT.map(Some),
                false,
            )
        },
        cell("200 in 10 s", 200, 10, free, false),
        cell("rolling restart under 100", 100, 2, free, true),
    ];
    let all = crowds.into_iter().chain(growth);
    all.filter(|cell| cell.name.contains(&options.only)).collect()
}

pub(crate) fn run(options: &Options) -> Result<()> {
    std::fs::create_dir_all(&options.work)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut rows = Vec::new();
    for cell in cells(options) {
        for policy in &options.policy {
            output::step(&format!("{}: {policy}", cell.name));
            let figures = runtime.block_on(play(options, &cell, *policy))?;
            output::note(&figures.sentence());
            rows.push((cell.clone(), *policy, figures));
        }
    }
    // Files that nobody needs.
    let _ = std::fs::remove_dir_all(&options.work);
    let missed = page::write(&options.report, &options.work, &rows)?;
    output::step(&format!("written to {}", options.report.display()));
    if !missed.is_empty() {
        bail!("missed: {}", missed.join("; "));
    }
    Ok(())
}

async fn play(options: &Options, cell: &Cell, policy: PolicyName) -> Result<Figures> {
    let footage = cell.footage;
    let content = Content::random(options.chunks, footage.chunk_bytes, footage.chunk_ms, 1)
        .in_fragments(footage.fragment_bytes);
    let folder = fresh(&options.work, "nodes")?;
    let mut nodes = Vec::new();
    for (number, egress_mbit) in cell.egress_mbit.iter().enumerate() {
        let node = StorageNode::start(
            &options.vstack,
            folder.join(format!("node-{number}")),
            *egress_mbit,
        )?;
        node.store(&content)?;
        nodes.push(node);
    }
    let holders: Vec<Holder> = nodes
        .iter()
        .map(|node| Holder {
            node_id: NodeId(Uuid::new_v4()),
            url: format!("http://{}", node.address),
        })
        .collect();
    let manifest = content.manifest(&holders, |_| vec![0, 1, 2]);
    let catalogue = Catalogue::start(&holders, &manifest).await?;
    let arguments = Arguments {
        catalogue: catalogue.url.clone(),
        video: content.video,
        policy,
        sessions: cell.sessions,
        arrive_ms: u64::try_from(cell.arrive.as_millis())?,
        traces: traces_folder(options, cell, policy)?,
    };
    let cpu_before: f64 = nodes.iter().map(|node| node.usage().cpu_sec).sum();
    let child = start_sessions(&arguments)?;
    if cell.rolling_restart {
        nodes = tokio::task::spawn_blocking(move || restart_each(nodes, cell_pause())).await??;
    }
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    let text = String::from_utf8(output.stdout).context("sessions print JSON")?;
    let mut figures: Figures =
        serde_json::from_str(text.trim()).with_context(|| format!("the sessions said: {text}"))?;
    let cpu_after: f64 = nodes.iter().map(|node| node.usage().cpu_sec).sum();
    // A node that was started again has counted anew.
    figures.nodes_cpu_sec = if cell.rolling_restart {
        None
    } else {
        Some(cpu_after - cpu_before)
    };
    Ok(figures)
}

/// Named in letters and digits alone.
fn traces_folder(options: &Options, cell: &Cell, policy: PolicyName) -> Result<Option<PathBuf>> {
    let Some(traces) = &options.traces else {
        return Ok(None);
    };
    let name = format!("{} {policy}", cell.name);
    let folder = traces.join(name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-"));
    std::fs::create_dir_all(&folder)?;
    Ok(Some(folder))
}

const fn cell_pause() -> Duration {
    // Everybody has arrived, and between two restarts everybody meets the node that is back.
    Duration::from_secs(5)
}

fn start_sessions(arguments: &Arguments) -> Result<std::process::Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("crowd-sessions").args(arguments.words());
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().context("cannot start the sessions")
}

/// One after another: stopped as an operator does it, and back.
fn restart_each(mut nodes: Vec<StorageNode>, pause: Duration) -> Result<Vec<StorageNode>> {
    for node in &mut nodes {
        std::thread::sleep(pause);
        node.restart()?;
        output::note(&format!("{} was restarted", node.address));
    }
    Ok(nodes)
}
