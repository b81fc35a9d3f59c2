//! From the records of all files to one index.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use tracing::warn;
use uuid::Uuid;
use vstack_core::id::NodeId;

use super::{BadRange, Mode, RecoveryReport, Resume, Resumed, TornTail};
use crate::disk::Disk;
use crate::error::DiskFault;
use crate::footer::{self, Entry, Moves};
use crate::index::{Index, Location, ObjectState};
use crate::read::read_header;
use crate::record::{ObjectName, RecordHeader, RecordKind};
use crate::scan::{Extent, Scan, scan, scan_unsynced};
use crate::snapshot;
use crate::superblock::Superblock;

pub(super) struct Recovery<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) mode: Mode,
    pub(super) superblocks: BTreeMap<u32, Arc<Superblock>>,
    pub(super) index: Index,
    pub(super) resume: Resume,
    pub(super) report: RecoveryReport,
    references: Vec<(u32, Entry)>,
    /// References whose bytes were not found.
    pub(super) unresolved: usize,
    moves: HashMap<(Uuid, u64), (u32, u64)>,
}

impl<'a> Recovery<'a> {
    pub(super) fn new(disk: &'a dyn Disk, mode: Mode, report: RecoveryReport) -> Self {
        Self {
            disk,
            mode,
            superblocks: BTreeMap::new(),
            index: Index::default(),
            resume: Resume::default(),
            report,
            references: Vec::new(),
            unresolved: 0,
            moves: HashMap::new(),
        }
    }

    pub(super) fn newest_epoch(&self) -> Option<u64> {
        let headers = self.superblocks.values().map(|superblock| superblock.header);
        headers.map(|header| header.creation_epoch).max()
    }

    /// Fills the index.
    pub(super) fn read_all(&mut self, folder: &Path, node: NodeId) -> Result<(), DiskFault> {
        let superblocks: Vec<_> = self.superblocks.values().cloned().collect();
        let abandoned: HashMap<Uuid, u64> = superblocks
            .iter()
            .filter_map(|superblock| superblock.header.abandoned)
            .collect();
        let covered = self.take_snapshot(folder, node);
        for (place, superblock) in superblocks.iter().enumerate().skip(covered) {
            let abandoned_at = abandoned.get(&superblock.header.uuid).copied();
            if self.take_footer(superblock, abandoned_at) {
                continue;
            }
            let newest = place + 1 == superblocks.len();
            self.scan_file(superblock, abandoned_at, newest)?;
        }
        self.resolve_references();
        Ok(())
    }

    /// Takes over the newest snapshot that fits the files; returns how many files, from the first, it stands for.
    fn take_snapshot(&mut self, folder: &Path, node: NodeId) -> usize {
        if !self.mode.shortcuts || !self.report.skipped.is_empty() {
            return 0;
        }
        let Some(snapshot) = snapshot::load(self.disk, folder, node, &self.superblocks) else {
            return 0;
        };
        for (number, upto) in &snapshot.covers {
            if let Some(superblock) = self.superblocks.get(number) {
                superblock.close(*upto);
            }
        }
        let corrupt = snapshot
            .entries
            .iter()
            .filter(|(_, location)| location.state == ObjectState::Corrupt);
        self.report
            .corrupt
            .extend(corrupt.map(|(name, _)| (name.chunk, name.ballot)));
        self.index.fill(snapshot.entries);
        self.report.by_snapshot = snapshot.covers.len();
        self.report.records += self.index.len();
        self.report.by_snapshot
    }

    /// Reads what a sealed superblock says about itself.
    fn take_footer(&mut self, superblock: &Arc<Superblock>, abandoned_at: Option<u64>) -> bool {
        if !self.mode.shortcuts || abandoned_at.is_some() {
            return false;
        }
        let file = &*superblock.file;
        let Ok(len) = file.size() else { return false };
        let Some(footer) = footer::read(file, superblock.header.salt, len) else {
            return false;
        };
        superblock.close(len);
        self.report.by_footer += 1;
        self.take_moves(superblock.header.number, &footer.moves);
        for entry in footer.entries {
            self.take(superblock.header.number, entry, false);
        }
        true
    }

    fn take_moves(&mut self, number: u32, moves: &Moves) {
        let moves = moves.iter().map(|(from, to)| (*from, (number, *to)));
        self.moves.extend(moves);
    }

    fn scan_file(
        &mut self,
        superblock: &Arc<Superblock>,
        abandoned_at: Option<u64>,
        newest: bool,
    ) -> Result<(), DiskFault> {
        let file = &*superblock.file;
        let salt = superblock.header.salt;
        let len = file
            .size()
            .map_err(|error| DiskFault::new("measure", &superblock.path, &error))?;
        let extent = Extent { len, abandoned_at };
        let found = if self.mode.repair {
            scan(file, salt, extent)
                .map_err(|error| DiskFault::new("read again", &superblock.path, &error))?
        } else {
            scan_unsynced(file, salt, extent)
        };
        if let Some(moves) = found.moves(file, salt) {
            self.take_moves(superblock.header.number, &moves);
        }
        superblock.close(found.end);
        if !found.is_sound() {
            superblock.note_damage();
        }
        let entries: Vec<_> = found
            .records
            .iter()
            .filter(|record| record.header.kind.has_key())
            .map(|record| (record.with_reference(file), record.damaged))
            .collect();
        if let Some(error) = &found.sync_error {
            // As after any failed sync the file is closed; the next superblock says how much of it counts.
            warn!(path = %superblock.path.display(), %error, "sync at start failed, closing the superblock");
            self.resume.abandoned = Some((superblock.header.uuid, found.end));
        } else if newest && abandoned_at.is_none() && self.mode.repair {
            self.settle_newest(superblock, &found, &entries)?;
        }
        self.report_scan(superblock.header.number, found);
        for (entry, damaged) in entries {
            self.take(superblock.header.number, entry, damaged);
        }
        Ok(())
    }

