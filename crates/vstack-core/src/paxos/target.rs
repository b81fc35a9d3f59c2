//! What a ballot may put where: a node, and the part of the chunk that it may take.
//!
//! Text, in JSON and in the column `open_nodes`: the node's id for a full copy, the id and `.s0` to `.s4` for a shard.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{ChunkId, NodeId, ParseIdError, SHARD_COUNT};

/// One part that a ballot may place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    pub node: NodeId,
    /// `None`: a full copy.
    pub shard: Option<u8>,
}

impl Target {
    /// A full copy on `node`.
    #[must_use]
    pub const fn whole(node: NodeId) -> Self {
        Self { node, shard: None }
    }

    /// Shard `shard` on `node`.
    #[must_use]
    pub const fn shard(node: NodeId, shard: u8) -> Self {
        Self {
            node,
            shard: Some(shard),
        }
    }

    /// The object of `chunk` that this part is.
    #[must_use]
    pub fn object(self, chunk: ChunkId) -> ChunkId {
        match self.shard {
            None => chunk.whole(),
            Some(shard) => chunk.with_shard(shard).unwrap_or_else(|_| chunk.whole()),
        }
    }
}

impl From<NodeId> for Target {
    fn from(node: NodeId) -> Self {
        Self::whole(node)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shard {
            None => self.node.fmt(f),
            Some(shard) => write!(f, "{}.s{shard}", self.node),
        }
    }
}

impl FromStr for Target {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let Some((node, shard)) = text.split_once('.') else {
            return text.parse().map(Self::whole);
        };
        let node = node.parse()?;
        let shard = shard.strip_prefix('s').and_then(|digit| digit.parse().ok());
        match shard {
            Some(shard) if shard < SHARD_COUNT => Ok(Self::shard(node, shard)),
            _ => Err(ParseIdError {
                reason: "a shard is written .s0 to .s4",
            }),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_full_copy_is_written_as_its_node_alone_and_a_shard_behind_a_dot() {
        let node = NodeId(Uuid::from_u128(7));
        for (target, text) in [
            (Target::whole(node), format!("\"{node}\"")),
            (Target::shard(node, 3), format!("\"{node}.s3\"")),
        ] {
            assert_eq!(serde_json::to_string(&target).unwrap(), text);
            assert_eq!(serde_json::from_str::<Target>(&text).unwrap(), target);
        }
    }

    #[test]
    fn no_other_text_is_a_target() {
        let node = NodeId(Uuid::from_u128(7));
        for text in [
            format!("{node}.s5"),
            format!("{node}.3"),
            format!("{node}."),
            "x".into(),
        ] {
            assert!(text.parse::<Target>().is_err(), "{text} was accepted");
        }
    }
}
