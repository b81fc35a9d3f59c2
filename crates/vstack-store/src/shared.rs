//! What readers, the writer and the public handle share.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;
use vstack_core::time::UnixMillis;

use crate::disk::{Disk, DiskSpace, RealDisk};
use crate::error::{DiskFault, StoreError};
use crate::footer::MAX_ENTRIES;
use crate::identity::{Identity, save_generation};
use crate::index::Index;
use crate::superblock::Superblock;
use crate::upkeep::Upkeep;

/// Room on the disk that writes may not touch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reserve {
    /// 5 % of the disk or two superblocks, whichever is more: below that a compaction could no longer make room.
    Standard,
    /// Share of the whole disk, 0 to 100.
    Percent(f64),
    Bytes(u64),
}

impl Reserve {
    fn bytes(self, space: DiskSpace, superblock_bytes: u64) -> u64 {
        match self {
            Self::Standard => Self::Percent(5.0)
                .bytes(space, superblock_bytes)
                .max(superblock_bytes.saturating_mul(2)),
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => {
                let total = space.used_bytes.saturating_add(space.available_bytes);
                let per_mille = (percent.clamp(0.0, 100.0) * 10.0).round();
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "0 to 1000"
                )]
                let per_mille = per_mille as u64;
                total / 1000 * per_mille
            }
        }
    }
}

/// How a store is opened. Every field has a default for production.
#[derive(Clone)]
pub struct StoreOptions {
    /// A superblock that would grow past this is closed and a new one begun. 1 GiB; at most 16 GiB.
    pub superblock_bytes: u64,
    /// So is one with so many records, since its footer could not tell of more. 65 536, which is the most.
    pub superblock_records: usize,
    /// Writes that would leave less than this are refused. 5 % or two superblocks.
    pub reserve: Reserve,
    /// Silence after which the store notes on disk how much of the file is synced. 100 ms.
    pub idle_watermark: Duration,
    /// The cluster this node belongs to, once it knows.
    pub cluster_id: Option<Uuid>,
    pub disk: Arc<dyn Disk>,
    /// What time it is, for `stored_at`.
    pub now: fn() -> UnixMillis,
    /// Random identities; the salt of a superblock's positions comes from here too.
    pub new_uuid: fn() -> Uuid,
}

/// 1 GiB: see `20-storage`, a compromise between open files and the work of one compaction.
const SUPERBLOCK_BYTES: u64 = 1 << 30;
/// Positions are kept in 32 bits of 8-byte words.
const MAX_SUPERBLOCK_BYTES: u64 = 16 << 30;

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            superblock_bytes: SUPERBLOCK_BYTES,
            superblock_records: MAX_ENTRIES,
            reserve: Reserve::Standard,
            idle_watermark: Duration::from_millis(100),
            cluster_id: None,
            disk: Arc::new(RealDisk),
            now: system_time,
            new_uuid: Uuid::new_v4,
        }
    }
}

fn system_time() -> UnixMillis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

impl StoreOptions {
    pub(crate) fn superblock_limit(&self) -> u64 {
        self.superblock_bytes.min(MAX_SUPERBLOCK_BYTES)
    }

    pub(crate) fn record_limit(&self) -> usize {
        self.superblock_records.min(MAX_ENTRIES)
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("superblock_bytes", &self.superblock_bytes)
            .field("superblock_records", &self.superblock_records)
            .field("reserve", &self.reserve)
            .field("idle_watermark", &self.idle_watermark)
            .field("cluster_id", &self.cluster_id)
            .field("disk", &self.disk)
            .finish_non_exhaustive()
    }
}

/// The store in figures.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreStats {
    /// Objects that are not deleted.
    pub chunk_count: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// How many of them are known to be damaged.
    pub corrupt_count: u64,
    pub superblock_count: usize,
    pub disk_used_percent: f64,
    pub disk_available_bytes: u64,
    /// Batches synced since the start; requests per batch tell what group commit is worth.
    pub batches: u64,
    /// Requests in those batches.
    pub batched_requests: u64,
    /// Errors of the disk since the start, besides that it is full.
    pub disk_errors: u64,
    /// Why no writes are taken any more.
    pub read_only: Option<DiskFault>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: StoreOptions,
    pub(crate) identity: Identity,
    /// Where the superblocks are.
    pub(crate) data: PathBuf,
    /// Superblock files that could not be read at the start, or not everywhere.
    pub(crate) unread_files: usize,
    pub(crate) batches: AtomicU64,
    pub(crate) batched_requests: AtomicU64,
    index: RwLock<Index>,
    superblocks: RwLock<BTreeMap<u32, Arc<Superblock>>>,
    read_only: RwLock<Option<DiskFault>>,
    /// Highest generation of the catalogue that this node has seen; never below what the disk remembers.
    generation: RwLock<u64>,
    pub(crate) upkeep: Upkeep,
}

