//! `repair`: how fast the parts of a lost node are made again, and what viewers notice of it.
//!
//! Three nodes behind lines of one speed hold three copies of everything. One is taken away and an empty one joins: all
//! that was lost has to go through the newcomer's line, so that its speed is what repair can reach at most. This is done
//! once while nobody reads and once while viewers fetch chunks from the two nodes that repair reads from; how long their
//! chunks take is measured before and meanwhile.

mod cluster;
mod viewers;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::Args;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use rand::RngCore as _;
use vstack_api::wire::{CommitBatch, CommitItem, ItemResult, OpenBatch, OpenItem, Opened};
use vstack_api::{Endpoint, Problem, StorageClient};
use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::id::ChunkId;
use vstack_core::paxos::OpenKind;
use vstack_core::placement::Placement;
use vstack_emulator::Profile;

use crate::load::percentile;
use crate::output;
use crate::report::Report;
use cluster::Cluster;
use viewers::Viewers;

const NODES: usize = 3;
/// What the goal is for: a repair that nobody disturbs.
const GOAL: f64 = 0.7;
const GIB_10: f64 = 10e9;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The release binary.
    #[arg(long, value_name = "FILE")]
    vstack: PathBuf,
    /// Folder for the servers' files; emptied at the end.
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// The page to write.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// What lies on the lost node.
    #[arg(long, value_name = "N", default_value_t = 512)]
    mib: u32,
    /// Size of a chunk.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    chunk_mib: u32,
    /// Speed of each node's line, each way.
    #[arg(long, value_name = "MBIT/S", default_value_t = 200.0)]
    link_mbps: f64,
    /// Viewers, each fetching a chunk every second.
    #[arg(long, value_name = "N", default_value_t = 4)]
    viewers: usize,
}

/// A stored chunk.
#[derive(Debug, Clone, Copy)]
struct Stored {
    chunk: ChunkId,
    ballot: Ballot,
}

/// One repair.
struct Repaired {
    took: Duration,
    /// Milliseconds that each chunk of a viewer took.
    viewers_ms: Vec<f64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    std::fs::create_dir_all(&options.work)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut report = Report::new("Repair of a lost node", &options.work);
    let measured = runtime.block_on(measure(options, &mut report));
    // Gigabytes that nobody needs; what went wrong is said below.
    let _ = std::fs::remove_dir_all(&options.work);
    measured?;
    report.write(&options.report, "V-Stack")?;
    output::text(&report.markdown("V-Stack"));
    output::step(&format!("written to {}", options.report.display()));
    Ok(())
}

async fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let line = Profile {
        down_mbps: Some(options.link_mbps),
        up_mbps: Some(options.link_mbps),
        ..Profile::default()
    };
    output::step(&format!("filling three nodes with {} MiB each", options.mib));
    let mut cluster = Cluster::start(&options.vstack, &options.work, NODES).await?;
    let stored = fill(&cluster, options).await?;
    cluster.set_profile(line);
    output::step("repair while nobody reads");
    let alone = repair(&mut cluster, line, None).await?;
    output::step("viewers alone");
    let undisturbed = {
        let viewers = Viewers::start(&cluster, &stored, options.viewers);
        tokio::time::sleep(alone.took.min(Duration::from_secs(30))).await;
        viewers.end().await
    };
    output::step("repair while viewers read");
    let viewers = Viewers::start(&cluster, &stored, options.viewers);
    let together = repair(&mut cluster, line, Some(viewers)).await?;
    tell(options, report, (&alone, &together), &undisturbed);
    Ok(())
}

