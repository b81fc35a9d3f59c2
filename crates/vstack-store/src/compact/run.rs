//! One compaction from its choice to its end, in steps that a pace can be kept between.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use bytes::Bytes;
use tracing::{info, warn};
use vstack_core::ballot::Ballot;
use vstack_core::id::ChunkId;
use vstack_core::time::UnixMillis;

use super::choose::choose;
use super::copy::{self, Copy};
use super::exchange::{Exchange, Relocation};
use super::marker::{Marker, Replaced, new_file_name};
use super::plan::{Keep, Plan, What};
use crate::batch::{Active, Record};
use crate::error::{DiskFault, StoreError};
use crate::footer::{FooterBuilder, Moves, seal_header};
use crate::index::Location;
use crate::record::{BATCH_ALIGN, ObjectName, RecordHeader, RecordKind, Reference};
use crate::request::Request;
use crate::shared::Shared;
use crate::staging::Staging;
use crate::store::Store;
use crate::superblock::{SUPERBLOCK_HEADER_LEN, Superblock, SuperblockHeader, create_at, file_name};

/// A batch of copies closes at this size.
const BATCH_BYTES: u64 = 1 << 20;
/// A superblock is worth the work when more than this share of it is dead.
const DEAD_PERCENT: u64 = 30;

/// Whether the delete of an object, of which there has been a tombstone since the given time, is confirmed everywhere, so
/// that the tombstone may go.
pub type Forgettable<'a> = &'a dyn Fn(ChunkId, Ballot, UnixMillis) -> bool;

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Superblocks that were replaced.
    pub sources: usize,
    pub bytes_before: u64,
    pub bytes_after: u64,
    /// Objects that turned out to be damaged.
    pub lost: u64,
    /// Tombstones that went.
    pub forgotten: usize,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactionStep {
    /// So many bytes were read and written.
    Copied(u64),
    /// The writer has to take notice first; step again soon.
    Waiting,
    Done(Compacted),
}

/// A compaction under way. Dropping it before its marker stands leaves everything as it was; the next start removes what it
/// wrote.
#[derive(Debug)]
pub struct Compaction {
    store: Store,
    sources: Vec<Replaced>,
    keep: std::vec::IntoIter<Keep>,
    forget: Vec<ObjectName>,
    target: Active,
    footer: FooterBuilder,
    moves: Moves,
    relocations: Vec<Relocation>,
    switched: Option<Receiver<()>>,
    report: Compacted,
}

impl Compaction {
    /// Begins a compaction if one is worth it and there is room. `percent` is the dead share from which on a superblock
    /// counts; [`Compaction::begin`] uses the usual one.
    ///
    /// # Errors
    /// The disk refuses. The sources are as they were.
    pub fn begin_at(
        store: &Store,
        percent: u64,
        forgettable: Forgettable<'_>,
    ) -> Result<Option<Self>, StoreError> {
        let shared = store.shared();
        if shared.compaction_blocked() || shared.read_only().is_some() {
            return Ok(None);
        }
        let sources = choose(shared, percent);
        let mut plans = Vec::new();
        for source in sources {
            let plan = Plan::of(shared, &source, forgettable)
                .map_err(|error| DiskFault::new("read", &source.path, &error))?;
            match plan {
                Some(plan) => plans.push((source, plan)),
                None => {
                    warn!(
                        superblock = source.header.number,
                        "not compacted: its records do not show all that the index names in it"
                    );
                    shared.not_worth_compacting(&source);
                }
            }
        }
        let before: u64 = plans.iter().map(|(source, _)| source.durable()).sum();
        let kept: u64 = plans.iter().map(|(_, plan)| plan.bytes).sum();
        let keeps: usize = plans.iter().map(|(_, plan)| plan.keep.len()).sum();
        let after = file_len(kept, keeps);
        if plans.is_empty() || after.saturating_mul(100) > before.saturating_mul(100 - percent.min(100)) {
            for (source, _) in &plans {
                shared.not_worth_compacting(source);
            }
            return Ok(None);
        }
        // What alignment costs at most, if every record had a batch of its own.
        let room = after + (kept / BATCH_BYTES + 4) * 2 * BATCH_ALIGN;
        if !shared.has_room_for_compaction(room)? {
            return Ok(None);
        }
        Self::start(store, plans, room, before).map(Some)
    }

