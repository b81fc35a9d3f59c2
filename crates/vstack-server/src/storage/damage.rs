//! Tells the catalogue at once of what was found damaged here, by the scrub or by a read, so that it is made again.
//!
//! The inventory would tell it too, a day later. An object is told once for each start of the node; one that the
//! catalogue could not be told of is told at the next look. A damaged object whose chunk was repaired is deleted like
//! anything else that no placement names.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use vstack_api::inventory::{InventoryDetails, ObjectName, PAGE_OBJECTS};
use vstack_store::ObjectState;

use super::inventory::{carry_out, life};
use super::state::Node;
use crate::http::Answer;

/// How often the count of damaged objects is looked at: a part is to be whole 5 s after its damage was found.
const LOOK: Duration = Duration::from_millis(500);
/// Two changes may cancel out in the count; so often all is looked through while anything is damaged.
const LOOK_THROUGH: Duration = Duration::from_secs(30);
/// Entries read under one hold of the index.
const ENTRIES: usize = 4096;

#[derive(Debug, Default)]
struct Teller {
    told: BTreeSet<ObjectName>,
    /// Damaged objects when all was looked through last, and when that was.
    last: Option<(u64, Instant)>,
}

/// Looks and tells until the role stops.
pub(super) async fn run(node: Arc<Node>, stop: CancellationToken) {
    let looking = async {
        let mut teller = Teller::default();
        loop {
            sleep(LOOK).await;
            if let Err(refusal) = teller.look(&node).await {
                debug!(problem = %refusal.0, "the catalogue is told of damage later");
            }
        }
    };
    stop.run_until_cancelled(looking).await;
}

impl Teller {
    async fn look(&mut self, node: &Arc<Node>) -> Answer<()> {
        let Some(catalogue) = &node.catalogue else {
            return Ok(());
        };
        let count = node.on_disk(|node| Ok(node.store.stats().corrupt_count)).await?;
        let is_news = match self.last {
            None => count > 0,
            Some((before, at)) => count != before || (count > 0 && at.elapsed() > LOOK_THROUGH),
        };
        if !is_news {
            return Ok(());
        }
        let damaged = node.on_disk(|node| Ok(damaged(node))).await?;
        self.told.retain(|name| damaged.contains(name));
        let news: Vec<ObjectName> = damaged.difference(&self.told).copied().collect();
        for names in news.chunks(PAGE_OBJECTS) {
            warn!(
                objects = names.len(),
                "objects are damaged here; the catalogue is told"
            );
            let details = InventoryDetails::signed(&node.receipt_key, life(node), names.to_vec(), Vec::new());
            let answer = catalogue.inventory_details(node.node_id(), &details).await?;
            carry_out(node, answer.orders).await?;
            self.told.extend(names);
        }
        self.last = Some((count, Instant::now()));
        Ok(())
    }
}

fn damaged(node: &Node) -> BTreeSet<ObjectName> {
    let (mut found, mut after) = (BTreeSet::new(), None);
    loop {
        let entries = node.store.objects(after, ENTRIES);
        let corrupt = entries.iter().filter(|entry| entry.state == ObjectState::Corrupt);
        found.extend(corrupt.map(|entry| ObjectName {
            object: entry.chunk,
            ballot: entry.ballot,
        }));
        match entries.last() {
            Some(last) if entries.len() == ENTRIES => after = Some((last.chunk, last.ballot)),
            _ => return found,
        }
    }
}
