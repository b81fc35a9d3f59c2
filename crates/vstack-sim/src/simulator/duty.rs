//! What the catalogue does of itself: orders to delete, repairs, inventories, backups, starts and restores.

use vstack_core::limits::UNKNOWN_OBJECT_GRACE_MS;
use vstack_core::paxos::DeleteOrder;
use vstack_core::paxos::master::{Fate, ReportedObject, fate};

use super::super::message::node_index;
use super::super::outbox::Timer;
use super::*;

/// Objects that one tick sends orders or repairs for.
const TICK_OBJECTS: usize = 64;
const TICK_MS: u64 = 1_000;
/// Until an order that nobody confirmed is sent again, and a repair that came to nothing is asked for again.
const AGAIN_MS: u64 = 8_000;
/// A restore leaps over so many generations: more than there can be starts between a backup and its use. What nodes
/// have seen is not enough, since a grant may still be on its way to its first node. The time of the restore is added,
/// since the same backup may be restored twice.
const RESTORE_GENERATIONS: u64 = 1 << 10;

impl Catalogue {
    pub(in crate::simulator) fn tick(&mut self, now: UnixMillis, out: &mut Outbox) {
        self.sync(now);
        if self.unheard.is_empty() {
            self.give_orders(now, out);
            self.ask_for_repairs(now, out);
            if self.has(Mutant::CollectWithoutFence) {
                self.collect_expired(now);
            }
        }
        out.timer(TICK_MS, Timer::CatalogueTick { life: self.life });
    }

    fn give_orders(&mut self, now: UnixMillis, out: &mut Outbox) {
        let due = self.tables.garbage.iter_mut().filter(|(_, due)| **due <= now);
        for (garbage, due) in due.take(TICK_OBJECTS + 64) {
            *due = now + AGAIN_MS;
            let order = DeleteOrder::signed(&self.grant_key, garbage.object, garbage.ballot, garbage.node);
            out.send(Address::Node(node_index(garbage.node)), Message::Delete(order));
        }
    }

    fn ask_for_repairs(&mut self, now: UnixMillis, out: &mut Outbox) {
        let rested = |chunk: &ChunkId| {
            self.mending
                .get(chunk)
                .is_none_or(|asked| now.since(*asked) >= AGAIN_MS)
        };
        let batch: Vec<ChunkId> = self
            .to_repair()
            .copied()
            .filter(rested)
            .take(TICK_OBJECTS)
            .collect();
        for chunk in batch {
            self.mending.insert(chunk, now);
            let Some(base) = self.row(chunk).and_then(|row| row.accepted.clone()) else {
                continue;
            };
            let base = Box::new(base);
            let lost = self
                .tables
                .lost
                .get(&chunk)
                .into_iter()
                .flatten()
                .copied()
                .collect();
            let client = self.plan.clients + usize::from(chunk.seq() % 2 == 1);
            out.send(Address::Client(client), Message::Mend { chunk, base, lost });
        }
    }

    /// A mutant: what is open and past its lease is taken for garbage, and its ballot may still commit.
    fn collect_expired(&mut self, now: UnixMillis) {
        let expired = self.tables.rows.iter().filter_map(|(chunk, row)| {
            let open = row.open.as_ref().filter(|open| open.until <= now)?;
            // Once, when it has just ended.
            (now.since(open.until) < TICK_MS).then_some(())?;
            Some(
                open.nodes
                    .iter()
                    .map(|target| Garbage {
                        node: target.node,
                        object: target.object(*chunk),
                        ballot: row.promised,
                    })
                    .collect(),
            )
        });
        let expired: Vec<Vec<Garbage>> = expired.collect();
        self.queue(now, expired.concat());
    }

