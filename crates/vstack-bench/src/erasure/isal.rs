//! ISA-L behind a small C program (`isal.c`): one line in, one line out, so that no foreign code runs in this process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result};

use crate::process::Process;

/// The running program; it ends with this value.
#[derive(Debug)]
pub(super) struct Isal {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _process: Process,
}

impl Isal {
    pub(super) fn start(program: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self {
            input: child.stdin.take().context("the program has no input")?,
            output: BufReader::new(child.stdout.take().context("the program has no output")?),
            _process: Process::from_child(child),
        })
    }

    /// How long it took to do `task` so many times.
    pub(super) fn seconds(&mut self, task: &str, chunk_bytes: usize, times: usize) -> Result<f64> {
        writeln!(self.input, "{task} {chunk_bytes} {times}")?;
        self.input.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let answer = line.trim();
        answer
            .parse()
            .with_context(|| format!("ISA-L's answer to {task}: {answer:?}"))
    }
}
