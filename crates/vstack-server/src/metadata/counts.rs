//! What the catalogue was asked and sent in ChunkPaxos; in `/metrics` and `GET /consensus`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use prometheus_client::metrics::counter::Counter;
use vstack_api::consensus::{Batched, CatalogueCounts, CatalogueState};

use super::problem::refusal;
use super::state::Metadata;
use crate::http::Answer;
use crate::metrics::Metrics;

/// Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub(super) open_requests: Counter,
    pub(super) open_items: Counter,
    pub(super) commit_requests: Counter,
    pub(super) commit_items: Counter,
    pub(super) decided: Counter,
    pub(super) refused: Counter,
    pub(super) adopt: Counter,
    pub(super) delete_obj: Counter,
    pub(super) inventory: Counter,
    pub(super) lost_parts: Counter,
}

impl Counts {
    pub(super) fn register(&self, metrics: &Metrics) {
        let all = [
            ("open_requests", "OPEN requests", &self.open_requests),
            ("open_items", "Chunks in them", &self.open_items),
            ("commit_requests", "COMMIT requests", &self.commit_requests),
            ("commit_items", "Chunks in them", &self.commit_items),
            ("decided", "Placements decided", &self.decided),
            ("refused", "COMMITs refused", &self.refused),
            ("adopt_requests", "ADOPT sent for plain clients", &self.adopt),
            ("delete_requests", "Orders to delete sent", &self.delete_obj),
            ("inventory_pages", "Pages of inventories", &self.inventory),
            (
                "lost_parts",
                "Parts found to be gone or damaged",
                &self.lost_parts,
            ),
        ];
        metrics.register(|registry| {
            let consensus = registry.sub_registry_with_prefix("consensus");
            for (name, help, counter) in all {
                consensus.register(name, help, counter.clone());
            }
        });
    }
}

/// `GET /consensus`.
pub(super) async fn show(State(metadata): State<Arc<Metadata>>) -> Answer<Json<CatalogueCounts>> {
    let losses = metadata.store.losses().await.map_err(refusal)?;
    let counts = &metadata.counts;
    let batched = |requests: &Counter, items: &Counter| Batched {
        requests: requests.get(),
        items: items.get(),
    };
    Ok(Json(CatalogueCounts {
        open: batched(&counts.open_requests, &counts.open_items),
        commit: batched(&counts.commit_requests, &counts.commit_items),
        decided: counts.decided.get(),
        refused: counts.refused.get(),
        adopt: counts.adopt.get(),
        delete_obj: counts.delete_obj.get(),
        inventory: counts.inventory.get(),
        state: CatalogueState {
            under_replicated_chunks: losses.chunks,
            missing_parts: losses.parts,
            lost_parts: losses.lost_parts,
            waiting_collection: losses.collectable,
        },
    }))
}
