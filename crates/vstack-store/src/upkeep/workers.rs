//! Compaction and index snapshots as workers.

use tracing::{info, warn};
use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::id::ChunkId;
use vstack_core::time::UnixMillis;

use super::worker::{Pace, Work, Worker};
use crate::compact::{Compaction, CompactionStep};
use crate::store::Store;

/// Whether a tombstone may go; see [`crate::Forgettable`].
pub type MayForget = Box<dyn Fn(ChunkId, Ballot, UnixMillis) -> bool + Send>;

/// Compacts superblocks whenever one is worth it.
pub struct Compactor {
    store: Store,
    may_forget: MayForget,
    running: Option<Compaction>,
}

impl std::fmt::Debug for Compactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compactor")
            .field("running", &self.running.is_some())
            .finish_non_exhaustive()
    }
}

impl Compactor {
    #[must_use]
    pub fn new(store: &Store, may_forget: MayForget) -> Self {
        Self {
            store: store.clone(),
            may_forget,
            running: None,
        }
    }

    fn begin(&mut self) -> Work {
        match Compaction::begin(&self.store, &*self.may_forget) {
            Ok(running) => {
                self.running = running;
                self.store.shared().upkeep.set_compacting(self.running.is_some());
            }
            Err(error) => warn!(%error, "no compaction can begin"),
        }
        if self.running.is_some() {
            Work::Did { bytes: 0 }
        } else {
            Work::Nothing
        }
    }

    fn end(&mut self) -> Work {
        self.running = None;
        self.store.shared().upkeep.set_compacting(false);
        Work::Nothing
    }
}

impl Worker for Compactor {
    fn name(&self) -> &'static str {
        "compaction"
    }

    /// What it reads it writes, too, so the disk does twice this.
    fn pace(&self) -> Pace {
        Pace {
            alone: 32 << 20,
            with_viewers: 2 << 20,
        }
    }

    fn step(&mut self) -> Work {
        let Some(running) = &mut self.running else {
            return self.begin();
        };
        match running.step() {
            Ok(CompactionStep::Copied(bytes)) => Work::Did { bytes },
            Ok(CompactionStep::Waiting) => Work::Did { bytes: 0 },
            Ok(CompactionStep::Done(done)) => {
                let freed = done.bytes_before.saturating_sub(done.bytes_after);
                info!(sources = done.sources, freed, lost = done.lost, "compaction done");
                self.store.shared().upkeep.compacted(freed);
                self.end()
            }
            // It was logged where it happened.
            Err(_) => self.end(),
        }
    }
}

/// Writes an index snapshot when other superblocks are closed than the last one stands for.
#[derive(Debug)]
pub struct Snapshots {
    store: Store,
    covered: Vec<Uuid>,
}

impl Snapshots {
    #[must_use]
    pub fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            covered: Vec::new(),
        }
    }
}

impl Worker for Snapshots {
    fn name(&self) -> &'static str {
        "snapshots"
    }

    fn pace(&self) -> Pace {
        Pace {
            alone: 64 << 20,
            with_viewers: 16 << 20,
        }
    }

    fn step(&mut self) -> Work {
        let closed: Vec<Uuid> = self
            .store
            .shared()
            .superblocks()
            .iter()
            .filter(|superblock| superblock.is_closed())
            .map(|superblock| superblock.header.uuid)
            .collect();
        if closed == self.covered || self.store.shared().compaction_blocked() {
            return Work::Nothing;
        }
        self.covered = closed;
        self.store.shared().try_save_snapshot();
        Work::Nothing
    }
}
