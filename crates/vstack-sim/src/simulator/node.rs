//! A storage node: the acceptor's rules in front of a disk.

use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::id::{ChunkId, NodeId};
use vstack_core::keys::{ClusterKey, DerivedKey};
use vstack_core::paxos::acceptor::{self, Fence, Refusal, Removal, Verdict};
use vstack_core::paxos::{DeleteOrder, Grant, Held, Promise, Receipt};

use super::disk::{Disk, Name};
use super::message::{Address, Message, Payload, incarnation, node_id};
use super::mutant::Mutant;
use super::outbox::{Fact, Outbox, Timer};
use super::random::Random;

/// The longest time from a write to its sync.
const SYNC_MAX_MS: u64 = 40;

#[derive(Debug)]
pub(super) struct Node {
    index: usize,
    pub(super) up: bool,
    /// Counts starts: timers of an earlier life of the process are void.
    pub(super) life: u64,
    /// Counts disks.
    pub(super) disks: u64,
    pub(super) disk: Disk,
    fence: Fence,
    pub(super) highest_generation: u64,
    /// What is to be said when the disk has synced.
    after_sync: Vec<(Address, AfterSync)>,
    grant_key: DerivedKey,
    receipt_key: DerivedKey,
    mutant: Option<Mutant>,
}

#[derive(Debug)]
enum AfterSync {
    Receipt { request: u64, name: Name },
    Deleted { name: Name },
}

impl Node {
    pub(super) fn new(index: usize, key: &ClusterKey, mutant: Option<Mutant>) -> Self {
        Self {
            index,
            up: true,
            life: 0,
            disks: 0,
            disk: Disk::default(),
            fence: Fence::default(),
            highest_generation: 0,
            after_sync: Vec::new(),
            grant_key: key.grant_key(),
            receipt_key: key.receipt_key(node_id(index)),
            mutant,
        }
    }

    fn me(&self) -> NodeId {
        node_id(self.index)
    }

    pub(super) fn heartbeat(&self) -> Message {
        Message::Heartbeat {
            incarnation: incarnation(self.index, self.disks),
            highest_generation: self.highest_generation,
        }
    }

    pub(super) fn inventory(&self) -> Message {
        let objects = self.disk.names();
        Message::Inventory(
            objects
                .map(|((object, ballot), stored)| (*object, *ballot, stored.stored_at_ms))
                .collect(),
        )
    }

    pub(super) fn receive(&mut self, now_ms: u64, from: Address, message: Message, out: &mut Outbox) {
        match message {
            Message::Accept {
                request,
                grant,
                object,
                payload,
            } => {
                if self.mutant == Some(Mutant::OneObjectPerChunk) {
                    self.overwrite(object, grant.ballot, out);
                }
                let stored = self.accept(now_ms, &grant, object, payload);
                self.answer(from, request, (object, grant.ballot), stored, out);
            }
            Message::Adopt {
                request,
                grant,
                object,
                from: source,
                expected,
            } => {
                let name = (object, grant.ballot);
                let stored = self.adopt(now_ms, &grant, (object, source), expected);
                if stored.is_ok() && self.mutant == Some(Mutant::AdoptWithoutRetag) {
                    let receipt = self.receipt(name, expected);
                    out.send(from, Message::Stored { request, receipt });
                } else {
                    self.answer(from, request, name, stored, out);
                }
            }
            Message::Prepare { request, grant } => {
                let message = match self.prepare(&grant) {
                    Ok(promise) => Message::Promised { request, promise },
                    Err(refusal) => Message::NotStored {
                        request,
                        ballot: grant.ballot,
                        refusal,
                    },
                };
                out.send(from, message);
            }
            Message::Delete(order) => self.delete(from, &order, out),
            Message::Read {
                request,
                object,
                ballot,
            } => {
                let name = (object, ballot);
                let payload = self.disk.read(name).filter(|_| self.disk.is_synced(name));
                out.send(from, Message::Bytes { request, payload });
            }
            _ => {}
        }
    }

    fn admit(&mut self, grant: &Grant, object: ChunkId) -> Result<(), Refusal> {
        assert!(grant.verifies(&self.grant_key), "nobody forges grants here");
        self.highest_generation = self.highest_generation.max(grant.ballot.generation());
        let stored = self.disk.highest_ballot(object);
        self.fence.admit(grant, object, node_id(self.index), stored)
    }

    fn accept(
        &mut self,
        now_ms: u64,
        grant: &Grant,
        object: ChunkId,
        payload: Payload,
    ) -> Result<(), Refusal> {
        self.admit(grant, object)?;
        let name = (object, grant.ballot);
        if acceptor::accept(self.disk.object(name), &payload.digest())? == Verdict::Write {
            self.disk.write(name, payload, now_ms);
        }
        Ok(())
    }

    /// A mutant's way to store: the chunk's other ballots are gone.
    fn overwrite(&mut self, object: ChunkId, ballot: Ballot, out: &mut Outbox) {
        let older: Vec<Name> = self
            .disk
            .names_of(object)
            .filter(|name| name.1 < ballot)
            .collect();
        older.into_iter().for_each(|name| self.drop_object(name, out));
    }

