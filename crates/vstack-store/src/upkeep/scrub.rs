//! The scrub: every byte that says something is read from the disk again, again and again.
//!
//! A round goes through all superblocks, record by record. Objects are checked against their SHA-256, tombstones and
//! references by their checksums, files by their headers and footers. What is damaged is marked corrupt at once, so that
//! readers go elsewhere and repair can begin; a damaged tombstone is simply written again, since the index knows it.
//!
//! Where the round stands, when the last one ended and when the last one was clean, and what was found, are kept in
//! `scrub.json`; a damaged file of that name only means that the round begins anew. A superblock whose disk has failed is
//! checked before all others.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};
use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::id::ChunkId;
use vstack_core::time::UnixMillis;

use super::worker::{Pace, Work, Worker};
use crate::compact::records_of;
use crate::disk::{OpenMode, read_exact};
use crate::error::DiskFault;
use crate::footer::{self, Entry};
use crate::identity::replace_file;
use crate::index::{Location, ObjectState};
use crate::read::{ReadFault, read_header};
use crate::record::{HEADER_LEN, ObjectName, RecordKind, Reference};
use crate::request::{DeleteReason, Request};
use crate::shared::Shared;
use crate::store::Store;
use crate::superblock::{SUPERBLOCK_HEADER_LEN, Superblock, open_header};
use crate::verify;

const FILE: &str = "scrub.json";
const FORMAT: u32 = 1;
/// Every byte is read within so long.
const PERIOD_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// The next round begins so long after the last one began, if it ended before.
const REST_MS: u64 = PERIOD_MS / 2;
/// Progress is noted on disk so often, in bytes; a crash repeats no more than that.
const SAVE_BYTES: u64 = 256 << 20;
const MIN_RATE: u64 = 1 << 20;
/// Entries looked through under one hold of the index.
const PAGE: usize = 4096;
/// Findings that are kept; the count goes on.
const MAX_FINDINGS: usize = 1000;

/// Something that the scrub found damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub chunk: ChunkId,
    pub ballot: Ballot,
    /// Uuid of the file, and the record's position in it.
    pub superblock: Uuid,
    pub offset: u64,
    pub reason: String,
    pub found_at: UnixMillis,
}

/// Where the scrub stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    format: u32,
    /// When the round began that runs, or the last one.
    pub round_started: UnixMillis,
    /// Of the round; 0 before the first one.
    pub checked_bytes: u64,
    pub total_bytes: u64,
    /// Whether a round is under way.
    pub running: bool,
    /// When the last whole round ended; 0 if none has.
    pub last_ended: UnixMillis,
    /// When the last round ended that found nothing; 0 if none has.
    pub last_clean: UnixMillis,
    /// Damage found since the folder was made.
    pub found_total: u64,
    /// Found in the round that runs, or the last one.
    pub found_in_round: u64,
    /// What is still damaged, oldest first.
    pub findings: Vec<Finding>,
    /// Number of the superblock that comes next.
    next: Option<u32>,
}

/// The superblock that is being read.
#[derive(Debug)]
struct Current {
    superblock: Arc<Superblock>,
    entries: std::vec::IntoIter<Entry>,
    /// Out of its turn, since its disk failed.
    first: bool,
}

/// The worker.
#[derive(Debug)]
pub struct Scrub {
    store: Store,
    report: ScrubReport,
    current: Option<Current>,
    unsaved_bytes: u64,
}

impl Scrub {
    /// Goes on where the last process stopped. What was found damaged before and is still there is marked corrupt.
    #[must_use]
    pub fn new(store: &Store) -> Self {
        let shared = store.shared();
        let report = load(shared).unwrap_or_default();
        for finding in &report.findings {
            let name = ObjectName {
                chunk: finding.chunk,
                ballot: finding.ballot,
            };
            let seen = shared.index().get(name);
            if let Some(seen) = seen.filter(|seen| is_of(shared, finding, *seen)) {
                shared.index_mut().set_state(name, seen, ObjectState::Corrupt);
            }
        }
        let scrub = Self {
            store: store.clone(),
            report,
            current: None,
            unsaved_bytes: 0,
        };
        scrub.publish();
        scrub
    }

    fn shared(&self) -> &Arc<Shared> {
        self.store.shared()
    }

