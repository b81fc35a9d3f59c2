//! What the store remembers about its disk and its housekeeping while it runs, and the workers that do it.

mod scrub;
mod worker;
mod workers;

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::error;
use uuid::Uuid;
use vstack_core::time::UnixMillis;

use crate::error::{DiskFault, StoreError};
use crate::index::FileUse;
use crate::shared::Shared;
use crate::superblock::Superblock;

pub use scrub::{Finding, Scrub, ScrubReport};
pub use worker::{Pace, Pacer, Work, Worker, run_workers};
pub use workers::{Compactor, MayForget, Snapshots};

/// More errors than this within an hour, and the disk is not trusted with new objects.
const MAX_ERRORS: usize = 3;
const ERROR_WINDOW_MS: u64 = 60 * 60 * 1000;

#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the disk failed within the last hour.
    errors: VecDeque<UnixMillis>,
    /// Since the start.
    error_count: u64,
    /// Superblocks whose disk failed and that are to be checked before all others.
    first: VecDeque<Uuid>,
    /// An exchange of files is under way, or failed and is left to the next start, or this start could not read everything.
    compaction_blocked: bool,
    /// Superblocks that looked worth a compaction and were not, with what the index named in them then.
    not_worth: HashMap<Uuid, FileUse>,
    scrub: ScrubReport,
    compaction: CompactionReport,
}

/// What compaction did since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompactionReport {
    pub running: bool,
    pub done: u64,
    pub freed_bytes: u64,
}

impl Upkeep {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here is ever half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a check of a superblock before all others.
    pub(crate) fn check_first(&self, superblock: Uuid) {
        self.lock().first.push_back(superblock);
    }

    pub(crate) fn take_first(&self) -> Option<Uuid> {
        self.lock().first.pop_front()
    }

    pub(crate) fn scrub(&self) -> ScrubReport {
        self.lock().scrub.clone()
    }

    fn set_scrub(&self, report: ScrubReport) {
        self.lock().scrub = report;
    }

    fn scrub_progress(&self, checked_bytes: u64) {
        self.lock().scrub.checked_bytes = checked_bytes;
    }

    pub(crate) fn compaction(&self) -> CompactionReport {
        self.lock().compaction
    }

    fn set_compacting(&self, running: bool) {
        self.lock().compaction.running = running;
    }

    fn compacted(&self, freed_bytes: u64) {
        let mut state = self.lock();
        state.compaction.done += 1;
        state.compaction.freed_bytes += freed_bytes;
    }

    /// Disk errors since the start.
    pub(crate) fn error_count(&self) -> u64 {
        self.lock().error_count
    }
}

impl Shared {
    /// Counts an error of the disk. After too many within an hour the store is read-only.
    pub(crate) fn note_disk_error(&self, fault: &DiskFault) {
        let now = (self.options.now)();
        let mut state = self.upkeep.lock();
        state.error_count += 1;
        state.errors.push_back(now);
        state
            .errors
            .retain(|at| now.0.saturating_sub(at.0) < ERROR_WINDOW_MS);
        let too_many = state.errors.len() > MAX_ERRORS;
        drop(state);
        if too_many && self.read_only().is_none() {
            error!(%fault, "the disk failed more than {MAX_ERRORS} times within an hour, the store is read-only now");
            self.set_read_only(fault.clone());
        }
    }

    pub(crate) fn block_compaction(&self, blocked: bool) {
        self.upkeep.lock().compaction_blocked = blocked;
    }

    pub(crate) fn compaction_blocked(&self) -> bool {
        self.upkeep.lock().compaction_blocked
    }

    /// Not to be looked at again until something in it changes.
    pub(crate) fn not_worth_compacting(&self, superblock: &Superblock) {
        let now = self.index().file_use(superblock.header.number);
        self.upkeep.lock().not_worth.insert(superblock.header.uuid, now);
    }

    pub(crate) fn was_not_worth_compacting(&self, superblock: &Superblock) -> bool {
        let then = self.upkeep.lock().not_worth.get(&superblock.header.uuid).copied();
        then == Some(self.index().file_use(superblock.header.number))
    }

    /// Whether a compaction may write `bytes`. It may use half of the reserve, which is there for that: it gives back more
    /// than it takes.
    pub(crate) fn has_room_for_compaction(&self, bytes: u64) -> Result<bool, StoreError> {
        let space = self.space()?;
        let reserve = self.reserve_bytes(space) / 2;
        Ok(space.available_bytes >= bytes.saturating_add(reserve))
    }
}
