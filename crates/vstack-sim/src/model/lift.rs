//! From the model's small numbers to the core's own types and back, so that every step is the core's.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::digest::{ChunkDigest, Sha256Digest};
use vstack_core::id::{ChunkId, Incarnation, NodeId, VideoId};
use vstack_core::keys::{ClusterKey, Mac};
use vstack_core::paxos::acceptor::Fence;
use vstack_core::paxos::master::{Accepted, OpenBallot, Row, Value, Witness};
use vstack_core::paxos::{Grant, Receipt, Target};
use vstack_core::placement::{Part, Placement, Scheme};
use vstack_core::time::UnixMillis;

use super::state::{
    Code, Decided, FIRST_SHARD, Granted, LIFE, LIVES, NODES, Named, PartCode, RowState, SLOTS, Slot, WHOLE,
    shard_code,
};

/// Highest [`Code`] and one.
const CODES: Code = 20;

/// What is the same in every state.
pub(super) struct World {
    pub(super) chunk: ChunkId,
    pub(super) nodes: [NodeId; NODES],
    digests: Vec<ChunkDigest>,
    witnesses: BTreeMap<(u8, u8, Slot, Code), Witness>,
}

pub(super) static WORLD: LazyLock<World> = LazyLock::new(World::new);

impl World {
    fn new() -> Self {
        let node = |number: usize| NodeId(Uuid::from_u128(number as u128 + 1));
        let mut world = Self {
            chunk: ChunkId::media(VideoId(Uuid::from_u128(9)), 0),
            nodes: std::array::from_fn(node),
            digests: (0..CODES).map(|code| ChunkDigest::of(&[code])).collect(),
            witnesses: BTreeMap::new(),
        };
        world.sign_receipts();
        world
    }

    /// Every receipt that any node can ever give, signed once.
    fn sign_receipts(&mut self) {
        let key = ClusterKey::from_bytes(&[7; 32]).expect("32 bytes that are not all zero");
        let last = u8::try_from(SLOTS).expect("there are few slots");
        for (number, node) in (0..).zip(self.nodes) {
            let node_key = key.receipt_key(node);
            for (slot, incarnation) in (1..last).flat_map(|slot| [(slot, 0), (slot, 1)]) {
                for code in (1..CODES).filter(|&code| code <= 2 || code >= 10) {
                    let object = (part_of(code).1.object(node, self.chunk), ballot_of(slot));
                    let life = (node, life_of(number, incarnation));
                    let receipt = Receipt::signed(&node_key, object, life, self.digest(code));
                    let witness = Witness::check(receipt, &key).expect("it was just signed");
                    self.witnesses.insert((number, incarnation, slot, code), witness);
                }
            }
        }
    }

    pub(super) fn digest(&self, code: Code) -> ChunkDigest {
        self.digests[usize::from(code)]
    }

    pub(super) fn code_of(&self, sha256: &Sha256Digest) -> Code {
        let found = self.digests.iter().position(|digest| digest.sha256 == *sha256);
        let code = found.expect("all bytes of the model are known");
        u8::try_from(code).expect("codes are small")
    }

    pub(super) fn witness(&self, node: u8, incarnation: u8, slot: Slot, code: Code) -> Witness {
        self.witnesses[&(node, incarnation, slot, code)].clone()
    }

    pub(super) fn number_of(&self, node: NodeId) -> usize {
        let found = self.nodes.iter().position(|other| *other == node);
        found.expect("all nodes of the model are known")
    }

    fn targets(&self, parts: &[PartCode; NODES]) -> Vec<Target> {
        let named = self.nodes.iter().zip(parts).filter(|(_, part)| **part != 0);
        named.map(|(&node, &part)| Shape(part).target(node)).collect()
    }

    /// The grant; acceptors get it after its signature was checked.
    pub(super) fn grant(&self, granted: &Granted) -> Grant {
        Grant {
            chunk_id: self.chunk,
            ballot: ballot_of(granted.slot),
            base: ballot_of(granted.base),
            nodes: self.targets(&granted.parts),
            min_ack: granted.min_ack,
            until: UnixMillis(0),
            mac: Mac(Sha256Digest([0; 32])),
        }
    }

    pub(super) fn open_ballot(&self, granted: &Granted) -> OpenBallot {
        OpenBallot {
            base: ballot_of(granted.base),
            kind: granted.kind,
            owner: String::new(),
            nodes: self.targets(&granted.parts),
            min_ack: granted.min_ack,
            until: UnixMillis(0),
        }
    }

    pub(super) fn row(&self, row: &RowState, grants: &[Granted]) -> Row {
        Row {
            promised: ballot_of(row.promised),
            accepted: row.accepted.as_ref().map(|accepted| self.accepted(accepted)),
            open: row.open.map(|open| self.open_ballot(&grants[usize::from(open)])),
        }
    }

    pub(super) fn accepted(&self, (slot, decided): &(Slot, Decided)) -> Accepted {
        Accepted {
            ballot: ballot_of(*slot),
            value: self.value(decided),
        }
    }

