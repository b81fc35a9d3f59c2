//! `vstack-sim`: runs seeds of the simulator, or one seed with every event shown.
//!
//! Exit codes: 0 every rule held (with `--mutant`: the bug was found), 1 the opposite, 2 wrong arguments.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks")]

use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use serde_json::json;
use vstack_sim::simulator::{self, Mutant, Report, replay_command};

/// Simulated clusters that lose messages, power and disks; the protocol's own code decides what is stored.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000, conflicts_with = "seed")]
    seeds: u64,
    /// The first seed; the time of day if not given.
    #[arg(long, conflicts_with = "seed")]
    start: Option<u64>,
    /// Run this one seed and print its fingerprint.
    #[arg(long)]
    seed: Option<u64>,
    /// Print every event of the one seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Run with this bug, and succeed when it is found; `--mutant list` names them all.
    #[arg(long)]
    mutant: Option<String>,
    /// One JSON line instead of text.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.mutant.as_deref() == Some("list") {
        Mutant::ALL.iter().for_each(|mutant| println!("{mutant}"));
        return ExitCode::SUCCESS;
    }
    let mutant = match arguments.mutant.as_deref().map(str::parse::<Mutant>).transpose() {
        Ok(mutant) => mutant,
        Err(unknown) => {
            eprintln!("{unknown}; see --mutant list");
            return ExitCode::from(2);
        }
    };
    // An assertion that fails is reported as a violation, with its text.
    std::panic::set_hook(Box::new(|_| {}));
    let good = match arguments.seed {
        Some(seed) => run_one(seed, mutant, &arguments),
        None => run_many(mutant, &arguments),
    };
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run_one(seed: u64, mutant: Option<Mutant>, arguments: &Arguments) -> bool {
    let report = simulator::run(seed, mutant, arguments.trace);
    report.trace.iter().for_each(|line| println!("{line}"));
    if arguments.json {
        println!("{}", as_json(&report));
    } else {
        println!(
            "seed {seed}: {} chunks, {} events, {} ms of virtual time, {} decisions, fingerprint {:016x}",
            report.chunks, report.events, report.virtual_ms, report.decisions, report.fingerprint
        );
        if let Some(violation) = &report.violation {
            println!("VIOLATED {violation}");
        }
    }
    report.violation.is_some() == mutant.is_some()
}

fn as_json(report: &Report) -> serde_json::Value {
    json!({
        "seed": report.seed,
        "fingerprint": format!("{:016x}", report.fingerprint),
        "chunks": report.chunks,
        "events": report.events,
        "decisions": report.decisions,
        "acknowledged": report.acknowledged,
        "virtual_ms": report.virtual_ms,
        "violation": report.violation.as_ref().map(ToString::to_string),
    })
}

#[derive(Debug, Default)]
struct Totals {
    seeds: u64,
    events: u64,
    chunks: u64,
    decisions: usize,
    virtual_ms: u64,
}

fn run_many(mutant: Option<Mutant>, arguments: &Arguments) -> bool {
    let start = arguments.start.unwrap_or_else(seed_of_the_day);
    let began = Instant::now();
    let mut totals = Totals::default();
    let mut found: Option<Report> = None;
    for seed in start..start.saturating_add(arguments.seeds) {
        let report = simulator::run(seed, mutant, false);
        totals.seeds += 1;
        totals.events += report.events;
        totals.chunks += u64::from(report.chunks);
        totals.decisions += report.decisions;
        totals.virtual_ms += report.virtual_ms;
        if report.violation.is_some() {
            found = Some(report);
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    say(start, &totals, seconds, found.as_ref(), mutant, arguments.json);
    found.is_some() == mutant.is_some()
}

fn seed_of_the_day() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() << 20
}

fn say(
    start: u64,
    totals: &Totals,
    seconds: f64,
    found: Option<&Report>,
    mutant: Option<Mutant>,
    in_json: bool,
) {
    let per_hour = totals.seeds as f64 / seconds * 3600.0;
    if in_json {
        let line = json!({
            "start": start,
            "seeds": totals.seeds,
            "seconds": seconds,
            "seeds_per_hour": per_hour.round(),
            "events": totals.events,
            "chunks": totals.chunks,
            "decisions": totals.decisions,
            "virtual_ms": totals.virtual_ms,
            "mutant": mutant.map(Mutant::name),
            "found": found.map(as_json),
        });
        println!("{line}");
        return;
    }
    println!(
        "{} seeds from {start} in {seconds:.1} s ({per_hour:.0} an hour): {} events, {} chunks, {} decisions, {:.1} h of virtual time",
        totals.seeds,
        totals.events,
        totals.chunks,
        totals.decisions,
        totals.virtual_ms as f64 / 3_600_000.0
    );
    match found {
        Some(report) => {
            if let Some(violation) = &report.violation {
                println!("seed {}: VIOLATED {violation}", report.seed);
            }
            println!("replay: {}", replay_command(report.seed, mutant));
        }
        None => println!("every rule held"),
    }
}
