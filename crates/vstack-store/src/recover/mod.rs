//! Opening a data folder: from files to an index.
//!
//! Superblocks are taken in the order of their numbers. A closed one that is sealed tells by its footer what it holds;
//! others are scanned; an index snapshot stands for all closed ones that it knows, if each is still the file it was made
//! of. An unreadable file is left where it is, reported, and never written.
//!
//! Objects are a set: a tombstone wins wherever it stands, and no file order decides anything, except that the later of
//! two records with the same bytes (a repaired copy) is the one that is read.
//!
//! The same code inspects a folder without changing anything in it ([`inspect`]), so that the checker's verdict is the
//! one of the next start.

mod files;
mod merge;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

pub use report::{BadRange, RecoveryReport, SkipReason, SkippedFile, TornTail};

use crate::compact;
use crate::disk::Disk;
use crate::error::{DiskFault, StoreError};
use crate::footer::Entry;
use crate::identity::{FolderLock, Identity, load_generation, load_node, load_or_format};
use crate::index::Index;
use crate::shared::{Shared, StoreOptions};
use crate::snapshot;
use crate::superblock::Superblock;
use files::list_superblocks;
use merge::Recovery;

/// Where the writer goes on.
#[derive(Debug, Default)]
pub(crate) struct Resume {
    pub(crate) active: Option<Resumed>,
    pub(crate) abandoned: Option<(Uuid, u64)>,
    pub(crate) next_number: u32,
}

/// The superblock to append to.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) superblock: Arc<Superblock>,
    pub(crate) tail: u64,
    /// Its last record says that everything before is durable.
    pub(crate) marked: bool,
    /// A torn tail was cut off.
    pub(crate) was_torn: bool,
    /// What it holds.
    pub(crate) entries: Vec<Entry>,
}

/// A folder that has been opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) shared: Shared,
    pub(crate) lock: FolderLock,
    pub(crate) resume: Resume,
    pub(crate) report: RecoveryReport,
}

/// What may be believed and what may be done while files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode {
    /// Whether anything may be changed: tails cut off, interrupted compactions ended.
    pub(crate) repair: bool,
    /// Whether footers and snapshots count; otherwise every header is read.
    pub(crate) shortcuts: bool,
}

impl Mode {
    pub(crate) const START: Self = Self {
        repair: true,
        shortcuts: true,
    };
}

/// Opens (or makes) the data folder `folder`, whose parent exists.
pub(crate) fn open(folder: &Path, options: StoreOptions) -> Result<Opened, StoreError> {
    let started = Instant::now();
    let disk = Arc::clone(&options.disk);
    let data = make_folders(&*disk, folder)?;
    let mut lock = FolderLock::take(&*disk, folder)?;
    compact::settle(&*disk, folder)?;
    let mut report = RecoveryReport::default();
    let files = list_superblocks(&*disk, &data, Mode::START, &mut report)?;
    let (node_id, incarnation, cluster_id) = load_or_format(&*disk, folder, !files.is_empty(), &options)?;
    let mut recovery = Recovery::new(&*disk, Mode::START, report);
    recovery.open_files(&files, node_id, cluster_id.or(options.cluster_id));
    let newest_epoch = recovery.newest_epoch();
    if newest_epoch.is_some_and(|epoch| epoch > lock.epoch()) {
        lock.raise_epoch(&*disk, folder, newest_epoch.unwrap_or_default() + 1)?;
    }
    recovery.read_all(folder, node_id)?;
    recovery.resume.next_number = files.last().map_or(0, |last| last.number + 1);
    let identity = Identity {
        node_id,
        incarnation,
        cluster_id,
        boot_epoch: lock.epoch(),
    };
    let Recovery {
        superblocks,
        index,
        resume,
        unresolved,
        mut report,
        ..
    } = recovery;
    report.superblocks = superblocks.len();
    report.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let unread = report
        .skipped
        .iter()
        .filter(|file| file.reason.may_hold_objects())
        .count()
        + report.unread.len();
    report.log();
    let generation = load_generation(&*disk, folder)?.max(index.highest_generation());
    let shared = Shared::new(options, identity, data, unread, index, superblocks, generation);
    // A compaction may drop what nothing names any more. What could not be read at this start may name it.
    shared.block_compaction(unread > 0 || unresolved > 0);
    Ok(Opened {
        shared,
        lock,
        resume,
        report,
    })
}

/// What a folder holds, looked at without changing it.
#[derive(Debug)]
pub(crate) struct Inspected {
    pub(crate) report: RecoveryReport,
    pub(crate) index: Index,
    pub(crate) superblocks: std::collections::BTreeMap<u32, Arc<Superblock>>,
    /// Held while the caller looks further.
    pub(crate) _lock: Option<FolderLock>,
}

/// Reads a folder as a start would, or every header of it.
///
/// # Errors
/// It is in use, or no data folder that this version can read.
pub(crate) fn inspect(
    folder: &Path,
    options: &StoreOptions,
    shortcuts: bool,
) -> Result<Inspected, StoreError> {
    let started = Instant::now();
    let disk = &*options.disk;
    let mode = Mode {
        repair: false,
        shortcuts,
    };
    let node = load_node(disk, folder, options)?;
    let lock = FolderLock::look(disk, folder)?;
    let data = folder.join("data");
    let mut report = RecoveryReport::default();
    let files = list_superblocks(disk, &data, mode, &mut report)?;
    let mut recovery = Recovery::new(disk, mode, report);
    recovery.open_files(&files, node.0, node.2.or(options.cluster_id));
    recovery.read_all(folder, node.0)?;
    let Recovery {
        superblocks,
        index,
        mut report,
        ..
    } = recovery;
    report.superblocks = superblocks.len();
    report.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Inspected {
        report,
        index,
        superblocks,
        _lock: lock,
    })
}

/// Makes the folders and makes all their names durable: also those of superblocks, since an earlier start may have
/// failed to, and what is appended to a file whose name is lost is lost with it.
fn make_folders(disk: &dyn Disk, folder: &Path) -> Result<PathBuf, DiskFault> {
    let data = folder.join("data");
    let index = snapshot::folder(folder);
    let quarantine = compact::quarantine(folder);
    for path in [folder, &data, &index, &quarantine] {
        disk.create_dir(path)
            .map_err(|error| DiskFault::new("create", path, &error))?;
    }
    for path in folder
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .into_iter()
        .chain([folder, &data])
    {
        disk.fsync_dir(path)
            .map_err(|error| DiskFault::new("sync", path, &error))?;
    }
    Ok(data)
}
