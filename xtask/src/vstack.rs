//! The product's own binaries, driven as a user would drive them: arguments in, JSON lines out.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Roles drain for 10 s at most.
const STOP_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// The binary `vstack`, and the cluster it talks to.
pub(crate) struct Vstack {
    program: PathBuf,
    metadata_url: Option<String>,
}

impl Vstack {
    pub(crate) fn new(program: PathBuf) -> Self {
        Self {
            program,
            metadata_url: None,
        }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        command.envs(self.metadata_url.as_ref().map(|url| ("VSTACK_METADATA_URL", url)));
        command
    }

    /// Runs a command with `--json`: whether it succeeded, and its last line.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<(bool, Value)> {
        let output = self
            .command(arguments)
            .arg("--json")
            .stderr(Stdio::inherit())
            .output();
        let output = output.with_context(|| format!("cannot run {}", self.program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().unwrap_or_default();
        let value = serde_json::from_str(last)
            .with_context(|| format!("vstack {} said: {last}", arguments.join(" ")))?;
        Ok((output.status.success(), value))
    }

    /// As [`Vstack::ask`]; a failure is an error with the problem's own words.
    pub(crate) fn tell(&self, arguments: &[&str]) -> Result<Value> {
        let (succeeded, value) = self.ask(arguments)?;
        if !succeeded {
            bail!(
                "vstack {}: {}",
                arguments.join(" "),
                value["detail"].as_str().unwrap_or("failed")
            );
        }
        Ok(value)
    }
}

/// A running `vstack dev`. Ends when this is dropped.
pub(crate) struct Cluster {
    pub(crate) vstack: Vstack,
    pub(crate) metadata_url: String,
    /// What it said when it was ready.
    ready: Value,
    process: Ended,
}

impl Cluster {
    /// Starts a cluster on free ports with its data in `data`; returns when it is ready.
    pub(crate) fn start(program: PathBuf, data: &Path) -> Result<Self> {
        let mut command = Command::new(&program);
        command
            .args(["dev", "--json", "--port-base", "0", "--data"])
            .arg(data);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run vstack dev")?;
        let stdout = child.stdout.take().context("vstack dev has no output")?;
        let process = Ended(child);
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .context("cannot read what vstack dev says")?;
        let ready: Value = serde_json::from_str(&line).with_context(|| format!("vstack dev said: {line}"))?;
        let Some(url) = ready["metadata_url"].as_str() else {
            bail!(
                "the cluster did not start: {}",
                ready["detail"].as_str().unwrap_or(&line)
            );
        };
        let vstack = Vstack {
            program,
            metadata_url: Some(url.to_owned()),
        };
        Ok(Self {
            vstack,
            metadata_url: url.to_owned(),
            ready,
            process,
        })
    }

    /// The process of one of its storage nodes.
    pub(crate) fn node_pid(&self) -> Result<u64> {
        let children = self.ready["children"].as_array().map_or(&[][..], Vec::as_slice);
        let node = children.iter().find(|child| child["role"] == "storage");
        node.and_then(|node| node["pid"].as_u64())
            .context("the cluster names no storage node")
    }

    /// Drains it, and says when that did not work.
    pub(crate) fn stop(mut self) -> Result<()> {
        if self.process.end()? {
            return Ok(());
        }
        bail!("the cluster did not stop cleanly");
    }
}

/// A process that is asked to end, and killed if it does not, when this is dropped.
pub(crate) struct Ended(pub(crate) Child);

impl Ended {
    /// Starts `command` with everything it prints in `log`.
    pub(crate) fn logged(command: Command, log: &Path) -> Result<Self> {
        let file = create(log)?;
        Self::with_output(command, file.try_clone()?, file)
    }

    /// Starts `command` with what it prints in `output` and what it complains about in `log`.
    pub(crate) fn printing(command: Command, output: &Path, log: &Path) -> Result<Self> {
        Self::with_output(command, create(output)?, create(log)?)
    }

    fn with_output(mut command: Command, stdout: File, stderr: File) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        Ok(Self(
            command.spawn().with_context(|| format!("cannot run {name}"))?,
        ))
    }

    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Whether it ended by itself with success after being asked to.
    fn end(&mut self) -> Result<bool> {
        if self.runs() {
            Command::new("kill")
                .args(["-TERM", &self.0.id().to_string()])
                .status()
                .context("cannot run kill")?;
        }
        let deadline = Instant::now() + STOP_WITHIN;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status.success());
            }
            if Instant::now() > deadline {
                self.0.kill()?;
                self.0.wait()?;
                return Ok(false);
            }
            sleep(POLL);
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // Nothing can be done about a process that cannot be ended.
        let _ = self.end();
    }
}

fn create(file: &Path) -> Result<File> {
    File::create(file).with_context(|| format!("cannot write {}", file.display()))
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not written in UTF-8", path.display()))
}
