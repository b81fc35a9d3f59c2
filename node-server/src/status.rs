//! `vstack status`.

use std::time::{SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use serde::Serialize;
use vstack_api::MetadataClient;
use vstack_api::consensus::CatalogueState;
use vstack_api::policy::DurabilityQuery;
use vstack_api::redundancy::RedundancyStatus;
use vstack_api::wire::VideoQuery;
use vstack_core::node::NodeHealth;
use vstack_server::dev::{ClusterState, ServeReady};

use crate::args::{Place, StatusOptions};
use crate::failure::Failure;
use crate::output::Output;
use crate::processes::Addresses;
use crate::redundancy::status_lines;
use crate::upkeep::{NodeStatus, scrub_cell};
use crate::{cluster, processes, table, upkeep};

#[derive(Debug, Serialize)]
struct Status {
    metadata_url: String,
    uploader_url: Option<String>,
    gateway_url: Option<String>,
    healthy: usize,
    total: usize,
    videos: u64,
    /// What the cluster lacks and has too much of.
    state: CatalogueState,
    /// Conversion, repair, and what is lost.
    redundancy: RedundancyStatus,
    nodes: Vec<NodeStatus>,
    /// Of `vstack dev`, when it runs this cluster on this machine and its folder is known.
    supervisor_pid: Option<u32>,
    /// Processes of this cluster on this machine.
    children: Vec<ServeReady>,
}

pub(crate) async fn run(options: &StatusOptions, place: &Place, output: &Output) -> Result<(), Failure> {
    let catalogue = cluster::catalogue(place);
    if options.consensus {
        return crate::consensus::run(&catalogue, output).await;
    }
    if options.durability {
        let query = DurabilityQuery {
            annual_failure_rate: options.annual_failure_rate,
            operator_hours: options.operator_hours,
        };
        return crate::policy::durability(&catalogue, query, output).await;
    }
    if options.watch {
        return watch(&catalogue, output).await;
    }
    let metadata_url = catalogue.0.base_url().to_owned();
    let nodes = catalogue.nodes().await?;
    let none = VideoQuery {
        limit: Some(1),
        ..VideoQuery::default()
    };
    let data = options.data.clone().unwrap_or_else(cluster::default_data);
    let local = ClusterState::read(&data).filter(|state| state.cluster.metadata_url == metadata_url);
    let (uploader_url, gateway_url) = (catalogue.uploader_url().await?, catalogue.gateway_url().await?);
    let addresses = Addresses {
        metadata: &metadata_url,
        uploader: uploader_url.as_deref(),
        gateway: gateway_url.as_deref(),
        nodes: &nodes,
    };
    let children = processes::of(&addresses, local.as_ref());
    let status = Status {
        uploader_url,
        gateway_url,
        redundancy: catalogue.redundancy_status().await?,
        videos: catalogue.videos(&none).await?.total,
        state: catalogue.consensus().await?.state,
        metadata_url,
        healthy: nodes
            .iter()
            .filter(|node| node.status == NodeHealth::Healthy)
            .count(),
        total: nodes.len(),
        nodes: upkeep::ask(nodes).await,
        supervisor_pid: local.as_ref().map(|state| state.supervisor_pid),
        children,
    };
    output.say(&status, || described(&status));
    Ok(())
}

/// Each change until the role ends or nobody listens any more.
async fn watch(catalogue: &MetadataClient, output: &Output) -> Result<(), Failure> {
    let mut changes = catalogue.redundancy_events().await?;
    while let Some(status) = changes.next().await {
        let status = status?;
        output.say(&status, || status_lines(&status));
    }
    Ok(())
}

fn described(status: &Status) -> String {
    let rows: Vec<Vec<String>> = status.nodes.iter().map(|node| row(node, status)).collect();
    let uploader = status
        .uploader_url
        .as_deref()
        .unwrap_or("none: uploads are not possible");
    let gateway = status
        .gateway_url
        .as_deref()
        .unwrap_or("none: plain readers find no erasure-coded chunks");
    let process = |role: &str| process_of(status, role);
    format!(
        "metadata    {}{}\nuploader    {uploader}{}\ngateway     {gateway}{}\nvideos      {}\nnodes       {} of {} healthy\n{}{}\n\n{}",
        status.metadata_url,
        process("metadata"),
        process("uploader"),
        process("gateway"),
        status.videos,
        status.healthy,
        status.total,
        lacking(&status.state),
        status_lines(&status.redundancy),
        table::table(
            &[
                "name",
                "address",
                "status",
                "disk",
                "chunks",
                "last seen",
                "scrub",
                "pid",
                "node id"
            ],
            &rows
        )
    )
}

/// Of the only role of this name.
fn process_of(status: &Status, role: &str) -> String {
    let child = status.children.iter().find(|child| child.role == role);
    child.map_or_else(String::new, |child| format!("  pid {}", child.pid))
}

/// Said only when there is something to say.
fn lacking(state: &CatalogueState) -> String {
    let CatalogueState {
        under_replicated_chunks: chunks,
        missing_parts,
        lost_parts,
        waiting_collection,
    } = state;
    let mut text = String::new();
    if *chunks > 0 {
        text.push_str(&format!(
            "protecting {chunks} chunks lack {missing_parts} copies, {lost_parts} of them lost by their node\n"
        ));
    }
    if *waiting_collection > 0 {
        text.push_str(&format!("collecting {waiting_collection} objects\n"));
    }
    text
}

fn row(node: &NodeStatus, status: &Status) -> Vec<String> {
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let scrub = scrub_cell(node.scrub.as_ref(), u64::try_from(now_ms).unwrap_or(u64::MAX));
    let node = &node.entry;
    let child = status
        .children
        .iter()
        .find(|child| child.node_id == Some(node.node_id));
    vec![
        node.label(),
        node.node_url.clone(),
        node.status.as_str().to_owned(),
        format!("{:.1} %", node.disk_usage),
        node.chunk_count.to_string(),
        format!("{:.1} s ago", node.silent_ms as f64 / 1000.0),
        scrub,
        child.map_or_else(|| "-".to_owned(), |child| child.pid.to_string()),
        node.node_id.to_string(),
    ]
}