    /// Message 6: which objects of a node may go.
    pub(super) fn inventory(
        &mut self,
        now: UnixMillis,
        node: NodeId,
        objects: &[(ChunkId, Ballot, u64)],
        out: &mut Outbox,
    ) {
        if !self.unheard.is_empty() {
            return;
        }
        for &(object, ballot, stored_at_ms) in objects {
            let stored_at = UnixMillis(stored_at_ms);
            let reported = ReportedObject {
                object,
                ballot,
                stored_at,
            };
            if self.is_garbage(now, node, &reported) {
                if self.row(object.whole()).is_none() {
                    let name = (object, ballot);
                    out.fact(Fact::Doomed {
                        node: node_index(node),
                        name,
                    });
                }
                let order = DeleteOrder::signed(&self.grant_key, object, ballot, node);
                out.send(Address::Node(node_index(node)), Message::Delete(order));
            }
        }
        self.uncounted.remove(&node);
    }

    fn is_garbage(&self, now: UnixMillis, node: NodeId, reported: &ReportedObject) -> bool {
        let chunk = reported.object.whole();
        let unsynced = self.unsynced.iter().any(|unsynced| unsynced.chunk == chunk);
        let unknown = Row::default();
        let row = self.row(chunk).unwrap_or(&unknown);
        if self.has(Mutant::UnknownCollected) && row.promised.is_plain() {
            return true;
        }
        // The core's grace is a day; the run has a shorter one.
        let now = now + (UNKNOWN_OBJECT_GRACE_MS - self.plan.unknown_grace_ms);
        !unsynced && fate(chunk, row, node, reported, (now, self.knowledge())) == Fate::Garbage
    }

    /// Since a restore: some node has not said what it holds.
    pub(in crate::simulator) fn is_reconciling(&self) -> bool {
        !self.uncounted.is_empty()
    }

    pub(in crate::simulator) fn back_up(&mut self, now_ms: u64, now: UnixMillis) {
        self.sync(now);
        self.backup = Some((now_ms, self.tables.clone()));
    }

    /// The process dies; a part of the OPENs that were not synced is undone, the newest first.
    pub(in crate::simulator) fn crash(&mut self, undone: usize, out: &mut Outbox) {
        self.up = false;
        self.life += 1;
        let kept = self.unsynced.len().saturating_sub(undone);
        for lost in self.unsynced.split_off(kept).into_iter().rev() {
            match lost.before {
                Some(row) => self.tables.rows.insert(lost.chunk, row),
                None => self.tables.rows.remove(&lost.chunk),
            };
            out.fact(Fact::Undone { chunk: lost.chunk });
        }
        self.grants = 0;
        self.heard.clear();
        self.mending.clear();
    }

    pub(in crate::simulator) fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    pub(in crate::simulator) fn start(&mut self, now: UnixMillis, out: &mut Outbox) {
        self.up = true;
        self.sync(now);
        if !self.has(Mutant::GenerationNotRaised) {
            self.tables.generation += 1;
        }
        self.wanting = self
            .tables
            .rows
            .iter()
            .filter(|(_, row)| wants_parts(row))
            .map(|(chunk, _)| *chunk)
            .collect();
        out.timer(0, Timer::CatalogueTick { life: self.life });
    }

    /// What is open in a backup may have been overtaken, and its objects deleted, in the life that was lost. Its receipts
    /// are still good, so a late COMMIT must not find it.
    fn drop_open_ballots(&mut self) {
        for row in self.tables.rows.values_mut() {
            row.open = None;
        }
    }

    /// The newest backup takes the place of everything. Gives when it was made.
    pub(in crate::simulator) fn restore(&mut self, now_ms: u64) -> Option<u64> {
        let (made_at_ms, tables) = self.backup.clone()?;
        // Every node that ever was: one that is not in the backup may hold objects of a later generation.
        self.unheard = self.tables.nodes.keys().copied().collect();
        self.uncounted = self.unheard.clone();
        self.tables = tables;
        if !self.has(Mutant::GenerationNotRaised) && !self.has(Mutant::RestoreRaisesByOne) {
            self.tables.generation += RESTORE_GENERATIONS + now_ms;
        }
        self.unsynced.clear();
        if !self.has(Mutant::OpenBallotsSurviveRestore) {
            self.drop_open_ballots();
        }
        Some(made_at_ms)
    }
}

fn wants_parts(row: &Row) -> bool {
    row.placement()
        .is_some_and(|placement| master::missing_parts(placement) > 0)
}
