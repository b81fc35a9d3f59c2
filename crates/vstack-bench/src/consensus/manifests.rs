//! Manifests read by many clients at once from a full catalogue.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::runtime::Runtime;
use vstack_api::wire::VideoQuery;

use super::cells::{Cell, Cells, Sample};
use super::growth::committed;
use super::placements::{CHUNKS_OF_VIDEO, Load};
use super::{OURS, Options};
use crate::http::get;
use crate::load::{Job, percentile};
use crate::output;
use crate::report::Report;

const CLIENTS: usize = 100;
/// Videos whose manifests are read, one after another.
const VIDEOS: u32 = 500;

pub(super) fn run(
    options: &Options,
    (runtime, load): (&Runtime, &Load),
    report: &mut Report,
    cells: &mut Cells,
) -> Result<()> {
    let there = runtime.block_on(committed(load))?;
    let wanted = u64::from(options.manifests_at());
    if wanted > there {
        output::step(&format!("filling the catalogue to {wanted} chunks"));
        runtime.block_on(load.fill(usize::try_from(wanted - there)?))?;
    }
    let chunks = runtime.block_on(committed(load))?;
    output::step("reading manifests");
    let address: SocketAddr = load
        .catalogue
        .0
        .base_url()
        .trim_start_matches("http://")
        .parse()?;
    let heads = runtime.block_on(requests(load, address))?;
    let mut table = format!(
        "## Manifests\n\n{chunks} chunks in the catalogue; {} videos of {CHUNKS_OF_VIDEO} chunks are read in turn.\n\n\
         | clients | manifests a second | p50 ms | p99 ms | KB each |\n|---|---|---|---|---|\n",
        heads.len()
    );
    for clients in [1, CLIENTS] {
        let job = Job {
            address,
            connections: clients,
            heads: &heads,
            body: &[],
            again: true,
            limit: Duration::from_secs(options.seconds().into()),
        };
        let outcome = job.run()?;
        let kb = outcome.bytes as f64 / outcome.requests() as f64 / 1e3;
        table.push_str(&format!(
            "| {clients} | {:.0} | {:.2} | {:.2} | {kb:.0} |\n",
            outcome.per_sec(),
            percentile(&outcome.whole_ms, 0.5),
            percentile(&outcome.whole_ms, 0.99),
        ));
        let sample = Sample {
            elapsed: outcome.elapsed,
            latencies_ms: outcome.whole_ms,
        };
        let mut cell = Cell::new(("manifest", OURS), (clients, 0), sample, 0.0);
        cell.chunks = Some(chunks);
        cells.push(cell);
    }
    report.tables.push(table);
    Ok(())
}

/// One request for each video that is complete.
async fn requests(load: &Load, address: SocketAddr) -> Result<Vec<Vec<u8>>> {
    let query = VideoQuery {
        limit: Some(VIDEOS),
        offset: 1,
        ..VideoQuery::default()
    };
    let page = load.catalogue.videos(&query).await?;
    let whole = page
        .videos
        .iter()
        .filter(|video| video.total_chunks == CHUNKS_OF_VIDEO);
    let heads: Vec<_> = whole
        .map(|video| get(address, &format!("/manifest/{}", video.video_id)))
        .collect();
    if heads.is_empty() {
        bail!("the catalogue has no complete video");
    }
    Ok(heads)
}
