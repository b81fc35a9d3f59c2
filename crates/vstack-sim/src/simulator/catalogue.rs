//! The catalogue: rows, nodes, and what is to be deleted. The rules are the core's; here is what surrounds them.
//!
//! An OPEN may be answered before its transaction is synced (the rule of generations allows it); everything else waits.
//! A crash then loses the latest OPENs. Orders that follow from an OPEN wait until it is synced.

use std::collections::{BTreeMap, BTreeSet};

use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, Incarnation, NodeId};
use vstack_core::keys::{ClusterKey, DerivedKey};
use vstack_core::limits::NODE_DEGRADED_AFTER_MS;
use vstack_core::paxos::master::{
    self, Accepted, Conflict, Garbage, Knowledge, OpenRequest, Registry, Row, Value, Witness,
    next_generation, object_of,
};
use vstack_core::paxos::{Grant, OpenKind, Receipt, Replaced, Target};
use vstack_core::placement::{Part, Placement, Scheme};
use vstack_core::rendezvous::{Candidate, Domain, choose_nodes};
use vstack_core::time::UnixMillis;

use super::message::{Address, Denied, Message, OpenAsk, node_id};
use super::mutant::Mutant;
use super::outbox::{Fact, Outbox};
use super::plan::Plan;

#[path = "duty.rs"]
mod duty;

#[derive(Debug, Clone)]
struct Registered {
    domain: Domain,
    seen: UnixMillis,
}

/// What a backup holds, and what is durable.
#[derive(Debug, Clone, Default)]
struct Tables {
    rows: BTreeMap<ChunkId, Row>,
    /// Objects to delete, and from when on.
    garbage: BTreeMap<Garbage, UnixMillis>,
    nodes: BTreeMap<NodeId, Incarnation>,
    /// Lives of disks that were replaced. A late heartbeat of one must not bring it back.
    retired: BTreeSet<Incarnation>,
    /// Parts whose disk was replaced.
    lost: BTreeMap<ChunkId, BTreeSet<(NodeId, Ballot)>>,
    generation: u64,
}

/// An OPEN that is not synced yet.
#[derive(Debug)]
struct Unsynced {
    chunk: ChunkId,
    before: Option<Row>,
    garbage: Vec<Garbage>,
}

#[derive(Debug)]
pub(super) struct Catalogue {
    pub(super) up: bool,
    pub(super) life: u64,
    tables: Tables,
    unsynced: Vec<Unsynced>,
    backup: Option<(u64, Tables)>,
    /// Ballots granted in this life.
    grants: u64,
    /// In memory: who was heard of in this life.
    heard: BTreeMap<NodeId, Registered>,
    /// Since a restore: nodes that have not reported yet, and that have not sent an inventory yet.
    unheard: BTreeSet<NodeId>,
    uncounted: BTreeSet<NodeId>,
    /// When something was last asked for.
    mending: BTreeMap<ChunkId, UnixMillis>,
    wanting: BTreeSet<ChunkId>,
    key: ClusterKey,
    grant_key: DerivedKey,
    plan: Plan,
}

impl Catalogue {
    pub(super) fn new(key: ClusterKey, plan: &Plan) -> Self {
        Self {
            up: true,
            life: 0,
            tables: Tables {
                generation: 1,
                ..Tables::default()
            },
            unsynced: Vec::new(),
            backup: None,
            grants: 0,
            heard: BTreeMap::new(),
            unheard: BTreeSet::new(),
            uncounted: BTreeSet::new(),
            mending: BTreeMap::new(),
            wanting: BTreeSet::new(),
            grant_key: key.grant_key(),
            key,
            plan: plan.clone(),
        }
    }

    /// Ballots granted in this life. After the first, nobody else may know that there is this life.
    pub(super) fn grants(&self) -> u64 {
        self.grants
    }

    fn has(&self, mutant: Mutant) -> bool {
        self.plan.mutant == Some(mutant)
    }

    pub(super) fn row(&self, chunk: ChunkId) -> Option<&Row> {
        self.tables.rows.get(&chunk)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&ChunkId, &Row)> {
        self.tables.rows.iter()
    }

