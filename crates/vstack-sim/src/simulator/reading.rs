//! Reading a chunk that is to be repaired or converted: which parts are there, and the bytes.

use std::collections::BTreeMap;

use vstack_core::ballot::Ballot;
use vstack_core::id::{NodeId, SHARD_COUNT};
use vstack_core::paxos::OpenKind;
use vstack_core::paxos::master::Accepted;
use vstack_core::paxos::proposer::{Contents, Goal};
use vstack_core::placement::{Part, Placement, Scheme};

use super::message::Payload;

/// Shards that a chunk is decoded from.
const DATA_SHARDS: usize = 3;

/// What came of reading one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Bytes(Payload),
    /// The node says that it is not there.
    Nothing,
    Silence,
}

#[derive(Debug)]
pub(super) struct Reading {
    pub(super) kind: OpenKind,
    pub(super) base: Accepted,
    lost: Vec<(NodeId, Ballot)>,
    found: BTreeMap<NodeId, Found>,
}

/// What is to be done when all parts were read.
#[derive(Debug)]
pub(super) enum Next {
    Propose(Goal, Payload),
    /// Every part is where it should be.
    Whole,
    /// Too few parts can be read now.
    Nothing,
}

impl Reading {
    pub(super) const fn new(kind: OpenKind, base: Accepted, lost: Vec<(NodeId, Ballot)>) -> Self {
        Self {
            kind,
            base,
            lost,
            found: BTreeMap::new(),
        }
    }

    fn placement(&self) -> Option<&Placement> {
        self.base.value.placement()
    }

    pub(super) fn parts(&self) -> Vec<Part> {
        self.placement()
            .map_or_else(Vec::new, |placement| placement.parts.clone())
    }

    /// Notes what was found; says what is next when that was the last part.
    pub(super) fn found(&mut self, node: NodeId, found: Found) -> Option<Next> {
        self.found.insert(node, found);
        (self.found.len() == self.parts().len()).then(|| self.next())
    }

    fn next(&self) -> Next {
        let Some(payload) = self.decoded() else {
            return Next::Nothing;
        };
        let contents = |scheme| match scheme {
            Scheme::Replicated => Contents::Whole(payload.digest()),
            Scheme::Erasure => shards_of(payload),
        };
        let goal = match (self.kind, self.placement()) {
            (OpenKind::Convert, _) => Goal::convert(&self.base, contents(Scheme::Erasure)),
            (_, Some(placement)) => {
                Goal::repair(&self.base, contents(placement.scheme), |part| self.is_lost(part))
            }
            (_, None) => None,
        };
        match goal {
            Some(goal) => Next::Propose(goal, payload),
            None if self.found.values().all(|found| matches!(found, Found::Bytes(_))) => Next::Whole,
            None => Next::Nothing,
        }
    }

    fn is_lost(&self, part: &Part) -> bool {
        let known = self.lost.contains(&(part.node, part.object_ballot));
        known || self.found.get(&part.node) == Some(&Found::Nothing)
    }

    /// The chunk's bytes, if enough parts are there with the bytes that were committed.
    fn decoded(&self) -> Option<Payload> {
        let placement = self.placement()?;
        let good = placement
            .parts
            .iter()
            .filter_map(|part| match self.found.get(&part.node) {
                Some(Found::Bytes(payload)) if payload.digest().sha256 == part.sha256 => {
                    Some(payload.whole(part.shard))
                }
                _ => None,
            });
        let good: Vec<Payload> = good.collect();
        let needed = if placement.scheme == Scheme::Erasure {
            DATA_SHARDS
        } else {
            1
        };
        good.first().copied().filter(|_| good.len() >= needed)
    }
}

fn shards_of(payload: Payload) -> Contents {
    let shards: [u8; SHARD_COUNT as usize] =
        std::array::from_fn(|index| u8::try_from(index).unwrap_or(u8::MAX));
    Contents::Shards {
        whole: payload.digest(),
        shards: Box::new(shards.map(|index| payload.shard(index).digest())),
    }
}
