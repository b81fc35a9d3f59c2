//! The index in memory: where each object is and whether it may be read.
//!
//! Ordered by chunk and then ballot, so that "the highest ballot of this chunk" is one range query and an inventory can
//! be read in pages. An entry is 44 bytes; at the tree's usual fill that is about 90 bytes an object, after a start from a
//! snapshot about 50.

use std::collections::BTreeMap;

use serde::Serialize;
use vstack_core::ballot::Ballot;
use vstack_core::id::ChunkId;
use vstack_core::limits::MAX_CHUNK_BYTES;

use crate::record::{MARK_LEN, ObjectName, data_record_len};

/// What is known about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectState {
    /// On disk since an earlier boot; its SHA-256 has not been checked in this one.
    Unchecked,
    /// Written, or checked against its SHA-256, in this boot.
    Checked,
    /// Known to be damaged.
    Corrupt,
    /// A tombstone: it was here and never will be again.
    Deleted,
}

/// Where an object's data record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) superblock: u32,
    /// Position of the header, in units of 8 bytes.
    pub(crate) offset_words: u32,
    pub(crate) size_bytes: u32,
    pub(crate) state: ObjectState,
    /// The record there was written for another ballot, and a reference record names it for this one.
    pub(crate) by_reference: bool,
}

impl Location {
    /// A place on disk. Positions are multiples of 8 below 32 GiB (see `StoreOptions::superblock_bytes`).
    pub(crate) fn new(superblock: u32, offset: u64, size_bytes: u32, state: ObjectState) -> Self {
        let offset_words = u32::try_from(offset / 8).expect("a superblock is far smaller than 32 GiB");
        Self {
            superblock,
            offset_words,
            size_bytes,
            state,
            by_reference: false,
        }
    }

    /// Where a tombstone is.
    pub(crate) fn tombstone(superblock: u32, offset: u64) -> Self {
        Self::new(superblock, offset, 0, ObjectState::Deleted)
    }

    pub(crate) fn is_at(&self, superblock: u32, offset: u64) -> bool {
        self.superblock == superblock && self.offset() == offset
    }

    /// Bytes of its file that the record takes. References count the bytes they share, too: until the name that these
    /// were written under is deleted, a file looks fuller than it is.
    fn record_len(&self) -> u64 {
        match self.state {
            ObjectState::Deleted => u64::from(MARK_LEN),
            _ => u64::from(data_record_len(self.size_bytes)),
        }
    }

    pub(crate) const fn offset(&self) -> u64 {
        self.offset_words as u64 * 8
    }
}

/// A [`Location`] in 12 bytes: the size has 27 bits, the state 2, the reference 1.
#[derive(Debug, Clone, Copy)]
struct Packed {
    superblock: u32,
    offset_words: u32,
    size_state: u32,
}

const SIZE_BITS: u32 = 27;
const _: () = assert!(MAX_CHUNK_BYTES < 1 << SIZE_BITS);
const REFERENCE_BIT: u32 = 1 << 31;

impl From<Location> for Packed {
    fn from(location: Location) -> Self {
        let state = match location.state {
            ObjectState::Unchecked => 0,
            ObjectState::Checked => 1,
            ObjectState::Corrupt => 2,
            ObjectState::Deleted => 3,
        };
        let reference = if location.by_reference { REFERENCE_BIT } else { 0 };
        let size = location.size_bytes.min((1 << SIZE_BITS) - 1);
        Self {
            superblock: location.superblock,
            offset_words: location.offset_words,
            size_state: size | state << SIZE_BITS | reference,
        }
    }
}

impl From<Packed> for Location {
    fn from(packed: Packed) -> Self {
        let state = match packed.size_state >> SIZE_BITS & 3 {
            0 => ObjectState::Unchecked,
            1 => ObjectState::Checked,
            2 => ObjectState::Corrupt,
            _ => ObjectState::Deleted,
        };
        Self {
            superblock: packed.superblock,
            offset_words: packed.offset_words,
            size_bytes: packed.size_state & ((1 << SIZE_BITS) - 1),
            state,
            by_reference: packed.size_state & REFERENCE_BIT != 0,
        }
    }
}

/// One line of the inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectEntry {
    pub chunk: ChunkId,
    pub ballot: Ballot,
    pub size_bytes: u32,
    pub state: ObjectState,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: BTreeMap<ObjectName, Packed>,
    live: u64,
    live_bytes: u64,
    corrupt: u64,
    files: BTreeMap<u32, FileUse>,
}

