//! What to make again first: the plan of repairs, from placements and nodes as they are.
//!
//! Pure: the caller reads the catalogue, asks for a plan, carries out some of it, and asks again. Chunks with the fewest
//! spare parts come first, then the most popular. A node that is down is given a grace before its parts are replaced;
//! parts that are known to be bad or gone are replaced at once. Nothing here reads bytes: whoever repairs checks every
//! source against the placement, so that a corrupt minority (or majority) never becomes the truth.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{ChunkId, NodeId};
use crate::limits::{QUARANTINE_MS, REPAIR_GRACE_MS};
use crate::node::{NodeHealth, NodeState};
use crate::placement::{Part, Scheme};
use crate::time::UnixMillis;

/// A node, as far as repair looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeFacts {
    pub health: NodeHealth,
    pub last_seen: UnixMillis,
    pub state: NodeState,
    /// It can take a new part: healthy, wanted, writable, trusted and with room.
    pub takes_parts: bool,
    /// It gave out wrong bytes lately: what it holds counts for nothing until it is trusted again.
    pub distrusted: bool,
    /// It came back and has not yet told what it still holds.
    pub returning: bool,
}

/// A decided chunk, as far as repair looks at it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkFacts {
    pub chunk: ChunkId,
    pub scheme: Scheme,
    pub parts: Vec<Part>,
    /// Nodes whose part is known to be gone or corrupt.
    pub lost: BTreeSet<NodeId>,
    /// Decayed views of its video.
    pub popularity: f64,
}

/// What an operator may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// From "down" until parts are replaced.
    pub grace_ms: u64,
    /// How long a node that lies is not trusted.
    pub quarantine_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grace_ms: REPAIR_GRACE_MS,
            quarantine_ms: QUARANTINE_MS,
        }
    }
}

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartState {
    Good,
    /// Readable, but its node has just come back and is being compared with the catalogue.
    Checking,
    /// Readable, but its node is to be emptied.
    Leaving,
    /// Its node is silent, within the grace or in maintenance.
    Away,
    /// Its node has been silent for too long, or is not trusted. It may come back.
    Missing,
    /// Gone or corrupt for certain.
    Lost,
}

impl PartState {
    /// A reader gets it now.
    #[must_use]
    pub const fn is_readable(self) -> bool {
        matches!(self, Self::Good | Self::Checking | Self::Leaving)
    }

    /// It has to be made again elsewhere.
    #[must_use]
    pub const fn is_to_replace(self) -> bool {
        matches!(self, Self::Leaving | Self::Missing | Self::Lost)
    }
}

/// One chunk to repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub chunk: ChunkId,
    /// Readable parts beyond those that a read needs; 0 means that the next loss loses data.
    pub spare: usize,
    /// Parts of the placement that the repair does not keep.
    pub replace: Vec<Part>,
    /// Parts to make.
    pub missing: usize,
}

/// What to do, and what cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In this order.
    pub tasks: Vec<Task>,
    /// Chunks that lack parts which no node can take: add a node.
    pub degraded: Vec<Task>,
    /// Chunks that cannot be read until a silent node comes back.
    pub unreadable: Vec<ChunkId>,
    /// Chunks of which too few parts exist anywhere.
    pub data_loss: Vec<ChunkId>,
    /// Chunks that have all their parts, some of them away within the grace or on nodes that are being compared.
    pub waiting: usize,
}

impl Plan {
    /// Nothing is wanting, nothing is on the way.
    #[must_use]
    pub const fn is_calm(&self) -> bool {
        self.tasks.is_empty()
            && self.degraded.is_empty()
            && self.unreadable.is_empty()
            && self.data_loss.is_empty()
            && self.waiting == 0
    }
}

/// The plan for these chunks.
#[must_use]
pub fn plan(
    chunks: &[ChunkFacts],
    nodes: &BTreeMap<NodeId, NodeFacts>,
    settings: Settings,
    now: UnixMillis,
) -> Plan {
    let mut plan = Plan::default();
    let mut found: Vec<(Task, f64)> = Vec::new();
    for chunk in chunks {
        examine(chunk, nodes, settings, now, &mut plan, &mut found);
    }
    found.sort_by(|(a, a_views), (b, b_views)| {
        let urgency = a.spare.cmp(&b.spare).then(b_views.total_cmp(a_views));
        urgency.then(a.chunk.cmp(&b.chunk))
    });
    plan.tasks = found.into_iter().map(|(task, _)| task).collect();
    plan
}

