//! Our nodes behind emulated paths on loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;
use vstack_client::PolicyName;
use vstack_core::id::NodeId;
use vstack_emulator::{Emulated, Emulator};

use super::scenario::{Scenario, emulated};
use super::{Bench, Played, RECORDED_PATIENCE, Row, Run, its_turn, play, play_traced, wanted};
use crate::output;
use crate::peers::fresh;
use crate::process::own_usage;
use crate::stage::{Catalogue, Content, Holder, StorageNode};

pub(super) async fn run(bench: &Bench<'_>, content: &Content) -> Result<Played> {
    let scenarios = bench.scenarios(emulated());
    let nodes = start(bench.vstack, bench.work, &scenarios, content)?;
    let (began, before) = (Instant::now(), cpu_s(&nodes));
    let mut rows = Vec::new();
    for scenario in &scenarios {
        output::step(&format!("sockets: {} {}", scenario.id, scenario.name));
        let content = content.first(scenario.chunks(bench.chunks()));
        for group in bench.groups(scenario, &content, &bench.options.policy) {
            for row in contest(&group, &nodes).await? {
                output::note(&row.sentence());
                rows.push(row);
            }
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let busy = (cpu_s(&nodes) - before) / began.elapsed().as_secs_f64() / cores;
    Ok(Played {
        rows,
        busy_percent: 100.0 * busy,
    })
}

fn cpu_s(nodes: &[StorageNode]) -> f64 {
    own_usage().0 + nodes.iter().map(|node| node.usage().cpu_sec).sum::<f64>()
}

/// The runs of a group, at the same time.
async fn contest(group: &[(Run<'_>, PolicyName)], nodes: &[StorageNode]) -> Result<Vec<Row>> {
    let mut stages = Vec::new();
    for (run, policy) in group {
        stages.push((run, *policy, stage(run, nodes).await?));
    }
    let played = (0..)
        .zip(&stages)
        .map(|(place, (run, policy, (catalogue, paths)))| async move {
            its_turn(place).await;
            let _happening = happen(&run.scenario, paths);
            play("sockets", run, *policy, catalogue).await
        });
    try_join_all(played).await
}

/// As many nodes as the largest scenario has, each with all of the content, and its shard of each chunk.
fn start(vstack: &Path, work: &Path, scenarios: &[Scenario], content: &Content) -> Result<Vec<StorageNode>> {
    let most = scenarios
        .iter()
        .map(|scenario| scenario.lines.len())
        .max()
        .unwrap_or(0);
    let coded = scenarios.iter().find(|scenario| scenario.is_coded());
    let folder = fresh(work, "sockets")?;
    let mut nodes = Vec::new();
    for number in 0..most {
        let node = StorageNode::start(vstack, folder.join(format!("node-{number}")), None)?;
        node.store(content)?;
        if let Some(coded) = coded {
            node.store_shards(content, |seq| shard_at(coded, seq, number))?;
        }
        nodes.push(node);
    }
    Ok(nodes)
}

/// The part of a chunk that lies on a node. Every coded scenario has a line for each part.
pub(super) fn shard_at(coded: &Scenario, seq: u32, node: usize) -> u8 {
    let place = coded.holders(seq).iter().position(|line| *line == node);
    place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or_default()
}

/// Plays with the pooled policy and keeps the traces.
pub(super) async fn record(
    vstack: &Path,
    work: &Path,
    rounds: u16,
    only: &str,
    content: &Content,
) -> Result<Vec<(String, Vec<Vec<String>>)>> {
    let scenarios = wanted(emulated(), only);
    let nodes = start(vstack, work, &scenarios, content)?;
    let mut recorded = Vec::new();
    for scenario in &scenarios {
        let content = content.first(scenario.chunks(u32::MAX));
        let mut traces = Vec::new();
        for round in 0..rounds {
            let run = Run::new(scenario, round, &content, RECORDED_PATIENCE);
            let (catalogue, paths) = stage(&run, &nodes).await?;
            let _happening = happen(&run.scenario, &paths);
            let file = work.join("session.trace");
            play_traced(&run, &catalogue, &file).await?;
            let lines = std::fs::read_to_string(&file).context("the trace is written")?;
            traces.push(lines.lines().map(str::to_owned).collect());
        }
        recorded.push((format!("{} {}", scenario.id, scenario.name), traces));
    }
    Ok(recorded)
}

/// The paths of a round, in the order of its lines. Clients name nodes by address, so addresses are in that order too.
async fn stage(run: &Run<'_>, nodes: &[StorageNode]) -> Result<(Catalogue, Vec<Emulated>)> {
    let count = run.scenario.lines.len();
    let mut listeners: Vec<SocketAddr> = Vec::new();
    for _ in 0..count {
        listeners.push(crate::process::free_address()?);
    }
    listeners.sort_by_key(|address| address.port());
    let mut paths = Vec::new();
    for (line, (node, listen)) in nodes.iter().zip(listeners).enumerate() {
        let conditions = run.scenario.conditions(line, 0.0);
        paths.push(Emulator::start_on(listen, node.address, conditions, u64::from(run.round)).await?);
    }
    let holder = |path: &Emulated| Holder {
        node_id: NodeId(Uuid::new_v4()),
        url: path.url(),
    };
    let holders: Vec<Holder> = paths.iter().map(holder).collect();
    Ok((run.catalogue(&holders).await?, paths))
}

/// Lets happen what happens; it ends with what is returned.
fn happen(scenario: &Scenario, paths: &[Emulated]) -> JoinSet<()> {
    let mut happening = JoinSet::new();
    if !scenario.has_fault() {
        return happening;
    }
    let began = Instant::now();
    let handles: Vec<_> = paths.iter().map(|path| path.handle.clone()).collect();
    let scenario = scenario.clone();
    happening.spawn(async move {
        for event in scenario.events.iter().filter(|event| event.at_s > 0.0) {
            sleep_until(began + Duration::from_secs_f64(event.at_s)).await;
            if let Some(handle) = handles.get(event.line) {
                handle.set(scenario.conditions(event.line, event.at_s));
            }
        }
    });
    happening
}
