//! What a reader of the figures must know about the machine they come from.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// Facts about this machine, at the moment of the run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// Of the folder in which the servers keep their files.
    pub(crate) file_system: String,
    pub(crate) date: String,
    pub(crate) commit: String,
}

impl Machine {
    pub(crate) fn here(work: &Path) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = value_of(&cpuinfo, "model name").unwrap_or("unknown").to_owned();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            processor,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib_of(&memory, "MemTotal").unwrap_or(0) / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            file_system: said(Command::new("df").arg("--output=fstype").arg(work)),
            date: said(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])),
            commit: said(Command::new("git").args(["rev-parse", "--short", "HEAD"])),
        }
    }
}

/// The load average of the last minute: how busy others kept the machine.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The value behind `name:` in a file like `/proc/cpuinfo`.
pub(crate) fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// A value in KiB, as `/proc` writes them: `VmRSS:  1234 kB`.
pub(crate) fn kib_of(text: &str, name: &str) -> Option<u64> {
    value_of(text, name)?.split_whitespace().next()?.parse().ok()
}

/// The last line of what a command prints.
fn said(command: &mut Command) -> String {
    let output = command.output().ok();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    // `df` prints a heading first.
    text.and_then(|text| text.lines().last().map(|line| line.trim().to_owned()))
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_whole_name() {
        let text = "VmRSSX:\t 7 kB\nVmRSS:\t  1234 kB\nmodel name\t: A B\n";
        assert_eq!(kib_of(text, "VmRSS"), Some(1234));
        assert_eq!(value_of(text, "model name"), Some("A B"));
        assert_eq!(kib_of(text, "Absent"), None);
    }
}
