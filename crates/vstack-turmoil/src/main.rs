//! `vstack-turmoil`: simulated clusters of the real roles, one for each seed.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use vstack_turmoil::{Mutant, Report, replay_command, run};

/// Runs the real handlers on a simulated network and simulated disks.
#[derive(Debug, Parser)]
struct Arguments {
    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// Print every event.
    #[arg(long)]
    trace: bool,
    /// Put a bug in: nothing-is-synced, unasked-nodes-count, catalogue-forgets.
    #[arg(long, value_parser = |name: &str| Mutant::named(name).ok_or("there is no such mutant"))]
    mutant: Option<Mutant>,
    /// Go on after a seed that breaks a rule.
    #[arg(long)]
    all: bool,
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => arguments.start..arguments.start + arguments.seeds,
    };
    let (began, mut broken, mut virtual_ms, mut acknowledged) = (Instant::now(), 0, 0, 0);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let report = match run(seed, arguments.mutant, arguments.trace) {
            Ok(report) => report,
            Err(error) => {
                println!("seed {seed} cannot be run: {error}");
                return ExitCode::from(3);
            }
        };
        report.trace.iter().for_each(|line| println!("{line}"));
        virtual_ms += report.virtual_ms;
        acknowledged += report.acknowledged;
        tell(seed, &report, arguments.mutant, arguments.seed.is_some());
        if report.violation.is_some() {
            broken += 1;
            if !arguments.all {
                break;
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{count} seeds in {seconds:.1} s, {} s of simulated time, {acknowledged} chunks acknowledged, {broken} broken",
        virtual_ms / 1_000
    );
    ExitCode::from(u8::from(broken > 0))
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn tell(seed: u64, report: &Report, mutant: Option<Mutant>, alone: bool) {
    if let Some(violation) = &report.violation {
        println!(
            "seed {seed}: {violation}\n  replay: {}",
            replay_command(seed, mutant)
        );
    }
    if alone {
        println!(
            "seed {seed}: {} events, {} faults, {} ms, fingerprint {}",
            report.events, report.faults, report.virtual_ms, report.fingerprint
        );
    }
}
