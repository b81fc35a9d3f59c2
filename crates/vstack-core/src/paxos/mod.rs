//! ChunkPaxos: agreement on where one chunk lives, without ordering different chunks.
//!
//! A placement is chosen when, and only when, the catalogue's transaction for its COMMIT is durable. Storage nodes are
//! witnesses: they hold write-once objects named by ballot and give a signed [`Receipt`] once the bytes are durable.
//! The catalogue opens a ballot with a signed [`Grant`]; a newer grant kills the older one for ever.
//!
//! Five rules carry the argument (each, broken, gives a checker a counterexample):
//! - **R1** COMMIT needs its ballot to be the highest granted.
//! - **R2** a part counts only by a receipt of this ballot and of the node's present incarnation, or carried over
//!   unchanged from the placement that the ballot was opened on.
//! - **R3** an object may be deleted only after, in the same transaction, its ballot became uncommittable and nothing
//!   committed names it.
//! - **R4** a receipt is given only when bytes and name are durable.
//! - **R5** objects are named by ballot, write-once, never reused.
//!
//! What one actor can see of them is asserted where it acts, in production too. What only an observer of the whole
//! cluster can see is the oracle of the model and the simulator: every part that a committed value names is durable on
//! its node (I1), epochs only grow and a deletion is final (I2), no order to delete names a committed part (I3), a value
//! has the bytes that were acknowledged (I4), every receipt that a COMMIT counted stands for durable bytes (I5).
//!
//! Where to look: [`master`] OPEN, COMMIT, DELETE, INVENTORY and what a restored catalogue learns again; [`acceptor`]
//! PREPARE, ACCEPT, ADOPT, DELETE_OBJ; [`proposer`] upload, repair and conversion with their retries; [`trace`] the
//! form in which a run of the protocol is told.

pub mod acceptor;
pub mod master;
pub mod proposer;
mod target;
mod token;
pub mod trace;

use serde::{Deserialize, Serialize};

use crate::ballot::Ballot;
use crate::digest::ChunkDigest;
use crate::id::{ChunkId, Incarnation, NodeId};
use crate::keys::{Canonical, DerivedKey, Mac};
use crate::time::UnixMillis;

pub use target::Target;
pub use token::BadToken;

/// Why a ballot is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenKind {
    Upload,
    Repair,
    Convert,
    Delete,
    Abort,
}

impl OpenKind {
    /// The word of the column `open_kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Repair => "repair",
            Self::Convert => "convert",
            Self::Delete => "delete",
            Self::Abort => "abort",
        }
    }
}

/// The catalogue's permission to write one chunk under one ballot on certain nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub chunk_id: ChunkId,
    pub ballot: Ballot,
    /// Epoch of the placement that this ballot was opened on; 0 when there is none.
    pub base: Ballot,
    /// The nodes that may take a part, each with the part that it may take.
    pub nodes: Vec<Target>,
    /// Fewest parts of the placement that this ballot may decide, carried-over ones included.
    pub min_ack: u8,
    /// Until then the catalogue keeps other owners away. Liveness only.
    pub until: UnixMillis,
    pub mac: Mac,
}

impl Grant {
    /// Signs a grant. A plain node id among `nodes` stands for a full copy there.
    #[must_use]
    pub fn signed(
        key: &DerivedKey,
        chunk_id: ChunkId,
        (ballot, base): (Ballot, Ballot),
        nodes: impl IntoIterator<Item = impl Into<Target>>,
        min_ack: u8,
        until: UnixMillis,
    ) -> Self {
        let nodes: Vec<Target> = nodes.into_iter().map(Into::into).collect();
        let message = Self::canonical(chunk_id, (ballot, base), &nodes, min_ack, until);
        Self {
            chunk_id,
            ballot,
            base,
            nodes,
            min_ack,
            until,
            mac: key.sign(&message),
        }
    }