// A panic of the writer ends the process and a panic of a reader happens outside of these locks, so a poisoned lock
// protects nothing that is half changed.
fn reading<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn writing<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(
        options: StoreOptions,
        identity: Identity,
        data: PathBuf,
        unread_files: usize,
        index: Index,
        superblocks: BTreeMap<u32, Arc<Superblock>>,
        generation: u64,
    ) -> Self {
        Self {
            options,
            identity,
            data,
            unread_files,
            batches: AtomicU64::new(0),
            batched_requests: AtomicU64::new(0),
            index: RwLock::new(index),
            superblocks: RwLock::new(superblocks),
            read_only: RwLock::new(None),
            generation: RwLock::new(generation),
            upkeep: Upkeep::default(),
        }
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        reading(&self.index)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        writing(&self.index)
    }

    pub(crate) fn superblock(&self, number: u32) -> Option<Arc<Superblock>> {
        reading(&self.superblocks).get(&number).cloned()
    }

    /// All superblocks in the order of their numbers.
    pub(crate) fn superblocks(&self) -> Vec<Arc<Superblock>> {
        reading(&self.superblocks).values().cloned().collect()
    }

    /// The node's folder.
    pub(crate) fn folder(&self) -> &Path {
        self.data.parent().unwrap_or(&self.data)
    }

    pub(crate) fn remove_superblock(&self, number: u32) {
        writing(&self.superblocks).remove(&number);
    }

    pub(crate) fn add_superblock(&self, superblock: Arc<Superblock>) {
        writing(&self.superblocks).insert(superblock.header.number, superblock);
    }

    pub(crate) fn read_only(&self) -> Option<DiskFault> {
        reading(&self.read_only).clone()
    }

    pub(crate) fn set_read_only(&self, fault: DiskFault) {
        *writing(&self.read_only) = Some(fault);
    }

    pub(crate) fn generation(&self) -> u64 {
        *reading(&self.generation)
    }

    /// Remembers `generation`, durably, if it is the highest so far.
    pub(crate) fn note_generation(&self, generation: u64) -> Result<(), DiskFault> {
        if generation <= self.generation() {
            return Ok(());
        }
        let mut highest = writing(&self.generation);
        if generation > *highest {
            save_generation(&*self.options.disk, self.folder(), generation)?;
            *highest = generation;
        }
        Ok(())
    }

    pub(crate) fn reserve_bytes(&self, space: DiskSpace) -> u64 {
        let superblock_bytes = self.options.superblock_limit();
        self.options.reserve.bytes(space, superblock_bytes)
    }

    pub(crate) fn space(&self) -> Result<DiskSpace, DiskFault> {
        self.options
            .disk
            .space(&self.data)
            .map_err(|error| DiskFault::new("measure", &self.data, &error))
    }

    /// Whether `bytes` more may be written without touching the reserve.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        if let Some(fault) = self.read_only() {
            return Err(StoreError::ReadOnly(fault));
        }
        let space = self.space()?;
        let reserve_bytes = self.reserve_bytes(space);
        if space.available_bytes < reserve_bytes.saturating_add(bytes) {
            return Err(StoreError::Full {
                available_bytes: space.available_bytes,
                reserve_bytes,
            });
        }
        Ok(())
    }

    /// What a caller is told when the disk itself said that it is full.
    pub(crate) fn refusal(&self, fault: DiskFault) -> StoreError {
        if !fault.is_full() {
            return StoreError::Disk(fault);
        }
        let space = self.space().unwrap_or(DiskSpace {
            used_bytes: 0,
            available_bytes: 0,
        });
        StoreError::Full {
            available_bytes: space.available_bytes,
            reserve_bytes: self.reserve_bytes(space),
        }
    }

    pub(crate) fn stats(&self) -> StoreStats {
        let (chunk_count, stored_bytes, corrupt_count) = self.index().totals();
        let space = self.space().ok();
        StoreStats {
            chunk_count,
            stored_bytes,
            corrupt_count,
            superblock_count: reading(&self.superblocks).len(),
            disk_used_percent: space.map_or(100.0, DiskSpace::used_percent),
            disk_available_bytes: space.map_or(0, |space| space.available_bytes),
            batches: self.batches.load(Ordering::Relaxed),
            batched_requests: self.batched_requests.load(Ordering::Relaxed),
            disk_errors: self.upkeep.error_count(),
            read_only: self.read_only(),
        }
    }
}
