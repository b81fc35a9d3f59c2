//! What must hold whatever happens. The oracle sees every machine at once, which no machine of a real cluster does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::id::ChunkId;
use vstack_core::paxos::master::{Accepted, Garbage, Row, Value, object_of};
use vstack_core::placement::{Part, Scheme};

use super::catalogue::{Catalogue, named};
use super::disk::Name;
use super::message::{incarnation, node_id, node_index};
use super::node::Node;
use super::outbox::Fact;

/// What was broken. I1 to I5 are the invariants of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// I1: every committed part is durable on its node, unless its disk was replaced afterwards.
    Durable,
    /// I2: epochs only grow, a tombstone is final, a ballot decides one value.
    Decided,
    /// I3: no order ever deletes what the committed value names.
    Collected,
    /// I4: what was acknowledged was decided, with those bytes.
    Acknowledged,
    /// I5: what COMMIT counted was durable at that moment.
    Witnessed,
    /// A ballot is granted once.
    GrantedOnce,
    /// After a restore nothing unknown goes before every node has reported.
    UnknownKept,
    /// What was acknowledged can be read, with the acknowledged bytes.
    Readable,
    /// When faults stop, everything comes to an end.
    Ends,
    /// An assertion of the protocol's own code.
    Asserted,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Durable => "I1 a committed part is durable",
            Self::Decided => "I2 a decision stays",
            Self::Collected => "I3 nothing committed is deleted",
            Self::Acknowledged => "I4 what is acknowledged was decided",
            Self::Witnessed => "I5 what is counted is durable",
            Self::GrantedOnce => "a ballot is granted once",
            Self::UnknownKept => "what a restored catalogue does not know is kept",
            Self::Readable => "what is acknowledged can be read",
            Self::Ends => "all work ends when faults stop",
            Self::Asserted => "an assertion of the core",
        })
    }
}

/// A rule was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {detail} (at {at_ms} ms)")]
pub struct Violation {
    pub rule: Rule,
    pub detail: String,
    pub at_ms: u64,
}

#[derive(Debug, Default)]
pub(super) struct Oracle {
    granted: BTreeSet<(ChunkId, Ballot)>,
    decided: BTreeMap<(ChunkId, Ballot), Value>,
    decided_at_ms: BTreeMap<ChunkId, u64>,
    acknowledged: BTreeMap<ChunkId, (Ballot, ChunkDigest)>,
    /// Changed after the backup that was restored: the operator was told that this tail is lost.
    forgiven: BTreeSet<ChunkId>,
    violation: Option<Violation>,
}

/// The machines as they are now.
pub(super) struct Sight<'a> {
    pub(super) now_ms: u64,
    pub(super) catalogue: &'a Catalogue,
    pub(super) nodes: &'a [Node],
}

impl Oracle {
    pub(super) fn take_violation(&mut self) -> Option<Violation> {
        self.violation.take()
    }

    pub(super) fn violate(&mut self, sight: &Sight<'_>, rule: Rule, detail: String) {
        let violation = Violation {
            rule,
            detail,
            at_ms: sight.now_ms,
        };
        self.violation.get_or_insert(violation);
    }

    pub(super) fn is_forgiven(&self, chunk: ChunkId) -> bool {
        self.forgiven.contains(&chunk)
    }

    pub(super) fn decisions(&self) -> usize {
        self.decided.len()
    }

    pub(super) fn acknowledgements(&self) -> usize {
        self.acknowledged.len()
    }

    pub(super) fn see(&mut self, sight: &Sight<'_>, fact: &Fact) {
        match fact {
            Fact::Granted { chunk, ballot } => {
                if !self.granted.insert((*chunk, *ballot)) {
                    self.violate(
                        sight,
                        Rule::GrantedOnce,
                        format!("{chunk} {ballot:?} was granted twice"),
                    );
                }
            }
            Fact::Row { chunk, before } => self.row_changed(sight, *chunk, before.as_ref()),
            Fact::Gone { node, name } => self.object_gone(sight, *node, *name),
            Fact::Doomed { node, name } => self.object_doomed(sight, *node, *name),
            Fact::Acknowledged { chunk, accepted, .. } => self.acknowledge(sight, *chunk, accepted),
            Fact::Undone { chunk } => self.undone(sight, *chunk),
        }
    }

