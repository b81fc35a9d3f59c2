//! Running one process: output with back-pressure, progress on a descriptor of its own, the last lines of stderr, a
//! watchdog, and an end in every case.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdout};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Limits, Progress};
use crate::MediaError;

/// The descriptor that `-progress pipe:3` writes to.
const PROGRESS_FD: i32 = 3;
/// Lines of stderr that are kept for the failure message.
const STDERR_LINES: usize = 50;
/// A line longer than this is cut: a hostile file can put anything into an error message.
const STDERR_LINE_BYTES: usize = 500;
/// What is read at once from FFmpeg; also what a pipe holds.
const READ_BYTES: usize = 64 * 1024;
/// How often a silent process is looked at.
const WATCH_PERIOD: Duration = Duration::from_millis(500);

/// A conversion whose output is read piece by piece. Dropping it kills the process.
#[derive(Debug)]
pub struct Conversion {
    child: Child,
    stdout: ChildStdout,
    buffer: BytesMut,
    stderr: StderrTail,
    progress: watch::Receiver<Progress>,
    watchdog: Watchdog,
}

/// Judges whether a process still gets on. Only time in which its owner waits counts.
#[derive(Debug)]
struct Watchdog {
    limits: Limits,
    waited: Duration,
    silent: Duration,
}

impl Watchdog {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            waited: Duration::ZERO,
            silent: Duration::ZERO,
        }
    }

    fn waited(&mut self, time: Duration, progressed: bool) -> Result<(), MediaError> {
        self.waited += time;
        self.silent = if progressed {
            Duration::ZERO
        } else {
            self.silent + time
        };
        if self.silent >= self.limits.silence {
            return Err(MediaError::TimedOut {
                what: "FFmpeg without any progress",
                limit_sec: self.limits.silence.as_secs(),
            });
        }
        if self.waited >= self.limits.wall {
            return Err(MediaError::TimedOut {
                what: "The conversion",
                limit_sec: self.limits.wall.as_secs(),
            });
        }
        Ok(())
    }
}

impl Conversion {
    /// Starts the program with stdout and descriptor 3 as pipes.
    ///
    /// # Errors
    /// It is not installed, or the system is out of processes or descriptors.
    pub fn start(program: &Path, arguments: &[OsString], limits: Limits) -> Result<Self, MediaError> {
        let (reader, writer) = io::pipe().map_err(MediaError::io("making a pipe"))?;
        let mut command = confined_command(program, arguments);
        let mapping = FdMapping {
            parent_fd: OwnedFd::from(writer),
            child_fd: PROGRESS_FD,
        };
        command
            .fd_mappings(vec![mapping])
            .map_err(|error| MediaError::io("passing a pipe")(io::Error::other(error)))?;
        let mut child = spawn(program, command, limits)?;
        let receiver =
            pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(MediaError::io("opening a pipe"))?;
        let (sender, progress) = watch::channel(Progress::default());
        tokio::spawn(follow_progress(receiver, sender));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(MediaError::io("starting FFmpeg")(
                io::ErrorKind::BrokenPipe.into(),
            ));
        };
        let watchdog = Watchdog::new(limits);
        Ok(Self {
            child,
            stdout,
            buffer: BytesMut::new(),
            stderr: StderrTail::follow(stderr),
            progress,
            watchdog,
        })
    }

    /// How far FFmpeg is; changes about twice a second.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// The next bytes of output, `None` at its end. FFmpeg waits while nobody calls this.
    ///
    /// # Errors
    /// No progress for too long, or too long altogether: the process is killed.
    pub async fn next(&mut self) -> Result<Option<Bytes>, MediaError> {
        loop {
            let seen = *self.progress.borrow_and_update();
            let started = Instant::now();
            self.buffer.reserve(READ_BYTES);
            let read = timeout(WATCH_PERIOD, self.stdout.read_buf(&mut self.buffer)).await;
            let progressed = read.is_ok() || *self.progress.borrow() != seen;
            self.watchdog.waited(started.elapsed(), progressed)?;
            match read {
                Ok(Ok(0)) => return Ok(None),
                Ok(Ok(_)) => return Ok(Some(self.buffer.split().freeze())),
                Ok(Err(cause)) => {
                    return Err(MediaError::Io {
                        doing: "reading from FFmpeg",
                        cause,
                    });
                }
                Err(_) => {}
            }
        }
    }

    /// Waits for the end; call it after [`Conversion::next`] gave `None`.
    ///
    /// # Errors
    /// FFmpeg ended with an error, with its last lines; or it does not end.
    pub async fn finish(mut self) -> Result<Vec<String>, MediaError> {
        let status = wait(&mut self.child, &mut self.watchdog).await?;
        let tail = self.stderr.finish().await;
        if status.success() {
            Ok(tail)
        } else {
            Err(failure(status, tail))
        }
    }
}

