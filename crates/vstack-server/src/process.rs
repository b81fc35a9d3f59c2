//! Processes of this machine: who listens where, and whether that is one of ours. The system tells of other users' processes
//! only to the superuser; what it does not tell is `None` here.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

/// State of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";
/// What the system puts behind a program's name once its file was replaced: by an upgrade, or a build.
const REPLACED: &str = " (deleted)";

/// The process behind a role's address, if it is a `vstack serve` on this machine. Not the tunnel or the emulated path that
/// may be in front of one: a signal to that would break something else.
#[must_use]
pub fn role_pid(url: &str) -> Option<u32> {
    let address: SocketAddr = url.strip_prefix("http://")?.trim_end_matches('/').parse().ok()?;
    let pid = address
        .ip()
        .is_loopback()
        .then(|| listener_pid(address.port()))??;
    runs_role(pid).then_some(pid)
}

/// Whether the process runs, and is a `vstack serve`.
#[must_use]
pub fn runs_role(pid: u32) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut arguments = arguments.split(|byte| *byte == 0).skip(1);
    is_this_program(pid) && arguments.any(|argument| argument == b"serve")
}

/// Whether the process runs a program that is called as the caller's.
pub(crate) fn is_this_program(pid: u32) -> bool {
    let own = program(std::process::id());
    own.is_some() && program(pid) == own
}

fn program(pid: u32) -> Option<OsString> {
    let file = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = file.file_name()?.to_str()?;
    Some(name.trim_end_matches(REPLACED).into())
}

/// The process that listens on a port: found by the socket's inode among the open files of all processes.
#[must_use]
pub fn listener_pid(port: u16) -> Option<u32> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| inode_in(&std::fs::read_to_string(table).ok()?, port))?;
    let socket = format!("socket:[{inode}]");
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse::<u32>().ok()?;
        has_open(&process.path(), &socket).then_some(pid)
    })
}

fn inode_in(table: &str, port: u16) -> Option<String> {
    let wanted = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&wanted) && *fields.get(3)? == LISTEN;
        listens.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    })
}

fn has_open(process: &Path, socket: &str) -> bool {
    let files = std::fs::read_dir(process.join("fd")).into_iter().flatten();
    files
        .flatten()
        .any(|file| std::fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_process_behind_a_port_is_found_and_is_no_role_because_it_listens() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let bound = listener.local_addr().unwrap();
            assert_eq!(listener_pid(bound.port()), Some(std::process::id()), "{bound}");
            assert_eq!(role_pid(&format!("http://{bound}")), None, "{bound}");
        }
    }

    #[test]
    fn an_address_elsewhere_has_no_process_here() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for url in [
            format!("http://192.0.2.1:{port}"),
            "unknown:a".to_owned(),
            String::new(),
        ] {
            assert_eq!(role_pid(&url), None, "{url}");
        }
    }
}
