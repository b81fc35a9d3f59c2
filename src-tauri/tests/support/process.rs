//! A child process, with all that it started, that ends with the test.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A cluster drains its roles for up to 12 s.
const STOP_WITHIN: Duration = Duration::from_secs(20);

pub struct Process(Child);

impl Process {
    /// In a process group of its own.
    pub fn start(mut command: Command) -> Self {
        let child = command.stdin(Stdio::null()).process_group(0).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?} does not start: {error}")))
    }

    /// Starts a program that prints one line when it is ready.
    pub fn with_first_line(mut command: Command) -> (Self, String) {
        command.stdout(Stdio::piped());
        let mut process = Self::start(command);
        let mut output = BufReader::new(process.0.stdout.take().expect("output was asked for"));
        let mut line = String::new();
        output.read_line(&mut line).expect("the output can be read");
        // What it says later must go somewhere.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        (process, line.trim().to_owned())
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to end; how it did.
    pub fn terminate(&mut self) -> Option<ExitStatus> {
        signal(self.pid(), Signal::TERM);
        self.ended_within(STOP_WITHIN)
    }

    pub fn ended_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + time;
        loop {
            match self.0.try_wait() {
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                Ok(status) => return status,
                Err(error) => panic!("the process cannot be waited for: {error}"),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.terminate().is_some();
        // It was asked politely; nothing of it, and nothing that it started, may outlive the test.
        if let Some(group) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        if !ended {
            let _ = self.0.wait();
        }
    }
}

/// Sends a signal to one process; one that is gone already needs none.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}
