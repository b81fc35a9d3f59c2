//! Our nodes behind emulated paths on loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;
use uuid::Uuid;
use vstack_core::id::NodeId;
use vstack_emulator::{Emulated, Emulator};

use super::scenario::{Scenario, emulated};
use super::{Bench, Row, play, play_traced};
use crate::output;
use crate::peers::fresh;
use crate::stage::{Catalogue, Content, Holder, StorageNode};

pub(super) async fn run(bench: &Bench<'_>, content: &Content) -> Result<Vec<Row>> {
    let scenarios = bench.scenarios(emulated());
    let nodes = start(bench.vstack, bench.work, &scenarios, content)?;
    let mut rows = Vec::new();
    for scenario in &scenarios {
        output::step(&format!("sockets: {}", scenario.name));
        for round in 0..bench.options.rounds {
            for policy in &bench.options.policy {
                let (catalogue, paths) = stage(scenario, round, &nodes, content).await?;
                let _troubled = trouble(scenario, &paths);
                let row = play("sockets", scenario, round, *policy, &catalogue, content).await?;
                output::note(&row.sentence());
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

/// As many nodes as the largest scenario has, each with all of the content.
fn start(vstack: &Path, work: &Path, scenarios: &[Scenario], content: &Content) -> Result<Vec<StorageNode>> {
    let most = scenarios
        .iter()
        .map(|scenario| scenario.lines.len())
        .max()
        .unwrap_or(0);
    let folder = fresh(work, "sockets")?;
    let mut nodes = Vec::new();
    for number in 0..most {
        let node = StorageNode::start(vstack, folder.join(format!("node-{number}")), None)?;
        node.store(content)?;
        nodes.push(node);
    }
    Ok(nodes)
}

/// Plays with the pooled policy and keeps the traces.
pub(super) async fn record(
    vstack: &Path,
    work: &Path,
    rounds: u16,
    only: &str,
    content: &Content,
) -> Result<Vec<(String, Vec<Vec<String>>)>> {
    let mut scenarios = emulated();
    scenarios.retain(|scenario| scenario.name.contains(only));
    let nodes = start(vstack, work, &scenarios, content)?;
    let mut recorded = Vec::new();
    for scenario in &scenarios {
        let mut traces = Vec::new();
        for round in 0..rounds {
            let (catalogue, paths) = stage(scenario, round, &nodes, content).await?;
            let _troubled = trouble(scenario, &paths);
            let file = work.join("session.trace");
            play_traced(scenario, &catalogue, content, &file).await?;
            traces.push(
                std::fs::read_to_string(&file)?
                    .lines()
                    .map(str::to_owned)
                    .collect(),
            );
        }
        recorded.push((scenario.name.to_owned(), traces));
    }
    Ok(recorded)
}

/// The paths of a round, the first line's first. Clients name nodes by address; which line has the lowest moves on.
async fn stage(
    scenario: &Scenario,
    round: u16,
    nodes: &[StorageNode],
    content: &Content,
) -> Result<(Catalogue, Vec<Emulated>)> {
    let count = scenario.lines.len();
    let mut listeners: Vec<SocketAddr> = Vec::new();
    for _ in 0..count {
        listeners.push(crate::process::free_address()?);
    }
    listeners.sort_by_key(|address| address.port());
    listeners.rotate_left(usize::from(round) % count.max(1));
    let mut paths = Vec::new();
    for ((line, node), listen) in scenario.lines.iter().zip(nodes).zip(listeners) {
        paths.push(Emulator::start_on(listen, node.address, line.conditions(), u64::from(round)).await?);
    }
    let holder = |path: &Emulated| Holder {
        node_id: NodeId(Uuid::new_v4()),
        url: path.url(),
    };
    let holders: Vec<Holder> = paths.iter().map(holder).collect();
    let everywhere = content.manifest(&holders, |_| (0..count).collect());
    Ok((Catalogue::start(&holders, &everywhere).await?, paths))
}

/// Lets the trouble come; it ends with what is returned.
fn trouble(scenario: &Scenario, paths: &[Emulated]) -> JoinSet<()> {
    let mut coming = JoinSet::new();
    if let (Some((at_s, trouble)), Some(first)) = (scenario.trouble, paths.first()) {
        let handle = first.handle.clone();
        coming.spawn(async move {
            tokio::time::sleep(Duration::from_secs_f64(at_s)).await;
            handle.set(trouble.on(handle.conditions()));
        });
    }
    coming
}
