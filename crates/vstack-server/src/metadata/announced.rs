//! Which nodes have written down the generation that this life of the catalogue announced.
//!
//! A restored catalogue grants nothing before most of its nodes have. Whatever life is restored after it hears from most
//! of them, too, before it announces a generation of its own, so that one of these nodes tells it what to go above: no
//! ballot is granted by two lives.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vstack_core::id::NodeId;

/// A generation and the nodes that have seen it.
#[derive(Debug, Default)]
pub(super) struct Announced(Mutex<(u64, BTreeSet<NodeId>)>);

impl Announced {
    /// A node that is being told `generation` reports the highest one that it has written down.
    pub(super) fn note(&self, node: NodeId, generation: u64, reported: u64) {
        let mut state = self.lock();
        if state.0 != generation {
            *state = (generation, BTreeSet::new());
        }
        if reported >= generation {
            state.1.insert(node);
        }
    }

    /// How many of these have written it down.
    pub(super) fn known_by(&self, nodes: impl IntoIterator<Item = NodeId>) -> usize {
        let state = self.lock();
        nodes.into_iter().filter(|node| state.1.contains(node)).count()
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeSet<NodeId>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn only_who_reports_the_present_generation_has_written_it_down() {
        let announced = Announced::default();
        let nodes = [1, 2, 3].map(|number| NodeId(Uuid::from_u128(number)));
        announced.note(nodes[0], 7, 0);
        assert_eq!(announced.known_by(nodes), 0, "it is told only now");
        announced.note(nodes[0], 7, 7);
        announced.note(nodes[1], 7, 6);
        assert_eq!(announced.known_by(nodes), 1);
        // Somebody had seen a later one, and this life went above it.
        announced.note(nodes[1], 9, 8);
        assert_eq!(announced.known_by(nodes), 0);
    }
}
