//! SeaweedFS: a master, and the volume server that is measured. Chunks go to and from the volume server directly.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Programs, Target, fresh, upload};
use crate::http::{Connection, get};
use crate::process::{Process, free_address, until};

/// Starts it with `chunks` stored, and the address of its master; nothing if it is not installed.
pub(crate) fn seaweed(programs: &Programs, chunks: &[Vec<u8>]) -> Result<Option<(Target, Assigner)>> {
    let Some(program) = &programs.weed else {
        return Ok(None);
    };
    let folder = fresh(&programs.work, "seaweed")?;
    for name in ["master", "volume"] {
        std::fs::create_dir_all(folder.join(name))?;
    }
    let [master, master_grpc, address, volume_grpc] = addresses()?;
    let common = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"];
    let mut command = Command::new(program);
    command.arg("master").args(common).args([
        &format!("-port={}", master.port()),
        &format!("-port.grpc={}", master_grpc.port()),
        &format!("-mdir={}", folder.join("master").display()),
    ]);
    let beside = Process::start(&mut command, &folder.join("master.log"))?;
    let mut command = Command::new(program);
    command.arg("volume").args(common).args([
        &format!("-port={}", address.port()),
        &format!("-port.grpc={}", volume_grpc.port()),
        &format!("-dir={}", folder.join("volume").display()),
        &format!("-master=127.0.0.1:{}.{}", master.port(), master_grpc.port()),
        "-max=100",
        "-preStopSeconds=0",
    ]);
    let process = Process::start(&mut command, &folder.join("volume.log"))?;
    let assigner = Assigner { master };
    until("SeaweedFS", || assigner.paths(1).is_ok())?;
    let paths = assigner.paths(chunks.len())?;
    upload(address, &paths, chunks)?;
    let reads = paths.iter().map(|path| get(address, path)).collect();
    let target = Target {
        name: "SeaweedFS",
        version: version(program),
        address,
        process,
        _beside: Some(beside),
        reads,
    };
    Ok(Some((target, assigner)))
}

/// Its gRPC ports are 10000 above the others unless said, which may be taken.
fn addresses() -> Result<[SocketAddr; 4]> {
    Ok([free_address()?, free_address()?, free_address()?, free_address()?])
}

/// The master, which gives out names for new chunks.
#[derive(Debug)]
pub(crate) struct Assigner {
    master: SocketAddr,
}

impl Assigner {
    /// `/3,01637037d6`: paths on the volume server, spread over its volumes.
    pub(crate) fn paths(&self, count: usize) -> Result<Vec<String>> {
        let mut connection = Connection::open(self.master)?;
        let head = get(self.master, "/dir/assign");
        let mut paths = Vec::with_capacity(count);
        for _ in 0..count {
            let answer = connection.exchange(&head, &[], true)?;
            let answer: Value = serde_json::from_slice(&answer.body)?;
            let id = answer["fid"].as_str();
            let id = id.with_context(|| format!("SeaweedFS gives no name: {answer}"))?;
            paths.push(format!("/{id}"));
        }
        Ok(paths)
    }
}

/// `version 8000GB 4.48 ...`
fn version(program: &Path) -> String {
    let output = Command::new(program).arg("version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    text.split_whitespace().nth(2).unwrap_or_default().to_owned()
}
