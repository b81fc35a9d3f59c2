//! What the scrub does to viewers: the same readers while a round is under way and while none is.
//!
//! How fast the scrub goes depends on how much there is to read: all of it within a week. The round that is measured goes
//! on from a note that says it is one of 1 TB, so that it has the pace of a full disk.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{OURS, Options};
use crate::http::{Connection, get};
use crate::load::{Job, percentile};
use crate::machine::unix_ms;
use crate::output;
use crate::peers::{Node, check_and_warm, fresh, store_chunks};
use crate::report::{Report, median};

const READERS: usize = 16;
const DISK_BYTES: u64 = 1_000_000_000_000;

pub(super) fn run(options: &Options, chunks: &[Vec<u8>], report: &mut Report) -> Result<()> {
    output::step("reading while the scrub reads");
    let folder = fresh(&options.work, "scrub")?;
    let data = folder.join("node");
    let paths = store_chunks(&options.vstack, &data, chunks)?;
    let (mut resting, mut scrubbing, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds() {
        let mut p95 = [0.0; 2];
        for turn in 0..2 {
            let scrubs = (turn + round) % 2 == 1;
            p95[usize::from(scrubs)] = p95_ms(options, &data, (&paths, chunks), scrubs)?;
        }
        resting.push(p95[0]);
        scrubbing.push(p95[1]);
        ratios.push(p95[1] / p95[0]);
    }
    report.tables.push(format!(
        "## Scrub\n\n{READERS} readers of 2 MiB chunks of {OURS}: p95 {:.2} ms while nothing is scrubbed, {:.2} ms while a round of a 1 TB \
         disk is under way, {:.2}x (median of the ratios of {} rounds, the two in turn).\n",
        median(resting),
        median(scrubbing),
        median(ratios),
        options.rounds()
    ));
    Ok(())
}

fn p95_ms(
    options: &Options,
    data: &Path,
    (paths, chunks): (&[String], &[Vec<u8>]),
    scrubs: bool,
) -> Result<f64> {
    note_round(data, scrubs)?;
    let target = Node::start(&options.vstack, data)?.serving(paths);
    check_and_warm(&target, chunks)?;
    let job = Job {
        address: target.address,
        connections: READERS,
        heads: &target.reads,
        body: &[],
        again: true,
        limit: options.limit(),
    };
    let outcome = job.run()?;
    let answer = Connection::open(target.address)?.exchange(&get(target.address, "/health"), &[], true)?;
    let health: Value = serde_json::from_slice(&answer.body).context("the node tells no health")?;
    if health["scrub"]["running"].as_bool() != Some(scrubs) {
        bail!("the scrub should be running: {scrubs}, and the node says: {health}");
    }
    Ok(percentile(&outcome.whole_ms, 0.95))
}

/// The scrub's own note, as if a round had just ended, or gone on until now.
fn note_round(data: &Path, running: bool) -> Result<()> {
    let now_ms = unix_ms();
    let note = json!({
        "format": 1,
        "round_started": now_ms,
        "checked_bytes": 0,
        "total_bytes": DISK_BYTES,
        "running": running,
        "last_ended": now_ms,
        "last_clean": now_ms,
        "found_total": 0,
        "found_in_round": 0,
        "findings": [],
        "next": null,
    });
    std::fs::write(data.join("scrub.json"), note.to_string()).context("cannot write the scrub's note")
}