    fn now(&self) -> UnixMillis {
        (self.shared().options.now)()
    }

    /// Shows the report to [`Store::scrub`].
    fn publish(&self) {
        self.shared().upkeep.set_scrub(self.report.clone());
    }

    /// The superblock to read next, and whether it comes out of its turn.
    fn next_superblock(&mut self) -> Option<(Arc<Superblock>, bool)> {
        let superblocks = self.shared().superblocks();
        if let Some(uuid) = self.shared().upkeep.take_first() {
            let failed = superblocks
                .iter()
                .find(|superblock| superblock.header.uuid == uuid);
            if let Some(failed) = failed {
                return Some((Arc::clone(failed), true));
            }
        }
        if !self.report.running && !self.begin_round(&superblocks) {
            return None;
        }
        let from = self.report.next.unwrap_or(0);
        let next = superblocks
            .iter()
            .find(|superblock| superblock.header.number >= from);
        if next.is_none() {
            // The last ones have gone, and compaction has read them.
            self.end_round();
            self.save();
        }
        next.map(|superblock| (Arc::clone(superblock), false))
    }

    fn begin_round(&mut self, superblocks: &[Arc<Superblock>]) -> bool {
        let now = self.now();
        let rested = now.0.saturating_sub(self.report.round_started.0) >= REST_MS;
        let stepped_back = now < self.report.round_started;
        if superblocks.is_empty() || !(rested || stepped_back) {
            return false;
        }
        self.report = ScrubReport {
            format: FORMAT,
            round_started: now,
            checked_bytes: 0,
            total_bytes: superblocks.iter().map(|superblock| superblock.durable()).sum(),
            running: true,
            found_in_round: 0,
            next: None,
            ..std::mem::take(&mut self.report)
        };
        true
    }

    fn open_next(&mut self) -> Work {
        let Some((superblock, first)) = self.next_superblock() else {
            return Work::Nothing;
        };
        self.check_file(&superblock);
        let entries = match records_of(&superblock) {
            Ok((entries, sound)) => {
                if !sound {
                    self.find_missing(&superblock, &entries);
                }
                entries
            }
            Err(error) => {
                let fault = DiskFault::new("read", &superblock.path, &error);
                warn!(%fault, "scrub cannot read a superblock");
                Vec::new()
            }
        };
        if !first {
            self.report.next = Some(superblock.header.number);
        }
        self.current = Some(Current {
            superblock,
            entries: entries.into_iter(),
            first,
        });
        Work::Did {
            bytes: SUPERBLOCK_HEADER_LEN as u64,
        }
    }

    /// Checks what belongs to no record: the file's header and footer.
    fn check_file(&mut self, superblock: &Superblock) {
        let file = &*superblock.file;
        let header = open_header(file).ok().and_then(Result::ok);
        let len = file.size().unwrap_or(0);
        let sealed = superblock.is_closed() && superblock.durable() == len;
        let footer_is_whole = || footer::read(file, superblock.header.salt, len).is_some();
        if header != Some(superblock.header) {
            warn!(
                superblock = superblock.header.number,
                "the superblock's header is damaged"
            );
            superblock.note_damage();
        } else if sealed && !superblock.is_damaged() && !footer_is_whole() {
            info!(
                superblock = superblock.header.number,
                "the superblock has no footer, its next start reads all headers"
            );
        }
    }

    /// What the index names in a file that no longer shows it: records whose headers cannot be read.
    fn find_missing(&mut self, superblock: &Arc<Superblock>, entries: &[Entry]) {
        let shown: HashSet<u64> = entries.iter().map(|entry| entry.position).collect();
        let number = superblock.header.number;
        let mut after = None;
        loop {
            let page = self.shared().index().after(after, PAGE);
            let Some((last, _)) = page.last() else { return };
            after = Some(*last);
            for (name, location) in page {
                if location.superblock != number || shown.contains(&location.offset()) {
                    continue;
                }
                match location.state {
                    ObjectState::Deleted => self.rebury(superblock, name, DeleteReason::Order),
                    ObjectState::Corrupt => {}
                    _ => self.found(superblock, name, location, "its header is damaged"),
                }
            }
        }
    }