    /// Begins a compaction of superblocks of which more than 30 % is dead, if there are such and there is room.
    ///
    /// # Errors
    /// As [`Compaction::begin_at`].
    pub fn begin(store: &Store, forgettable: Forgettable<'_>) -> Result<Option<Self>, StoreError> {
        Self::begin_at(store, DEAD_PERCENT, forgettable)
    }

    fn start(
        store: &Store,
        plans: Vec<(Arc<Superblock>, Plan)>,
        room: u64,
        before: u64,
    ) -> Result<Self, StoreError> {
        let shared = store.shared();
        let numbers: Vec<u32> = plans.iter().map(|(source, _)| source.header.number).collect();
        let header = target_header(shared, &plans);
        let sources = plans.iter().map(|(source, plan)| Replaced {
            number: source.header.number,
            uuid: source.header.uuid,
            damaged: plan.damaged,
        });
        let sources: Vec<Replaced> = sources.collect();
        let mut keep = Vec::new();
        let mut forget = Vec::new();
        for (_, plan) in plans {
            // Names in a source that refer into a source go with the bytes.
            let goes_along =
                |what: &What| matches!(what, What::Reference(to) if numbers.contains(&to.superblock));
            keep.extend(plan.keep.into_iter().filter(|keep| !goes_along(&keep.what)));
            forget.extend(plan.forget);
        }
        let path = shared.data.join(new_file_name(header.number));
        let file = create_at(&*shared.options.disk, &path, &header, room)
            .inspect_err(|_| drop(shared.options.disk.remove(&path)))?;
        let target = Active {
            superblock: Arc::new(Superblock::new(
                header,
                shared.data.join(file_name(header.number)),
                file,
            )),
            tail: SUPERBLOCK_HEADER_LEN as u64,
            marked: 0,
            staging: Staging::default(),
        };
        info!(sources = ?numbers, records = keep.len(), "compaction begins");
        let report = Compacted {
            sources: sources.len(),
            bytes_before: before,
            bytes_after: 0,
            lost: 0,
            forgotten: forget.len(),
        };
        Ok(Self {
            store: store.clone(),
            sources,
            keep: keep.into_iter(),
            forget,
            target,
            footer: FooterBuilder::default(),
            moves: Moves::new(),
            relocations: Vec::new(),
            switched: None,
            report,
        })
    }

    /// Does the next part.
    ///
    /// # Errors
    /// The disk refuses. The sources are as they were, or the exchange is decided and the next start ends it; either way
    /// nothing is lost, and this compaction is over.
    pub fn step(&mut self) -> Result<CompactionStep, StoreError> {
        if let Some(switched) = &self.switched {
            return match switched.try_recv() {
                Ok(()) => {
                    self.store.shared().try_save_snapshot();
                    Ok(CompactionStep::Done(self.report))
                }
                Err(TryRecvError::Empty) => Ok(CompactionStep::Waiting),
                Err(TryRecvError::Disconnected) => Err(StoreError::Stopped),
            };
        }
        if self.keep.as_slice().is_empty() {
            self.seal().map_err(|fault| self.give_up(fault))?;
            self.exchange()?;
            return Ok(CompactionStep::Waiting);
        }
        let before = self.target.tail;
        self.copy_batch().map_err(|fault| self.give_up(fault))?;
        Ok(CompactionStep::Copied(self.target.tail - before))
    }

    /// Runs to the end. Not for a store whose writer the caller works.
    ///
    /// # Errors
    /// As [`Compaction::step`].
    pub fn run(mut self) -> Result<Compacted, StoreError> {
        loop {
            match self.step()? {
                CompactionStep::Done(report) => return Ok(report),
                CompactionStep::Copied(_) => {}
                CompactionStep::Waiting => std::thread::yield_now(),
            }
        }
    }

    /// Removes what was written so far; the sources were not touched.
    fn give_up(&self, fault: DiskFault) -> StoreError {
        let shared = self.store.shared();
        let path = shared
            .data
            .join(new_file_name(self.target.superblock.header.number));
        warn!(%fault, "compaction given up, the superblocks stay as they were");
        if !fault.is_full() {
            shared.note_disk_error(&fault);
        }
        // If this fails the next start does it.
        drop(shared.options.disk.remove(&path));
        shared.refusal(fault)
    }

