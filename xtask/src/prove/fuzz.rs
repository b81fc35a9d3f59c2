//! `cargo xtask prove fuzz`: the fuzz targets of `fuzz/`, each for some seconds, from its seed corpus.
//!
//! libFuzzer needs coverage counters in the code under test. They are LLVM passes that a stable compiler inserts by plain
//! `-C` flags, so neither a nightly toolchain nor cargo-fuzz is needed; and without an address sanitizer, since none of
//! this code is unsafe, a run tries 25 times as many inputs. The build has its own target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::project::Project;
use crate::{say, step};

const TARGETS: [&str; 2] = ["scan", "range"];
/// For each target, by command.
const SECONDS: u64 = 20;
/// For each target in a test run, after its seed corpus. A number and not a time, so that the same sources get the same
/// verdict on every machine; new findings are looked for by command.
const TEST_RUNS: u64 = 2_000;

/// How long a target is fuzzed.
#[derive(Debug, Clone, Copy)]
enum Bound {
    Seconds(u64),
    Runs(u64),
}

impl Bound {
    fn argument(self) -> String {
        match self {
            Self::Seconds(seconds) => format!("-max_total_time={seconds}"),
            Self::Runs(runs) => format!("-runs={runs}"),
        }
    }
}
/// What cargo-fuzz passes, without the sanitizer.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// Fuzzes each target for `seconds`; whether none found anything.
pub(super) fn run(project: &Project, seconds: Option<u64>, seed: Option<u64>) -> Result<bool> {
    let findings = fuzz(
        project,
        Bound::Seconds(seconds.unwrap_or(SECONDS)),
        seed.unwrap_or(1),
    )?;
    for finding in &findings {
        say::error(finding);
    }
    say::text(&format!(
        "fuzz: {} targets, {} with findings\n",
        TARGETS.len(),
        findings.len()
    ));
    Ok(findings.is_empty())
}

/// As `cargo xtask test` does it; one line for each target that found something.
pub(crate) fn short(project: &Project) -> Result<Vec<String>> {
    fuzz(project, Bound::Runs(TEST_RUNS), 1)
}

fn fuzz(project: &Project, bound: Bound, seed: u64) -> Result<Vec<String>> {
    say::step("building the fuzz targets");
    let programs = build(project)?;
    let mut findings = Vec::new();
    for name in TARGETS {
        say::step(&format!("fuzzing {name}, {bound:?}, seed {seed}"));
        findings.extend(fuzz_target(project, &programs, name, bound, seed)?);
    }
    Ok(findings)
}

/// Builds all targets; returns the folder of the programs.
fn build(project: &Project) -> Result<PathBuf> {
    let target = project.target.join("fuzz");
    let host = crate::project::host()?;
    let mut command = project.cargo();
    command
        .current_dir(project.root.join("fuzz"))
        // With a target named, build scripts and macros are built without the counters.
        .args(["build", "--locked", "--release", "--bins", "--target", &host])
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    step::must(command)?;
    Ok(target.join(host).join("release"))
}

fn fuzz_target(
    project: &Project,
    programs: &Path,
    name: &str,
    bound: Bound,
    seed: u64,
) -> Result<Option<String>> {
    let seeds = project.root.join("fuzz/corpus").join(name);
    let work = project.target.join("fuzz/found").join(name);
    // New inputs go to the first folder, so that the seeds in the repository stay as they are.
    let grown = match bound {
        Bound::Seconds(_) => work.join("corpus"),
        Bound::Runs(_) => work.join("test-corpus"),
    };
    if matches!(bound, Bound::Runs(_)) && grown.exists() {
        std::fs::remove_dir_all(&grown).with_context(|| format!("cannot empty {}", grown.display()))?;
    }
    std::fs::create_dir_all(&grown).with_context(|| format!("cannot make {}", grown.display()))?;
    if !seeds.is_dir() {
        bail!("{} has no seed corpus", seeds.display());
    }
    let finding = work.join("finding-");
    let mut command = Command::new(programs.join(name));
    command.args([
        bound.argument(),
        format!("-seed={seed}"),
        format!("-artifact_prefix={}", finding.display()),
        "-timeout=10".to_owned(),
        "-rss_limit_mb=1024".to_owned(),
        "-max_len=65536".to_owned(),
        "-print_final_stats=1".to_owned(),
        "-verbosity=0".to_owned(),
    ]);
    command.args([&grown, &seeds]);
    command.env("RUST_BACKTRACE", "1");
    let (succeeded, lines) = step::watched(command)?;
    if succeeded {
        return Ok(None);
    }
    let kept = lines
        .iter()
        .find_map(|line| line.split("Test unit written to ").nth(1));
    Ok(Some(format!(
        "fuzz target {name} found something; again: {} {}",
        programs.join(name).display(),
        kept.unwrap_or("(no input was kept)")
    )))
}
