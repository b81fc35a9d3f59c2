//! What slow connections do to the others: readers alone, then beside connections that never finish a request's head.

use std::io::Write as _;
use std::net::TcpStream;

use anyhow::{Context as _, Result};

use super::{OURS, Options};
use crate::load::{Job, Outcome, percentile};
use crate::output;
use crate::peers::Target;
use crate::report::{Report, median};

/// Below the cap for one address, with room for the readers.
const SLOW: usize = 500;
const READERS: usize = 16;

pub(super) fn run(options: &Options, ours: &Target, report: &mut Report) -> Result<()> {
    output::step(&format!("reading beside {SLOW} slow connections"));
    let job = Job {
        address: ours.address,
        connections: READERS,
        heads: &ours.reads,
        body: &[],
        again: true,
        limit: options.limit(),
    };
    let (mut alone, mut beside, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds() {
        let first = p99(&job.run()?);
        let slow = slow_connections(ours)?;
        let second = p99(&job.run()?);
        drop(slow);
        alone.push(first);
        beside.push(second);
        ratios.push(second / first);
    }
    report.tables.push(format!(
        "## Slow connections\n\n{SLOW} connections that sent half a head, beside {READERS} readers of 2 MiB chunks of {OURS}: p99 {:.1} ms alone, {:.1} ms \
         beside them, {:.2}x (median of the ratios of {} rounds).\n",
        median(alone),
        median(beside),
        median(ratios),
        options.rounds()
    ));
    Ok(())
}

fn p99(outcome: &Outcome) -> f64 {
    percentile(&outcome.whole_ms, 0.99)
}

fn slow_connections(ours: &Target) -> Result<Vec<TcpStream>> {
    (0..SLOW)
        .map(|_| {
            let mut socket = TcpStream::connect(ours.address).context("cannot open a slow connection")?;
            socket.write_all(b"GET /ping HTTP/1.1\r\nx-drip: ")?;
            Ok(socket)
        })
        .collect()
}
