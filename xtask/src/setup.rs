//! What every task begins with: the right tools, system packages, npm packages, the built page.

use std::process::ExitCode;

use anyhow::Result;

use crate::packages::{self, Purpose};
use crate::project::Project;
use crate::{say, toolchain, web};

/// Makes the machine ready for `purposes` and builds the page, which the player embeds.
pub(crate) fn prepare(purposes: &[Purpose]) -> Result<Project> {
    say::step("checking tools and packages");
    toolchain::require()?;
    packages::install(purposes)?;
    let project = Project::load()?;
    web::install(&project)?;
    web::build(&project)?;
    Ok(project)
}

/// `cargo xtask setup`.
pub(crate) fn run() -> Result<ExitCode> {
    prepare(&[Purpose::Build, Purpose::Run, Purpose::Screen, Purpose::Test])?;
    say::step("everything is there");
    Ok(ExitCode::SUCCESS)
}
