//! `cargo xtask check`: what must hold before every push, and what a reviewer should not have to look for.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::packages::Purpose;
use crate::project::Project;
use crate::tally::Tally;
use crate::{bindings, layers, say, setup, sources, step, web};

pub(crate) fn run() -> Result<ExitCode> {
    let project = setup::prepare(&[Purpose::Build])?;
    let mut tally = Tally::default();
    quick(&project, &mut tally)?;
    program(&mut tally, "clippy", clippy(&project))?;
    program(&mut tally, "TypeScript bindings", bindings::test(&project))?;
    Ok(if tally.close() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The checks that take seconds; `cargo xtask test` runs them too. (Loading the project checked `Cargo.lock`.)
pub(crate) fn quick(project: &Project, tally: &mut Tally) -> Result<()> {
    say::step("layers, sizes, headers, leftovers");
    tally.check("layers", &layers::complaints(&project.metadata));
    tally.check("sources", &sources::complaints(&project.root)?);
    let mut fmt = project.cargo();
    fmt.args(["fmt", "--all", "--check"]);
    program(tally, "cargo fmt --check", fmt)?;
    program(tally, "the fuzz targets' lock file", fuzz_lock(project))?;
    program(tally, "svelte-check and tsc", web::script(project, "check"))
}

/// Whether `fuzz/Cargo.lock`, which is one of its own, knows what the crates depend on now. Fuzzing would say so last.
fn fuzz_lock(project: &Project) -> Command {
    let mut command = project.cargo();
    command.args(["update", "--workspace", "--locked", "--manifest-path"]);
    command.arg(project.root.join("fuzz/Cargo.toml"));
    command
}

fn clippy(project: &Project) -> Command {
    let mut command = project.cargo();
    command.args([
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    command
}

/// A program whose exit status is the verdict.
fn program(tally: &mut Tally, name: &str, command: Command) -> Result<()> {
    say::step(name);
    let complaints = if step::succeeds(command)? {
        Vec::new()
    } else {
        vec![format!("{name} failed")]
    };
    tally.check(name, &complaints);
    Ok(())
}