/// Runs a program to its end and returns its whole output, which must be small (a poster, a probe's answer).
///
/// # Errors
/// It is missing, fails, takes too long, or writes more than 64 MiB.
pub async fn run(program: &Path, arguments: &[OsString], limits: Limits) -> Result<Bytes, MediaError> {
    const MAX_OUTPUT_BYTES: usize = 64 << 20;
    let mut process = Conversion::start(program, arguments, limits)?;
    let mut output = BytesMut::new();
    while let Some(piece) = process.next().await? {
        if output.len() + piece.len() > MAX_OUTPUT_BYTES {
            let (actual, limit) = ("is larger".to_owned(), format!("{MAX_OUTPUT_BYTES} bytes"));
            return Err(MediaError::OverLimit {
                what: "what FFmpeg says about it",
                actual,
                limit,
            });
        }
        output.extend_from_slice(&piece);
    }
    process.finish().await?;
    Ok(output.freeze())
}

/// Runs a program and hands its output over line by line, in constant memory.
///
/// # Errors
/// As [`run`]; a line longer than 64 KiB counts as the end of its content.
pub async fn stream_lines(
    program: &Path,
    arguments: &[OsString],
    limits: Limits,
    mut take_line: impl FnMut(&str) + Send,
) -> Result<(), MediaError> {
    let mut process = Conversion::start(program, arguments, limits)?;
    let mut pending = BytesMut::new();
    while let Some(piece) = process.next().await? {
        pending.extend_from_slice(&piece);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            take_line(&String::from_utf8_lossy(&pending.split_to(end + 1)));
        }
        if pending.len() > READ_BYTES {
            pending.clear();
        }
    }
    take_line(&String::from_utf8_lossy(&pending));
    process.finish().await.map(|_| ())
}

/// No input, no inherited environment, its own process group (a terminal's Ctrl-C reaches us, not it).
fn confined_command(program: &Path, arguments: &[OsString]) -> std::process::Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = std::process::Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .env("AV_LOG_FORCE_NOCOLOR", "1");
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    command
}

fn spawn(program: &Path, command: std::process::Command, limits: Limits) -> Result<Child, MediaError> {
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let child = command.spawn().map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => MediaError::FfmpegMissing {
            program: program.display().to_string(),
        },
        _ => MediaError::Io {
            doing: "starting FFmpeg",
            cause,
        },
    })?;
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    let bounds = [
        (Resource::Cpu, limits.cpu_seconds),
        (Resource::As, limits.memory_bytes),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Nofile, 64),
        (Resource::Core, 0),
    ];
    for (resource, bound) in bounds.into_iter().filter(|_| pid.is_some()) {
        let limit = Rlimit {
            current: Some(bound),
            maximum: Some(bound),
        };
        if let Err(error) = prlimit(pid, resource, limit) {
            // ESRCH: it has ended already, which its exit status will explain.
            tracing::debug!(?resource, %error, "a limit of FFmpeg could not be set");
        }
    }
    Ok(child)
}

async fn wait(child: &mut Child, watchdog: &mut Watchdog) -> Result<ExitStatus, MediaError> {
    loop {
        match timeout(WATCH_PERIOD, child.wait()).await {
            Ok(status) => return status.map_err(MediaError::io("waiting for FFmpeg")),
            Err(_) => watchdog.waited(WATCH_PERIOD, false)?,
        }
    }
}

fn failure(status: ExitStatus, stderr_tail: Vec<String>) -> MediaError {
    let last = stderr_tail.last().cloned();
    MediaError::Ffmpeg {
        reason: last.unwrap_or_else(|| format!("it ended with {status}")),
        stderr_tail,
    }
}

async fn follow_progress(receiver: pipe::Receiver, sender: watch::Sender<Progress>) {
    let mut lines = BufReader::new(receiver).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        sender.send_if_modified(|progress| progress.take_line(&line));
    }
}

/// The last lines of stderr, kept while the process runs.
#[derive(Debug)]
struct StderrTail {
    lines: Arc<Mutex<VecDeque<String>>>,
    follower: JoinHandle<()>,
}

impl StderrTail {
    fn follow(stderr: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let follower = tokio::spawn(keep_last_lines(stderr, Arc::clone(&lines)));
        Self { lines, follower }
    }

    async fn finish(self) -> Vec<String> {
        // The follower ends with the pipe; a grandchild that kept it open must not keep us.
        if let Ok(Err(error)) = timeout(Duration::from_secs(1), self.follower).await {
            tracing::debug!(%error, "the reader of FFmpeg's messages ended early");
        }
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
            .collect()
    }
}

async fn keep_last_lines(stderr: impl AsyncRead + Unpin, lines: Arc<Mutex<VecDeque<String>>>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(read) = (&mut reader)
        .take(STDERR_LINE_BYTES as u64)
        .read_until(b'\n', &mut line)
        .await
    {
        if read == 0 {
            return;
        }
        let text: String = String::from_utf8_lossy(&line)
            .trim_end()
            .chars()
            .filter(|c| !c.is_control())
            .collect();
        line.clear();
        let mut kept = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == STDERR_LINES {
            kept.pop_front();
        }
        if !text.is_empty() {
            kept.push_back(text);
        }
    }
}