fn examine(
    chunk: &ChunkFacts,
    nodes: &BTreeMap<NodeId, NodeFacts>,
    settings: Settings,
    now: UnixMillis,
    plan: &mut Plan,
    found: &mut Vec<(Task, f64)>,
) {
    let states: Vec<PartState> = chunk
        .parts
        .iter()
        .map(|part| part_state(chunk, part, nodes, settings, now))
        .collect();
    let count = |wanted: fn(PartState) -> bool| states.iter().filter(|state| wanted(**state)).count();
    let (readable, needed) = (count(PartState::is_readable), chunk.scheme.parts_to_read());
    if count(|state| state != PartState::Lost) < needed {
        plan.data_loss.push(chunk.chunk);
        return;
    }
    if readable < needed {
        plan.unreadable.push(chunk.chunk);
        return;
    }
    let replace: Vec<Part> = (chunk.parts.iter().zip(&states))
        .filter(|(_, state)| state.is_to_replace())
        .map(|(part, _)| *part)
        .collect();
    let kept = chunk.parts.len() - replace.len();
    let missing = chunk.scheme.part_count().saturating_sub(kept);
    if missing == 0 {
        plan.waiting += usize::from(count(|state| state != PartState::Good) > 0);
        return;
    }
    let task = Task {
        chunk: chunk.chunk,
        spare: readable - needed,
        replace,
        missing,
    };
    match takes_a_part(chunk, nodes) {
        true => found.push((task, chunk.popularity)),
        false => plan.degraded.push(task),
    }
}

/// Whether some node could take one of the missing parts: one without a part of this chunk, or one that lost its own.
fn takes_a_part(chunk: &ChunkFacts, nodes: &BTreeMap<NodeId, NodeFacts>) -> bool {
    let holds = |node: &NodeId| chunk.parts.iter().any(|part| part.node == *node);
    nodes
        .iter()
        .any(|(node, facts)| facts.takes_parts && (!holds(node) || chunk.lost.contains(node)))
}

