//! Our own processes, started as an operator starts them. Each prints one line when it listens, and is there from then on.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process::Process;

/// Nothing listens there: a node that serves without a catalogue.
pub(crate) const NO_CATALOGUE: &str = "http://127.0.0.1:9";

/// The command of a role on the folder `data`. It ends with this process. The caller adds where it listens.
pub(crate) fn serve(program: &Path, role: &str, data: &Path, key: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["serve", "--json", "--role", role])
        .args(["--parent-pid", &std::process::id().to_string()])
        .arg("--data")
        .arg(data)
        .arg("--cluster-key-file")
        .arg(key)
        .env("RUST_LOG", "error");
    command
}

/// Runs a `vstack` command until it ends with what is returned; gives what it said when it listened.
pub(crate) fn start(command: &mut Command) -> Result<(Process, Value)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let output = child.stdout.take().context("vstack has no output")?;
    let process = Process::from_child(child);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let ready = serde_json::from_str(&line).with_context(|| format!("vstack said: {line}"))?;
    Ok((process, ready))
}

/// A word of what a role said.
pub(crate) fn text<'a>(ready: &'a Value, name: &str) -> Result<&'a str> {
    ready[name]
        .as_str()
        .with_context(|| format!("vstack names no {name}: {ready}"))
}