    /// If the newest superblock is sound, cuts off its torn tail and lets the writer go on in it. One that is not stays as
    /// it is: the tail may be the only witness of how much of the file was synced, and so of what is rot in it.
    fn settle_newest(
        &mut self,
        superblock: &Arc<Superblock>,
        found: &Scan,
        entries: &[(Entry, bool)],
    ) -> Result<(), DiskFault> {
        let fault = |operation| move |error| DiskFault::new(operation, &superblock.path, &error);
        if !found.appendable() {
            return Ok(());
        }
        if found.torn.is_some() {
            superblock.file.truncate(found.end).map_err(fault("truncate"))?;
            superblock.file.fsync().map_err(fault("sync"))?;
        }
        superblock.reopen(found.end);
        self.resume.active = Some(Resumed {
            superblock: Arc::clone(superblock),
            tail: found.end,
            marked: found.ends_in_watermark(),
            was_torn: found.torn.is_some(),
            entries: entries.iter().map(|(entry, _)| *entry).collect(),
        });
        Ok(())
    }

    fn report_scan(&mut self, number: u32, found: Scan) {
        if found.read_errors {
            self.report.unread.push(number);
        }
        self.report.torn.extend(found.torn.map(|range| TornTail {
            superblock: number,
            range,
        }));
        let bad = found.bad.into_iter();
        self.report.bad.extend(bad.map(|(range, proven_rot)| BadRange {
            superblock: number,
            range,
            proven_rot,
        }));
    }

    /// Takes one record of superblock `number`.
    fn take(&mut self, number: u32, entry: Entry, damaged: bool) {
        self.report.records += 1;
        let Some(name) = entry.header.name else { return };
        match entry.header.kind {
            RecordKind::Data => {
                let state = if damaged || entry.header.is_lost() {
                    ObjectState::Corrupt
                } else {
                    ObjectState::Unchecked
                };
                let location = Location::new(number, entry.position, entry.header.body_len, state);
                self.take_object(name, location);
            }
            RecordKind::Tombstone => self.index.set(name, Location::tombstone(number, entry.position)),
            RecordKind::Reference => self.references.push((number, entry)),
            RecordKind::Seal | RecordKind::Watermark | RecordKind::Padding => {}
        }
    }

    fn take_object(&mut self, name: ObjectName, location: Location) {
        if location.state == ObjectState::Corrupt {
            self.report.corrupt.push((name.chunk, name.ballot));
        }
        let Some(old) = self.index.get(name) else {
            return self.index.set(name, location);
        };
        if old.state == ObjectState::Deleted || location.state == ObjectState::Corrupt {
            return;
        }
        let sha256 = |location| self.header_at(location).map(|header| header.sha256);
        match (sha256(old), sha256(location)) {
            (Some(first), Some(second)) if first != second && old.state != ObjectState::Corrupt => {
                self.report.contradictions.push((name.chunk, name.ballot));
            }
            _ => self.index.set(name, location),
        }
    }

    fn header_at(&self, location: Location) -> Option<RecordHeader> {
        let superblock = self.superblocks.get(&location.superblock)?;
        read_header(superblock, location.offset()).ok()
    }

    /// References point into any file, so they are looked up when all files have been read.
    fn resolve_references(&mut self) {
        let numbers: HashMap<Uuid, u32> = self
            .superblocks
            .values()
            .map(|superblock| (superblock.header.uuid, superblock.header.number))
            .collect();
        let mut unresolved = Vec::new();
        for (number, entry) in std::mem::take(&mut self.references) {
            let Some(name) = entry.header.name else { continue };
            let known = self.index.get(name);
            let written_later = known.is_some_and(|known| {
                !known.by_reference && (known.superblock, known.offset()) > (number, entry.position)
            });
            match self.resolve(&numbers, &entry) {
                // A record of its own that came later, be it a repair or a compaction, is what counts.
                Some(_) if written_later => {}
                Some(location) => self.take_object(name, location),
                None => unresolved.push((number, entry.position, name)),
            }
        }
        self.give_up_names(unresolved);
    }

    /// References that lead nowhere, once all others are known: compaction may have written what one names under this
    /// name, or in a new reference, and removed what the old one points to.
    fn give_up_names(&mut self, unresolved: Vec<(u32, u64, ObjectName)>) {
        for (number, position, name) in unresolved {
            if self.index.get(name).is_some() {
                continue;
            }
            self.unresolved += 1;
            let here = Location::new(number, position, 0, ObjectState::Corrupt);
            self.take_object(
                name,
                Location {
                    by_reference: true,
                    ..here
                },
            );
        }
    }

    fn resolve(&self, numbers: &HashMap<Uuid, u32>, entry: &Entry) -> Option<Location> {
        let reference = entry.reference?;
        let direct = numbers
            .get(&reference.superblock)
            .map(|number| (*number, reference.position));
        let moved = self.moves.get(&(reference.superblock, reference.position));
        let (number, position) = direct.or(moved.copied())?;
        let header = read_header(self.superblocks.get(&number)?, position).ok()?;
        let same = header.kind == RecordKind::Data
            && header.sha256 == reference.sha256
            && header.name.map(|name| name.chunk) == entry.header.name.map(|name| name.chunk);
        let state = if header.is_lost() {
            ObjectState::Corrupt
        } else {
            ObjectState::Unchecked
        };
        // Compaction may have written the bytes under this very name.
        let by_reference = header.name != entry.header.name;
        same.then(|| Location {
            by_reference,
            ..Location::new(number, position, header.body_len, state)
        })
    }
}
