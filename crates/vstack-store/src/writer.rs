//! The writer: one thread that appends, syncs, publishes and then answers, in this order and no other.
//!
//! It takes whatever waits, up to 16 MiB, as one batch: one run of writes, one `fdatasync` for all of them. While it
//! syncs, the next batch gathers by itself, so an idle disk never waits and a busy one gets large batches.
//!
//! After any failed write or sync the superblock is closed for ever (Linux forgets a failed sync: the next one says
//! yes and means nothing). Nothing of the failed batch is answered with success; the next superblock's header says how
//! much of the failed one counts. If no new superblock can be made either, the store is read-only until the next start,
//! unless the disk was merely full.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use tracing::{error, info, warn};
use uuid::Uuid;

use crate::batch::{Active, Places, Record, batch_len};
use crate::close;
use crate::error::{DiskFault, StoreError};
use crate::footer::FooterBuilder;
use crate::index::{Location, ObjectState};
use crate::record::{MARK_LEN, RecordHeader, RecordKind};
use crate::recover::Resume;
use crate::request::{Content, Pending, Request, body_len};
use crate::shared::Shared;
use crate::staging::Staging;
use crate::superblock::{SUPERBLOCK_HEADER_LEN, SuperblockHeader, create};

/// A batch closes at this size: eight chunks of 2 MiB share a sync, which costs as much as writing two of them. Larger
/// ones save little more and let the first requests wait.
const BATCH_BYTES: u64 = 16 << 20;
/// Room in every superblock that only deletes may use: on a disk without any other, somebody must be able to make some.
const DELETE_ROOM: u64 = 1 << 20;

pub(crate) struct Writer {
    shared: Arc<Shared>,
    requests: Receiver<Request>,
    /// Requests that have to wait for the batch that is being written.
    held: VecDeque<Request>,
    active: Option<Active>,
    /// What the active superblock holds.
    footer: FooterBuilder,
    abandoned: Option<(Uuid, u64)>,
    next_number: u32,
}

/// A panic of the writer leaves the tail of a file in an unknown state, so the process must not go on.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