    fn row_changed(&mut self, sight: &Sight<'_>, chunk: ChunkId, before: Option<&Row>) {
        let Some(row) = sight.catalogue.row(chunk) else {
            return;
        };
        let was = before.map(Row::epoch).unwrap_or_default();
        if row.epoch() < was || before.is_some_and(Row::is_deleted) && !row.is_deleted() {
            self.violate(
                sight,
                Rule::Decided,
                format!("{chunk} went back from epoch {was:?}"),
            );
        }
        let Some(accepted) = row.accepted.as_ref().filter(|accepted| accepted.ballot != was) else {
            return;
        };
        let known = self
            .decided
            .insert((chunk, accepted.ballot), accepted.value.clone());
        if known.is_some_and(|known| known != accepted.value) {
            self.violate(
                sight,
                Rule::Decided,
                format!("{chunk} {:?} decided two values", accepted.ballot),
            );
        }
        self.decided_at_ms.insert(chunk, sight.now_ms);
        let old = before
            .and_then(Row::placement)
            .map_or(&[][..], |placement| &placement.parts);
        for part in row.placement().into_iter().flat_map(|placement| &placement.parts) {
            if !old.contains(part) && !sight.is_durable(chunk, part) && !sight.loss_is_unknown(part) {
                let detail = format!(
                    "{chunk}: COMMIT counted {:?} on node-{}",
                    part.object_ballot,
                    node_index(part.node)
                );
                self.violate(sight, Rule::Witnessed, detail);
            }
        }
    }

    fn object_gone(&mut self, sight: &Sight<'_>, node: usize, (object, ballot): Name) {
        let chunk = object.whole();
        let garbage = Garbage {
            node: node_id(node),
            object,
            ballot,
        };
        let row = sight.catalogue.row(chunk);
        let is_named = row.is_some_and(|row| row.names(chunk, &garbage));
        if is_named && !self.forgiven.contains(&chunk) {
            let detail = format!("{object} {ballot:?} went from node-{node} and is committed");
            self.violate(sight, Rule::Collected, detail);
        }
    }

    fn object_doomed(&mut self, sight: &Sight<'_>, node: usize, (object, ballot): Name) {
        let garbage = Garbage {
            node: node_id(node),
            object,
            ballot,
        };
        if sight.catalogue.is_reconciling() && self.was_decided(object.whole(), &garbage) {
            let detail = format!("{object} {ballot:?} is to be deleted from node-{node}");
            self.violate(sight, Rule::UnknownKept, detail);
        }
    }

    fn was_decided(&self, chunk: ChunkId, garbage: &Garbage) -> bool {
        let values = self
            .decided
            .range((chunk, Ballot::PLAIN)..=(chunk, Ballot::from_number(u64::MAX)));
        let newest = values.last().and_then(|(_, value)| value.placement());
        named(chunk, newest).contains(garbage)
    }

    fn acknowledge(&mut self, sight: &Sight<'_>, chunk: ChunkId, accepted: &Accepted) {
        if self.decided.get(&(chunk, accepted.ballot)) != Some(&accepted.value) {
            let detail = format!(
                "{chunk}: a client heard of {:?}, which was not decided so",
                accepted.ballot
            );
            self.violate(sight, Rule::Acknowledged, detail);
        }
        if let Some(placement) = accepted.value.placement() {
            self.acknowledged
                .insert(chunk, (accepted.ballot, placement.digest));
        }
    }

