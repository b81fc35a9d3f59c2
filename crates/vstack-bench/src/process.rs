//! A server under test: a process that is measured while it runs and ended when this is dropped.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::machine::kib_of;

/// Servers drain for 10 s at most.
const STOP_WITHIN: Duration = Duration::from_secs(15);
const READY_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);
/// Linux counts processor time in these for everyone (`USER_HZ`).
const TICKS_PER_SEC: f64 = 100.0;

/// What a server has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_sec: f64,
    pub(crate) rss_mib: f64,
    /// Memory that no file stands behind.
    pub(crate) anon_bytes: u64,
}

/// A running server with its children.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts it; what it prints goes to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let name = command.get_program().to_string_lossy().into_owned();
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command.spawn().with_context(|| format!("cannot run {name}"))?;
        Ok(Self { child })
    }

    pub(crate) fn from_child(child: Child) -> Self {
        Self { child }
    }

    pub(crate) fn usage(&self) -> Usage {
        let mut total = Usage::default();
        for pid in family(self.child.id()) {
            total.cpu_sec += cpu_sec(pid).unwrap_or(0.0);
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            total.rss_mib += kib_of(&status, "VmRSS").unwrap_or(0) as f64 / 1024.0;
            total.anon_bytes += kib_of(&status, "RssAnon").unwrap_or(0) * 1024;
        }
        total
    }

    /// It fails only for a process that is gone.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }

    fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(Signal::TERM);
        let deadline = Instant::now() + STOP_WITHIN;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The process and its children (nginx works in children).
fn family(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid == parent || parent_of(*pid) == Some(parent))
        .collect()
}

/// The fields of `/proc/PID/stat` behind the name in brackets, which may hold anything.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn parent_of(pid: u32) -> Option<u32> {
    stat_fields(pid)?.get(1)?.parse().ok()
}

fn cpu_sec(pid: u32) -> Option<f64> {
    let fields = stat_fields(pid)?;
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SEC)
}

/// This process's own processor time in seconds, and memory in MiB.
pub(crate) fn own_usage() -> (f64, f64) {
    let pid = std::process::id();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rss_mib = kib_of(&status, "VmRSS").unwrap_or(0) as f64 / 1024.0;
    (cpu_sec(pid).unwrap_or(0.0), rss_mib)
}

/// A port that was free a moment ago, for servers that cannot say which one they took.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
    Ok(listener.local_addr()?)
}

/// Waits until somebody listens there.
pub(crate) fn wait_for_listener(address: SocketAddr) -> Result<()> {
    until(&format!("a server on {address}"), || {
        TcpStream::connect(address).is_ok()
    })
}

/// Waits for a condition, up to 30 s.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    while !holds() {
        if Instant::now() > deadline {
            bail!("{what} did not come up within {} s", READY_WITHIN.as_secs());
        }
        sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured_with_its_children_and_ended_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & while :; do :; done"]);
        let process = Process::start(&mut command, &folder.path().join("log")).unwrap();
        let pid = process.child.id();
        until("processor time", || process.usage().cpu_sec > 0.05).unwrap();
        until("a child", || family(pid).len() == 2).unwrap();
        let sleeper = family(pid).into_iter().find(|found| *found != pid).unwrap();
        assert!(process.usage().rss_mib > 0.0);
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        let raw = i32::try_from(sleeper).ok().and_then(Pid::from_raw).unwrap();
        kill_process(raw, Signal::TERM).unwrap();
    }
}
