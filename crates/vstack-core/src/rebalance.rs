//! Evening out full and empty nodes: which parts to move where, and no more than that.
//!
//! Pure. A node counts as even when its use (used over capacity) is within a tolerance of the cluster's. The plan moves
//! a part from the fullest node to the emptiest that may take it, as long as that makes the cluster more even; each move
//! lowers the sum of used squared over capacity, so that a plan ends, and planning again after it finds nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::{ChunkId, NodeId};
use crate::rendezvous::Domain;

/// A node, as far as balance looks at it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NodeLoad {
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    pub domain: Domain,
    /// It can take parts: healthy, wanted and writable.
    pub takes_parts: bool,
}

/// A part that could move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Movable {
    pub chunk: ChunkId,
    pub shard: Option<u8>,
    pub node: NodeId,
    pub size_bytes: u64,
}

/// One move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub part: Movable,
    pub to: NodeId,
}

/// What the rebalance worker is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BalanceState {
    #[default]
    Idle,
    Moving,
    /// An operator stopped it before the nodes were even.
    Paused,
}

impl BalanceState {
    /// The word of the API and the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Moving => "moving",
            Self::Paused => "paused",
        }
    }
}

/// Nodes may differ from the cluster's use by this share of their capacity: a tenth, as placement promises.
pub const TOLERANCE: f64 = 0.1;

/// The moves that even the cluster out.
#[must_use]
pub fn plan(nodes: &BTreeMap<NodeId, NodeLoad>, parts: &[Movable], tolerance: f64) -> Vec<Move> {
    let mut state = State::new(nodes, parts);
    let mut moves = Vec::new();
    while let Some(next) = state.next(tolerance) {
        state.carry_out(next);
        moves.push(next);
    }
    moves
}

struct State<'a> {
    nodes: &'a BTreeMap<NodeId, NodeLoad>,
    used: BTreeMap<NodeId, u64>,
    on: BTreeMap<NodeId, BTreeSet<Movable>>,
    holders: BTreeMap<ChunkId, BTreeSet<NodeId>>,
    /// Parts that this plan moved stay where it put them.
    moved: BTreeSet<(ChunkId, Option<u8>, NodeId)>,
}

impl<'a> State<'a> {
    fn new(nodes: &'a BTreeMap<NodeId, NodeLoad>, parts: &[Movable]) -> Self {
        let mut state = Self {
            nodes,
            used: nodes.iter().map(|(id, node)| (*id, node.used_bytes)).collect(),
            on: BTreeMap::new(),
            holders: BTreeMap::new(),
            moved: BTreeSet::new(),
        };
        for part in parts {
            state.on.entry(part.node).or_default().insert(*part);
            state.holders.entry(part.chunk).or_default().insert(part.node);
        }
        state
    }

    fn use_of(&self, node: NodeId, plus: u64, minus: u64) -> f64 {
        let used = self.used.get(&node).copied().unwrap_or(0);
        let capacity = self.nodes.get(&node).map_or(0, |node| node.capacity_bytes);
        (used + plus).saturating_sub(minus) as f64 / capacity.max(1) as f64
    }

    fn mean_use(&self) -> f64 {
        let capacity: u64 = self.nodes.values().map(|node| node.capacity_bytes).sum();
        self.used.values().sum::<u64>() as f64 / capacity.max(1) as f64
    }

    fn next(&self, tolerance: f64) -> Option<Move> {
        let mean = self.mean_use();
        let mut by_use: Vec<(f64, NodeId)> = self
            .nodes
            .keys()
            .map(|node| (self.use_of(*node, 0, 0), *node))
            .collect();
        by_use.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let uneven =
            by_use.last()?.0 > mean * (1.0 + tolerance) || by_use.first()?.0 < mean * (1.0 - tolerance);
        if !uneven {
            return None;
        }
        let takers: Vec<NodeId> = by_use
            .iter()
            .map(|(_, node)| *node)
            .filter(|node| self.nodes.get(node).is_some_and(|node| node.takes_parts))
            .collect();
        let givers = by_use.iter().rev().map(|(_, node)| *node);
        givers
            .flat_map(|from| takers.iter().map(move |to| (from, *to)))
            .find_map(|(from, to)| self.part_to_move(from, to, mean, tolerance))
    }

