//! The page: its packages from npm and its build, each only when something changed.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use crate::project::Project;
use crate::{say, step};

/// npm in the page's folder.
pub(crate) fn npm(project: &Project, arguments: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.current_dir(project.root.join("ui")).args(arguments);
    // Neither advertising nor a question about newer versions in the output.
    command.args(["--no-fund", "--no-audit", "--no-update-notifier"]);
    command
}

/// An npm script of the page.
pub(crate) fn script(project: &Project, name: &str) -> Command {
    let mut command = Command::new("npm");
    command
        .current_dir(project.root.join("ui"))
        .args(["run", "--silent", name]);
    command
}

/// `npm ci`, unless the packages that are there are those of `package-lock.json`.
pub(crate) fn install(project: &Project) -> Result<()> {
    let ui = project.root.join("ui");
    let wanted = std::fs::read(ui.join("package-lock.json")).context("ui/package-lock.json is missing")?;
    let stamp = ui.join("node_modules/.installed-package-lock.json");
    if std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    say::step("npm ci in ui (the page's packages)");
    step::must(npm(project, &["ci"]))?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

/// `vite build`, unless `ui/dist` is newer than everything it is made of.
pub(crate) fn build(project: &Project) -> Result<()> {
    let ui = project.root.join("ui");
    let built = modified(&ui.join("dist/index.html"));
    let newest = [
        "src",
        "public",
        "index.html",
        "package-lock.json",
        "vite.config.ts",
        "svelte.config.js",
        "tsconfig.json",
    ]
    .iter()
    .filter_map(|part| newest(&ui.join(part)))
    .max();
    if built.is_some() && built >= newest {
        return Ok(());
    }
    say::step("building the page");
    step::must(script(project, "build"))
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|facts| facts.modified()).ok()
}

/// When the file, or anything in the folder, was last written.
fn newest(path: &Path) -> Option<SystemTime> {
    let inside = std::fs::read_dir(path).into_iter().flatten().flatten();
    inside
        .filter_map(|entry| newest(&entry.path()))
        .chain(modified(path))
        .max()
}