    /// Whether the catalogue signed exactly this.
    #[must_use]
    pub fn verifies(&self, key: &DerivedKey) -> bool {
        let message = Self::canonical(
            self.chunk_id,
            (self.ballot, self.base),
            &self.nodes,
            self.min_ack,
            self.until,
        );
        key.verifies(&message, &self.mac)
    }

    fn canonical(
        chunk_id: ChunkId,
        (ballot, base): (Ballot, Ballot),
        nodes: &[Target],
        min_ack: u8,
        until: UnixMillis,
    ) -> Canonical {
        let head = Canonical::new("vstack.grant.2")
            .chunk(chunk_id)
            .ballot(ballot)
            .ballot(base);
        let head = head
            .number(min_ack.into())
            .number(until.0)
            .number(nodes.len() as u64);
        nodes.iter().fold(head, |message, target| {
            let shard = target.shard.map_or(WHOLE_CHUNK, u64::from);
            message.uuid(target.node.0).number(shard)
        })
    }

    /// The part that `node` may take under this grant.
    #[must_use]
    pub fn target_on(&self, node: NodeId) -> Option<Target> {
        self.nodes.iter().copied().find(|target| target.node == node)
    }
}

/// Stands in a grant's signature for a full copy; no shard has this number.
const WHOLE_CHUNK: u64 = 255;

/// A ballot that a newer OPEN replaced. Its nodes may hold bytes already, which the new one's proposer asks for with
/// PREPARE and then adopts instead of sending them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    pub ballot: Ballot,
    pub nodes: Vec<Target>,
}

/// A node's answer to PREPARE: it takes nothing of a lower ballot any more (as long as its process lives), and this
/// is what it holds of the chunk. No rule of safety reads it, so it carries no signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    pub chunk_id: ChunkId,
    pub ballot: Ballot,
    pub node: NodeId,
    pub objects: Vec<Held>,
}

/// One object on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// A whole chunk, or a shard.
    pub object: ChunkId,
    pub ballot: Ballot,
    #[serde(flatten)]
    pub digest: ChunkDigest,
}

/// A node's word that it holds an object durably. Binds the incarnation, never the boot epoch: a restart must not kill
/// healthy receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The object: a whole chunk, or a shard.
    pub chunk_id: ChunkId,
    pub ballot: Ballot,
    pub node: NodeId,
    pub incarnation: Incarnation,
    #[serde(flatten)]
    pub digest: ChunkDigest,
    pub mac: Mac,
}

impl Receipt {
    /// Signs a receipt with the node's own key.
    #[must_use]
    pub fn signed(
        key: &DerivedKey,
        (chunk_id, ballot): (ChunkId, Ballot),
        (node, incarnation): (NodeId, Incarnation),
        digest: ChunkDigest,
    ) -> Self {
        // R2: what a plain client wrote counts only after it was adopted under a ballot.
        assert!(!ballot.is_plain(), "no receipt is given for ballot 0");
        let message = Self::canonical((chunk_id, ballot), (node, incarnation), &digest);
        Self {
            chunk_id,
            ballot,
            node,
            incarnation,
            digest,
            mac: key.sign(&message),
        }
    }

    /// Whether `key`, which must be the key of `self.node`, signed exactly this.
    #[must_use]
    pub fn verifies(&self, key: &DerivedKey) -> bool {
        let message = Self::canonical(
            (self.chunk_id, self.ballot),
            (self.node, self.incarnation),
            &self.digest,
        );
        key.verifies(&message, &self.mac)
    }

    fn canonical(
        (chunk_id, ballot): (ChunkId, Ballot),
        (node, incarnation): (NodeId, Incarnation),
        digest: &ChunkDigest,
    ) -> Canonical {
        let head = Canonical::new("vstack.receipt.1")
            .chunk(chunk_id)
            .ballot(ballot)
            .uuid(node.0)
            .uuid(incarnation.0);
        head.number(digest.size_bytes)
            .digest(&digest.sha256)
            .digest(&digest.leaf_root)
    }
}

