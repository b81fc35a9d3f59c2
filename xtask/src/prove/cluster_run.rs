//! Proof runs that are an integration test of `node-server`, built with optimisation, and that leave figures in a folder.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::project::Project;
use crate::say;

/// The test as a command without its own arguments (those that follow `--`); `folder` is empty when this returns.
pub(super) fn test(project: &Project, name: &str, folder: &Path) -> Result<Command> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot delete {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut command = project.cargo();
    command.args(["test", "--release", "--locked", "--package", "vstack-node-server"]);
    command.args(["--test", name, "--"]);
    Ok(command)
}

/// A list that the test left; of a run that broke off, what there is.
pub(super) fn rows(file: &Path) -> Result<Vec<Value>> {
    match fs::read_to_string(file) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display())),
        Err(_) => Ok(Vec::new()),
    }
}

/// Writes docs/evaluation/`name`.md.
pub(super) fn write_page(project: &Project, name: &str, page: &str) -> Result<()> {
    let path = project.root.join(format!("docs/evaluation/{name}.md"));
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    say::note(&format!("figures: {}", path.display()));
    Ok(())
}
