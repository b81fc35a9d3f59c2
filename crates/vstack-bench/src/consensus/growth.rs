//! What a commit costs as the catalogue grows, and how fast manifests are read from a full one.

use std::fmt::Write as _;

use anyhow::Result;
use tokio::runtime::Runtime;

use super::cells::{Cell, Cells};
use super::cluster::Cluster;
use super::placements::{Load, Mode};
use super::{OURS, Options, manifests};
use crate::output;
use crate::report::Report;

/// Clients while a commit's cost is measured: enough for full groups.
const CLIENTS: usize = 100;

pub(super) fn run(
    options: &Options,
    (runtime, cluster, load): (&Runtime, &Cluster, &Load),
    report: &mut Report,
    cells: &mut Cells,
) -> Result<()> {
    let mut table = String::from(
        "## A commit in a growing catalogue\n\n\
         100 clients, metadata only; OPEN included. CPU is the metadata role's alone.\n\n\
         | committed chunks | commits a second | p50 ms | p99 ms | CPU us each |\n|---|---|---|---|---|\n",
    );
    let mut read = false;
    for &chunks in options.growth().iter().filter(|chunks| **chunks > 0) {
        let there = runtime.block_on(committed(load))?;
        if chunks > options.manifests_at() && !read {
            manifests::run(options, (runtime, load), report, cells)?;
            read = true;
        }
        if u64::from(chunks) > there {
            output::step(&format!("filling the catalogue to {chunks} chunks"));
            let missing = usize::try_from(u64::from(chunks) - there)?;
            runtime.block_on(load.fill(missing))?;
        }
        let before = cluster.metadata_cpu_sec();
        let limit = std::time::Duration::from_secs(options.seconds().into());
        let sample = runtime.block_on(load.run(Mode::Metadata, CLIENTS, limit))?;
        let cpu_sec = cluster.metadata_cpu_sec() - before;
        let mut cell = Cell::new(
            ("commit in a growing catalogue", OURS),
            (CLIENTS, 0),
            sample,
            cpu_sec,
        );
        cell.chunks = Some(chunks.into());
        let _ = writeln!(
            table,
            "| {chunks} | {:.0} | {:.2} | {:.2} | {:.0} |",
            cell.per_sec, cell.p50_ms, cell.p99_ms, cell.cpu_us
        );
        cells.push(cell);
    }
    if !read {
        manifests::run(options, (runtime, load), report, cells)?;
    }
    report.tables.push(table);
    Ok(())
}

/// Chunks in the catalogue.
pub(super) async fn committed(load: &Load) -> Result<u64> {
    let mut chunks = 0;
    let mut offset = 0;
    loop {
        let query = vstack_api::wire::VideoQuery {
            offset,
            limit: Some(500),
            ..Default::default()
        };
        let page = load.catalogue.videos(&query).await?;
        chunks += page
            .videos
            .iter()
            .map(|video| u64::from(video.total_chunks))
            .sum::<u64>();
        offset += page.videos.len() as u64;
        if page.videos.is_empty() || offset >= page.total {
            return Ok(chunks);
        }
    }
}
