//! `consensus`: placements committed by ChunkPaxos beside puts of etcd, and what the catalogue costs as it grows.
//!
//! Ours is a metadata role and three storage nodes; etcd runs once alone and once with three members. All of them run
//! for the whole bench and take turns in each round. A placement with bytes is what an upload does: three nodes sync a
//! chunk of 4 KiB and sign for it, then the catalogue decides. *Metadata only* leaves out the bytes (the bench signs the
//! receipts, since it has the cluster's key): one row decided and synced, which is what a put of etcd is.

mod cells;
mod cluster;
mod etcd;
mod growth;
mod grpc;
mod manifests;
mod placements;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::output;
use crate::report::Report;
use cells::{Cells, Task};
use cluster::Cluster;
use etcd::Etcd;
use placements::{Load, Mode};

pub(crate) const OURS: &str = "V-Stack";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The release binary.
    #[arg(long, value_name = "FILE")]
    vstack: PathBuf,
    #[arg(long, value_name = "FILE")]
    etcd: Option<PathBuf>,
    /// Folder for the servers' files, on the disk that is to be measured; emptied at the end.
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// The page to write; JSON lines go beside it.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// A minute instead of five: one round of short cells, a small catalogue. To see that it runs.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// The catalogue grows to a million chunks, which takes five minutes more.
    #[arg(long)]
    full: bool,
    /// Rounds in which the servers take turns: 3, or 1 with --quick.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
    /// Length of a cell (one server, one task, one number of clients): 3 s, or 1 s with --quick.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=60))]
    seconds: Option<u16>,
    /// Clients at once.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,10,100")]
    clients: Vec<u16>,
    /// Numbers of committed chunks at which the cost of a commit is measured: 1000, 10000, 100000; 0 leaves it out.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    growth: Vec<u32>,
    /// Committed chunks when manifests are read: 100000, or 10000 with --quick.
    #[arg(long, value_name = "N")]
    manifests_at: Option<u32>,
}

impl Options {
    fn rounds(&self) -> u16 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn seconds(&self) -> u16 {
        self.seconds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn growth(&self) -> &[u32] {
        const ALL: &[u32] = &[1_000, 10_000, 100_000, 1_000_000];
        match (self.growth.as_slice(), self.quick, self.full) {
            ([], true, _) => &ALL[..2],
            ([], _, true) => ALL,
            ([], ..) => &ALL[..3],
            (said, ..) => said,
        }
    }

    fn manifests_at(&self) -> u32 {
        self.manifests_at
            .unwrap_or(if self.quick { 10_000 } else { 100_000 })
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    std::fs::create_dir_all(&options.work)?;
    let mut report = Report::new("ChunkPaxos beside etcd", &options.work);
    let mut cells = Cells::default();
    let measured = measure(options, &mut report, &mut cells);
    // Gigabytes that nobody needs; what went wrong is said below.
    let _ = std::fs::remove_dir_all(&options.work);
    measured?;
    report.tables.insert(0, cells.table());
    report.write(&options.report, OURS)?;
    cells.write(&options.report.with_extension("jsonl"))?;
    output::text(&report.markdown(OURS));
    output::step(&format!("written to {}", options.report.display()));
    Ok(())
}

fn measure(options: &Options, report: &mut Report, cells: &mut Cells) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    output::step("starting the servers");
    let cluster = Cluster::start(&options.vstack, &options.work)?;
    let load = runtime.block_on(Load::new(&cluster))?;
    let peers = match &options.etcd {
        Some(program) => vec![
            Etcd::start(program, &options.work, 1, &runtime)?,
            Etcd::start(program, &options.work, 3, &runtime)?,
        ],
        None => Vec::new(),
    };
    report.notes = notes(options, &peers);
    for round in 0..usize::from(options.rounds()) {
        for &clients in &options.clients {
            let clients = usize::from(clients);
            compare(
                options,
                (round, clients),
                (&runtime, &cluster, &load, &peers),
                cells,
            )?;
        }
    }
    drop(peers);
    growth::run(options, (&runtime, &cluster, &load), report, cells)
}

type Servers<'a> = (&'a tokio::runtime::Runtime, &'a Cluster, &'a Load, &'a [Etcd]);

/// Every server once, the one that begins moves on with the rounds.
fn compare(
    options: &Options,
    (round, clients): (usize, usize),
    (runtime, cluster, load, peers): Servers<'_>,
    cells: &mut Cells,
) -> Result<()> {
    let count = 2 + peers.len();
    for turn in 0..count {
        let task = Task {
            clients,
            round,
            seconds: options.seconds(),
        };
        match (turn + round) % count {
            0 => cells.ours("placement, 4 KiB on three nodes", &task, cluster, || {
                runtime.block_on(load.run(Mode::Bytes, clients, task.limit()))
            })?,
            1 => cells.ours("placement, metadata only", &task, cluster, || {
                runtime.block_on(load.run(Mode::Metadata, clients, task.limit()))
            })?,
            peer => {
                let etcd = &peers[peer - 2];
                cells.etcd(&task, etcd, || runtime.block_on(etcd.run(clients, task.limit())))?;
            }
        }
    }
    Ok(())
}

fn notes(options: &Options, peers: &[Etcd]) -> Vec<String> {
    let versions: Vec<String> = peers
        .iter()
        .map(|etcd| format!("{} ({})", etcd.name, etcd.version))
        .collect();
    let seen = match versions.is_empty() {
        true => "etcd was not there and is left out".to_owned(),
        false => versions.join(", "),
    };
    vec![
        format!("V-Stack is one metadata role and three storage nodes, each a process. Peers: {seen}."),
        format!(
            "{} rounds of {} s a cell; the servers take turns in each round, the one that begins moves on. Figures are \
             medians of the rounds, ratios are medians of the ratios within a round.",
            options.rounds(), options.seconds()
        ),
        "A placement with bytes: three nodes store 4 KiB each and sync it (fdatasync), their receipts go to the catalogue, \
         whose transaction is synced (SQLite, synchronous=FULL). Ballots are opened ahead in batches of 64, as a batch of \
         chunks is; that work is in the rate and not in the latency."
            .to_owned(),
        "Metadata only: the same without the bytes, the bench signing in the nodes' place. This is what compares with a put \
         of etcd: one row (about 1 KB), decided and synced."
            .to_owned(),
        "etcd: gRPC KV/Put of 256 bytes under a new key, over at most four HTTP/2 connections, at the leader, as its own \
         benchmark does it; it syncs its log before it answers. With three members each of them does."
            .to_owned(),
        "What is different in kind: etcd with three members survives the loss of one without a pause. Our catalogue is one \
         process; while it is away nothing is committed, and what is stored plays on."
            .to_owned(),
    ]
}
