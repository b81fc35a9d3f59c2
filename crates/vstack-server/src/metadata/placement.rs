//! Which nodes a new ballot goes to.

use std::collections::BTreeSet;

use vstack_api::{ErrorCode, Problem};
use vstack_core::id::{ChunkId, NodeId};
use vstack_core::limits::{NODE_DEGRADED_AFTER_MS, REPLICA_COUNT};
use vstack_core::node::NodeHealth;
use vstack_core::paxos::Target;
use vstack_core::rendezvous::{Candidate, Domain, choose_beside};
use vstack_core::time::UnixMillis;
use vstack_meta::NodeRecord;

use super::state::Metadata;

/// The nodes as they are now, for a whole batch.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    nodes: &'a [NodeRecord],
    now: UnixMillis,
    /// The role has just started: nodes that look silent may not have had the time to report.
    just_started: bool,
    /// They gave out wrong bytes lately.
    distrusted: BTreeSet<NodeId>,
}

impl<'a> Choice<'a> {
    pub(super) fn new(nodes: &'a [NodeRecord], now: UnixMillis) -> Self {
        Self {
            nodes,
            now,
            just_started: false,
            distrusted: BTreeSet::new(),
        }
    }

    /// Among the nodes of a running role.
    pub(super) fn of(metadata: &Metadata, nodes: &'a [NodeRecord]) -> Self {
        let choice = Self::new(nodes, metadata.now()).after_start(metadata.running_for_ms());
        Self {
            distrusted: metadata.distrusted(nodes),
            ..choice
        }
    }

    /// The same, by a role that runs for so long. Right after its start it knows its nodes by what it last heard before
    /// it went down; too few of them is no answer then, or every upload would make do with fewer copies.
    fn after_start(self, running_for_ms: u64) -> Self {
        Self {
            just_started: running_for_ms < NODE_DEGRADED_AFTER_MS,
            ..self
        }
    }

    /// Nodes for all copies of `chunk`, at least `min_ack` of them. Suspect nodes fill up only where healthy ones do
    /// not suffice.
    pub(super) fn choose(
        &self,
        chunk: ChunkId,
        exclude: &BTreeSet<NodeId>,
        min_ack: usize,
    ) -> Result<Vec<NodeId>, Box<Problem>> {
        self.check_size(REPLICA_COUNT)?;
        self.choose_beside(chunk, exclude, &[], (REPLICA_COUNT, min_ack))
    }

    /// Nodes for these parts of a chunk of `full` parts, of which the others are kept on nodes in `exclude`. `min_ack`
    /// counts the kept ones. Where nodes are short, the first parts get theirs.
    pub(super) fn choose_parts(
        &self,
        chunk: ChunkId,
        parts: &[Option<u8>],
        exclude: &BTreeSet<NodeId>,
        min_ack: usize,
        full: usize,
    ) -> Result<Vec<Target>, Box<Problem>> {
        self.check_size(full)?;
        let kept = full.saturating_sub(parts.len());
        let holders: Vec<NodeId> = exclude.iter().copied().collect();
        let need = min_ack.saturating_sub(kept).max(1);
        let nodes = self.choose_beside(chunk, exclude, &holders, (parts.len(), need))?;
        let target = |(node, shard): (NodeId, &Option<u8>)| Target { node, shard: *shard };
        Ok(nodes.into_iter().zip(parts).map(target).collect())
    }

    /// This node for this one part of a chunk whose other parts are on nodes in `exclude`.
    pub(super) fn choose_this(
        &self,
        node: NodeId,
        parts: &[Option<u8>],
        exclude: &BTreeSet<NodeId>,
    ) -> Result<Vec<Target>, Box<Problem>> {
        let candidates = self.candidates(NodeHealth::Healthy, exclude);
        let fits = candidates
            .iter()
            .any(|candidate| candidate.node == node && candidate.room > 0.0);
        match (fits, parts) {
            (true, [shard]) => Ok(vec![Target { node, shard: *shard }]),
            _ => {
                let detail = format!("node {node} cannot take this part now");
                Err(Box::new(Problem::new(ErrorCode::NotEnoughNodes, detail)))
            }
        }
    }

