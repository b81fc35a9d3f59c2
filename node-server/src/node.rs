//! `vstack node list|info|drain|maintenance|remove|replace|readopt`.

use vstack_api::wire::{NodeAction, NodeDetail, NodeEntry};
use vstack_api::{ErrorCode, MetadataClient};
use vstack_core::id::NodeId;
use vstack_core::node::NodeState;

use crate::args::{NodeCommand, Place};
use crate::failure::Failure;
use crate::output::Output;
use crate::{cluster, node_progress, table};

pub(crate) async fn run(command: NodeCommand, place: &Place, output: &Output) -> Result<(), Failure> {
    let catalogue = cluster::catalogue(place);
    let waits = waits(&command);
    let (node, action, force) = match command {
        NodeCommand::List => return list(&catalogue, output).await,
        NodeCommand::Info { node } => return info(&catalogue, &node, output).await,
        NodeCommand::Drain {
            node, cancel: false, ..
        } => (node, NodeAction::Drain, false),
        NodeCommand::Maintenance { node, end: false } => (node, NodeAction::Maintenance, false),
        NodeCommand::Drain {
            node, cancel: true, ..
        }
        | NodeCommand::Maintenance { node, end: true } => (node, NodeAction::Activate, false),
        NodeCommand::Remove { node, force, .. } => (node, NodeAction::Remove, force),
        NodeCommand::Replace { node, force, .. } => (node, NodeAction::Replace, force),
        NodeCommand::Readopt { node } => (node, NodeAction::Readopt, false),
    };
    let node = find(&catalogue, &node).await?;
    let mut detail = catalogue.change_node(node, action, force).await?;
    if waits {
        node_progress::wait(&catalogue, node, output).await?;
        let lost_parts = detail.lost_parts;
        detail = catalogue.node(node).await?;
        detail.lost_parts = lost_parts;
    }
    output.say(&detail, || {
        format!("{}\n{}", described(&detail), next_step(action, &detail))
    });
    Ok(())
}

const fn waits(command: &NodeCommand) -> bool {
    matches!(
        command,
        NodeCommand::Drain { wait: true, .. }
            | NodeCommand::Remove { wait: true, .. }
            | NodeCommand::Replace { wait: true, .. }
    )
}

async fn list(catalogue: &MetadataClient, output: &Output) -> Result<(), Failure> {
    let nodes = catalogue.nodes().await?;
    output.say(&nodes, || match nodes.as_slice() {
        [] => "no nodes; `vstack serve --role storage` starts one".to_owned(),
        nodes => {
            let rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
            table::table(
                &[
                    "name", "address", "health", "state", "rack", "disk", "chunks", "version", "id",
                ],
                &rows,
            )
        }
    });
    Ok(())
}

fn row(node: &NodeEntry) -> Vec<String> {
    vec![
        node.label(),
        node.node_url.clone(),
        health(node).to_owned(),
        node.state.as_str().to_owned(),
        node.rack.clone().unwrap_or_else(|| "-".to_owned()),
        format!("{:.1} %", node.disk_usage),
        node.chunk_count.to_string(),
        node.version.clone(),
        node.node_id.to_string(),
    ]
}

async fn info(catalogue: &MetadataClient, text: &str, output: &Output) -> Result<(), Failure> {
    let detail = catalogue.node(find(catalogue, text).await?).await?;
    output.say(&detail, || described(&detail));
    Ok(())
}

/// The node with this id, which may have been removed, the one with this name, or the only one whose id begins like this
/// or that is at this address.
async fn find(catalogue: &MetadataClient, text: &str) -> Result<NodeId, Failure> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let nodes = catalogue.nodes().await?;
    if let Some(named) = nodes.iter().find(|node| node.name.as_deref() == Some(text)) {
        return Ok(named.node_id);
    }
    let address = text.trim_end_matches('/');
    let is_meant = |node: &&NodeEntry| {
        node.node_url == address || (!text.is_empty() && node.node_id.to_string().starts_with(text))
    };
    let mut matches = nodes.iter().filter(is_meant);
    match (matches.next(), matches.next()) {
        (Some(node), None) => Ok(node.node_id),
        (None, _) => Err(Failure::problem(
            ErrorCode::NotFound,
            format!("no node has the name, id or address \"{text}\"; `vstack node list` shows what is there"),
        )),
        (Some(_), Some(_)) => Err(Failure::problem(
            ErrorCode::Conflict,
            format!("several nodes have an id that begins with \"{text}\"; write more of it"),
        )),
    }
}

/// In one word; a node that lies is worse than a slow one.
const fn health(node: &NodeEntry) -> &'static str {
    match node.quarantined {
        true => "quarantined",
        false => node.status.as_str(),
    }
}

fn described(detail: &NodeDetail) -> String {
    let node = &detail.entry;
    format!(
        "{}  {}\n  id       {}\n  health   {}\n  state    {}\n  rack     {}\n  parts    {}, of which {} lie nowhere else\n  disk     {:.1} % used\n  \
         version  {}, start {}",
        node.label(),
        node.node_url,
        node.node_id,
        health(node),
        node.state.as_str(),
        node.rack.as_deref().unwrap_or("not named: its host"),
        detail.parts,
        detail.only_holder_of,
        node.disk_usage,
        node.version,
        node.boot_epoch,
    )
}

fn next_step(action: NodeAction, detail: &NodeDetail) -> String {
    match (action, detail.entry.state) {
        (NodeAction::Drain, _) => format!(
            "no new chunks go there; {} parts still lie there. `vstack node remove` takes it out",
            detail.parts
        ),
        (NodeAction::Maintenance, _) => {
            "no new chunks go there; `vstack node maintenance --end` when it is back".to_owned()
        }
        (NodeAction::Remove, NodeState::Removed) => format!(
            "removed; {} parts that lay there count as lost and are to be replaced",
            detail.lost_parts
        ),
        (NodeAction::Replace, _) => format!(
            "{} parts count as lost. A data folder with this id and a new incarnation is taken at once; a node that starts \
             as a new one stands in for it, then `vstack node remove` ends this one",
            detail.lost_parts
        ),
        (NodeAction::Readopt, _) => "its next heartbeat is taken".to_owned(),
        _ => "new chunks go there again".to_owned(),
    }
}
