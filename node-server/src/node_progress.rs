//! `--wait` of `vstack node drain|remove|replace`: what is left to be made again, until nothing is.

use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;
use vstack_api::MetadataClient;
use vstack_api::redundancy::{RedundancyStatus, Work};
use vstack_api::{ErrorCode, Problem};
use vstack_core::id::NodeId;
use vstack_core::node::NodeState;

use crate::failure::Failure;
use crate::output::Output;
use crate::redundancy::work_line;

/// How often it is looked how far it is.
const LOOK: Duration = Duration::from_millis(500);

/// One line of progress.
#[derive(Debug, Serialize)]
struct Progress<'a> {
    node_id: NodeId,
    /// Parts that still lie on the node.
    parts: u64,
    /// Chunks that lack parts, whichever node had them.
    under_replicated_chunks: u64,
    repair: &'a Work,
}

/// Waits until nothing lies on a draining node, or nothing lacks parts after one was taken out.
///
/// # Errors
/// No node is left that could take what is to be made again.
pub(crate) async fn wait(catalogue: &MetadataClient, node: NodeId, output: &Output) -> Result<(), Failure> {
    let mut stuck_looks = 0;
    loop {
        let (detail, status) = (catalogue.node(node).await?, catalogue.redundancy_status().await?);
        let lacking = catalogue.consensus().await?.state.under_replicated_chunks;
        let progress = Progress {
            node_id: node,
            parts: detail.parts,
            under_replicated_chunks: lacking,
            repair: &status.repair,
        };
        output.json_line(&progress);
        output.bar(&format!(
            "{} parts left on the node, {lacking} chunks lack parts  {}",
            detail.parts,
            work_line("repairing", &status.repair).unwrap_or_default()
        ));
        let left = match detail.entry.state {
            NodeState::Draining => detail.parts,
            _ => lacking,
        };
        if left == 0 {
            output.clear_bar();
            return Ok(());
        }
        // The repair looks once a second: what it said before the change does not count.
        stuck_looks = if is_stuck(&status) { stuck_looks + 1 } else { 0 };
        if stuck_looks > 6 {
            output.clear_bar();
            return Err(Problem::new(ErrorCode::NotEnoughNodes, status.advice).into());
        }
        sleep(LOOK).await;
    }
}

/// Nothing is under way, and something cannot be done.
fn is_stuck(status: &RedundancyStatus) -> bool {
    !status.repair.active && status.degraded + status.unreadable + status.data_loss.len() as u64 > 0
}