enum Next {
    Request(Request),
    Idle,
    Stopped,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, requests: Receiver<Request>, resume: Resume) -> Self {
        let mut footer = FooterBuilder::default();
        let active = resume.active.map(|resumed| {
            footer = FooterBuilder::with(&resumed.entries, resumed.superblock.header.salt);
            Active {
                superblock: resumed.superblock,
                tail: resumed.tail,
                marked: if resumed.marked { resumed.tail } else { 0 },
                staging: Staging::default(),
            }
        });
        let Resume {
            abandoned,
            next_number,
            ..
        } = resume;
        Self {
            shared,
            requests,
            held: VecDeque::new(),
            active,
            footer,
            abandoned,
            next_number,
        }
    }

    /// Works until every handle of the store is gone and all requests are answered.
    pub(crate) fn run(mut self) {
        let _guard = AbortOnPanic;
        loop {
            match self.next() {
                Next::Request(first) => {
                    let batch = self.collect(first);
                    self.commit(batch);
                }
                Next::Idle => self.write_watermark(),
                Next::Stopped => break,
            }
        }
        self.write_watermark();
    }

    /// Decides and writes one batch of what waits; false if nothing does.
    pub(crate) fn write_batch(&mut self) -> bool {
        let Some(first) = self.waiting() else {
            return false;
        };
        let batch = self.collect(first);
        self.commit(batch);
        true
    }

    fn next(&mut self) -> Next {
        if let Some(request) = self.held.pop_front() {
            return Next::Request(request);
        }
        if !self.needs_watermark() {
            return self.requests.recv().map_or(Next::Stopped, Next::Request);
        }
        match self.requests.recv_timeout(self.shared.options.idle_watermark) {
            Ok(request) => Next::Request(request),
            Err(RecvTimeoutError::Timeout) => Next::Idle,
            Err(RecvTimeoutError::Disconnected) => Next::Stopped,
        }
    }

    /// Decides the first request and all that wait, up to a batch. Requests about a chunk that is in the batch already
    /// are held back, so that they are decided by what will then be durable.
    fn collect(&mut self, first: Request) -> Vec<Pending> {
        let mut batch = Vec::new();
        let mut chunks = HashSet::new();
        let mut bytes = 0;
        let mut held = VecDeque::new();
        let mut next = Some(first);
        while let Some(request) = next {
            let must_wait = match request.chunk() {
                Some(chunk) => chunks.contains(&chunk),
                None => !batch.is_empty(),
            };
            if must_wait {
                held.push_back(request);
            } else if let Some(pending) = self.shared.decide(request) {
                chunks.insert(pending.name.chunk);
                bytes += u64::from(pending.content.record_len());
                batch.push(pending);
            }
            next = if bytes < BATCH_BYTES { self.waiting() } else { None };
        }
        held.append(&mut self.held);
        self.held = held;
        batch
    }

    fn waiting(&mut self) -> Option<Request> {
        if let Some(request) = self.held.pop_front() {
            return Some(request);
        }
        self.requests.try_recv().ok()
    }

    /// Writes a batch, makes it durable, publishes it, answers.
    fn commit(&mut self, batch: Vec<Pending>) {
        if batch.is_empty() {
            return;
        }
        let written = self.write(&batch);
        match &written {
            Ok(places) => self.publish(&batch, places),
            Err(refused) => warn!(requests = batch.len(), %refused, "batch refused"),
        }
        for pending in batch {
            pending.answer(written.as_ref().err().cloned());
        }
    }

    fn write(&mut self, batch: &[Pending]) -> Result<Places, StoreError> {
        if let Some(fault) = self.shared.read_only() {
            return Err(StoreError::ReadOnly(fault));
        }
        let now = (self.shared.options.now)();
        let records: Vec<Record<'_>> = batch.iter().map(|pending| pending.record(now)).collect();
        let bytes = batch_len(&records);
        // A disk without any room left must still take tombstones, or nobody could make room.
        let deletes_only = batch
            .iter()
            .all(|pending| matches!(pending.content, Content::Tombstone { .. }));
        self.make_room(records.len(), bytes, deletes_only)?;
        self.append(&records)
    }

    /// Makes sure that there is an open superblock with room for a batch of `records` with `bytes`.
    fn make_room(&mut self, records: usize, bytes: u64, deletes_only: bool) -> Result<(), StoreError> {
        let limit = self.shared.options.superblock_limit();
        let empty = SUPERBLOCK_HEADER_LEN as u64;
        if let Some(active) = &self.active {
            let reserved = self.footer.seal_len(records) + if deletes_only { 0 } else { DELETE_ROOM };
            let has_room = active.tail + bytes + reserved.min(limit / 4) <= limit
                && self.footer.has_room(records, self.shared.options.record_limit());
            if active.tail == empty || has_room {
                return Ok(());
            }
        }
        let preallocate = if deletes_only { empty + bytes } else { limit };
        // The old one is closed when the new one is there: on a full disk it goes on taking tombstones.
        let full = self.active.take();
        let footer = std::mem::take(&mut self.footer);
        match self.open_superblock(preallocate) {
            Ok(()) => {
                if let Some(full) = full {
                    close::seal(&self.shared, full, &footer);
                }
                Ok(())
            }
            Err(StoreError::Full { .. }) if deletes_only && full.is_some() => {
                self.active = full;
                self.footer = footer;
                Ok(())
            }
            Err(refused) => {
                self.active = full;
                self.footer = footer;
                Err(refused)
            }
        }
    }

    fn open_superblock(&mut self, preallocate: u64) -> Result<(), StoreError> {
        let options = &self.shared.options;
        let identity = &self.shared.identity;
        let header = SuperblockHeader {
            number: self.next_number,
            uuid: (options.new_uuid)(),
            node: identity.node_id,
            cluster: identity.cluster_id,
            creation_epoch: identity.boot_epoch,
            salt: (options.new_uuid)().as_u64_pair().0,
            abandoned: self.abandoned,
        };
        match create(&*options.disk, &self.shared.data, header, preallocate) {
            Ok(superblock) => {
                info!(superblock = header.number, "superblock created");
                let superblock = Arc::new(superblock);
                self.shared.add_superblock(Arc::clone(&superblock));
                self.next_number += 1;
                self.abandoned = None;
                self.active = Some(Active {
                    superblock,
                    tail: SUPERBLOCK_HEADER_LEN as u64,
                    marked: 0,
                    staging: Staging::default(),
                });
                Ok(())
            }
            Err(fault) => {
                // Even if only the folder's sync failed the name may be there after a restart, so it is not used again.
                self.next_number += 1;
                if fault.is_shortage() {
                    warn!(%fault, "no superblock can be made now");
                } else if !fault.is_full() {
                    error!(%fault, "no superblock can be made, the store is read-only now");
                    self.shared.set_read_only(fault.clone());
                }
                Err(self.shared.refusal(fault))
            }
        }
    }

    /// Appends a batch to the open superblock and syncs it. On any failure the superblock is closed for ever.
    fn append(&mut self, records: &[Record<'_>]) -> Result<Places, StoreError> {
        let active = self.active.as_mut().ok_or(StoreError::Stopped)?;
        let durable_upto = active.tail;
        match active.append(records) {
            Ok(places) => {
                self.shared.batches.fetch_add(1, Ordering::Relaxed);
                let salt = active.superblock.header.salt;
                for (record, position) in records.iter().zip(&places.positions) {
                    let header = RecordHeader {
                        durable_upto,
                        ..record.header
                    };
                    self.footer.note(*position, &header, &record.tail, salt);
                }
                Ok(places)
            }
            Err((operation, cause)) => {
                let superblock = &active.superblock;
                let fault = DiskFault::new(operation, &superblock.path, &cause);
                error!(superblock = superblock.header.number, durable = active.tail, %fault, "superblock closed");
                self.abandoned = Some((superblock.header.uuid, active.tail));
                close::abandon(&self.shared, superblock, active.tail, &fault);
                self.active = None;
                self.footer = FooterBuilder::default();
                Err(self.shared.refusal(fault))
            }
        }
    }

    fn publish(&self, batch: &[Pending], places: &Places) {
        let mut index = self.shared.index_mut();
        for (pending, position) in batch.iter().zip(&places.positions) {
            let location = match &pending.content {
                Content::Tombstone { .. } => Location::tombstone(places.superblock, *position),
                Content::Reference { target, .. } => Location {
                    by_reference: true,
                    ..*target
                },
                Content::Data { digest, .. } => Location::new(
                    places.superblock,
                    *position,
                    body_len(digest),
                    ObjectState::Checked,
                ),
            };
            index.set(pending.name, location);
        }
        drop(index);
        if let Some(active) = &self.active {
            active.superblock.grow(active.tail);
        }
        self.shared
            .batched_requests
            .fetch_add(batch.len() as u64, Ordering::Relaxed);
    }

    fn needs_watermark(&self) -> bool {
        self.active
            .as_ref()
            .is_some_and(|active| active.tail > active.marked.max(SUPERBLOCK_HEADER_LEN as u64))
    }

    /// Notes on disk that everything so far is durable, so that a later scan can tell rot from a torn tail.
    pub(crate) fn write_watermark(&mut self) {
        if !self.needs_watermark() {
            return;
        }
        let mark = RecordHeader::mark(RecordKind::Watermark, MARK_LEN, 0, (self.shared.options.now)());
        if self.append(&[Record::mark(mark)]).is_ok()
            && let Some(active) = &mut self.active
        {
            active.marked = active.tail;
            active.superblock.grow(active.tail);
        }
    }
}
