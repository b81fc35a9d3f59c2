//! The TypeScript types of the page are made from the player's Rust types and committed; this finds stale ones.

use std::process::Command;

use crate::project::Project;

/// The player's own test that compares `ui/src/generated` with the types.
pub(crate) fn test(project: &Project) -> Command {
    let mut command = project.cargo();
    command.args([
        "test",
        "--locked",
        "--package",
        "vstack-player",
        "--lib",
        "export_bindings",
    ]);
    command
}
