//! Where a chunk lives, and which nodes a new one goes to.

use serde::{Deserialize, Serialize};

use crate::ballot::Ballot;
use crate::digest::{ChunkDigest, Sha256Digest};
use crate::id::{ChunkId, Incarnation, NodeId, SHARD_COUNT};
use crate::limits::{REPLICA_COUNT, REPLICA_MIN_ACK, SHARD_MIN_ACK};
use crate::paxos::Target;

/// How a chunk is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scheme {
    /// Full copies.
    #[serde(rename = "rep")]
    Replicated,
    /// Reed-Solomon, 3 data and 2 parity shards.
    #[serde(rename = "rs(3,2)")]
    Erasure,
}

impl Scheme {
    /// Parts of a fully protected chunk.
    #[must_use]
    pub const fn part_count(self) -> usize {
        match self {
            Self::Replicated => REPLICA_COUNT,
            Self::Erasure => SHARD_COUNT as usize,
        }
    }

    /// Fewest parts that may be decided. Exactly the three shards that a read needs would be lost with the next disk,
    /// so that an erasure-coded chunk wants one more.
    #[must_use]
    pub const fn least_parts(self) -> usize {
        match self {
            Self::Replicated => REPLICA_MIN_ACK,
            Self::Erasure => SHARD_MIN_ACK,
        }
    }
}

/// One stored object of a placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub node: NodeId,
    /// The ballot that names the object on its node. A repair keeps old parts untouched, so the parts of one placement
    /// can have different ones.
    #[serde(rename = "ob")]
    pub object_ballot: Ballot,
    /// `None` for a full copy.
    pub shard: Option<u8>,
    #[serde(rename = "hash")]
    pub sha256: Sha256Digest,
    pub leaf_root: Sha256Digest,
}

impl Part {
    /// Where the part is, and which part.
    #[must_use]
    pub const fn target(&self) -> Target {
        Target {
            node: self.node,
            shard: self.shard,
        }
    }
}

/// What COMMIT decides about a chunk: `accepted_value` of its row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    pub scheme: Scheme,
    /// Digest of the whole chunk, whatever the scheme.
    #[serde(flatten)]
    pub digest: ChunkDigest,
    pub parts: Vec<Part>,
}

impl Placement {
    /// Full copies of one object under `ballot`, one on each node.
    #[must_use]
    pub fn replicated(digest: ChunkDigest, ballot: Ballot, nodes: &[NodeId]) -> Self {
        let part = |&node| Part {
            node,
            object_ballot: ballot,
            shard: None,
            sha256: digest.sha256,
            leaf_root: digest.leaf_root,
        };
        Self {
            scheme: Scheme::Replicated,
            digest,
            parts: nodes.iter().map(part).collect(),
        }
    }
}

/// A node that could take a part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// Share of its disk that is free, 0 to 1. A node without room has no weight.
    pub free_share: f64,
}

/// Picks `count` distinct nodes for `chunk` by weighted rendezvous hashing: each node draws a number from its id and
/// the chunk's, scaled by its free space, and the highest win. Adding a node moves only what that node wins, and nodes
/// with more room get proportionally more. Fewer than `count` come back when there are not enough.
///
/// Source: Schindelhauer and Schomaker, "Weighted distributed hash tables" (SPAA 2005), the logarithmic method.
#[must_use]
pub fn choose_nodes(chunk: ChunkId, candidates: &[Candidate], count: usize) -> Vec<NodeId> {
    let mut drawn: Vec<(f64, NodeId)> = candidates
        .iter()
        .filter(|candidate| candidate.free_share > 0.0)
        .map(|candidate| {
            (
                -candidate.free_share / draw(chunk, candidate.node).ln(),
                candidate.node,
            )
        })
        .collect();
    drawn.sort_by(|(a, a_node), (b, b_node)| b.total_cmp(a).then(a_node.cmp(b_node)));
    drawn.dedup_by_key(|(_, node)| *node);
    drawn.into_iter().take(count).map(|(_, node)| node).collect()
}

/// A number in (0, 1) that chunk and node decide.
fn draw(chunk: ChunkId, node: NodeId) -> f64 {
    let mut state = 0;
    for word in chunk
        .whole()
        .to_bytes()
        .chunks_exact(8)
        .chain(node.0.as_bytes().chunks_exact(8))
    {
        let word = word
            .try_into()
            .map(u64::from_be_bytes)
            .expect("the pieces have 8 bytes");
        state = mix(state ^ word);
    }
    // The upper 53 bits fill a double exactly; the half keeps it away from 0 and 1.
    ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every input bit reaches every output bit.
const fn mix(input: u64) -> u64 {
    let mut z = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::VideoId;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};
    use uuid::Uuid;

    fn candidate(number: u128, free_share: f64) -> Candidate {
        Candidate {
            node: NodeId(Uuid::from_u128(number)),
            incarnation: Incarnation(Uuid::nil()),
            free_share,
        }
    }

    fn chunk(number: u32) -> ChunkId {
        ChunkId::media(VideoId(Uuid::from_u128(77)), number)
    }

    proptest! {
        #[test]
        fn a_node_never_gets_two_parts_of_a_chunk(seq in any::<u32>(), free in prop::collection::vec(0.0f64..1.0, 0..9)) {
            let nodes: Vec<_> = (0..).zip(&free).map(|(number, &free)| candidate(number, free)).collect();
            let chosen = choose_nodes(chunk(seq), &nodes, 3);
            prop_assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
            prop_assert_eq!(chosen.len(), free.iter().filter(|&&free| free > 0.0).count().min(3));
        }

        #[test]
        fn a_new_node_takes_parts_but_moves_none_between_the_others(seq in any::<u32>()) {
            let before: Vec<_> = (0..5).map(|number| candidate(number, 0.5)).collect();
            let mut after = before.clone();
            after.push(candidate(99, 0.5));
            let (old, new) = (choose_nodes(chunk(seq), &before, 3), choose_nodes(chunk(seq), &after, 3));
            let added: Vec<_> = new.iter().filter(|node| !old.contains(node)).collect();
            prop_assert!(added.is_empty() || added == [&NodeId(Uuid::from_u128(99))]);
        }
    }

    #[test]
    fn parts_spread_by_free_space_within_a_tenth() {
        let nodes = [candidate(1, 0.2), candidate(2, 0.4), candidate(3, 0.4)];
        let mut count = BTreeMap::new();
        for seq in 0..20_000 {
            *count.entry(choose_nodes(chunk(seq), &nodes, 1)[0]).or_insert(0.0) += 1.0;
        }
        for node in nodes {
            let share = count[&node.node] / 20_000.0;
            assert!(
                (share / node.free_share - 1.0).abs() < 0.1,
                "{share} of the parts for {} of the room",
                node.free_share
            );
        }
    }

    #[test]
    fn the_value_has_the_documented_json() {
        let digest = ChunkDigest::of(b"x");
        let placement = Placement::replicated(digest, Ballot::from_number(5), &[NodeId(Uuid::nil())]);
        let json = serde_json::to_value(&placement).unwrap();
        assert_eq!(json["scheme"], "rep");
        assert_eq!(json["parts"][0]["ob"], "5");
        assert_eq!(serde_json::from_value::<Placement>(json).unwrap(), placement);
    }
}
