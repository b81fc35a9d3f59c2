//! `cargo xtask prove fuzz`: the fuzz targets of `fuzz/`, each for some seconds, from its seed corpus.
//!
//! libFuzzer needs coverage counters in the code under test. They are LLVM passes that a stable compiler inserts by plain
//! `-C` flags, so neither a nightly toolchain nor cargo-fuzz is needed; and without an address sanitizer, since none of
//! this code is unsafe, a run tries 25 times as many inputs. The build has its own target folder.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::project::Project;
use crate::{say, step};

/// Targets, and the longest input of each in bytes: facts are told three bytes at a time, and a thousand are a session.
const TARGETS: [(&str, u32); 4] = [
    ("scan", 65_536),
    ("snapshot", 65_536),
    ("range", 65_536),
    ("policy", 3_000),
];
/// For each target, by command and in the tests.
const SECONDS: u64 = 60;

/// Which inputs a run begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// The seed corpus and what earlier runs have found worth keeping.
    Earlier,
    /// The seed corpus alone, so that a test run does not depend on what was run before.
    Seeds,
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
        From::Earlier,
        seconds.unwrap_or(SECONDS),
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
    fuzz(project, From::Seeds, SECONDS, 1)
}

fn fuzz(project: &Project, from: From, seconds: u64, seed: u64) -> Result<Vec<String>> {
    say::step("building the fuzz targets");
    let programs = build(project)?;
    let mut findings = Vec::new();
    for (name, longest) in TARGETS {
        say::step(&format!("fuzzing {name} for {seconds} s, seed {seed}"));
        let mut command = Command::new(programs.join(name));
        command.args([
            format!("-max_total_time={seconds}"),
            format!("-seed={seed}"),
            format!("-max_len={longest}"),
        ]);
        findings.extend(fuzz_target(project, command, name, from)?);
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

/// Runs `command`, a target with its bound, on its corpus; what it found.
fn fuzz_target(project: &Project, mut command: Command, name: &str, from: From) -> Result<Option<String>> {
    let program = PathBuf::from(command.get_program());
    let seeds = project.root.join("fuzz/corpus").join(name);
    let work = project.target.join("fuzz/found").join(name);
    // New inputs go to the first folder, so that the seeds in the repository stay as they are.
    let grown = work.join(match from {
        From::Earlier => "corpus",
        From::Seeds => "test-corpus",
    });
    if from == From::Seeds && grown.exists() {
        std::fs::remove_dir_all(&grown).with_context(|| format!("cannot empty {}", grown.display()))?;
    }
    std::fs::create_dir_all(&grown).with_context(|| format!("cannot make {}", grown.display()))?;
    if !seeds.is_dir() {
        bail!("{} has no seed corpus", seeds.display());
    }
    let finding = work.join("finding-");
    command.args([
        format!("-artifact_prefix={}", finding.display()),
        "-timeout=10".to_owned(),
        "-rss_limit_mb=1024".to_owned(),
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
        program.display(),
        kept.unwrap_or("(no input was kept)")
    )))
}
