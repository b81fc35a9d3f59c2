//! The exchange of old superblocks for the new one in the index: all of it at once, between two batches of the writer.

use std::collections::HashMap;
use std::sync::Arc;

use vstack_core::ballot::Ballot;
use vstack_core::id::ChunkId;

use crate::index::{Location, ObjectState};
use crate::record::ObjectName;
use crate::shared::Shared;
use crate::superblock::Superblock;

/// A change of the index that the exchange of the files brings.
#[derive(Debug, Clone)]
pub(super) enum Relocation {
    Object {
        chunk: ChunkId,
        from: (u32, u64),
        to: u64,
        /// The ballot whose record has the bytes; others refer to it.
        ballot: Ballot,
        lost: bool,
    },
    /// A further name of an object that is lost.
    Lost {
        name: ObjectName,
        from: (u32, u64),
        to: u64,
        size_bytes: u32,
    },
    Tombstone {
        name: ObjectName,
        to: u64,
    },
}

/// What the index learns at once.
pub(super) struct Exchange {
    pub(super) target: Arc<Superblock>,
    pub(super) sources: Vec<u32>,
    pub(super) relocations: Vec<Relocation>,
    pub(super) forget: Vec<ObjectName>,
}

impl Exchange {
    pub(super) fn publish(self, shared: &Shared) {
        let number = self.target.header.number;
        let mut index = shared.index_mut();
        // The new file has the number of an old one, so all old places are looked up before any new one is set.
        let mut changes: HashMap<ObjectName, Location> = HashMap::new();
        for relocation in &self.relocations {
            match *relocation {
                Relocation::Object {
                    chunk,
                    from,
                    to,
                    ballot: owner,
                    lost,
                } => {
                    let state = if lost {
                        ObjectState::Corrupt
                    } else {
                        ObjectState::Checked
                    };
                    let here = index
                        .ballots(chunk)
                        .filter(|(_, location)| location.is_at(from.0, from.1))
                        .filter(|(_, location)| location.state != ObjectState::Deleted);
                    changes.extend(here.map(|(ballot, old)| {
                        let location = Location {
                            by_reference: ballot != owner,
                            ..Location::new(number, to, old.size_bytes, state)
                        };
                        (ObjectName { chunk, ballot }, location)
                    }));
                }
                Relocation::Lost {
                    name,
                    from,
                    to,
                    size_bytes,
                } => {
                    if index.get(name).is_some_and(|old| old.is_at(from.0, from.1)) {
                        changes.insert(name, Location::new(number, to, size_bytes, ObjectState::Corrupt));
                    }
                }
                Relocation::Tombstone { name, to } => {
                    changes.insert(name, Location::tombstone(number, to));
                }
            }
        }
        for (name, location) in changes {
            index.set(name, location);
        }
        for name in self.forget {
            index.forget(name);
        }
        for source in self.sources {
            shared.remove_superblock(source);
        }
        shared.add_superblock(self.target);
    }
}
