//! Which replica to ask.
//!
//! The base policy's rule is "the best-scored replica that is not busy; when all are busy, the best of all". What a
//! client knows beyond the score only moves a replica down the list and never off it: a list that can become empty is
//! how a client hangs while a working node stands by.
//!
//! The other choices exist to be compared with: they ignore what was measured, but failures move a replica down for them
//! just the same, so that they differ in nothing but the choice.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Micros, NodeIndex, NodeRecord, NodeRecords};

/// By what the replica is chosen among those that work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The best score (the base policy).
    #[default]
    Score,
    /// Each chunk goes to the next replica in turn.
    RoundRobin,
    /// By lot; the same seed draws the same.
    Random { seed: u64 },
    /// Always the first one.
    Single,
}

impl Choice {
    /// The turn of the replica at `place` in the list of a chunk's `replicas`: lower first. Under [`Choice::Score`] all
    /// have the same turn.
    fn turn(self, seq: u32, place: usize, replicas: usize) -> u64 {
        let (place, replicas) = (place as u64, (replicas as u64).max(1));
        match self {
            Self::Score => 0,
            Self::RoundRobin => (place + replicas - u64::from(seq) % replicas) % replicas,
            Self::Random { seed } => mixed(seed ^ mixed(u64::from(seq) << 16 | place)),
            Self::Single => place,
        }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
const fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// One replica of a chunk, with all that its rank depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub node: NodeIndex,
    pub score: f64,
    /// It failed lately, or failed this chunk in this round: others come first, and without others it is asked at this
    /// time, not before. `None`: at once.
    pub last_resort_at: Option<Micros>,
    /// Its last ping got no answer.
    pub unanswered: bool,
    /// It failed this very chunk in this round.
    pub tried: bool,
    /// What the choice says before the score: lower first.
    pub turn: u64,
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
            .then(self.turn.cmp(&other.turn))
            .then(self.is_busy().cmp(&other.is_busy()))
            .then(other.score.total_cmp(&self.score))
            .then(self.node.cmp(&other.node))
    }
}

/// All replicas, the one to ask first in front. Exactly as long as `replicas`, whatever is known about them. `tried` says
/// when those that failed the chunk in this round may be asked for it again.
#[must_use]
pub fn rank(
    choice: Choice,
    seq: u32,
    replicas: &[NodeIndex],
    records: &NodeRecords,
    running: &BTreeMap<NodeIndex, usize>,
    tried: &BTreeMap<NodeIndex, Micros>,
    now: Micros,
) -> Vec<Candidate> {
    let mut candidates: Vec<_> = replicas
        .iter()
        .enumerate()
        .map(|(place, node)| {
            let record = records.record(*node);
            Candidate {
                node: *node,
                score: record.map_or(0.0, |record| record.score()),
                last_resort_at: last_resort_at(record, tried.get(node).copied(), now),
                unanswered: record.is_some_and(|record| record.is_unanswered()),
                tried: tried.contains_key(node),
                turn: choice.turn(seq, place, replicas.len()),
                running: running.get(node).copied().unwrap_or(0),
            }
        })
        .collect();
    candidates.sort_by(Candidate::compare);
    candidates
}

