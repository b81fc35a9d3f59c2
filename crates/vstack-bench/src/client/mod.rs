//! `client`: the policies, and how near they come to what the physics allow; here in virtual time, in `real` on sockets.
//!
//! Every policy plays the same scenarios with the same seeds; a seed decides chunk sizes, the order of the nodes, arrivals
//! and noise. The policies are the client's own code; nodes and network are `vstack-netsim`. Nothing in here depends on
//! the machine or its load, but for the runs per second that are told at the end.

mod figures;
pub(crate) mod gates;
mod page;
mod scenarios;
pub(crate) mod section;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use vstack_netsim::{Bound, Scenario, Setup, run as simulate};

use crate::output;
use crate::real::{self, RealOptions};
use figures::Figures;

/// The scenarios of one viewer, B1 to B13.
pub(crate) fn single_viewer() -> Vec<Scenario> {
    scenarios::single()
}

/// The policy of this name as it plays alone.
pub(crate) fn setup_of(policy: &str) -> Option<Setup> {
    scenarios::policies()
        .into_iter()
        .find(|setup| setup.name == policy)
}

/// What the pool may start playing from.
pub(crate) const PREFIX_BYTES: u64 = 512 * 1024;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What is played on: virtual time, our nodes behind emulated paths, or nginx in network namespaces (as root).
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sim")]
    layer: Vec<Layer>,
    /// The release binary; the simulator starts no server and needs no folder.
    #[arg(long, value_name = "FILE")]
    vstack: Option<PathBuf>,
    /// Folder for the nodes' files; emptied at the end.
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// The page to write; JSON lines and pictures go beside it.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// Runs of each scenario and policy, one a seed.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    seeds: u64,
    /// The same for crowds, of which a run takes seconds.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=100))]
    crowd_seeds: u64,
    /// Only scenarios whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// One seed, or one round of three chunks: to see that it works.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    real: RealOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Layer {
    Sim,
    Sockets,
    Netns,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    for layer in &options.layer {
        match layer {
            Layer::Sim => in_virtual_time(options)?,
            Layer::Sockets => real::run(&on_real_sockets(options)?, real::Layer::Sockets)?,
            Layer::Netns => real::run(&on_real_sockets(options)?, real::Layer::Netns)?,
        }
    }
    Ok(())
}

fn on_real_sockets(options: &Options) -> Result<real::Bench<'_>> {
    Ok(real::Bench {
        vstack: options.vstack.as_deref().context("--vstack FILE is missing")?,
        work: options.work.as_deref().context("--work DIR is missing")?,
        report: &options.report,
        only: &options.only,
        quick: options.quick,
        options: &options.real,
    })
}

fn in_virtual_time(options: &Options) -> Result<()> {
    let started = Instant::now();
    let (seeds, crowd_seeds) = if options.quick {
        (1, 1)
    } else {
        (options.seeds, options.crowd_seeds)
    };
    let mut lines = Vec::new();
    let mut single = Vec::new();
    for scenario in wanted(scenarios::single(), &options.only) {
        output::step(&format!("{} {}", scenario.id, scenario.name));
        for setup in scenarios::policies() {
            single.push(measure(&scenario, &setup, seeds, &mut lines)?);
        }
    }
    let (runs, seconds) = (lines.len(), started.elapsed().as_secs_f64());
    let mut crowds = Vec::new();
    for scenario in wanted(scenarios::crowds(), &options.only) {
        output::step(&format!("{} {}", scenario.id, scenario.name));
        for setup in scenarios::crowd_policies() {
            crowds.push(measure(&scenario, &setup, crowd_seeds, &mut lines)?);
        }
    }
    let page = page::Page {
        single: &single,
        crowds: &crowds,
        seeds,
        crowd_seeds,
    };
    page.write(&options.report)?;
    write_lines(&options.report.with_extension("jsonl"), &lines)?;
    output::text(&page.markdown());
    output::step(&format!(
        "{runs} runs of one viewer in {seconds:.1} s; written to {}",
        options.report.display()
    ));
    Ok(())
}

fn wanted(scenarios: Vec<Scenario>, only: &str) -> Vec<Scenario> {
    let named = |scenario: &Scenario| format!("{} {}", scenario.id, scenario.name).contains(only);
    scenarios.into_iter().filter(named).collect()
}

/// All seeds of one scenario with one policy.
fn measure(scenario: &Scenario, setup: &Setup, seeds: u64, lines: &mut Vec<String>) -> Result<Figures> {
    let mut figures = Figures::new(scenario, setup);
    for seed in 0..seeds {
        let permuted = scenario.permuted(seed);
        let bound = Bound::of(&permuted, PREFIX_BYTES);
        let run = simulate(&permuted, setup, seed);
        // A crowd's line is long enough without what each of its viewers received from whom.
        lines.push(serde_json::to_string(&figures::line(&permuted, &run, bound))?);
        figures.add(&run, bound);
    }
    Ok(figures)
}

fn write_lines(path: &std::path::Path, lines: &[String]) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let mut file = std::fs::File::create(path).with_context(failed)?;
    for line in lines {
        writeln!(file, "{line}").with_context(failed)?;
    }
    Ok(())
}