/// Loses a node, lets an empty one join, and waits until every chunk has its copies again.
async fn repair(cluster: &mut Cluster, line: Profile, viewers: Option<Viewers>) -> Result<Repaired> {
    cluster.lose_last().await?;
    let deadline = Instant::now() + Duration::from_secs(3_600);
    cluster.join(line).await?;
    let began = Instant::now();
    loop {
        let state = cluster.catalogue.consensus().await?.state;
        if state.under_replicated_chunks == 0 {
            break;
        }
        if Instant::now() > deadline {
            bail!("{} chunks still lack copies", state.under_replicated_chunks);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = began.elapsed();
    let viewers_ms = match viewers {
        Some(viewers) => viewers.end().await,
        None => Vec::new(),
    };
    Ok(Repaired { took, viewers_ms })
}

async fn fill(cluster: &Cluster, options: &Options) -> Result<Vec<Stored>> {
    let video = cluster.catalogue.create_video("bench", 0.0).await?.video_id;
    let count = options.mib.div_ceil(options.chunk_mib);
    let chunks = (0..count).map(|seq| ChunkId::media(video, seq));
    let size = usize::try_from(options.chunk_mib)? << 20;
    stream::iter(chunks.map(|chunk| store(cluster, chunk, size)))
        .buffered(4)
        .try_collect()
        .await
}

async fn store(cluster: &Cluster, chunk: ChunkId, size: usize) -> Result<Stored> {
    let mut bytes = vec![0; size];
    rand::rng().fill_bytes(&mut bytes);
    let (bytes, digest) = (Bytes::from(bytes.clone()), ChunkDigest::of(&bytes));
    let opened = open(cluster, chunk).await?;
    let ballot = opened.grant.ballot;
    let mut receipts = Vec::new();
    for url in &opened.node_urls {
        let node = StorageClient(Endpoint::with_transport(url, cluster.transport.clone()));
        let answer = node.put(&opened.grant, chunk, bytes.clone()).await?;
        receipts.push(answer.receipt.context("a node stored without a receipt")?);
    }
    let nodes: Vec<_> = receipts.iter().map(|receipt| receipt.node).collect();
    let item = CommitItem {
        chunk_id: chunk,
        ballot,
        value: Placement::replicated(digest, ballot, &nodes),
        receipts,
        media: None,
    };
    let batch = CommitBatch { commits: vec![item] };
    let result = cluster.catalogue.commit(&batch).await?.results.pop();
    match result.context("the commit is not answered")? {
        ItemResult::Ok(_) => Ok(Stored { chunk, ballot }),
        ItemResult::Problem(problem) => bail!("{problem}"),
    }
}

async fn open(cluster: &Cluster, chunk_id: ChunkId) -> Result<Opened> {
    let item = OpenItem {
        chunk_id,
        kind: OpenKind::Upload,
        owner: "bench".to_owned(),
        exclude: Vec::new(),
        min_ack: None,
    };
    let batch = OpenBatch { requests: vec![item] };
    let grant = cluster.catalogue.open(&batch).await?.grants.pop();
    let grant = grant.context("the ballot is not answered")?;
    Ok(Result::<_, Problem>::from(grant)?)
}

fn tell(
    options: &Options,
    report: &mut Report,
    (alone, together): (&Repaired, &Repaired),
    undisturbed: &[f64],
) {
    let bytes = f64::from(options.mib) * 1_048_576.0;
    let line_bytes_per_sec = options.link_mbps * 1e6 / 8.0;
    let rate = |repaired: &Repaired| bytes / repaired.took.as_secs_f64();
    let share = |repaired: &Repaired| rate(repaired) / line_bytes_per_sec * 100.0;
    let times = |ms: &[f64]| format!("{:.0} | {:.0}", percentile(ms, 0.5), percentile(ms, 0.99));
    report.notes = vec![
        format!(
            "Three nodes hold {} MiB each in chunks of {} MiB as three copies; every node's line carries {} Mbit/s each way \
             (a proxy in front of it, headers included). The metadata role, through which repair's bytes go, has no such line.",
            options.mib, options.chunk_mib, options.link_mbps
        ),
        "One node is removed and an empty one joins. Time runs from its being healthy until no chunk lacks a copy; the 30 s \
         until a silent node counts as down and the grace of 10 minutes come on top where nobody says `vstack node remove`."
            .to_owned(),
        format!(
            "{} viewers fetch a chunk of {} MiB each second, from the two nodes that repair reads from.",
            options.viewers, options.chunk_mib
        ),
        format!(
            "10 GB at the rate of the first row take {:.1} minutes ({}).",
            GIB_10 / rate(alone) / 60.0,
            match bytes >= GIB_10 {
                true => "that much was repaired".to_owned(),
                false => format!("extrapolated from {:.2} GB", bytes / 1e9),
            }
        ),
        format!(
            "The goal is {:.0} % of the line while nobody reads: {}.",
            GOAL * 100.0,
            match share(alone) >= GOAL * 100.0 {
                true => "reached",
                false => "NOT reached",
            }
        ),
        "Shards are repaired by reading three to make one; their readers' lines carry three quarters of what the newcomer's \
         does with five nodes left. Not measured here."
            .to_owned(),
    ];
    let mut table =
        "| | repair MB/s | of the line | viewers' chunk p50 ms | p99 ms |\n|---|---|---|---|---|\n"
            .to_owned();
    table.push_str(&format!(
        "| repair, nobody reads | {:.1} | {:.0} % | - | - |\n",
        rate(alone) / 1e6,
        share(alone)
    ));
    table.push_str(&format!(
        "| viewers, no repair | - | - | {} |\n",
        times(undisturbed)
    ));
    table.push_str(&format!(
        "| both | {:.1} | {:.0} % | {} |\n",
        rate(together) / 1e6,
        share(together),
        times(&together.viewers_ms)
    ));
    report.tables.push(table);
}