    /// Copies records up to the size of a batch.
    fn copy_batch(&mut self) -> Result<(), DiskFault> {
        let mut copies = Vec::new();
        let mut later = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && let Some(keep) = self.keep.next()
        {
            let first = copies.len();
            match &keep.what {
                What::Tombstone => copies.push(copy::tombstone(&keep)),
                What::Lost(ballots) => {
                    copies.extend(ballots.iter().map(|ballot| copy::lost(&keep, *ballot)));
                }
                What::Reference(to) => copies.extend(self.refer(&keep, *to)),
                What::Object(ballots) => match self.read(&keep)? {
                    Some(body) => copies.push(copy::object(&keep, ballots[0], body)),
                    None => {
                        self.report.lost += 1;
                        self.note_damaged(keep.source.header.number);
                        copies.extend(ballots.iter().map(|ballot| copy::lost(&keep, *ballot)));
                    }
                },
            }
            bytes += copies[first..]
                .iter()
                .map(|copy| u64::from(copy.header.record_len))
                .sum::<u64>();
            later.push((keep, first, copies.len()));
        }
        let positions = self.append(&copies)?;
        let mut sharing = Vec::new();
        for (keep, first, end) in later {
            for (copy, position) in copies[first..end].iter().zip(&positions[first..end]) {
                sharing.extend(self.note_copy(&keep, copy, *position));
            }
        }
        if sharing.is_empty() {
            return Ok(());
        }
        self.append(&sharing).map(drop)
    }

    /// An object's bytes, if they are right. What cannot be read stays where it is: giving it up here would make a single
    /// failing read the loss of an object.
    fn read(&self, keep: &Keep) -> Result<Option<Bytes>, DiskFault> {
        copy::read_object(keep).map_err(|error| {
            self.store.shared().not_worth_compacting(&keep.source);
            DiskFault::new("read", &keep.source.path, &error)
        })
    }

    /// Remembers where a record went; returns the records of the other names that share its bytes.
    fn note_copy(&mut self, keep: &Keep, copy: &Copy, position: u64) -> Vec<Copy> {
        let from = (keep.source.header.number, keep.entry.position);
        let source = (keep.source.header.uuid, keep.entry.position);
        let Some(name) = copy.header.name else {
            return Vec::new();
        };
        match &keep.what {
            What::Tombstone => {
                self.relocations
                    .push(Relocation::Tombstone { name, to: position });
                Vec::new()
            }
            What::Reference(_) => Vec::new(),
            What::Lost(_) | What::Object(_) if copy.header.is_lost() && self.moves.contains_key(&source) => {
                self.relocations.push(Relocation::Lost {
                    name,
                    from,
                    to: position,
                    size_bytes: copy.header.body_len,
                });
                Vec::new()
            }
            What::Lost(ballots) | What::Object(ballots) => {
                let lost = copy.header.is_lost();
                self.moves.insert(source, position);
                self.relocations.push(Relocation::Object {
                    chunk: name.chunk,
                    from,
                    to: position,
                    ballot: name.ballot,
                    lost,
                });
                if lost {
                    return Vec::new();
                }
                let reference = Reference {
                    from_ballot: name.ballot,
                    superblock: self.target.superblock.header.uuid,
                    position,
                    size_bytes: u64::from(copy.header.body_len),
                    sha256: copy.header.sha256,
                };
                let others = ballots[1..].iter();
                others
                    .map(|ballot| copy::reference(keep, *ballot, reference))
                    .collect()
            }
        }
    }

    /// A reference with its target as the index has it now; the record itself may still name a file that is gone.
    fn refer(&self, keep: &Keep, to: Location) -> Option<Copy> {
        let name = keep.entry.header.name?;
        let target = self.store.shared().superblock(to.superblock)?;
        let from_ballot = keep
            .entry
            .reference
            .map_or(name.ballot, |reference| reference.from_ballot);
        let reference = Reference {
            from_ballot,
            superblock: target.header.uuid,
            position: to.offset(),
            size_bytes: u64::from(to.size_bytes),
            sha256: keep.entry.header.sha256,
        };
        Some(copy::reference(keep, name.ballot, reference))
    }

    fn note_damaged(&mut self, number: u32) {
        for source in self.sources.iter_mut().filter(|source| source.number == number) {
            source.damaged = true;
        }
    }