    pub(super) fn value(&self, decided: &Decided) -> Value {
        let Decided::Placed {
            coded,
            content,
            parts,
        } = decided
        else {
            return Value::DELETED;
        };
        let named = self.nodes.iter().zip(parts).filter(|(_, part)| part.1 != 0);
        let part = |(&node, &(slot, part)): (&NodeId, &Named)| {
            let digest = self.digest(shard_code(*content, part));
            Part {
                node,
                object_ballot: ballot_of(slot),
                shard: Shape(part).shard(),
                sha256: digest.sha256,
                leaf_root: digest.leaf_root,
            }
        };
        Value::Placed(Placement {
            scheme: if *coded {
                Scheme::Erasure
            } else {
                Scheme::Replicated
            },
            digest: self.digest(*content),
            parts: named.map(part).collect(),
        })
    }

    fn decided(&self, value: &Value) -> Decided {
        let Some(placement) = value.placement() else {
            return Decided::Deleted;
        };
        let mut parts = [(0, 0); NODES];
        for part in &placement.parts {
            let shape = part.shard.map_or(WHOLE, |shard| FIRST_SHARD + shard);
            parts[self.number_of(part.node)] = (slot_of(part.object_ballot), shape);
        }
        Decided::Placed {
            coded: placement.scheme == Scheme::Erasure,
            content: self.code_of(&placement.digest.sha256),
            parts,
        }
    }

    /// The small form of a row that the core returned; `open` is the grant that it has open, if it has one.
    pub(super) fn lower(&self, row: &Row, open: Option<u8>) -> RowState {
        let accepted = row
            .accepted
            .as_ref()
            .map(|accepted| (slot_of(accepted.ballot), self.decided(&accepted.value)));
        RowState {
            promised: slot_of(row.promised),
            accepted,
            open: row.open.as_ref().and(open),
        }
    }

    /// The node's fence after it promised what the small number says.
    pub(super) fn fence(&self, node: usize, fence: u8) -> Fence {
        let mut lifted = Fence::default();
        if fence > 0 {
            let ballot = Ballot::from_number(ballot_of(fence / 2).number() + u64::from(fence % 2));
            let grant = Grant {
                ballot,
                ..self.grant(&NOTHING_GRANTED)
            };
            let raised = lifted.prepare(&grant, self.nodes[node], Vec::new());
            raised.expect("a fence that never promised lets every ballot pass");
        }
        lifted
    }

    /// The small form of a node's fence.
    pub(super) fn lower_fence(&self, fence: &Fence) -> u8 {
        let promised = fence.promised(self.chunk);
        match (0..LIFE * LIVES + 1).find(|&slot| ballot_of(slot) == promised) {
            Some(slot) => 2 * slot,
            None => 2 * slot_of(Ballot::from_number(promised.number() - 1)) + 1,
        }
    }
}

const NOTHING_GRANTED: Granted = Granted {
    slot: 0,
    kind: vstack_core::paxos::OpenKind::Upload,
    base: 0,
    parts: [0; NODES],
    content: 0,
    min_ack: 0,
};

/// Which part of a chunk.
#[derive(Clone, Copy)]
pub(super) struct Shape(pub(super) PartCode);

impl Shape {
    pub(super) const fn shard(self) -> Option<u8> {
        self.0.checked_sub(FIRST_SHARD)
    }

    pub(super) const fn target(self, node: NodeId) -> Target {
        Target {
            node,
            shard: self.shard(),
        }
    }

    pub(super) fn object(self, node: NodeId, chunk: ChunkId) -> ChunkId {
        self.target(node).object(chunk)
    }
}

/// The chunk whose bytes these are, and which part of it.
pub(super) const fn part_of(code: Code) -> (Code, Shape) {
    match code.checked_sub(10) {
        None => (code, Shape(WHOLE)),
        Some(shard) => (1 + shard / 5, Shape(FIRST_SHARD + shard % 5)),
    }
}

pub(super) fn life_of(node: u8, incarnation: u8) -> Incarnation {
    Incarnation(Uuid::from_u128(
        1000 + u128::from(node) * 10 + u128::from(incarnation),
    ))
}

pub(super) fn ballot_of(slot: Slot) -> Ballot {
    let Some(above) = slot.checked_sub(1) else {
        return Ballot::PLAIN;
    };
    let first = Ballot::PLAIN.next(u64::from(above / LIFE) + 1);
    Ballot::from_number(first.number() + u64::from(above % LIFE))
}

pub(super) fn slot_of(ballot: Ballot) -> Slot {
    let found = (0..=LIFE * LIVES).find(|&slot| ballot_of(slot) == ballot);
    found.expect("the model grants only ballots that have a slot")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_order_as_their_ballots_do_and_come_back() {
        for slot in 0..=LIFE * LIVES {
            assert_eq!(slot_of(ballot_of(slot)), slot);
            assert!(slot == 0 || ballot_of(slot - 1) < ballot_of(slot));
        }
    }

    #[test]
    fn a_fence_survives_its_small_form() {
        for small in 0..2 * LIFE * LIVES {
            let fence = WORLD.fence(0, small);
            let again = WORLD.fence(0, WORLD.lower_fence(&fence));
            assert_eq!(
                again.promised(WORLD.chunk),
                fence.promised(WORLD.chunk),
                "fence {small}"
            );
        }
    }

    #[test]
    fn bytes_and_parts_come_back() {
        for content in [1, 2] {
            for part in WHOLE..FIRST_SHARD + 5 {
                let code = shard_code(content, part);
                let (chunk, shape) = part_of(code);
                assert_eq!((chunk, shape.0), (content, part));
                assert_eq!(WORLD.code_of(&WORLD.digest(code).sha256), code);
            }
        }
    }
}
