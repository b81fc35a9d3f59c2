//! Processes of tests: each ends with the test, by its pid, whatever happens.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What a command came to.
pub struct Answer {
    pub code: Option<i32>,
    pub lines: Vec<Value>,
    pub stderr: String,
}

impl Answer {
    /// The result: the last line.
    pub fn last(&self) -> &Value {
        self.lines
            .last()
            .unwrap_or_else(|| panic!("the command printed nothing; standard error: {}", self.stderr))
    }

    /// The result of a command that ended with 0.
    pub fn succeeded(&self) -> Value {
        assert_eq!(self.code, Some(0), "{:?}\n{}", self.lines.last(), self.stderr);
        self.last().clone()
    }

    /// The problem of a command that ended with `code`.
    pub fn failed(&self, code: i32) -> &Value {
        assert_eq!(self.code, Some(code), "{:?}\n{}", self.lines.last(), self.stderr);
        self.last()
    }
}

/// Runs it to its end; standard output has to be JSON lines.
pub fn finish(mut command: Command) -> Answer {
    let Output {
        status,
        stdout,
        stderr,
    } = command.stdin(Stdio::null()).output().expect("vstack can be run");
    let stdout = String::from_utf8(stdout).expect("JSON is UTF-8");
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    Answer {
        code: status.code(),
        lines: stdout.lines().map(parse).collect(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// A process that runs; ended with SIGTERM, then SIGKILL, when it is dropped.
pub struct Process(Child);

impl Process {
    /// Starts it; its output comes line by line.
    pub fn start(mut command: Command) -> (Self, Lines) {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("vstack can be run");
        let stdout = child.stdout.take().expect("it was asked for");
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        (Self(child), Lines(receiver))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Its exit code once it has ended.
    pub fn wait(&mut self, within: Duration) -> Option<i32> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.0.try_wait().expect("a child can be waited for") {
                return status.code();
            }
            assert!(
                Instant::now() < deadline,
                "the process still runs after {within:?}"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM, and its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        signal(self.pid(), Signal::TERM);
        self.wait(Duration::from_secs(20))
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        self.0.kill().expect("a child can be killed");
        self.0.wait().expect("a child can be waited for");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            for one in [Signal::TERM, Signal::CONT] {
                signal(self.pid(), one);
            }
            let deadline = Instant::now() + Duration::from_secs(15);
            while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(20));
            }
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// JSON lines as they come.
pub struct Lines(Receiver<Value>);

impl Lines {
    /// `None` when the output has ended.
    pub fn next(&self, within: Duration) -> Option<Value> {
        match self.0.recv_timeout(within) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no output within {within:?}"),
        }
    }
}

/// A signal to a process that this test started.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .expect("pids are positive");
    // It fails only for a process that is gone.
    let _ = kill_process(pid, signal);
}

/// Whether a process with this pid runs (a zombie does not).
pub fn runs(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .any(|line| line.starts_with("State:") && !line.contains('Z'))
}