/// What the index names in one superblock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FileUse {
    pub(crate) entries: u64,
    /// Of their records.
    pub(crate) bytes: u64,
}

impl Index {
    pub(crate) fn get(&self, name: ObjectName) -> Option<Location> {
        self.entries.get(&name).copied().map(Location::from)
    }

    /// The object of the highest ballot that is not deleted.
    pub(crate) fn highest(&self, chunk: ChunkId) -> Option<(Ballot, Location)> {
        let mut live = self
            .ballots(chunk)
            .rev()
            .filter(|(_, location)| location.state != ObjectState::Deleted);
        live.next()
    }

    /// Every ballot of a chunk, tombstones included, lowest first.
    pub(crate) fn ballots(&self, chunk: ChunkId) -> impl DoubleEndedIterator<Item = (Ballot, Location)> {
        let name = |ballot| ObjectName { chunk, ballot };
        let all = name(Ballot::PLAIN)..=name(Ballot::from_number(u64::MAX));
        self.entries
            .range(all)
            .map(|(name, location)| (name.ballot, Location::from(*location)))
    }

    /// The highest ballot under which anything of this chunk is or was here, whole or as a shard.
    pub(crate) fn highest_of_all_parts(&self, chunk: ChunkId) -> Option<Ballot> {
        let first = ObjectName {
            chunk: chunk.whole().with_shard(0).ok()?,
            ballot: Ballot::PLAIN,
        };
        let last = ObjectName {
            chunk: chunk.whole(),
            ballot: Ballot::from_number(u64::MAX),
        };
        self.entries
            .range(first..=last)
            .map(|(name, _)| name.ballot)
            .max()
    }

    /// The highest generation of the catalogue that any ballot here came from.
    pub(crate) fn highest_generation(&self) -> u64 {
        self.entries
            .keys()
            .map(|name| name.ballot.generation())
            .max()
            .unwrap_or(0)
    }

    /// Entries, tombstones included.
    pub(crate) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn file_use(&self, superblock: u32) -> FileUse {
        self.files.get(&superblock).copied().unwrap_or_default()
    }

    /// Forgets a tombstone that nothing needs any more.
    pub(crate) fn forget(&mut self, name: ObjectName) {
        if let Some(old) = self.entries.remove(&name) {
            self.count(old.into(), false);
        }
    }