    /// The largest part that may go from one node to the other and leaves the giver fuller than the taker.
    fn part_to_move(&self, from: NodeId, to: NodeId, mean: f64, tolerance: f64) -> Option<Move> {
        let helps =
            |part: &&Movable| self.use_of(to, part.size_bytes, 0) < self.use_of(from, 0, part.size_bytes);
        // A pair of nodes that are both within the tolerance is left alone.
        let is_off = self.use_of(from, 0, 0) > mean * (1.0 + tolerance)
            || self.use_of(to, 0, 0) < mean * (1.0 - tolerance);
        let parts = self.on.get(&from).filter(|_| is_off && from != to)?;
        let part = parts
            .iter()
            .filter(helps)
            .filter(|part| self.may_move(part, to))
            .max_by_key(|part| (part.size_bytes, std::cmp::Reverse(**part)))?;
        Some(Move { part: *part, to })
    }

    /// Never a second part of a chunk on a node, and never a domain with more parts of it than before.
    fn may_move(&self, part: &Movable, to: NodeId) -> bool {
        let Some(holders) = self.holders.get(&part.chunk) else {
            return false;
        };
        let domain_of = |node: &NodeId| self.nodes.get(node).map(|node| node.domain);
        let others_in = |domain: Option<Domain>| {
            let others = holders.iter().filter(|node| **node != part.node);
            others.filter(|node| domain_of(node) == domain).count()
        };
        !holders.contains(&to)
            && !self.moved.contains(&(part.chunk, part.shard, part.node))
            && others_in(domain_of(&to)) <= others_in(domain_of(&part.node))
    }

    fn carry_out(&mut self, next: Move) {
        let Move { part, to } = next;
        let arrived = Movable { node: to, ..part };
        for (node, adds) in [(part.node, false), (to, true)] {
            let used = self.used.entry(node).or_default();
            *used = match adds {
                true => *used + part.size_bytes,
                false => used.saturating_sub(part.size_bytes),
            };
        }
        self.on.entry(part.node).or_default().remove(&part);
        self.on.entry(to).or_default().insert(arrived);
        let holders = self.holders.entry(part.chunk).or_default();
        holders.remove(&part.node);
        holders.insert(to);
        self.moved.insert((part.chunk, part.shard, to));
    }
}

/// By how much the node that is furthest from the cluster's use differs from it, as a share of that use.
#[must_use]
pub fn unevenness(nodes: &BTreeMap<NodeId, NodeLoad>) -> f64 {
    let capacity: u64 = nodes.values().map(|node| node.capacity_bytes).sum();
    let used: u64 = nodes.values().map(|node| node.used_bytes).sum();
    let mean = used as f64 / capacity.max(1) as f64;
    if mean == 0.0 {
        return 0.0;
    }
    let use_of = |node: &NodeLoad| node.used_bytes as f64 / node.capacity_bytes.max(1) as f64;
    let off = nodes.values().map(|node| (use_of(node) / mean - 1.0).abs());
    off.fold(0.0, f64::max)
}