    pub(super) fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        self.tables.nodes.get(&node).copied()
    }

    pub(super) fn generation(&self) -> u64 {
        self.tables.generation
    }

    /// Objects that wait to be deleted.
    pub(super) fn garbage(&self) -> impl Iterator<Item = &Garbage> {
        self.tables.garbage.keys()
    }

    /// Chunks whose placement is to be completed.
    pub(super) fn to_repair(&self) -> impl Iterator<Item = &ChunkId> {
        self.wanting.iter().chain(self.tables.lost.keys())
    }

    pub(super) fn receive(&mut self, now: UnixMillis, from: Address, message: Message, out: &mut Outbox) {
        match message {
            Message::Open { request, ask } => {
                let granted = self.open(now, &ask, out);
                let answer = granted.map(|(grant, replaced)| Message::Granted {
                    request,
                    grant,
                    replaced,
                });
                out.send(
                    from,
                    answer.unwrap_or_else(|denied| Message::Denied { request, denied }),
                );
            }
            Message::Commit {
                request,
                chunk,
                ballot,
                value,
                receipts,
            } => {
                let decided = self.commit(now, chunk, ballot, &value, receipts, out);
                let answer = decided.map(|accepted| Message::Committed {
                    request,
                    accepted: Box::new(accepted),
                });
                out.send(
                    from,
                    answer.unwrap_or_else(|denied| Message::Denied { request, denied }),
                );
            }
            Message::Show { request, chunk } => {
                let accepted = self.row(chunk).and_then(|row| row.accepted.clone()).map(Box::new);
                out.send(from, Message::Shown { request, accepted });
            }
            Message::DeleteChunk { request, chunk } if self.unheard.is_empty() => {
                self.delete(now, chunk, out);
                out.send(from, Message::ChunkDeleted { request });
            }
            Message::Whole { chunk, epoch } if self.is_epoch(chunk, epoch) => {
                self.tables.lost.remove(&chunk);
            }
            Message::Missing { chunk, epoch, part } if self.is_epoch(chunk, epoch) => {
                self.tables.lost.entry(chunk).or_default().insert(part);
            }
            other => {
                if let Address::Node(index) = from {
                    self.hear(now, node_id(index), other, out);
                }
            }
        }
    }

    fn is_epoch(&self, chunk: ChunkId, epoch: Ballot) -> bool {
        self.row(chunk).is_some_and(|row| row.epoch() == epoch)
    }

    /// What nodes say.
    fn hear(&mut self, now: UnixMillis, node: NodeId, message: Message, out: &mut Outbox) {
        match message {
            Message::Heartbeat {
                incarnation,
                highest_generation,
            } => {
                self.heartbeat(now, node, incarnation, highest_generation);
            }
            Message::Deleted { object, ballot } => {
                self.tables.garbage.remove(&Garbage { node, object, ballot });
            }
            Message::Inventory(objects) => self.inventory(now, node, &objects, out),
            _ => {}
        }
    }

    fn heartbeat(
        &mut self,
        now: UnixMillis,
        node: NodeId,
        incarnation: Incarnation,
        highest_generation: u64,
    ) {
        let raised = !self.has(Mutant::GenerationNotRaised);
        if highest_generation >= self.tables.generation && self.unheard.contains(&node) && raised {
            self.tables.generation = next_generation(self.tables.generation, [highest_generation]);
        }
        self.unheard.remove(&node);
        if self.tables.retired.contains(&incarnation) {
            return;
        }
        if let Some(before) = self
            .tables
            .nodes
            .insert(node, incarnation)
            .filter(|before| *before != incarnation)
        {
            self.tables.retired.insert(before);
            self.disk_was_replaced(node);
        }
        self.heard.insert(
            node,
            Registered {
                domain: Domain::of(&node.to_string()),
                seen: now,
            },
        );
    }

    /// Everything that a committed placement names there is lost.
    fn disk_was_replaced(&mut self, node: NodeId) {
        for (chunk, row) in &self.tables.rows {
            for part in row.placement().into_iter().flat_map(|placement| &placement.parts) {
                if part.node == node {
                    self.tables
                        .lost
                        .entry(*chunk)
                        .or_default()
                        .insert((node, part.object_ballot));
                }
            }
        }
    }

    fn candidates(&self, now: UnixMillis, exclude: &BTreeSet<NodeId>) -> Vec<Candidate> {
        let fresh = |(node, registered): &(&NodeId, &Registered)| {
            now.since(registered.seen) < NODE_DEGRADED_AFTER_MS && !exclude.contains(*node)
        };
        let candidate = |(node, registered): (&NodeId, &Registered)| Candidate {
            node: *node,
            room: 1.0,
            domain: registered.domain,
        };
        self.heard.iter().filter(fresh).map(candidate).collect()
    }

    /// Nodes for the parts that are asked for: all of them, or as many as there are.
    fn choose(&self, now: UnixMillis, ask: &OpenAsk) -> Result<Vec<Target>, Denied> {
        let nodes = choose_nodes(ask.chunk, &self.candidates(now, &ask.exclude), ask.parts.len());
        let full = match ask.parts.first() {
            Some(Some(_)) => Scheme::Erasure.part_count(),
            _ => Scheme::Replicated.part_count(),
        };
        let kept = full - ask.parts.len().min(full);
        if nodes.len() + kept < usize::from(ask.min_ack) || nodes.is_empty() {
            return Err(Denied::NotEnoughNodes);
        }
        let target = |(node, shard): (NodeId, &Option<u8>)| Target { node, shard: *shard };
        Ok(nodes.into_iter().zip(&ask.parts).map(target).collect())
    }

    fn knowledge(&self) -> Knowledge {
        if self.is_reconciling() {
            Knowledge::Behind
        } else {
            Knowledge::Complete
        }
    }

    fn open(
        &mut self,
        now: UnixMillis,
        ask: &OpenAsk,
        out: &mut Outbox,
    ) -> Result<(Grant, Option<Replaced>), Denied> {
        if !self.unheard.is_empty() {
            return Err(Denied::NotServing);
        }
        let nodes = self.choose(now, ask)?;
        let request = OpenRequest {
            kind: ask.kind,
            owner: format!("client-{}", ask.owner),
            expect_epoch: ask.expect_epoch,
            nodes: nodes.clone(),
            min_ack: ask.min_ack,
            generation: self.tables.generation,
            now,
            lease_ms: self.plan.lease_ms,
            knowledge: self.knowledge(),
        };
        let before = self.row(ask.chunk).cloned();
        let row = before.clone().unwrap_or_default();
        let opened = master::open(ask.chunk, &row, &request).map_err(denied)?;
        let mut garbage = opened.garbage;
        if self.has(Mutant::ReplacedBeforeCommit) && ask.kind == OpenKind::Convert {
            garbage.extend(named(ask.chunk, row.placement()));
        }
        self.grants += 1;
        out.fact(Fact::Granted {
            chunk: ask.chunk,
            ballot: opened.ballot,
        });
        self.tables.rows.insert(ask.chunk, opened.row);
        out.fact(Fact::Row {
            chunk: ask.chunk,
            before: before.clone(),
        });
        if self.has(Mutant::OrdersBeforeSync) {
            self.queue(now, std::mem::take(&mut garbage));
        }
        self.unsynced.push(Unsynced {
            chunk: ask.chunk,
            before,
            garbage,
        });
        if !self.plan.lazy_opens {
            self.sync(now);
        }
        let base = opened.base.as_ref().map_or(Ballot::PLAIN, |base| base.ballot);
        let until = now + self.plan.lease_ms;
        let grant = Grant::signed(
            &self.grant_key,
            ask.chunk,
            (opened.ballot, base),
            nodes,
            ask.min_ack,
            until,
        );
        Ok((grant, opened.replaced))
    }

    fn commit(
        &mut self,
        now: UnixMillis,
        chunk: ChunkId,
        ballot: Ballot,
        value: &Value,
        receipts: Vec<Receipt>,
        out: &mut Outbox,
    ) -> Result<Accepted, Denied> {
        if !self.unheard.is_empty() {
            return Err(Denied::NotServing);
        }
        let before = self.row(chunk).cloned();
        let mut row = before.clone().unwrap_or_default();
        if self.has(Mutant::OldBallotCommits) && row.epoch() < ballot && ballot < row.promised {
            row = overtaken_row(row, ballot, &receipts);
        }
        let told = receipts.iter().map(|receipt| (receipt.node, receipt.incarnation));
        let registry = Nodes {
            tables: &self.tables,
            chunk,
            told: self.has(Mutant::IncarnationUnchecked).then(|| told.collect()),
        };
        let witness = |receipt| Witness::check(receipt, &self.key).expect("nobody forges receipts here");
        let witnesses: Vec<Witness> = receipts.into_iter().map(witness).collect();
        let decided = master::commit(chunk, &row, ballot, value, &witnesses, registry).map_err(denied)?;
        if decided.replayed {
            return Ok(decided.accepted);
        }
        let promised = before
            .as_ref()
            .map_or(decided.row.promised, |before| before.promised);
        let row = Row {
            promised,
            ..decided.row
        };
        self.tables.rows.insert(chunk, row);
        out.fact(Fact::Row {
            chunk,
            before: before.clone(),
        });
        self.forget_lost(chunk, decided.accepted.value.placement());
        if decided.missing_parts > 0 {
            self.wanting.insert(chunk);
        } else {
            self.wanting.remove(&chunk);
        }
        if self.has(Mutant::CommitBeforeSync) {
            self.unsynced.push(Unsynced {
                chunk,
                before,
                garbage: decided.garbage,
            });
        } else {
            self.queue(now, decided.garbage);
            self.sync(now);
        }
        Ok(decided.accepted)
    }

    fn forget_lost(&mut self, chunk: ChunkId, placement: Option<&Placement>) {
        let parts = placement.map_or(&[][..], |placement| &placement.parts);
        let named: BTreeSet<_> = parts.iter().map(|part| (part.node, part.object_ballot)).collect();
        if let Some(lost) = self.tables.lost.get_mut(&chunk) {
            lost.retain(|part| named.contains(part));
            if lost.is_empty() {
                self.tables.lost.remove(&chunk);
            }
        }
    }

    fn delete(&mut self, now: UnixMillis, chunk: ChunkId, out: &mut Outbox) {
        let before = self.row(chunk).cloned();
        let request = OpenRequest {
            kind: OpenKind::Delete,
            owner: "library".to_owned(),
            expect_epoch: None,
            nodes: Vec::new(),
            min_ack: 0,
            generation: self.tables.generation,
            now,
            lease_ms: 0,
            knowledge: self.knowledge(),
        };
        let row = before.clone().unwrap_or_default();
        let deleted = master::delete(chunk, &row, &request).expect("a deletion is never refused");
        self.tables.rows.insert(chunk, deleted.row);
        out.fact(Fact::Row { chunk, before });
        self.forget_lost(chunk, None);
        self.wanting.remove(&chunk);
        self.queue(now, deleted.garbage);
        self.sync(now);
    }

    fn queue(&mut self, now: UnixMillis, garbage: Vec<Garbage>) {
        let due = now + self.plan.collect_grace_ms;
        self.tables
            .garbage
            .extend(garbage.into_iter().map(|garbage| (garbage, due)));
    }

    /// All transactions so far are durable.
    fn sync(&mut self, now: UnixMillis) {
        for unsynced in std::mem::take(&mut self.unsynced) {
            self.queue(now, unsynced.garbage);
        }
    }
}