/// The catalogue's order to one node to delete one object. It names (chunk, ballot), which is never reused, so a late
/// or repeated order is harmless for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteOrder {
    pub chunk_id: ChunkId,
    pub ballot: Ballot,
    pub node: NodeId,
    pub mac: Mac,
}

impl DeleteOrder {
    #[must_use]
    pub fn signed(key: &DerivedKey, chunk_id: ChunkId, ballot: Ballot, node: NodeId) -> Self {
        Self {
            chunk_id,
            ballot,
            node,
            mac: key.sign(&Self::canonical(chunk_id, ballot, node)),
        }
    }

    #[must_use]
    pub fn verifies(&self, key: &DerivedKey) -> bool {
        key.verifies(&Self::canonical(self.chunk_id, self.ballot, self.node), &self.mac)
    }

    fn canonical(chunk_id: ChunkId, ballot: Ballot, node: NodeId) -> Canonical {
        Canonical::new("vstack.delete.1")
            .chunk(chunk_id)
            .ballot(ballot)
            .uuid(node.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Sha256Digest;
    use crate::id::VideoId;
    use crate::keys::ClusterKey;
    use uuid::Uuid;

    fn key() -> DerivedKey {
        ClusterKey::from_bytes(&[7; 32]).unwrap().grant_key()
    }

    fn chunk() -> ChunkId {
        ChunkId::media(VideoId(Uuid::from_u128(1)), 3)
    }

    fn grant() -> Grant {
        let nodes = vec![NodeId(Uuid::from_u128(2)), NodeId(Uuid::from_u128(3))];
        Grant::signed(
            &key(),
            chunk(),
            (Ballot::from_number(9), Ballot::PLAIN),
            nodes,
            2,
            UnixMillis(5),
        )
    }

    #[test]
    fn a_grant_with_any_field_changed_is_refused() {
        assert!(grant().verifies(&key()));
        let changes: [fn(&mut Grant); 7] = [
            |grant| grant.chunk_id = ChunkId::media(VideoId(Uuid::from_u128(1)), 4),
            |grant| grant.ballot = Ballot::from_number(10),
            |grant| grant.base = Ballot::from_number(1),
            |grant| grant.nodes.truncate(1),
            |grant| grant.nodes[0].shard = Some(0),
            |grant| grant.min_ack = 1,
            |grant| grant.until = UnixMillis(6),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut forged = grant();
            change(&mut forged);
            assert!(!forged.verifies(&key()), "change {number} went unnoticed");
        }
    }

    #[test]
    fn a_token_brings_back_what_it_was_made_of() {
        assert_eq!(Grant::from_token(&grant().to_token()), Ok(grant()));
        let order = DeleteOrder::signed(&key(), chunk(), Ballot::from_number(4), NodeId(Uuid::nil()));
        assert_eq!(DeleteOrder::from_token(&order.to_token()), Ok(order));
        assert_eq!(Grant::from_token("not a token"), Err(BadToken));
    }

    #[test]
    fn a_receipt_holds_for_its_node_incarnation_and_bytes() {
        let node = NodeId(Uuid::from_u128(2));
        let key = ClusterKey::from_bytes(&[7; 32]).unwrap().receipt_key(node);
        let digest = ChunkDigest::of(b"bytes");
        let receipt = Receipt::signed(
            &key,
            (chunk(), Ballot::from_number(9)),
            (node, Incarnation(Uuid::nil())),
            digest,
        );
        assert!(receipt.verifies(&key));
        let forged = Receipt {
            incarnation: Incarnation(Uuid::from_u128(1)),
            ..receipt.clone()
        };
        assert!(!forged.verifies(&key));
        let other_bytes = ChunkDigest {
            sha256: Sha256Digest::of(b"other"),
            ..digest
        };
        assert!(
            !Receipt {
                digest: other_bytes,
                ..receipt
            }
            .verifies(&key)
        );
    }
}