    fn end_superblock(&mut self) {
        let Some(current) = self.current.take() else {
            return;
        };
        if current.first {
            return;
        }
        let superblocks = self.shared().superblocks();
        let number = current.superblock.header.number;
        let next = superblocks
            .iter()
            .find(|superblock| superblock.header.number > number)
            .map(|superblock| superblock.header.number);
        self.report.next = next;
        if next.is_none() {
            self.end_round();
        }
        self.save();
    }

    fn end_round(&mut self) {
        let now = self.now();
        self.report.running = false;
        self.report.last_ended = now;
        self.report.checked_bytes = self.report.checked_bytes.max(self.report.total_bytes);
        self.forget_healed();
        if self.report.found_in_round == 0 {
            self.report.last_clean = now;
        }
        info!(
            bytes = self.report.total_bytes,
            found = self.report.found_in_round,
            "scrub has read everything"
        );
    }

    fn check(&mut self, superblock: &Arc<Superblock>, entry: &Entry) -> u64 {
        let Some(name) = entry.header.name else { return 0 };
        match entry.header.kind {
            RecordKind::Data => self.check_object(superblock, entry, name),
            RecordKind::Reference => self.check_reference(superblock, entry, name),
            _ => self.check_tombstone(superblock, entry, name),
        }
    }

    fn check_object(&mut self, superblock: &Superblock, entry: &Entry, name: ObjectName) -> u64 {
        let number = superblock.header.number;
        let holders: Vec<(Ballot, Location)> = self
            .shared()
            .index()
            .ballots(name.chunk)
            .filter(|(_, location)| location.is_at(number, entry.position))
            .filter(|(_, location)| !matches!(location.state, ObjectState::Deleted | ObjectState::Corrupt))
            .collect();
        let Some((ballot, location)) = holders.first().copied() else {
            return 0;
        };
        match verify::object(superblock, ObjectName { ballot, ..name }, location) {
            Ok(bytes) => bytes,
            Err(ReadFault::Damaged(reason)) => {
                for (ballot, location) in holders {
                    self.found(superblock, ObjectName { ballot, ..name }, location, reason);
                }
                u64::from(entry.header.record_len)
            }
            Err(ReadFault::Disk(error)) => {
                warn!(superblock = number, offset = entry.position, %error, "scrub cannot read a record now");
                0
            }
        }
    }

    fn check_reference(&mut self, superblock: &Superblock, entry: &Entry, name: ObjectName) -> u64 {
        let known = self.shared().index().get(name);
        let known = known.filter(|known| known.by_reference && known.state != ObjectState::Deleted);
        let mut body = [0; Reference::LEN];
        let at = entry.position + HEADER_LEN as u64;
        let intact = superblock.file.drop_cache(entry.position).is_ok()
            && read_header(superblock, entry.position).is_ok()
            && read_exact(&*superblock.file, &mut body, at).is_ok()
            && Reference::decode(&body).is_some();
        if let Some(known) = known.filter(|known| !intact && known.state != ObjectState::Corrupt) {
            self.found(
                superblock,
                name,
                known,
                "the record that names its bytes is damaged",
            );
        }
        u64::from(entry.header.record_len)
    }

    fn check_tombstone(&mut self, superblock: &Superblock, entry: &Entry, name: ObjectName) -> u64 {
        let intact = superblock.file.drop_cache(entry.position).is_ok()
            && read_header(superblock, entry.position).is_ok_and(|header| header.name == Some(name));
        let known = self.shared().index().get(name);
        let counts = known.is_some_and(|known| {
            known.state == ObjectState::Deleted && known.is_at(superblock.header.number, entry.position)
        });
        if counts && !intact {
            self.rebury(superblock, name, DeleteReason::from_flags(entry.header.flags));
        }
        u64::from(entry.header.record_len)
    }

    /// Writes a damaged tombstone again: without it a start would find the object alive.
    fn rebury(&mut self, superblock: &Superblock, name: ObjectName, reason: DeleteReason) {
        warn!(chunk = %name.chunk, ballot = %name.ballot, "a tombstone is damaged and is written again");
        self.report.found_total += 1;
        self.report.found_in_round += 1;
        superblock.note_damage();
        self.store.send(Request::Rebury {
            name,
            reason,
            done: Box::new(|result| {
                if let Err(error) = result {
                    error!(%error, "the tombstone could not be written again");
                }
            }),
        });
    }

