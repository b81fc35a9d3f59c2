//! Where things are, and what cargo says of the workspace.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The project's root and cargo's view of it.
pub(crate) struct Project {
    pub(crate) root: PathBuf,
    /// Where cargo builds, whoever decided that.
    pub(crate) target: PathBuf,
    /// `cargo metadata --no-deps`.
    pub(crate) metadata: Value,
}

impl Project {
    /// Asks cargo, with `--locked`: a `Cargo.lock` that does not fit the manifests is an error.
    pub(crate) fn load() -> Result<Self> {
        let root = root()?;
        let metadata = read_metadata(&root)?;
        let target = metadata["target_directory"]
            .as_str()
            .context("cargo names no target directory")?;
        Ok(Self {
            target: PathBuf::from(target),
            root,
            metadata,
        })
    }

    /// A binary of the dev profile.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }

    /// A binary of the release profile.
    pub(crate) fn release(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }

    /// Cargo in the root, with the toolchain that runs this task.
    pub(crate) fn cargo(&self) -> Command {
        cargo(&self.root)
    }
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

fn root() -> Result<PathBuf> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let parent = here.parent().context("xtask lies in no project")?;
    parent
        .canonicalize()
        .with_context(|| format!("cannot open {}", parent.display()))
}

fn read_metadata(root: &Path) -> Result<Value> {
    // Without --no-deps, so that the lock file is checked against the manifests; for this platform alone, so that no
    // crate of another one is downloaded.
    let output = cargo(root)
        .args([
            "metadata",
            "--locked",
            "--format-version",
            "1",
            "--filter-platform",
            &host()?,
        ])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo metadata --locked failed; if Cargo.lock is behind, `cargo check` brings it up to date");
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata printed something that is no JSON")
}

/// The platform that rustc builds for here.
pub(crate) fn host() -> Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host platform")?.to_owned())
}