    /// Up to `count` nodes beside those that hold a part already, at least `need`.
    fn choose_beside(
        &self,
        chunk: ChunkId,
        exclude: &BTreeSet<NodeId>,
        holders: &[NodeId],
        (count, need): (usize, usize),
    ) -> Result<Vec<NodeId>, Box<Problem>> {
        let mut chosen: Vec<NodeId> = Vec::new();
        for health in [NodeHealth::Healthy, NodeHealth::Degraded] {
            let candidates = self.candidates(health, exclude);
            let beside: Vec<Domain> = [holders, &chosen]
                .iter()
                .flat_map(|nodes| self.domains(nodes))
                .collect();
            chosen.extend(choose_beside(chunk, &candidates, count - chosen.len(), &beside));
        }
        if chosen.len() >= need {
            return Ok(chosen);
        }
        if self.just_started && self.awaits_some(exclude) {
            let detail = "the metadata role has just started, and its nodes are still reporting";
            return Err(Box::new(Problem::new(ErrorCode::Unavailable, detail)));
        }
        let detail = format!(
            "{} of {} nodes can take this chunk, and {need} are needed; `vstack status` shows which are away, full or \
             leaving: bring them back or add a node, and try again",
            chosen.len(),
            self.nodes.len()
        );
        Err(Box::new(Problem::new(ErrorCode::NotEnoughNodes, detail)))
    }

    /// Whether a node that could help may only not have reported yet.
    fn awaits_some(&self, exclude: &BTreeSet<NodeId>) -> bool {
        let silent = |node: &NodeRecord| node.is_member() && node.health(self.now) != NodeHealth::Healthy;
        self.nodes
            .iter()
            .any(|node| silent(node) && !exclude.contains(&node.node))
    }

    /// Fewer copies are for clusters of which some nodes are down, not for those that are too small.
    pub(super) fn check_size(&self, parts: usize) -> Result<(), Box<Problem>> {
        let members = self.nodes.iter().filter(|node| node.is_member()).count();
        if members >= parts {
            return Ok(());
        }
        let what = if parts == REPLICA_COUNT {
            "copies"
        } else {
            "shards"
        };
        let detail = format!(
            "{parts} {what} need {parts} nodes, and {members} are registered; add a node (`vstack serve --role storage`) and \
             try again"
        );
        Err(Box::new(Problem::new(ErrorCode::NotEnoughNodes, detail)))
    }

    fn domains(&self, chosen: &[NodeId]) -> Vec<Domain> {
        let chosen = |node: &&NodeRecord| chosen.contains(&node.node);
        let nodes = self.nodes.iter().filter(chosen);
        nodes.map(NodeRecord::domain).collect()
    }