    fn found(&mut self, superblock: &Superblock, name: ObjectName, location: Location, reason: &str) {
        let ObjectName { chunk, ballot } = name;
        let offset = location.offset();
        error!(%chunk, %ballot, superblock = superblock.header.number, offset, reason, "scrub found a damaged object");
        self.shared()
            .index_mut()
            .set_state(name, location, ObjectState::Corrupt);
        superblock.note_damage();
        self.report.found_total += 1;
        self.report.found_in_round += 1;
        let known = |finding: &Finding| (finding.chunk, finding.ballot) == (chunk, ballot);
        self.report.findings.retain(|finding| !known(finding));
        if self.report.findings.len() < MAX_FINDINGS {
            self.report.findings.push(Finding {
                chunk,
                ballot,
                superblock: superblock.header.uuid,
                offset,
                reason: reason.to_owned(),
                found_at: self.now(),
            });
        }
        self.save();
    }

    /// Drops findings about objects that have been written again, moved or deleted since.
    fn forget_healed(&mut self) {
        let shared = Arc::clone(self.shared());
        self.report.findings.retain(|finding| {
            let name = ObjectName {
                chunk: finding.chunk,
                ballot: finding.ballot,
            };
            let known = shared.index().get(name);
            known.is_some_and(|known| known.state == ObjectState::Corrupt)
        });
    }

    fn save(&mut self) {
        self.unsaved_bytes = 0;
        self.forget_healed();
        self.publish();
        let shared = self.shared();
        let text = serde_json::to_vec_pretty(&self.report).expect("plain fields are always JSON");
        if let Err(fault) = replace_file(&*shared.options.disk, shared.folder(), FILE, &text) {
            warn!(%fault, "the scrub's progress is not kept; after a restart it begins anew");
        }
    }
}

impl Worker for Scrub {
    fn name(&self) -> &'static str {
        "scrub"
    }

    /// With viewers as fast as the week allows, with a little to spare; alone four times that.
    fn pace(&self) -> Pace {
        let needed = self.report.total_bytes.saturating_mul(1000) / PERIOD_MS;
        let with_viewers = (needed / 4 * 5).max(MIN_RATE / 4);
        let alone = needed.saturating_mul(4).max(MIN_RATE);
        Pace { alone, with_viewers }
    }

    fn step(&mut self) -> Work {
        let Some(current) = &mut self.current else {
            return self.open_next();
        };
        let Some(entry) = current.entries.next() else {
            self.end_superblock();
            return Work::Did { bytes: 0 };
        };
        let superblock = Arc::clone(&current.superblock);
        let counted = !current.first;
        let bytes = self.check(&superblock, &entry);
        if counted {
            self.report.checked_bytes += u64::from(entry.header.record_len);
            self.unsaved_bytes += bytes;
            self.publish_progress();
        }
        Work::Did { bytes }
    }
}

impl Scrub {
    fn publish_progress(&mut self) {
        if self.unsaved_bytes >= SAVE_BYTES {
            self.save();
        } else {
            let checked = self.report.checked_bytes;
            self.shared().upkeep.scrub_progress(checked);
        }
    }
}

/// Whether a finding is about the record that counts now.
fn is_of(shared: &Shared, finding: &Finding, seen: Location) -> bool {
    let uuid = shared
        .superblock(seen.superblock)
        .map(|superblock| superblock.header.uuid);
    // A damaged reference record is not where the object's bytes are.
    seen.state != ObjectState::Deleted
        && (uuid == Some(finding.superblock) && seen.offset() == finding.offset || seen.by_reference)
}

fn load(shared: &Shared) -> Option<ScrubReport> {
    let path: PathBuf = shared.folder().join(FILE);
    let file = shared.options.disk.open(&path, OpenMode::Read).ok()?;
    let len = usize::try_from(file.size().ok()?).ok()?;
    let mut bytes = vec![0; len.min(16 << 20)];
    read_exact(&*file, &mut bytes, 0).ok()?;
    let report = serde_json::from_slice(&bytes).ok();
    let report = report.filter(|report: &ScrubReport| report.format == FORMAT);
    if report.is_none() {
        warn!(path = %path.display(), "the scrub's progress cannot be read, it begins anew");
    }
    report
}
