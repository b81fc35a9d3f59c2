//! What of a superblock has to be kept.

use std::sync::Arc;

use vstack_core::ballot::Ballot;

use super::run::Forgettable;
use crate::footer::{self, Entry};
use crate::index::{Index, Location, ObjectState};
use crate::record::{MARK_LEN, ObjectName, REFERENCE_RECORD_LEN, RecordKind, data_record_len};
use crate::scan::{Extent, scan_unsynced};
use crate::shared::Shared;
use crate::superblock::Superblock;

/// A record that the new superblock gets.
#[derive(Debug, Clone)]
pub(super) struct Keep {
    pub(super) source: Arc<Superblock>,
    pub(super) entry: Entry,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// The object's bytes, under these ballots: the first gets the bytes, the others refer to them.
    Object(Vec<Ballot>),
    /// The names of an object that is known to be lost or damaged.
    Lost(Vec<Ballot>),
    /// A reference to bytes elsewhere.
    Reference(Location),
    Tombstone,
}

/// What becomes of one superblock.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) keep: Vec<Keep>,
    /// Tombstones that nothing needs any more.
    pub(super) forget: Vec<ObjectName>,
    /// Bytes of the records to keep, without padding.
    pub(super) bytes: u64,
    /// Some of the source cannot be read.
    pub(super) damaged: bool,
}

/// The records of a closed superblock that say something about objects, and whether all of it could be read.
pub(crate) fn records_of(superblock: &Superblock) -> std::io::Result<(Vec<Entry>, bool)> {
    let (file, salt) = (&*superblock.file, superblock.header.salt);
    let len = file.size()?;
    let upto = superblock.durable();
    if upto == len
        && let Some(footer) = footer::read(file, salt, len)
    {
        return Ok((footer.entries, true));
    }
    // All of that was synced, whatever its last records say.
    let extent = Extent {
        len,
        abandoned_at: Some(upto),
    };
    let scan = scan_unsynced(file, salt, extent);
    let sound = scan.is_sound();
    let keyed = scan.records.iter().filter(|record| record.header.kind.has_key());
    let entries = keyed.map(|record| record.with_reference(file)).collect();
    Ok((entries, sound))
}

impl Plan {
    /// Plans one source. `None` if the index names something in it that its records do not show.
    pub(super) fn of(
        shared: &Shared,
        source: &Arc<Superblock>,
        forgettable: Forgettable<'_>,
    ) -> std::io::Result<Option<Self>> {
        let (entries, sound) = records_of(source)?;
        let tombstones: Vec<_> = entries
            .iter()
            .filter(|entry| entry.header.kind == RecordKind::Tombstone)
            .collect();
        let forget = forgettable_tombstones(shared, source, &tombstones, forgettable);
        let index = shared.index();
        let mut plan = Self {
            keep: Vec::new(),
            forget,
            bytes: 0,
            damaged: !sound || source.is_damaged(),
        };
        let mut accounted = 0;
        for entry in entries {
            accounted += plan.take(&index, source, entry);
        }
        let complete = accounted == index.file_use(source.header.number).entries;
        Ok(complete.then_some(plan))
    }

    /// Plans one record; returns how many entries of the index are at it.
    fn take(&mut self, index: &Index, source: &Arc<Superblock>, entry: Entry) -> u64 {
        let Some(name) = entry.header.name else { return 0 };
        let number = source.header.number;
        let known = index.get(name);
        match entry.header.kind {
            RecordKind::Tombstone => {
                let here = known.is_some_and(|known| known.is_at(number, entry.position));
                if here && !self.forget.contains(&name) {
                    self.keep(source, entry, What::Tombstone, u64::from(MARK_LEN));
                }
                u64::from(here)
            }
            RecordKind::Reference => {
                let by_reference =
                    known.filter(|known| known.by_reference && known.state != ObjectState::Deleted);
                match by_reference {
                    // It could not be resolved at the start: its own place stands for what is lost.
                    Some(known) if known.is_at(number, entry.position) => {
                        self.keep(source, entry, What::Lost(vec![name.ballot]), u64::from(MARK_LEN));
                        1
                    }
                    Some(known) if known.superblock != number => {
                        let what = What::Reference(known);
                        self.keep(source, entry, what, u64::from(REFERENCE_RECORD_LEN));
                        0
                    }
                    _ => 0,
                }
            }
            RecordKind::Data => self.take_object(index, source, entry, name),
            RecordKind::Seal | RecordKind::Watermark | RecordKind::Padding => 0,
        }
    }

    fn take_object(
        &mut self,
        index: &Index,
        source: &Arc<Superblock>,
        entry: Entry,
        name: ObjectName,
    ) -> u64 {
        let number = source.header.number;
        let here = index
            .ballots(name.chunk)
            .filter(|(_, location)| location.is_at(number, entry.position))
            .filter(|(_, location)| location.state != ObjectState::Deleted);
        let mut ballots: Vec<Ballot> = here.map(|(ballot, _)| ballot).collect();
        let count = ballots.len() as u64;
        if ballots.is_empty() {
            return 0;
        }
        // The name that the bytes were written under keeps them, if it lives.
        ballots.sort_by_key(|ballot| (*ballot != name.ballot, *ballot));
        let others = u64::from(REFERENCE_RECORD_LEN) * (count - 1);
        if entry.header.is_lost() {
            self.keep(source, entry, What::Lost(ballots), count * u64::from(MARK_LEN));
        } else {
            let bytes = u64::from(data_record_len(entry.header.body_len)) + others;
            self.keep(source, entry, What::Object(ballots), bytes);
        }
        count
    }

    fn keep(&mut self, source: &Arc<Superblock>, entry: Entry, what: What, bytes: u64) {
        self.bytes += bytes;
        self.keep.push(Keep {
            source: Arc::clone(source),
            entry,
            what,
        });
    }
}

/// The tombstones that may go: the caller knows that the delete is confirmed everywhere, and no other file of this node
/// holds a record of that name, so that it cannot come back at a start.
fn forgettable_tombstones(
    shared: &Shared,
    source: &Arc<Superblock>,
    tombstones: &[&Entry],
    forgettable: Forgettable<'_>,
) -> Vec<ObjectName> {
    let mut names: Vec<ObjectName> = tombstones
        .iter()
        .filter_map(|entry| Some((entry.header.name?, entry.header.stored_at)))
        .filter(|(name, stored_at)| forgettable(name.chunk, name.ballot, *stored_at))
        .map(|(name, _)| name)
        .collect();
    for other in shared.superblocks() {
        if names.is_empty() {
            break;
        }
        if other.header.uuid == source.header.uuid {
            continue;
        }
        match records_of(&other) {
            Ok((entries, true)) => {
                let held = |name: &ObjectName| entries.iter().any(|entry| entry.header.name == Some(*name));
                names.retain(|name| !held(name));
            }
            // What cannot be read may hold anything.
            Ok((_, false)) | Err(_) => names.clear(),
        }
    }
    names
}
