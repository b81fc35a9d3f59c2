//! `cargo xtask prove NAME [--seed N] [--count N] [--json]`: the proof runs of the store, of the protocol and of the cluster.
//!
//! The runs themselves are the binary `prove` of `vstack-proof`, built with optimisation; `fuzz`,
//! `mutants`, `promise` and `chaos` drive cargo and live here.

mod chaos;
mod cluster_run;
mod fuzz;
mod mutant_list;
mod mutants;
mod promise;

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::project::Project;
use crate::{say, step};

pub(crate) use fuzz::short as fuzz_short;

const HELP: &str = "\
cargo xtask prove NAME [--seed N] [--count N] [--json]

  crash-points  simulated power cuts before every disk call of random scripts (count: points, 1000000)
  flips         every bit and every length of a superblock of 64 records (count: cases, all)
  nth-call      every single disk call fails once and for ever (count: failed calls, 200000)
  kill          a real process killed with SIGKILL (count: kills, 1000)
  power-cut     real power cuts of a loop-mounted ext4, as root (count: cuts, 200)
  fuzz          the parsers of bytes and text from outside, and the pooled policy (count: seconds for each target, 60)
  mutants       bugs put into a copy of the store on purpose; its tests must catch each (NAME...: only these)
  promise       every pair of five nodes killed, stopped, lying, emptied, while videos play (half an hour;
                --page: write the page again from the last run)
  chaos         real nodes killed, cut off and lying at random while people watch (count: rounds, 10)
  model         every state of small clusters that run ChunkPaxos, and every mutant (--big: hours; --list; NAME...)
  zipf          200 videos watched by Zipf's law on five nodes: what ends as copies, what as shards (--videos N, --days N)
  all           all of them
";
/// What the binary ends with where the machine cannot do a run.
const SKIPPED: i32 = 3;
const RUNS: [&str; 5] = ["crash-points", "flips", "nth-call", "kill", "power-cut"];

/// The task.
pub(crate) fn run(words: &[&str]) -> Result<ExitCode> {
    let Some((name, rest)) = words.split_first() else {
        say::text(HELP);
        return Ok(ExitCode::SUCCESS);
    };
    let project = Project::load()?;
    let passed = match *name {
        "fuzz" => fuzz::run(&project, number(rest, "--count")?, number(rest, "--seed")?)?,
        "mutants" => mutants::run(&project, rest)?,
        "promise" => promise::run(&project, rest)?,
        "zipf" => return crate::bench::run(words),
        "all" => all(&project, rest)?,
        "model" => model(&project, rest)?,
        "chaos" => chaos::run(&project, rest)?,
        name if RUNS.contains(&name) => proof(&project, name, rest)?,
        _ => {
            say::error(&format!("there is no proof run \"{name}\""));
            say::text(HELP);
            return Ok(ExitCode::from(2));
        }
    };
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn all(project: &Project, rest: &[&str]) -> Result<bool> {
    let mut passed = true;
    for name in RUNS {
        passed &= proof(project, name, rest)?;
    }
    passed &= fuzz::run(project, None, number(rest, "--seed")?)?;
    passed &= mutants::run(project, &[])?;
    passed &= promise::run(project, &[])?;
    passed &= chaos::run(project, &[])?;
    passed &= model(project, &[])?;
    Ok(passed)
}

fn model(project: &Project, rest: &[&str]) -> Result<bool> {
    let mut command = project.cargo();
    command.args([
        "run",
        "--quiet",
        "--locked",
        "--release",
        "--package",
        "vstack-sim",
    ]);
    command.args(["--bin", "vstack-model", "--"]).args(rest);
    Ok(command.status().context("cannot run cargo")?.success())
}

fn proof(project: &Project, name: &str, rest: &[&str]) -> Result<bool> {
    let mut command = project.cargo();
    command.args([
        "run",
        "--quiet",
        "--locked",
        "--release",
        "--package",
        "vstack-proof",
        "--",
        name,
    ]);
    command.args(rest);
    let status = command.status().context("cannot run cargo")?;
    if status.code() == Some(SKIPPED) {
        say::note(&format!("{name} was SKIPPED"));
    }
    Ok(status.success() || status.code() == Some(SKIPPED))
}

/// Ten real power cuts with the binary that the tests have built; what was said, and whether it failed. A machine that
/// cannot do it says so, loudly, and fails nothing.
pub(crate) fn power_cut_short(project: &Project) -> Result<Vec<String>> {
    say::step("power cuts of a real file system");
    let mut command = Command::new(project.binary("prove"));
    command.args(["power-cut", "--count", "10"]);
    let (succeeded, lines) = step::watched(command)?;
    let skipped = lines.iter().any(|line| line.contains("SKIPPED"));
    Ok(if succeeded || skipped {
        Vec::new()
    } else {
        vec!["power-cut failed: see above; cargo xtask prove power-cut".to_owned()]
    })
}

fn number(words: &[&str], flag: &str) -> Result<Option<u64>> {
    let Some(at) = words.iter().position(|word| *word == flag) else {
        return Ok(None);
    };
    let value = words
        .get(at + 1)
        .with_context(|| format!("{flag} needs a number"))?;
    let number = value
        .parse()
        .with_context(|| format!("{flag}: \"{value}\" is no number"))?;
    Ok(Some(number))
}