    fn undone(&mut self, sight: &Sight<'_>, chunk: ChunkId) {
        let epoch = sight.catalogue.row(chunk).map(Row::epoch).unwrap_or_default();
        if let Some((ballot, _)) = self.acknowledged.get(&chunk)
            && epoch < *ballot
            && !self.forgiven.contains(&chunk)
        {
            let detail = format!("{chunk}: the acknowledged {ballot:?} is gone after a restart");
            self.violate(sight, Rule::Decided, detail);
        }
    }

    /// The catalogue is again as it was at that time.
    pub(super) fn restored(&mut self, made_at_ms: u64) {
        let changed = self
            .decided_at_ms
            .iter()
            .filter(|(_, at_ms)| **at_ms >= made_at_ms);
        self.forgiven.extend(changed.map(|(chunk, _)| *chunk));
    }

    /// The end of a run: every machine is up and all work is done.
    pub(super) fn finish(&mut self, sight: &Sight<'_>, wanted_gone: &BTreeSet<ChunkId>) {
        let kept: Vec<(ChunkId, ChunkDigest)> = self
            .acknowledged
            .iter()
            .filter(|(chunk, _)| !self.forgiven.contains(chunk))
            .map(|(chunk, (_, digest))| (*chunk, *digest))
            .collect();
        for (chunk, digest) in kept {
            let Some(row) = sight.catalogue.row(chunk) else {
                self.violate(
                    sight,
                    Rule::Readable,
                    format!("{chunk} was acknowledged and is unknown"),
                );
                continue;
            };
            if row.is_deleted() && wanted_gone.contains(&chunk) {
                continue;
            }
            if !sight.is_readable(chunk, row, &digest) {
                self.violate(
                    sight,
                    Rule::Readable,
                    format!("{chunk} was acknowledged and cannot be read"),
                );
            }
            for part in row.placement().into_iter().flat_map(|placement| &placement.parts) {
                if !sight.is_durable(chunk, part) {
                    let node = node_index(part.node);
                    self.violate(
                        sight,
                        Rule::Durable,
                        format!("{chunk}: its part on node-{node} is not there"),
                    );
                }
            }
        }
    }
}

impl Sight<'_> {
    fn is_durable(&self, chunk: ChunkId, part: &Part) -> bool {
        let name = (object_of(chunk, part), part.object_ballot);
        let disk = &self.nodes[node_index(part.node)].disk;
        disk.is_synced(name)
            && disk
                .read(name)
                .is_some_and(|payload| payload.digest().sha256 == part.sha256)
    }

    /// Its disk was replaced, and the catalogue cannot know it yet.
    fn loss_is_unknown(&self, part: &Part) -> bool {
        let index = node_index(part.node);
        self.catalogue.incarnation(part.node) != Some(incarnation(index, self.nodes[index].disks))
    }

    fn is_readable(&self, chunk: ChunkId, row: &Row, digest: &ChunkDigest) -> bool {
        row.placement().is_some_and(|placement| {
            let readable = placement
                .parts
                .iter()
                .filter(|part| self.is_durable(chunk, part))
                .count();
            let needed = if placement.scheme == Scheme::Erasure { 3 } else { 1 };
            placement.digest == *digest && readable >= needed
        })
    }

    /// Whether the catalogue has heard of every disk that was replaced.
    pub(super) fn losses_are_known(&self) -> bool {
        let known = |(index, node): (usize, &Node)| {
            self.catalogue.incarnation(node_id(index)) == Some(incarnation(index, node.disks))
        };
        self.nodes.iter().enumerate().all(known)
    }

    /// Whether all that is committed could still be read without this node's disk, and no other loss is news.
    pub(super) fn can_lose(&self, node: usize) -> bool {
        let survives = |(chunk, row): (&ChunkId, &Row)| {
            row.placement().is_none_or(|placement| {
                let others = placement
                    .parts
                    .iter()
                    .filter(|part| node_index(part.node) != node);
                let intact = others.filter(|part| self.is_durable(*chunk, part)).count();
                intact >= if placement.scheme == Scheme::Erasure { 3 } else { 1 }
            })
        };
        self.losses_are_known() && self.catalogue.up && self.catalogue.rows().all(survives)
    }
}
