//! Running other programs: in the foreground, or read line by line while their output goes on to the terminal.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};

/// Runs it to its end.
pub(crate) fn succeeds(mut command: Command) -> Result<bool> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", name(&command)))?;
    Ok(status.success())
}

/// Runs it; a failure ends the task.
pub(crate) fn must(command: Command) -> Result<()> {
    let name = name(&command);
    if !succeeds(command)? {
        bail!("{name} failed");
    }
    Ok(())
}

/// Runs it, passes everything it prints on at once, and returns that too.
pub(crate) fn watched(mut command: Command) -> Result<(bool, Vec<String>)> {
    let name = name(&command);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let stdout = child
        .stdout
        .take()
        .map(|pipe| thread::spawn(move || pass_on(pipe)));
    let stderr = child
        .stderr
        .take()
        .map(|pipe| thread::spawn(move || pass_on(pipe)));
    let lines = [stdout, stderr]
        .into_iter()
        .flatten()
        .filter_map(|thread| thread.join().ok())
        .flatten()
        .collect();
    let status = child.wait().with_context(|| format!("cannot wait for {name}"))?;
    Ok((status.success(), lines))
}

fn pass_on(pipe: impl Read) -> Vec<String> {
    let mut reader = BufReader::new(pipe);
    let mut lines = Vec::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        // A closed terminal must not end the run.
        let _ = std::io::stdout().lock().write_all(&line);
        lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
    lines
}

fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