/// What COMMIT asks about nodes.
struct Nodes<'a> {
    tables: &'a Tables,
    chunk: ChunkId,
    /// A mutant believes what the receipts say.
    told: Option<BTreeMap<NodeId, Incarnation>>,
}

impl Registry for Nodes<'_> {
    fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        let told = self.told.as_ref().and_then(|told| told.get(&node));
        told.or_else(|| self.tables.nodes.get(&node)).copied()
    }

    fn is_lost(&self, part: &Part) -> bool {
        let lost = self.tables.lost.get(&self.chunk);
        lost.is_some_and(|lost| lost.contains(&(part.node, part.object_ballot)))
    }
}

fn denied(conflict: Conflict) -> Denied {
    Denied::Conflict(Box::new(conflict))
}

/// The objects that a placement names.
pub(super) fn named(chunk: ChunkId, placement: Option<&Placement>) -> BTreeSet<Garbage> {
    let garbage = |part: &Part| Garbage {
        node: part.node,
        object: object_of(chunk, part),
        ballot: part.object_ballot,
    };
    placement
        .into_iter()
        .flat_map(|placement| placement.parts.iter().map(garbage))
        .collect()
}

/// A mutant's view of a row: as if the newer OPEN had never been.
fn overtaken_row(row: Row, ballot: Ballot, receipts: &[Receipt]) -> Row {
    let open = row.open.map(|open| master::OpenBallot {
        nodes: receipts.iter().map(target_of).collect(),
        min_ack: 2,
        ..open
    });
    Row {
        promised: ballot,
        open,
        ..row
    }
}

fn target_of(receipt: &Receipt) -> Target {
    Target {
        node: receipt.node,
        shard: receipt.chunk_id.shard(),
    }
}