/// How one part of a chunk is.
#[must_use]
pub fn part_state(
    chunk: &ChunkFacts,
    part: &Part,
    nodes: &BTreeMap<NodeId, NodeFacts>,
    settings: Settings,
    now: UnixMillis,
) -> PartState {
    let Some(node) = nodes.get(&part.node) else {
        return PartState::Lost;
    };
    if chunk.lost.contains(&part.node) {
        return PartState::Lost;
    }
    match (node.state, node.health) {
        // A removed node is not asked again, whether it would answer or not.
        (NodeState::Removed, _) => PartState::Lost,
        (_, NodeHealth::Healthy | NodeHealth::Degraded) if node.distrusted => PartState::Missing,
        (NodeState::Draining, NodeHealth::Healthy | NodeHealth::Degraded) => PartState::Leaving,
        (_, NodeHealth::Healthy | NodeHealth::Degraded) if node.returning => PartState::Checking,
        (_, NodeHealth::Healthy | NodeHealth::Degraded) => PartState::Good,
        (NodeState::Maintenance, NodeHealth::Down) => PartState::Away,
        (NodeState::Draining, NodeHealth::Down) => PartState::Missing,
        (NodeState::Active, NodeHealth::Down) if now.since(node.last_seen) < settings.grace_ms => {
            PartState::Away
        }
        (NodeState::Active, NodeHealth::Down) => PartState::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ballot::Ballot;
    use crate::digest::Sha256Digest;
    use crate::id::VideoId;
    use proptest::prelude::*;
    use uuid::Uuid;

    const NOW: UnixMillis = UnixMillis(100_000_000);

    fn node(number: u128) -> NodeId {
        NodeId(Uuid::from_u128(number))
    }

    fn healthy() -> NodeFacts {
        NodeFacts {
            health: NodeHealth::Healthy,
            last_seen: NOW,
            state: NodeState::Active,
            takes_parts: true,
            distrusted: false,
            returning: false,
        }
    }

    fn silent_for(ms: u64) -> NodeFacts {
        NodeFacts {
            health: NodeHealth::of_silence(UnixMillis(NOW.0 - ms), NOW),
            last_seen: UnixMillis(NOW.0 - ms),
            takes_parts: false,
            ..healthy()
        }
    }

    fn state(state: NodeState, facts: NodeFacts) -> NodeFacts {
        NodeFacts {
            state,
            takes_parts: false,
            ..facts
        }
    }

    fn cluster(count: u128, others: &[(u128, NodeFacts)]) -> BTreeMap<NodeId, NodeFacts> {
        let mut nodes: BTreeMap<_, _> = (1..=count).map(|number| (node(number), healthy())).collect();
        nodes.extend(others.iter().map(|(number, facts)| (node(*number), *facts)));
        nodes
    }

    fn chunk(seq: u32, scheme: Scheme, on: &[u128], lost: &[u128], popularity: f64) -> ChunkFacts {
        let part = |(index, &number): (u8, &u128)| Part {
            node: node(number),
            object_ballot: Ballot::from_number(1),
            shard: (scheme == Scheme::Erasure).then_some(index),
            sha256: Sha256Digest::of(&[index]),
            leaf_root: Sha256Digest::of(&[index]),
        };
        ChunkFacts {
            chunk: ChunkId::media(VideoId(Uuid::nil()), seq),
            scheme,
            parts: (0..).zip(on).map(part).collect(),
            lost: lost.iter().copied().map(node).collect(),
            popularity,
        }
    }

    fn check_order(chunks: &[ChunkFacts], nodes: &BTreeMap<NodeId, NodeFacts>, expected: &[u32]) {
        let plan = plan(chunks, nodes, Settings::default(), NOW);
        let order: Vec<_> = plan.tasks.iter().map(|task| task.chunk.seq()).collect();
        assert_eq!(order, expected, "{plan:?}");
    }

    #[test]
    fn fewest_spare_parts_come_first_and_then_the_hottest() {
        let chunks = [
            chunk(0, Scheme::Replicated, &[1, 2, 3], &[1], 9e9),
            chunk(1, Scheme::Replicated, &[1, 2, 3], &[1, 2], 1.0),
            chunk(2, Scheme::Erasure, &[1, 2, 3, 4, 5], &[3, 4], 5.0),
            chunk(3, Scheme::Replicated, &[1, 2, 3], &[], 9e9),
        ];
        check_order(&chunks, &cluster(6, &[]), &[2, 1, 0]);
    }

    #[test]
    fn a_silent_node_is_waited_for_and_then_replaced() {
        let chunks = [chunk(0, Scheme::Replicated, &[1, 2, 3], &[], 0.0)];
        let after = |ms| {
            plan(
                &chunks,
                &cluster(4, &[(1, silent_for(ms))]),
                Settings::default(),
                NOW,
            )
        };
        assert_eq!((after(6_000).tasks.len(), after(6_000).waiting), (0, 0));
        assert_eq!((after(40_000).tasks.len(), after(40_000).waiting), (0, 1));
        assert_eq!(after(REPAIR_GRACE_MS).tasks.len(), 1);
    }

    #[test]
    fn maintenance_holds_it_and_removal_skips_the_wait() {
        let chunks = [chunk(0, Scheme::Replicated, &[1, 2, 3], &[], 0.0)];
        let away = state(NodeState::Maintenance, silent_for(90_000_000));
        let plan_of = |facts| plan(&chunks, &cluster(4, &[(1, facts)]), Settings::default(), NOW);
        assert_eq!((plan_of(away).tasks.len(), plan_of(away).waiting), (0, 1));
        assert_eq!(plan_of(state(NodeState::Removed, healthy())).tasks.len(), 1);
    }

    #[test]
    fn a_draining_node_is_still_read_from() {
        let chunks = [chunk(0, Scheme::Replicated, &[1, 2, 3], &[], 0.0)];
        let plan = plan(
            &chunks,
            &cluster(4, &[(1, state(NodeState::Draining, healthy()))]),
            Settings::default(),
            NOW,
        );
        assert_eq!((plan.tasks[0].spare, plan.tasks[0].missing), (2, 1));
    }

    #[test]
    fn a_cluster_without_a_spare_node_says_so() {
        let gone = silent_for(REPAIR_GRACE_MS);
        let copies = [chunk(0, Scheme::Replicated, &[1, 2, 3], &[], 0.0)];
        let plan_on = |chunks: &[ChunkFacts], count, gone: &[(u128, NodeFacts)]| {
            plan(chunks, &cluster(count, gone), Settings::default(), NOW)
        };
        assert_eq!(plan_on(&copies, 3, &[(3, gone)]).degraded.len(), 1);
        assert_eq!(plan_on(&copies, 4, &[(3, gone)]).tasks.len(), 1);
        let shards = [chunk(0, Scheme::Erasure, &[1, 2, 3, 4, 5], &[], 0.0)];
        assert_eq!(plan_on(&shards, 5, &[(3, gone)]).degraded.len(), 1);
        assert_eq!(plan_on(&shards, 6, &[(3, gone)]).tasks.len(), 1);
    }

    #[test]
    fn what_lies_on_a_node_that_lies_is_made_again_elsewhere_and_is_not_lost() {
        let liar = NodeFacts {
            distrusted: true,
            takes_parts: false,
            ..healthy()
        };
        let copies = [chunk(0, Scheme::Replicated, &[1, 2, 3], &[], 0.0)];
        let found = plan(&copies, &cluster(4, &[(1, liar)]), Settings::default(), NOW);
        assert_eq!((found.tasks[0].spare, found.tasks[0].missing), (1, 1));
        let all = [(1, liar), (2, liar), (3, liar)];
        let found = plan(&copies, &cluster(4, &all), Settings::default(), NOW);
        assert_eq!((found.unreadable.len(), found.data_loss.len()), (1, 0));
    }

    #[test]
    fn a_node_that_came_back_counts_when_it_has_told_what_it_holds() {
        let back = NodeFacts {
            returning: true,
            ..healthy()
        };
        let chunks = [chunk(0, Scheme::Replicated, &[1, 2, 3], &[], 0.0)];
        let found = plan(&chunks, &cluster(4, &[(1, back)]), Settings::default(), NOW);
        assert_eq!((found.tasks.len(), found.waiting), (0, 1));
        assert!(plan(&chunks, &cluster(4, &[]), Settings::default(), NOW).is_calm());
    }

    #[test]
    fn a_corrupt_part_is_made_again_on_its_own_node_where_no_other_is() {
        let chunks = [chunk(0, Scheme::Erasure, &[1, 2, 3, 4, 5], &[2], 0.0)];
        check_order(&chunks, &cluster(5, &[]), &[0]);
    }

    #[test]
    fn data_is_lost_only_when_no_silent_node_can_bring_it_back() {
        let gone = silent_for(REPAIR_GRACE_MS);
        let nodes = cluster(6, &[(1, gone), (2, gone), (3, gone)]);
        let away = [chunk(0, Scheme::Erasure, &[1, 2, 3, 4, 5], &[], 0.0)];
        let lost = [chunk(0, Scheme::Erasure, &[1, 2, 3, 4, 5], &[1, 2, 3], 0.0)];
        let plan_of = |chunks: &[ChunkFacts]| plan(chunks, &nodes, Settings::default(), NOW);
        assert_eq!(
            (plan_of(&away).unreadable.len(), plan_of(&away).data_loss.len()),
            (1, 0)
        );
        assert_eq!(
            (plan_of(&lost).unreadable.len(), plan_of(&lost).data_loss.len()),
            (0, 1)
        );
    }

    proptest! {
        #[test]
        fn every_chunk_that_is_not_whole_is_in_exactly_one_list(
            erasure in any::<bool>(),
            silences in prop::collection::vec(0u64..2 * REPAIR_GRACE_MS, 7),
            lost in prop::collection::btree_set(1u128..8, 0..5),
        ) {
            let scheme = if erasure { Scheme::Erasure } else { Scheme::Replicated };
            let on: Vec<u128> = (1..=scheme.part_count() as u128).collect();
            let lost: Vec<u128> = lost.into_iter().filter(|number| on.contains(number)).collect();
            let others: Vec<_> = (1..).zip(silences).map(|(number, ms)| {
                let facts = silent_for(ms);
                (number, NodeFacts { takes_parts: facts.health == NodeHealth::Healthy, ..facts })
            }).collect();
            let (chunks, nodes) = ([chunk(0, scheme, &on, &lost, 0.0)], cluster(0, &others));
            let plan = plan(&chunks, &nodes, Settings::default(), NOW);
            let listed = plan.tasks.len() + plan.degraded.len() + plan.unreadable.len() + plan.data_loss.len() + plan.waiting;
            let all_good = chunks[0].parts.iter().all(|part| {
                part_state(&chunks[0], part, &nodes, Settings::default(), NOW) == PartState::Good
            });
            prop_assert_eq!(listed, usize::from(!all_good));
        }
    }
}