    fn append(&mut self, copies: &[Copy]) -> Result<Vec<u64>, DiskFault> {
        let records: Vec<Record<'_>> = copies
            .iter()
            .map(|copy| Record {
                header: copy.header,
                data: &copy.data,
                tail: copy.tail.clone(),
            })
            .collect();
        let durable_upto = self.target.tail;
        let salt = self.target.superblock.header.salt;
        let path = self.target.superblock.path.clone();
        let places = self
            .target
            .append(&records)
            .map_err(|(operation, cause)| DiskFault::new(operation, &path, &cause))?;
        for (record, position) in records.iter().zip(&places.positions) {
            let header = RecordHeader {
                durable_upto,
                ..record.header
            };
            self.footer.note(*position, &header, &record.tail, salt);
        }
        Ok(places.positions)
    }

    /// Ends the new superblock. All of it is durable afterwards, only its name is not the final one.
    fn seal(&mut self) -> Result<(), DiskFault> {
        let superblock = Arc::clone(&self.target.superblock);
        let now = (self.store.shared().options.now)();
        let at = self.target.tail;
        let mark = RecordHeader::mark(RecordKind::Seal, crate::record::MARK_LEN, 0, now);
        let too_many = || std::io::Error::other("too many records for one footer");
        let fault = |error: std::io::Error| DiskFault::new("seal", &superblock.path, &error);
        let body = self.footer.finish(&self.moves, at, superblock.header.salt);
        let body = body.ok_or_else(|| fault(too_many()))?;
        let header = seal_header(body.len(), mark).ok_or_else(|| fault(too_many()))?;
        let record = Record {
            header,
            data: &[Bytes::from(body)],
            tail: Vec::new(),
        };
        self.target
            .append(&[record])
            .map_err(|(operation, cause)| DiskFault::new(operation, &superblock.path, &cause))?;
        superblock
            .file
            .truncate(self.target.tail)
            .and_then(|()| superblock.file.fsync())
            .map_err(fault)?;
        superblock.close(self.target.tail);
        self.report.bytes_after = self.target.tail;
        Ok(())
    }

    /// Decides the exchange, makes it on disk, and asks the writer to make it in the index.
    fn exchange(&mut self) -> Result<(), StoreError> {
        let shared = Arc::clone(self.store.shared());
        let disk = &*shared.options.disk;
        let header = self.target.superblock.header;
        // Whatever fails from here on, only a start can say whether the marker stands.
        shared.block_compaction(true);
        let marker = Marker::new(&header, self.sources.clone());
        let exchanged = marker
            .write(disk, &shared.data)
            .and_then(|()| marker.roll_forward(disk, shared.folder()));
        if let Err(fault) = exchanged {
            shared.note_disk_error(&fault);
            return Err(shared.refusal(fault));
        }
        let (sender, receiver) = channel();
        let exchange = Exchange {
            target: Arc::clone(&self.target.superblock),
            sources: self.sources.iter().map(|source| source.number).collect(),
            relocations: std::mem::take(&mut self.relocations),
            forget: std::mem::take(&mut self.forget),
        };
        let of_writer = Arc::clone(&shared);
        self.store.send(Request::Between(Box::new(move || {
            exchange.publish(&of_writer);
            of_writer.block_compaction(false);
            // Whoever waited may have gone.
            let _ = sender.send(());
        })));
        self.switched = Some(receiver);
        Ok(())
    }
}

/// About how long the file with so many bytes of records becomes.
fn file_len(bytes: u64, records: usize) -> u64 {
    let footer = 256 * records as u64;
    SUPERBLOCK_HEADER_LEN as u64 + bytes.next_multiple_of(BATCH_ALIGN) + footer.next_multiple_of(BATCH_ALIGN)
}

fn target_header(shared: &Shared, plans: &[(Arc<Superblock>, Plan)]) -> SuperblockHeader {
    let options = &shared.options;
    let sources = plans.iter().map(|(source, _)| source.header);
    SuperblockHeader {
        number: sources.clone().map(|header| header.number).max().unwrap_or(0),
        uuid: (options.new_uuid)(),
        node: shared.identity.node_id,
        cluster: shared.identity.cluster_id,
        creation_epoch: shared.identity.boot_epoch,
        salt: (options.new_uuid)().as_u64_pair().0,
        // What a source says about a superblock that failed before it must still be said.
        abandoned: sources.filter_map(|header| header.abandoned).next(),
    }
}
