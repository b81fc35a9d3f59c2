//! `predictor`: would a predictor that learns know better than the pool's two moving averages how long transfers take?
//!
//! Traces of the pooled policy are recorded: in virtual time, from the scenarios of the client's bench and from days
//! whose evenings are slow; and on real sockets, through emulated paths. Each is replayed, every request's time is
//! predicted when it goes out by all contestants, and what came is told to those that learn. Nobody sees the future, and
//! all see the same transfers.

mod compare;
mod learned;
mod page;
mod recorded;
mod transfers;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::output;
use compare::Comparison;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long, value_name = "FILE")]
    vstack: Option<PathBuf>,
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Where the result goes.
    #[arg(long, value_name = "FILE", default_value = "predictor.md")]
    report: PathBuf,
    /// Sessions of each scenario in virtual time, one after another.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    sessions: u64,
    /// Sessions of each scenario on real sockets; 0 leaves real sockets out.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=20))]
    rounds: u16,
    /// Only scenarios with this in their names.
    #[arg(long, default_value = "")]
    only: String,
    /// Two sessions each.
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let sessions = if options.quick { 2 } else { options.sessions };
    let mut comparisons = Vec::new();
    let mut show = |comparison: Comparison| {
        output::note(&page::sentence(&comparison));
        comparisons.push(comparison);
    };
    output::step("in virtual time");
    for (scenario, traces) in recorded::in_virtual_time(sessions, &options.only) {
        show(compare::over("simulated", scenario, &transfers_of(&traces)?));
    }
    if let (Some(vstack), Some(work)) = (&options.vstack, &options.work)
        && options.rounds > 0
    {
        output::step("on real sockets");
        let rounds = if options.quick { 1 } else { options.rounds };
        for (scenario, traces) in recorded::on_real_sockets(vstack, work, rounds, &options.only)? {
            show(compare::over("sockets", scenario, &transfers_of(&traces)?));
        }
    }
    page::write(&options.report, &comparisons)?;
    output::step(&format!("written to {}", options.report.display()));
    Ok(())
}

fn transfers_of(traces: &[Vec<String>]) -> Result<Vec<transfers::Transfers>> {
    traces.iter().map(|lines| transfers::of_trace(lines)).collect()
}