    /// Up to `limit` entries after `after`, in order.
    pub(crate) fn after(&self, after: Option<ObjectName>, limit: usize) -> Vec<(ObjectName, Location)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let entries = self.entries.range((from, Unbounded)).take(limit);
        entries
            .map(|(name, location)| (*name, Location::from(*location)))
            .collect()
    }

    /// Sets an object's entry. A tombstone stays: names are never reused.
    pub(crate) fn set(&mut self, name: ObjectName, location: Location) {
        match self.get(name) {
            Some(old) if old.state == ObjectState::Deleted && location.state != ObjectState::Deleted => {
                return;
            }
            Some(old) => self.count(old, false),
            None => {}
        }
        self.count(location, true);
        self.entries.insert(name, location.into());
    }

    /// Takes all of `entries` into an index that has none. In order and at once they fill the tree's nodes, which one by
    /// one they would leave half empty.
    pub(crate) fn fill(&mut self, entries: Vec<(ObjectName, Location)>) {
        if !self.entries.is_empty() || !entries.is_sorted_by(|(first, _), (second, _)| first < second) {
            return entries
                .into_iter()
                .for_each(|(name, location)| self.set(name, location));
        }
        for (_, location) in &entries {
            self.count(*location, true);
        }
        let packed = entries
            .into_iter()
            .map(|(name, location)| (name, location.into()));
        self.entries = packed.collect();
    }

    /// Changes the state of an object whose record is still the one at `seen`. Damage is final: only a new record of
    /// the same bytes ends it.
    pub(crate) fn set_state(&mut self, name: ObjectName, seen: Location, state: ObjectState) {
        if let Some(now) = self.get(name)
            && (now.superblock, now.offset_words) == (seen.superblock, seen.offset_words)
            && now.state != ObjectState::Corrupt
        {
            self.set(name, Location { state, ..now });
        }
    }

    fn count(&mut self, location: Location, add: bool) {
        let file = self.files.entry(location.superblock).or_default();
        if add {
            file.entries += 1;
            file.bytes += location.record_len();
        } else {
            file.entries -= 1;
            file.bytes -= location.record_len();
        }
        if location.state == ObjectState::Deleted {
            return;
        }
        let bytes = u64::from(location.size_bytes);
        let corrupt = u64::from(location.state == ObjectState::Corrupt);
        if add {
            self.live += 1;
            self.live_bytes += bytes;
            self.corrupt += corrupt;
        } else {
            self.live -= 1;
            self.live_bytes -= bytes;
            self.corrupt -= corrupt;
        }
    }

    /// As [`Index::after`], for the outside.
    pub(crate) fn page(&self, after: Option<ObjectName>, limit: usize) -> Vec<ObjectEntry> {
        let entries = self.after(after, limit).into_iter();
        entries
            .map(|(name, location)| ObjectEntry {
                chunk: name.chunk,
                ballot: name.ballot,
                size_bytes: location.size_bytes,
                state: location.state,
            })
            .collect()
    }

    /// Objects that are not deleted: number, bytes, and how many of them are corrupt.
    pub(crate) const fn totals(&self) -> (u64, u64, u64) {
        (self.live, self.live_bytes, self.corrupt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use vstack_core::id::VideoId;

    fn name(seq: u32, ballot: u64) -> ObjectName {
        let chunk = ChunkId::media(VideoId(Uuid::from_u128(7)), seq);
        ObjectName {
            chunk,
            ballot: Ballot::from_number(ballot),
        }
    }

    fn at(offset: u64, state: ObjectState) -> Location {
        Location::new(0, offset, 10, state)
    }

    #[test]
    fn the_highest_ballot_that_is_not_deleted_is_found() {
        let mut index = Index::default();
        index.set(name(1, 3), at(4096, ObjectState::Checked));
        index.set(name(1, 5), at(8192, ObjectState::Checked));
        index.set(name(2, 9), at(16384, ObjectState::Checked));
        assert_eq!(
            index.highest(name(1, 0).chunk).map(|(ballot, _)| ballot.number()),
            Some(5)
        );
        index.set(name(1, 5), Location::tombstone(0, 0));
        assert_eq!(
            index.highest(name(1, 0).chunk).map(|(ballot, _)| ballot.number()),
            Some(3)
        );
        assert_eq!(index.totals(), (2, 20, 0));
    }

    #[test]
    fn a_tombstone_stays() {
        let mut index = Index::default();
        index.set(name(1, 0), Location::tombstone(0, 0));
        index.set(name(1, 0), at(4096, ObjectState::Checked));
        assert_eq!(
            index.get(name(1, 0)).map(|location| location.state),
            Some(ObjectState::Deleted)
        );
        assert_eq!(index.totals(), (0, 0, 0));
    }

    #[test]
    fn an_index_that_is_filled_at_once_is_the_one_that_is_filled_one_by_one() {
        let mut entries: Vec<_> = (0..100)
            .map(|seq| (name(seq, 1), at(u64::from(seq) * 8, ObjectState::Checked)))
            .collect();
        entries[7].1 = Location::tombstone(3, 0);
        let check = |entries: &[(ObjectName, Location)]| {
            let (mut one_by_one, mut at_once) = (Index::default(), Index::default());
            entries
                .iter()
                .for_each(|(name, location)| one_by_one.set(*name, *location));
            at_once.fill(entries.to_vec());
            assert_eq!(at_once.after(None, 1000), one_by_one.after(None, 1000));
            assert_eq!(at_once.totals(), one_by_one.totals());
            assert_eq!(at_once.file_use(3), one_by_one.file_use(3));
        };
        check(&entries);
        entries.push((name(7, 1), at(800, ObjectState::Checked)));
        check(&entries);
    }

    #[test]
    fn a_location_is_unpacked_as_it_was() {
        let states = [
            ObjectState::Unchecked,
            ObjectState::Checked,
            ObjectState::Corrupt,
            ObjectState::Deleted,
        ];
        for state in states {
            for by_reference in [false, true] {
                let location = Location {
                    by_reference,
                    ..Location::new(9, 77 * 8, 64 << 20, state)
                };
                assert_eq!(Location::from(Packed::from(location)), location);
            }
        }
    }

    #[test]
    fn an_entry_stays_small() {
        assert!(size_of::<ObjectName>() + size_of::<Packed>() <= 44);
    }
}