    fn adopt(
        &mut self,
        now_ms: u64,
        grant: &Grant,
        from: Name,
        expected: ChunkDigest,
    ) -> Result<(), Refusal> {
        let target = (from.0, grant.ballot);
        self.admit(grant, from.0)?;
        let (source, there) = (self.disk.object(from), self.disk.object(target));
        let (_, verdict) = acceptor::adopt(source, Some(expected.sha256), there)?;
        let write = verdict == Verdict::Write && self.mutant != Some(Mutant::AdoptWithoutRetag);
        match self.disk.read(from) {
            Some(payload) if write => self.disk.write(target, payload, now_ms),
            _ => {}
        }
        Ok(())
    }

    fn prepare(&mut self, grant: &Grant) -> Result<Promise, Refusal> {
        assert!(grant.verifies(&self.grant_key), "nobody forges grants here");
        self.highest_generation = self.highest_generation.max(grant.ballot.generation());
        let names = self
            .disk
            .names_of(grant.chunk_id)
            .filter(|name| self.disk.is_synced(*name));
        let held = names.filter_map(|(object, ballot)| {
            let digest = self.disk.stored((object, ballot))?.digest;
            Some(Held {
                object,
                ballot,
                digest,
            })
        });
        let held = held.collect();
        self.fence.prepare(grant, node_id(self.index), held)
    }

    /// R4: the receipt waits for the sync.
    fn answer(
        &mut self,
        to: Address,
        request: u64,
        name: Name,
        stored: Result<(), Refusal>,
        out: &mut Outbox,
    ) {
        match stored {
            Ok(()) if self.disk.is_synced(name) || self.mutant == Some(Mutant::ReceiptBeforeSync) => {
                self.give_receipt(to, request, name, out);
                self.sync_soon(out);
            }
            Ok(()) => {
                self.after_sync.push((to, AfterSync::Receipt { request, name }));
                self.sync_soon(out);
            }
            Err(refusal) => out.send(
                to,
                Message::NotStored {
                    request,
                    ballot: name.1,
                    refusal,
                },
            ),
        }
    }

    fn sync_soon(&self, out: &mut Outbox) {
        out.timer_within(
            SYNC_MAX_MS,
            Timer::NodeSync {
                node: self.index,
                life: self.life,
            },
        );
    }

    fn delete(&mut self, from: Address, order: &DeleteOrder, out: &mut Outbox) {
        assert!(order.verifies(&self.grant_key), "nobody forges orders here");
        let name = (order.chunk_id, order.ballot);
        match self
            .fence
            .remove(order, node_id(self.index), self.disk.object(name))
        {
            Ok(Removal::Tombstone) => {
                self.drop_object(name, out);
                if self.mutant == Some(Mutant::DeletesEarlierBallots) {
                    let earlier: Vec<Name> = self
                        .disk
                        .names_of(name.0)
                        .filter(|other| other.1 < name.1)
                        .collect();
                    earlier.into_iter().for_each(|name| self.drop_object(name, out));
                }
                self.after_sync.push((from, AfterSync::Deleted { name }));
                self.sync_soon(out);
            }
            Ok(Removal::Nothing) => out.send(
                from,
                Message::Deleted {
                    object: name.0,
                    ballot: name.1,
                },
            ),
            Err(refusal) => unreachable!("orders reach the node that they name: {refusal}"),
        }
    }

    fn drop_object(&mut self, name: Name, out: &mut Outbox) {
        self.disk.remove(name);
        out.fact(Fact::Gone {
            node: self.index,
            name,
        });
    }

    pub(super) fn synced(&mut self, out: &mut Outbox) {
        self.disk.sync();
        for (to, waiting) in std::mem::take(&mut self.after_sync) {
            match waiting {
                AfterSync::Receipt { request, name } => self.give_receipt(to, request, name, out),
                AfterSync::Deleted { name } => out.send(
                    to,
                    Message::Deleted {
                        object: name.0,
                        ballot: name.1,
                    },
                ),
            }
        }
    }

    /// Nothing when the object was deleted before the sync.
    fn give_receipt(&self, to: Address, request: u64, name: Name, out: &mut Outbox) {
        if let Some(stored) = self.disk.stored(name) {
            let receipt = self.receipt(name, stored.digest);
            out.send(to, Message::Stored { request, receipt });
        }
    }

    fn receipt(&self, name: Name, digest: ChunkDigest) -> Receipt {
        let life = (self.me(), incarnation(self.index, self.disks));
        Receipt::signed(&self.receipt_key, name, life, digest)
    }

    /// The process or the machine dies.
    pub(super) fn crash(&mut self, random: &mut Random, out: &mut Outbox) {
        self.up = false;
        self.life += 1;
        self.after_sync.clear();
        self.fence = Fence::default();
        for name in self.disk.power_cut(random) {
            out.fact(Fact::Gone {
                node: self.index,
                name,
            });
        }
    }

    pub(super) fn start(&mut self, out: &mut Outbox) {
        self.up = true;
        if self.mutant != Some(Mutant::TornWriteTrusted) {
            for name in self.disk.recover() {
                out.fact(Fact::Gone {
                    node: self.index,
                    name,
                });
            }
        }
        out.timer(
            0,
            Timer::NodeBeat {
                node: self.index,
                life: self.life,
            },
        );
    }

    /// The disk is replaced by an empty one, the process starts anew.
    pub(super) fn lose_disk(&mut self) {
        self.life += 1;
        self.disks += 1;
        self.after_sync.clear();
        self.fence = Fence::default();
        self.disk = Disk::default();
        self.highest_generation = 0;
    }
}
