//! Logs: text on standard error, filtered by `RUST_LOG`; a serving process also keeps them in its data folder, one JSON
//! object a line.

use std::io::IsTerminal as _;

use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::args::{Command, ServeOptions};
use crate::failure::Failure;

/// Days of log files that stay.
const KEEP_FILES: usize = 7;

/// Starts logging as the command wants it. What is still buffered is written when the guard is dropped.
pub(crate) fn start(command: &Command) -> Result<Option<WorkerGuard>, Failure> {
    let default = match command {
        Command::Serve(_) => "info",
        _ => "warn",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let stderr = fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_filter(filter);
    let (file, guard) = match command {
        Command::Serve(options) => {
            let (writer, guard) = tracing_appender::non_blocking(appender(options)?);
            let layer = fmt::layer()
                .json()
                .with_writer(writer)
                .with_filter(EnvFilter::new("info"));
            (Some(layer), Some(guard))
        }
        _ => (None, None),
    };
    let started = tracing_subscriber::registry().with(stderr).with(file).try_init();
    started.map_err(|error| Failure::CannotStart(format!("cannot start logging: {error}")))?;
    Ok(guard)
}

/// `<data>/logs/storage.log.2026-01-31`: a new file each day; `storage.log` names the present one.
fn appender(options: &ServeOptions) -> Result<RollingFileAppender, Failure> {
    let folder = options.data.join("logs");
    let roles: Vec<&str> = options.roles.iter().map(|role| role.as_str()).collect();
    let name = format!("{}.log", roles.join("-"));
    let unwritable = |cause: &dyn std::fmt::Display| {
        Failure::CannotStart(format!("cannot write logs to {}: {cause}", folder.display()))
    };
    std::fs::create_dir_all(&folder).map_err(|error| unwritable(&error))?;
    let built = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix(&name)
        .latest_symlink(&name)
        .max_log_files(KEEP_FILES)
        .build(&folder);
    built.map_err(|error| {
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        unwritable(&cause)
    })
}
