//! A node's disk: what is synced stays, what is not may vanish, be torn, or stay when the power goes.

use std::collections::{BTreeMap, BTreeSet};

use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::id::ChunkId;
use vstack_core::paxos::acceptor::Object;

use super::message::Payload;
use super::random::Random;

/// The name of an object on its node.
pub(super) type Name = (ChunkId, Ballot);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    payload: Payload,
    /// What its record says it is; a torn write is something else.
    pub(super) digest: ChunkDigest,
    pub(super) stored_at_ms: u64,
}

#[derive(Debug, Clone)]
enum Change {
    Written(Name),
    Removed(Name, Stored),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    objects: BTreeMap<Name, Stored>,
    tombstones: BTreeSet<Name>,
    /// The unsynced half, in the order of the writes.
    unsynced: Vec<Change>,
}

impl Disk {
    pub(super) fn object(&self, name: Name) -> Object {
        match self.objects.get(&name) {
            Some(stored) => Object::Stored(stored.digest),
            None if self.tombstones.contains(&name) => Object::Deleted,
            None => Object::Absent,
        }
    }

    pub(super) fn stored(&self, name: Name) -> Option<&Stored> {
        self.objects.get(&name)
    }

    /// The bytes of an object, compared with its checksum.
    pub(super) fn read(&self, name: Name) -> Option<Payload> {
        let stored = self.objects.get(&name)?;
        (stored.payload.digest() == stored.digest).then_some(stored.payload)
    }

    pub(super) fn is_synced(&self, name: Name) -> bool {
        let unsynced = |change: &Change| matches!(change, Change::Written(other) if *other == name);
        self.objects.contains_key(&name) && !self.unsynced.iter().any(unsynced)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (&Name, &Stored)> {
        self.objects.iter()
    }

    /// All ballots of a chunk or of its shards that are here.
    pub(super) fn names_of(&self, chunk: ChunkId) -> impl DoubleEndedIterator<Item = Name> {
        let first = chunk.with_shard(0).unwrap_or(chunk);
        let last = (chunk.whole(), Ballot::from_number(u64::MAX));
        self.objects
            .range((first, Ballot::PLAIN)..=last)
            .map(|(name, _)| *name)
    }

    pub(super) fn highest_ballot(&self, chunk: ChunkId) -> Ballot {
        self.names_of(chunk)
            .map(|(_, ballot)| ballot)
            .max()
            .unwrap_or_default()
    }

    pub(super) fn write(&mut self, name: Name, payload: Payload, now_ms: u64) {
        let stored = Stored {
            payload,
            digest: payload.digest(),
            stored_at_ms: now_ms,
        };
        self.objects.insert(name, stored);
        self.unsynced.push(Change::Written(name));
    }

    /// Appends a tombstone.
    pub(super) fn remove(&mut self, name: Name) {
        if let Some(stored) = self.objects.remove(&name) {
            self.tombstones.insert(name);
            self.unsynced.push(Change::Removed(name, stored));
        }
    }

    pub(super) fn sync(&mut self) {
        self.unsynced.clear();
    }

    /// The power goes. Gives the names that were there and are not any more.
    pub(super) fn power_cut(&mut self, random: &mut Random) -> Vec<Name> {
        let mut gone = Vec::new();
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Written(name) => match random.below(3) {
                    0 => {
                        self.objects.remove(&name);
                        gone.push(name);
                    }
                    1 => {
                        if let Some(stored) = self.objects.get_mut(&name) {
                            stored.payload = Payload(random.next());
                        }
                    }
                    _ => {}
                },
                Change::Removed(name, stored) if random.chance(500) => {
                    self.tombstones.remove(&name);
                    self.objects.insert(name, stored);
                }
                Change::Removed(..) => {}
            }
        }
        gone
    }

    /// The start after a power cut: a record whose checksum does not fit is dropped. Gives the names that were.
    pub(super) fn recover(&mut self) -> Vec<Name> {
        let torn =
            |(name, stored): (&Name, &Stored)| (stored.payload.digest() != stored.digest).then_some(*name);
        let torn: Vec<Name> = self.objects.iter().filter_map(torn).collect();
        for name in &torn {
            self.objects.remove(name);
        }
        torn
    }
}
