//! Where a chunk lives: what COMMIT decides. Which nodes a new one goes to: `rendezvous`.

use serde::{Deserialize, Serialize};

use crate::ballot::Ballot;
use crate::digest::{ChunkDigest, Sha256Digest};
use crate::id::{NodeId, SHARD_COUNT};
use crate::limits::{REPLICA_COUNT, REPLICA_MIN_ACK, SHARD_MIN_ACK};
use crate::paxos::Target;

/// How a chunk is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

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
