//! etcd as Debian packs it: one member, or three, on loopback; and the load on its leader.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::future::{join_all, try_join_all};
use tokio::runtime::Runtime;

use super::cells::Sample;
use super::grpc::{Channel, Field, bytes_field, fields};
use crate::load::ms;
use crate::peers::fresh;
use crate::process::{Process, free_address, until, wait_for_listener};

pub(super) const ONE: &str = "etcd, 1 member";
pub(super) const THREE: &str = "etcd, 3 members";
/// etcd's own benchmark shares few connections among many clients, too.
const CONNECTIONS: usize = 4;
const VALUE: [u8; 256] = [0x5a; 256];

#[derive(Debug)]
pub(super) struct Etcd {
    pub(super) name: &'static str,
    pub(super) version: String,
    leader: String,
    processes: Vec<Process>,
    next_key: AtomicU64,
}

impl Etcd {
    pub(super) fn start(program: &Path, work: &Path, members: usize, runtime: &Runtime) -> Result<Self> {
        let folder = fresh(work, &format!("etcd-{members}"))?;
        let mut addresses = Vec::new();
        for _ in 0..members {
            addresses.push((free_address()?, free_address()?));
        }
        let cluster: Vec<String> = (0..)
            .zip(&addresses)
            .map(|(number, (_, peer))| format!("n{number}=http://{peer}"))
            .collect();
        let mut processes = Vec::new();
        for (number, (client, peer)) in addresses.iter().enumerate() {
            let name = format!("n{number}");
            let mut command = Command::new(program);
            command
                .args(["--name", &name, "--data-dir"])
                .arg(folder.join(&name));
            for option in ["--listen-client-urls", "--advertise-client-urls"] {
                command.args([option, &format!("http://{client}")]);
            }
            for option in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
                command.args([option, &format!("http://{peer}")]);
            }
            command.args(["--initial-cluster", &cluster.join(",")]);
            command.args([
                "--initial-cluster-state",
                "new",
                "--logger",
                "zap",
                "--log-level",
                "error",
            ]);
            processes.push(Process::start(&mut command, &folder.join(format!("{name}.log")))?);
        }
        for (client, _) in &addresses {
            wait_for_listener(*client)?;
        }
        let clients: Vec<String> = addresses.iter().map(|(client, _)| client.to_string()).collect();
        let mut leader = None;
        until("a leader of etcd", || {
            leader = runtime.block_on(find_leader(&clients));
            leader.is_some()
        })?;
        Ok(Self {
            name: if members == 1 { ONE } else { THREE },
            version: version(program),
            leader: leader.context("etcd has no leader")?,
            processes,
            next_key: AtomicU64::new(0),
        })
    }

    pub(super) fn cpu_sec(&self) -> f64 {
        self.processes.iter().map(|process| process.usage().cpu_sec).sum()
    }

    /// So many clients, each putting its next key when the last one was answered.
    pub(super) async fn run(&self, clients: usize, limit: Duration) -> Result<Sample> {
        let connecting = (0..clients.min(CONNECTIONS)).map(|_| Channel::connect(&self.leader));
        let channels = try_join_all(connecting).await?;
        let started = Instant::now();
        let clients = (0..clients).map(|client| {
            let channel = &channels[client % channels.len()];
            self.put_until(channel, started + limit)
        });
        let mut sample = Sample::default();
        for latencies in try_join_all(clients).await? {
            sample.latencies_ms.extend(latencies);
        }
        sample.elapsed = started.elapsed();
        Ok(sample)
    }

    async fn put_until(&self, channel: &Channel, deadline: Instant) -> Result<Vec<f64>> {
        let mut latencies = Vec::new();
        while Instant::now() < deadline {
            let key = self.next_key.fetch_add(1, Ordering::Relaxed);
            let mut message = Vec::with_capacity(300);
            bytes_field(&mut message, 1, format!("placement/{key:012}").as_bytes());
            bytes_field(&mut message, 2, &VALUE);
            let sent = Instant::now();
            channel.call("etcdserverpb.KV/Put", &message).await?;
            latencies.push(ms(sent.elapsed()));
        }
        Ok(latencies)
    }
}

async fn find_leader(clients: &[String]) -> Option<String> {
    let asked = join_all(clients.iter().map(|client| is_leader(client))).await;
    let found = clients
        .iter()
        .zip(asked)
        .find(|(_, leads)| matches!(leads, Ok(true)));
    found.map(|(client, _)| client.clone())
}

/// Maintenance/Status: the member's own id is field 2 of the header (field 1), the leader's is field 4.
async fn is_leader(client: &str) -> Result<bool> {
    let channel = Channel::connect(client).await?;
    let answer = channel.call("etcdserverpb.Maintenance/Status", &[]).await?;
    let status = fields(&answer)?;
    let of = |fields: &[(u64, Field<'_>)], wanted| {
        fields.iter().find_map(|(number, field)| match field {
            Field::Number(value) if *number == wanted => Some(*value),
            _ => None,
        })
    };
    let header = status.iter().find_map(|(number, field)| match field {
        Field::Bytes(bytes) if *number == 1 => Some(*bytes),
        _ => None,
    });
    let me = of(&fields(header.context("a status without header")?)?, 2);
    Ok(me.is_some() && me == of(&status, 4))
}

fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    first.trim_start_matches("etcd Version:").trim().to_owned()
}