/// What the nodes and parts are after `moves`.
#[must_use]
pub fn carried_out(
    nodes: &BTreeMap<NodeId, NodeLoad>,
    parts: &[Movable],
    moves: &[Move],
) -> (BTreeMap<NodeId, NodeLoad>, Vec<Movable>) {
    let mut state = State::new(nodes, parts);
    for next in moves {
        state.carry_out(*next);
    }
    let after = |(id, node): (&NodeId, &NodeLoad)| {
        let used_bytes = state.used.get(id).copied().unwrap_or(0);
        (*id, NodeLoad { used_bytes, ..*node })
    };
    let nodes = nodes.iter().map(after).collect();
    (nodes, state.on.into_values().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::VideoId;
    use crate::rendezvous::{Candidate, choose_nodes};
    use proptest::prelude::*;
    use uuid::Uuid;

    const MIB: u64 = 1 << 20;

    fn id(number: u128) -> NodeId {
        NodeId(Uuid::from_u128(number))
    }

    fn chunk(seq: u32) -> ChunkId {
        ChunkId::media(VideoId(Uuid::from_u128(5)), seq)
    }

    /// A cluster of nodes with these capacities in MiB, filled with chunks of 1 MiB in three copies by placement.
    fn filled(capacities: &[u64], chunks: u32) -> (BTreeMap<NodeId, NodeLoad>, Vec<Movable>) {
        let candidates: Vec<Candidate> = (1..)
            .zip(capacities)
            .map(|(number, &capacity)| Candidate {
                node: id(number),
                room: capacity as f64,
                domain: Domain::of(&number.to_string()),
            })
            .collect();
        let parts: Vec<Movable> = (0..chunks)
            .flat_map(|seq| {
                choose_nodes(chunk(seq), &candidates, 3)
                    .into_iter()
                    .map(move |node| Movable {
                        chunk: chunk(seq),
                        shard: None,
                        node,
                        size_bytes: MIB,
                    })
            })
            .collect();
        let used = |node| parts.iter().filter(|part| part.node == node).count() as u64 * MIB;
        let nodes = candidates.iter().zip(capacities).map(|(candidate, &capacity)| {
            let load = NodeLoad {
                capacity_bytes: capacity * MIB,
                used_bytes: used(candidate.node),
                domain: candidate.domain,
                takes_parts: true,
            };
            (candidate.node, load)
        });
        (nodes.collect(), parts)
    }

    fn join(nodes: &mut BTreeMap<NodeId, NodeLoad>, number: u128, capacity: u64) {
        nodes.insert(
            id(number),
            NodeLoad {
                capacity_bytes: capacity * MIB,
                used_bytes: 0,
                domain: Domain::of(&number.to_string()),
                takes_parts: true,
            },
        );
    }

    #[test]
    fn a_new_node_gets_its_share_and_nothing_else_moves() {
        let (mut nodes, parts) = filled(&[1000; 5], 500);
        join(&mut nodes, 99, 1000);
        let moves = plan(&nodes, &parts, TOLERANCE);
        assert!(
            moves.iter().all(|next| next.to == id(99)),
            "a part moves between old nodes"
        );
        // Its share is 1500 / 6 = 250 parts; 225 are within the tolerance.
        assert!((225..=250).contains(&moves.len()), "{} moves", moves.len());
        assert!(unevenness(&carried_out(&nodes, &parts, &moves).0) <= TOLERANCE + 0.01);
    }

    #[test]
    fn an_even_cluster_is_left_alone() {
        let (nodes, parts) = filled(&[1000, 1000, 2000, 2000], 2_000);
        assert!(unevenness(&nodes) < TOLERANCE, "{}", unevenness(&nodes));
        assert_eq!(plan(&nodes, &parts, TOLERANCE), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_plan_ends_and_after_it_there_is_nothing_to_do(
            capacities in prop::collection::vec(500u64..2_000, 3..8),
            joining in prop::collection::vec(500u64..2_000, 0..3),
            chunks in 0u32..150,
            stopped in prop::collection::vec(any::<bool>(), 10),
        ) {
            let (mut nodes, parts) = filled(&capacities, chunks);
            for (number, capacity) in (90..).zip(&joining) {
                join(&mut nodes, number, *capacity);
            }
            for (node, stopped) in nodes.values_mut().zip(stopped) {
                node.takes_parts = !stopped;
            }
            let moves = plan(&nodes, &parts, TOLERANCE);
            prop_assert!(moves.len() <= parts.len());
            let (after, parts_after) = carried_out(&nodes, &parts, &moves);
            prop_assert_eq!(plan(&after, &parts_after, TOLERANCE), vec![]);
            let distinct: BTreeSet<_> = parts_after.iter().map(|part| (part.chunk, part.node)).collect();
            prop_assert_eq!(distinct.len(), parts.len());
            for next in &moves {
                prop_assert!(nodes[&next.to].takes_parts);
            }
        }
    }
}
