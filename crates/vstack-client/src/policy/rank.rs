//! Which replica to ask.
//!
//! The base policy's rule is "the best-scored replica that is not busy; when all are busy, the best of all". What a
//! client knows beyond the score only moves a replica down the list and never off it: a list that can become empty is
//! how a client hangs while a working node stands by.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::{Micros, NodeIndex, NodeRecord, NodeRecords};

/// One replica of a chunk, with all that its rank depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub node: NodeIndex,
    pub score: f64,
    /// It failed lately: others come first, and without others it is asked at this time, not before. `None`: at once.
    pub last_resort_at: Option<Micros>,
    /// Its last ping got no answer.
    pub unanswered: bool,
    /// It failed this very chunk in this round.
    pub tried: bool,
    /// Requests to it that are under way.
    pub running: usize,
}

impl Candidate {
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.running > 0
    }

    /// Better first. The index settles ties, so that the order is always the same.
    fn compare(&self, other: &Self) -> Ordering {
        self.last_resort_at
            .cmp(&other.last_resort_at)
            .then(self.unanswered.cmp(&other.unanswered))
            .then(self.tried.cmp(&other.tried))
            .then(self.is_busy().cmp(&other.is_busy()))
            .then(other.score.total_cmp(&self.score))
            .then(self.node.cmp(&other.node))
    }
}

/// All replicas, the one to ask first in front. Exactly as long as `replicas`, whatever is known about them.
#[must_use]
pub fn rank(
    replicas: &[NodeIndex],
    records: &NodeRecords,
    running: &BTreeMap<NodeIndex, usize>,
    tried: &BTreeSet<NodeIndex>,
    now: Micros,
) -> Vec<Candidate> {
    let mut candidates: Vec<_> = replicas
        .iter()
        .map(|node| {
            let record = records.record(*node);
            Candidate {
                node: *node,
                score: record.map_or(0.0, |record| record.score()),
                last_resort_at: record
                    .filter(|record| record.is_backed_off(now))
                    .map(NodeRecord::last_resort_at),
                unanswered: record.is_some_and(|record| record.is_unanswered()),
                tried: tried.contains(node),
                running: running.get(node).copied().unwrap_or(0),
            }
        })
        .collect();
    candidates.sort_by(Candidate::compare);
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Failure;
    use proptest::prelude::*;

    const NOW: Micros = Micros(1_000_000);

    fn node(index: u16) -> NodeIndex {
        NodeIndex(index)
    }

    /// Three nodes, the first with the best score.
    fn records() -> NodeRecords {
        let mut records = NodeRecords::default();
        for index in 0..3 {
            records
                .record_mut(node(index))
                .ping_answered(NOW, Micros::from_ms(10 + 10 * u64::from(index)));
        }
        records
    }

    fn check_order(records: &NodeRecords, busy: &[u16], tried: &[u16], expected: &[u16]) {
        let running = busy.iter().map(|index| (node(*index), 1)).collect();
        let tried = tried.iter().map(|index| node(*index)).collect();
        let order = rank(&[node(0), node(1), node(2)], records, &running, &tried, NOW);
        let expected: Vec<_> = expected.iter().map(|index| node(*index)).collect();
        assert_eq!(
            order.iter().map(|candidate| candidate.node).collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn the_best_score_wins_unless_it_is_busy_and_when_all_are_busy_it_wins_again() {
        check_order(&records(), &[], &[], &[0, 1, 2]);
        check_order(&records(), &[0], &[], &[1, 2, 0]);
        check_order(&records(), &[0, 1, 2], &[], &[0, 1, 2]);
    }

    #[test]
    fn a_replica_that_failed_the_chunk_comes_after_the_others_even_when_they_are_busy() {
        check_order(&records(), &[1, 2], &[0], &[1, 2, 0]);
    }

    #[test]
    fn silent_and_backed_off_nodes_come_last_and_stay_in_the_list() {
        let mut records = records();
        records.record_mut(node(0)).failed(NOW, &Failure::Connect);
        records.record_mut(node(1)).ping_unanswered(NOW);
        check_order(&records, &[2], &[2], &[2, 1, 0]);
    }

    proptest! {
        #[test]
        fn the_list_of_candidates_is_never_shorter_than_the_list_of_replicas(
            replicas in prop::collection::btree_set(0u16..8, 1..6),
            failed in prop::collection::vec(0u16..8, 0..20),
            silent in prop::collection::vec(0u16..8, 0..8),
            busy in prop::collection::btree_map(0u16..8, 0usize..4, 0..8),
            tried in prop::collection::btree_set(0u16..8, 0..8),
        ) {
            let mut records = NodeRecords::default();
            failed.iter().for_each(|index| records.record_mut(node(*index)).failed(NOW, &Failure::WrongBytes));
            silent.iter().for_each(|index| records.record_mut(node(*index)).ping_unanswered(NOW));
            let replicas: Vec<_> = replicas.into_iter().map(node).collect();
            let running = busy.into_iter().map(|(index, count)| (node(index), count)).collect();
            let tried = tried.into_iter().map(node).collect();
            let mut nodes: Vec<_> =
                rank(&replicas, &records, &running, &tried, NOW).iter().map(|candidate| candidate.node).collect();
            nodes.sort();
            prop_assert_eq!(nodes, replicas);
        }
    }
}
