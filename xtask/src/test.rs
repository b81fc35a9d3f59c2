//! `cargo xtask test`: everything that CI runs, from a clean clone.
//!
//! One build serves the Rust tests and the end-to-end tests: they start the binaries that the same build made. The last
//! two lines are the figures and whether the corpus was there.

use std::process::{Command, ExitCode, Stdio};

use anyhow::Result;

use crate::packages::Purpose;
use crate::project::Project;
use crate::tally::Tally;
use crate::{check, corpus, prove, say, setup, step, web};

pub(crate) fn run() -> Result<ExitCode> {
    let project = setup::prepare(&[Purpose::Build, Purpose::Run, Purpose::Screen, Purpose::Test])?;
    let mut tally = Tally::default();
    check::quick(&project, &mut tally)?;
    runner(&mut tally, "the page's tests", web::script(&project, "test"))?;
    runner(&mut tally, "Rust and end-to-end tests", rust_tests(&project))?;
    tally.check("power cuts", &prove::power_cut_short(&project)?);
    tally.check("fuzzing", &prove::fuzz_short(&project)?);
    let passed = tally.close();
    if !has_spin() {
        say::text("SPIN NOT RUN: the Debian package spin is not here\n");
    }
    corpus::report(&project.root);
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn runner(tally: &mut Tally, name: &str, mut command: Command) -> Result<()> {
    say::step(name);
    command.env("NO_COLOR", "1");
    let (succeeded, lines) = step::watched(command)?;
    tally.runner(name, succeeded, &lines);
    Ok(())
}

/// With cargo-nextest where it is installed: a process for each test, and figures for slow ones.
fn rust_tests(project: &Project) -> Command {
    let mut command = project.cargo();
    if has_nextest(project) {
        command.args(["nextest", "run", "--no-fail-fast", "--profile", "ci"]);
    } else {
        say::note("cargo-nextest is not installed; using cargo test");
        command.args(["test", "--no-fail-fast"]);
    }
    command.args(["--locked", "--workspace"]);
    command.env("VSTACK_CORPUS", corpus::folder(&project.root));
    // The player's tests start a cluster with the binary of the same build.
    command.env("VSTACK_BIN", project.binary("vstack"));
    command
}

/// The model checker of the protocol's second specification.
fn has_spin() -> bool {
    let mut command = Command::new("spin");
    command.arg("-V").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}

pub(crate) fn has_nextest(project: &Project) -> bool {
    let mut command = project.cargo();
    command
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