/// Times that have passed are equal: the one that is left alone the longest must not hide the ones that were not asked.
fn last_resort_at(record: Option<&NodeRecord>, again: Option<Micros>, now: Micros) -> Option<Micros> {
    let backed_off = record.filter(|record| record.is_backed_off(now));
    let at = backed_off.map(NodeRecord::last_resort_at).max(again)?;
    Some(at.max(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Failure;
    use proptest::prelude::*;

    const NOW: Micros = Micros(1_000_000);
    /// A node that was tried may be asked again.
    const AGAIN_AFTER: Micros = Micros(1_000_000);

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
        let again = |index: &u16| (node(*index), NOW + AGAIN_AFTER);
        let tried = tried.iter().map(again).collect();
        let replicas = [node(0), node(1), node(2)];
        let order = rank(Choice::Score, 0, &replicas, records, &running, &tried, NOW);
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

    /// The first replica that each of some chunks would be asked from, all being idle and well.
    fn firsts(choice: Choice, chunks: u32) -> Vec<u16> {
        let replicas = [node(0), node(1), node(2)];
        let first = |seq| {
            let order = rank(
                choice,
                seq,
                &replicas,
                &records(),
                &BTreeMap::new(),
                &BTreeMap::new(),
                NOW,
            );
            order[0].node.0
        };
        (0..chunks).map(first).collect()
    }

    #[test]
    fn the_choices_to_compare_with_do_what_their_names_say() {
        assert_eq!(firsts(Choice::Score, 4), [0, 0, 0, 0]);
        assert_eq!(firsts(Choice::Single, 4), [0, 0, 0, 0]);
        assert_eq!(firsts(Choice::RoundRobin, 4), [0, 1, 2, 0]);
        let drawn = firsts(Choice::Random { seed: 1 }, 300);
        assert_eq!(drawn, firsts(Choice::Random { seed: 1 }, 300), "the same seed");
        for index in 0..3 {
            let count = drawn.iter().filter(|node| **node == index).count();
            assert!(
                (70..130).contains(&count),
                "node {index} was drawn {count} times of 300"
            );
        }
    }

    #[test]
    fn every_choice_leaves_a_node_that_failed() {
        let mut records = records();
        records.record_mut(node(0)).failed(NOW, &Failure::Connect);
        for choice in [Choice::Single, Choice::RoundRobin, Choice::Random { seed: 3 }] {
            let replicas = [node(0), node(1), node(2)];
            let order = rank(
                choice,
                0,
                &replicas,
                &records,
                &BTreeMap::new(),
                &BTreeMap::new(),
                NOW,
            );
            assert_eq!(order[2].node, node(0), "{choice:?}");
        }
    }

    #[test]
    fn silent_and_backed_off_nodes_come_last_and_stay_in_the_list() {
        let mut records = records();
        records.record_mut(node(0)).failed(NOW, &Failure::Connect);
        records.record_mut(node(1)).ping_unanswered(NOW);
        check_order(&records, &[2], &[], &[2, 1, 0]);
    }

    #[test]
    fn a_round_asks_a_silent_node_before_it_asks_one_again() {
        let mut records = records();
        records.record_mut(node(0)).ping_unanswered(NOW);
        records.record_mut(node(1)).failed(NOW, &Failure::Connect);
        check_order(&records, &[], &[2], &[0, 1, 2]);
    }

    proptest! {
        #[test]
        fn the_list_of_candidates_is_never_shorter_than_the_list_of_replicas(
            replicas in prop::collection::btree_set(0u16..8, 1..6),
            failed in prop::collection::vec(0u16..8, 0..20),
            silent in prop::collection::vec(0u16..8, 0..8),
            busy in prop::collection::btree_map(0u16..8, 0usize..4, 0..8),
            tried in prop::collection::btree_set(0u16..8, 0..8),
            choice in prop::sample::select(vec![Choice::Score, Choice::RoundRobin, Choice::Random { seed: 7 }, Choice::Single]),
            seq in any::<u32>(),
        ) {
            let mut records = NodeRecords::default();
            failed.iter().for_each(|index| records.record_mut(node(*index)).failed(NOW, &Failure::WrongBytes));
            silent.iter().for_each(|index| records.record_mut(node(*index)).ping_unanswered(NOW));
            let replicas: Vec<_> = replicas.into_iter().map(node).collect();
            let running = busy.into_iter().map(|(index, count)| (node(index), count)).collect();
            let tried = tried.into_iter().map(|index| (node(index), NOW)).collect();
            let mut nodes: Vec<_> =
                rank(choice, seq, &replicas, &records, &running, &tried, NOW).iter().map(|candidate| candidate.node).collect();
            nodes.sort();
            prop_assert_eq!(nodes, replicas);
        }
    }
}