    fn candidates(&self, health: NodeHealth, exclude: &BTreeSet<NodeId>) -> Vec<Candidate> {
        let fits = |node: &&NodeRecord| {
            node.health(self.now) == health
                && !node.read_only
                && node.state.takes_parts()
                && node.known_url().is_some()
                && !exclude.contains(&node.node)
                && !self.distrusted.contains(&node.node)
        };
        let candidate = |node: &NodeRecord| Candidate {
            node: node.node,
            room: (1.0 - node.disk_usage_percent / 100.0).clamp(0.0, 1.0),
            domain: node.domain(),
        };
        self.nodes.iter().filter(fits).map(candidate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use vstack_core::id::{Incarnation, VideoId};
    use vstack_core::node::{NodeState, Steadiness};

    const NOW: UnixMillis = UnixMillis(100_000);

    fn node(number: u128, silent_ms: u64) -> NodeRecord {
        NodeRecord {
            node: NodeId(Uuid::from_u128(number)),
            url: format!("http://127.0.0.1:{number}"),
            last_heartbeat: UnixMillis(NOW.0 - silent_ms),
            disk_usage_percent: 10.0,
            chunk_count: 0,
            version: String::new(),
            incarnation: Incarnation(Uuid::nil()),
            boot_epoch: 1,
            read_only: false,
            highest_generation: 0,
            state: NodeState::Active,
            retired_incarnation: None,
            readopt: false,
            steadiness: Steadiness::default(),
            capacity_bytes: 1 << 40,
            rack: None,
            name: None,
            name_asked: false,
        }
    }

    fn check(nodes: &[NodeRecord], exclude: &[u128], min_ack: usize, expected: Result<&[u128], ErrorCode>) {
        let exclude = exclude
            .iter()
            .map(|&number| NodeId(Uuid::from_u128(number)))
            .collect();
        let chunk = ChunkId::media(VideoId(Uuid::nil()), 0);
        let chosen = Choice::new(nodes, NOW).choose(chunk, &exclude, min_ack);
        let found = chosen.map(|nodes| nodes.iter().map(|node| node.0.as_u128()).collect::<BTreeSet<_>>());
        let expected = expected.map(|numbers| numbers.iter().copied().collect());
        assert_eq!(found.map_err(|problem| problem.code), expected);
    }

    #[test]
    fn healthy_nodes_come_first_and_suspects_fill_up() {
        let nodes = [node(1, 0), node(2, 0), node(3, 6_000), node(4, 0)];
        check(&nodes, &[], 3, Ok(&[1, 2, 4]));
        check(&nodes, &[4], 3, Ok(&[1, 2, 3]));
    }

    #[test]
    fn dead_full_read_only_and_excluded_nodes_take_nothing() {
        let mut nodes = [node(1, 0), node(2, 31_000), node(3, 0), node(4, 0), node(5, 0)];
        nodes[2].disk_usage_percent = 100.0;
        nodes[3].read_only = true;
        check(&nodes, &[], 3, Err(ErrorCode::NotEnoughNodes));
        check(&nodes, &[], 2, Ok(&[1, 5]));
        check(&nodes, &[5], 2, Err(ErrorCode::NotEnoughNodes));
    }

    #[test]
    fn right_after_a_start_too_few_nodes_is_no_answer() {
        let nodes = [node(1, 31_000), node(2, 31_000), node(3, 0)];
        let chunk = ChunkId::media(VideoId(Uuid::nil()), 0);
        let code = |running_ms| {
            let choice = Choice::new(&nodes, NOW).after_start(running_ms);
            let chosen = choice.choose(chunk, &BTreeSet::new(), 2);
            chosen.map_err(|problem| problem.code).unwrap_err()
        };
        assert_eq!(code(4_999), ErrorCode::Unavailable);
        assert_eq!(code(5_000), ErrorCode::NotEnoughNodes);
    }

    #[test]
    fn nothing_new_goes_to_a_node_that_is_to_be_emptied_or_away() {
        let mut nodes = [node(1, 0), node(2, 0), node(3, 0), node(4, 0), node(5, 0)];
        nodes[1].state = NodeState::Draining;
        nodes[3].state = NodeState::Maintenance;
        check(&nodes, &[], 3, Ok(&[1, 3, 5]));
        nodes[0].state = NodeState::Removed;
        check(&nodes, &[], 2, Ok(&[3, 5]));
        let removed = [NodeState::Removed; 3];
        for (node, state) in nodes.iter_mut().zip(removed) {
            node.state = state;
        }
        check(&nodes, &[], 2, Err(ErrorCode::NotEnoughNodes));
    }

    #[test]
    fn parts_are_spread_over_racks_where_racks_are_named() {
        let mut nodes: Vec<NodeRecord> = (1..=6).map(|number| node(number, 0)).collect();
        let racks = ["a", "a", "b", "b", "c", "c"];
        for (node, rack) in nodes.iter_mut().zip(racks) {
            node.rack = Some(rack.to_owned());
        }
        for seq in 0..50 {
            let chunk = ChunkId::media(VideoId(Uuid::nil()), seq);
            let chosen = Choice::new(&nodes, NOW).choose(chunk, &BTreeSet::new(), 3);
            let chosen = chosen.unwrap_or_default();
            let racks: BTreeSet<_> = nodes
                .iter()
                .filter(|node| chosen.contains(&node.node))
                .map(|node| node.rack.clone())
                .collect();
            assert_eq!(racks.len(), 3, "{chosen:?}");
        }
    }

    #[test]
    fn nothing_new_goes_to_a_node_that_lies() {
        let nodes: Vec<NodeRecord> = (1..=4).map(|number| node(number, 0)).collect();
        let liar = nodes[0].node;
        let choice = Choice {
            distrusted: BTreeSet::from([liar]),
            ..Choice::new(&nodes, NOW)
        };
        let chunk = ChunkId::media(VideoId(Uuid::nil()), 0);
        let chosen = choice.choose(chunk, &BTreeSet::new(), 3).unwrap_or_default();
        assert!(chosen.len() == 3 && !chosen.contains(&liar), "{chosen:?}");
        assert!(choice.choose_this(liar, &[None], &BTreeSet::new()).is_err());
    }

    #[test]
    fn a_cluster_that_is_too_small_refuses_even_fewer_copies() {
        check(&[node(1, 0), node(2, 0)], &[], 2, Err(ErrorCode::NotEnoughNodes));
    }
}
