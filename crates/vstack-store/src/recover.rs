//! Opening a data folder: from files to an index.
//!
//! Every superblock is read in the order of its number; an unreadable one is left where it is, reported, and never
//! written. Objects are a set: a tombstone wins wherever it stands, and no file order decides anything, except that the
//! later of two records with the same bytes (a repaired copy) is the one that is read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tracing::{info, warn};
use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, NodeId};

use crate::disk::{Disk, OpenMode, read_exact};
use crate::error::{DiskFault, StoreError};
use crate::identity::{FolderLock, Identity, load_generation, load_or_format};
use crate::index::{Index, Location, ObjectState};
use crate::read::read_header;
use crate::record::{HEADER_LEN, ObjectName, RecordKind, Reference};
use crate::scan::{Extent, Found, Scan, scan};
use crate::shared::{Shared, StoreOptions};
use crate::superblock::{Superblock, SuperblockFault, open_header, parse_file_name};

/// The trace of a crash: bytes at the end of a file that were never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    pub superblock: u32,
    pub range: Range<u64>,
}

/// A damaged place: no record can be read there, or only because a bit of its header was turned back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRange {
    pub superblock: u32,
    pub range: Range<u64>,
    /// The bytes had been synced, so this is rot. Otherwise it may be what a crash left of an unacknowledged batch.
    pub proven_rot: bool,
}

/// Why a file was left aside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    #[error("it is not a plain file")]
    NotAFile,
    #[error("{0}")]
    Disk(DiskFault),
    #[error("{0}")]
    Header(SuperblockFault),
    #[error("it says that it is superblock {0}")]
    OtherNumber(u32),
    #[error("it belongs to node {0}")]
    OtherNode(NodeId),
    #[error("it belongs to another cluster")]
    OtherCluster,
    #[error("it is a copy of superblock {0}")]
    CopyOf(u32),
}

impl SkipReason {
    /// Whether this node's own objects may be in the file, so that "not found" cannot be said any more.
    const fn may_hold_objects(&self) -> bool {
        matches!(self, Self::Disk(_) | Self::Header(_))
    }
}

/// A file that was left aside, untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedFile {
    pub name: String,
    pub reason: SkipReason,
}

/// What opening a store found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    pub superblocks: usize,
    /// Records with an intact header.
    pub records: u64,
    pub torn: Vec<TornTail>,
    pub bad: Vec<BadRange>,
    /// Objects whose record is known to be damaged.
    pub corrupt: Vec<(ChunkId, Ballot)>,
    /// Pairs of records under one name with different bytes; the first was kept.
    pub contradictions: Vec<(ChunkId, Ballot)>,
    pub skipped: Vec<SkippedFile>,
    /// Superblocks that the disk could not read everywhere. They are left as they are: what is missing now may be there
    /// at the next start.
    pub unread: Vec<u32>,
    pub duration_ms: u64,
}

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
}

/// A folder that has been opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) shared: Shared,
    pub(crate) lock: FolderLock,
    pub(crate) resume: Resume,
    pub(crate) report: RecoveryReport,
}

/// Opens (or makes) the data folder `folder`, whose parent exists.
pub(crate) fn open(folder: &Path, options: StoreOptions) -> Result<Opened, StoreError> {
    let started = Instant::now();
    let disk = Arc::clone(&options.disk);
    let data = make_folders(&*disk, folder)?;
    let mut lock = FolderLock::take(&*disk, folder)?;
    let mut report = RecoveryReport::default();
    let numbers = list_superblocks(&*disk, &data, &mut report)?;
    let (node_id, incarnation, cluster_id) = load_or_format(&*disk, folder, !numbers.is_empty(), &options)?;
    let mut recovery = Recovery::new(&*disk, &data, report);
    recovery.open_files(&numbers, node_id, cluster_id.or(options.cluster_id));
    let newest_epoch = recovery
        .superblocks
        .values()
        .map(|superblock| superblock.header.creation_epoch)
        .max();
    if newest_epoch.is_some_and(|epoch| epoch > lock.epoch()) {
        lock.raise_epoch(&*disk, folder, newest_epoch.unwrap_or_default() + 1)?;
    }
    recovery.scan_all()?;
    recovery.resolve_references();
    recovery.resume.next_number = numbers.last().map_or(0, |last| last + 1);
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
    Ok(Opened {
        shared,
        lock,
        resume,
        report,
    })
}

/// Makes the folders and makes all their names durable: also those of superblocks, since an earlier start may have
/// failed to, and what is appended to a file whose name is lost is lost with it.
fn make_folders(disk: &dyn Disk, folder: &Path) -> Result<PathBuf, DiskFault> {
    let data = folder.join("data");
    for path in [folder, &data] {
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

/// Numbers of all superblock files, in order. Half-made files (`.tmp`) never held anything acknowledged and go.
fn list_superblocks(
    disk: &dyn Disk,
    data: &Path,
    report: &mut RecoveryReport,
) -> Result<Vec<u32>, DiskFault> {
    let entries = disk
        .list(data)
        .map_err(|error| DiskFault::new("list", data, &error))?;
    let mut numbers = Vec::new();
    for entry in entries {
        if entry.name.ends_with(".dat.tmp") && entry.is_plain_file {
            let path = data.join(&entry.name);
            disk.remove(&path)
                .map_err(|error| DiskFault::new("remove", &path, &error))?;
        } else if let Some(number) = parse_file_name(&entry.name) {
            if !entry.is_plain_file {
                report.skipped.push(SkippedFile {
                    name: entry.name,
                    reason: SkipReason::NotAFile,
                });
            }
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    data: &'a Path,
    superblocks: BTreeMap<u32, Arc<Superblock>>,
    index: Index,
    references: Vec<(u32, Found)>,
    resume: Resume,
    report: RecoveryReport,
}

impl<'a> Recovery<'a> {
    fn new(disk: &'a dyn Disk, data: &'a Path, report: RecoveryReport) -> Self {
        let superblocks = BTreeMap::new();
        let index = Index::default();
        Self {
            disk,
            data,
            superblocks,
            index,
            references: Vec::new(),
            resume: Resume::default(),
            report,
        }
    }

    fn open_files(&mut self, numbers: &[u32], node: NodeId, cluster: Option<Uuid>) {
        let mut uuids = HashMap::new();
        let odd: HashSet<String> = self.report.skipped.iter().map(|file| file.name.clone()).collect();
        for number in numbers {
            let name = crate::superblock::file_name(*number);
            if odd.contains(&name) {
                continue;
            }
            let opened = self.open_file(&name, *number).and_then(|superblock| {
                let header = &superblock.header;
                if header.node != node {
                    return Err(SkipReason::OtherNode(header.node));
                }
                if header
                    .cluster
                    .zip(cluster)
                    .is_some_and(|(theirs, ours)| theirs != ours)
                {
                    return Err(SkipReason::OtherCluster);
                }
                match uuids.insert(header.uuid, *number) {
                    Some(original) => Err(SkipReason::CopyOf(original)),
                    None => Ok(superblock),
                }
            });
            match opened {
                Ok(superblock) => drop(self.superblocks.insert(*number, Arc::new(superblock))),
                Err(reason) => self.report.skipped.push(SkippedFile { name, reason }),
            }
        }
    }

    fn open_file(&self, name: &str, number: u32) -> Result<Superblock, SkipReason> {
        let path = self.data.join(name);
        let fault = |operation| {
            let path = &path;
            move |error| SkipReason::Disk(DiskFault::new(operation, path, &error))
        };
        let file = self.disk.open(&path, OpenMode::Write).map_err(fault("open"))?;
        let header = open_header(&*file)
            .map_err(fault("read"))?
            .map_err(SkipReason::Header)?;
        if header.number != number {
            return Err(SkipReason::OtherNumber(header.number));
        }
        Ok(Superblock { header, path, file })
    }

    fn scan_all(&mut self) -> Result<(), DiskFault> {
        let superblocks: Vec<_> = self.superblocks.values().cloned().collect();
        let abandoned: HashMap<Uuid, u64> = superblocks
            .iter()
            .filter_map(|superblock| superblock.header.abandoned)
            .collect();
        for (place, superblock) in superblocks.iter().enumerate() {
            let abandoned_at = abandoned.get(&superblock.header.uuid).copied();
            let newest = place + 1 == superblocks.len();
            self.scan_file(superblock, abandoned_at, newest)?;
        }
        Ok(())
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
        let found = scan(file, salt, Extent { len, abandoned_at })
            .map_err(|error| DiskFault::new("read again", &superblock.path, &error))?;
        if let Some(error) = &found.sync_error {
            // As after any failed sync the file is closed; the next superblock says how much of it counts.
            warn!(path = %superblock.path.display(), %error, "sync at start failed, closing the superblock");
            self.resume.abandoned = Some((superblock.header.uuid, found.end));
        } else if newest && abandoned_at.is_none() {
            self.settle_newest(superblock, &found)?;
        }
        self.take_scan(superblock.header.number, found);
        Ok(())
    }

    /// Cuts off the torn tail of the newest superblock and, if it is sound, lets the writer go on in it.
    fn settle_newest(&mut self, superblock: &Arc<Superblock>, found: &Scan) -> Result<(), DiskFault> {
        let fault = |operation| move |error| DiskFault::new(operation, &superblock.path, &error);
        if found.torn.is_some() {
            superblock.file.truncate(found.end).map_err(fault("truncate"))?;
            superblock.file.fsync().map_err(fault("sync"))?;
        }
        if found.appendable() {
            let superblock = Arc::clone(superblock);
            self.resume.active = Some(Resumed {
                superblock,
                tail: found.end,
                marked: found.ends_in_watermark(),
            });
        }
        Ok(())
    }

    fn take_scan(&mut self, number: u32, found: Scan) {
        self.report.records += found.records.len() as u64;
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
        for record in found.records {
            let Some(name) = record.header.name else { continue };
            match record.header.kind {
                RecordKind::Data => {
                    let state = if record.damaged {
                        ObjectState::Corrupt
                    } else {
                        ObjectState::Unchecked
                    };
                    let location = Location::new(number, record.position, record.header.body_len, state);
                    self.take_object(name, location);
                }
                RecordKind::Tombstone => self.index.set(name, Location::deleted()),
                RecordKind::Reference => self.references.push((number, record)),
                RecordKind::Seal | RecordKind::Watermark | RecordKind::Padding => {}
            }
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

    fn header_at(&self, location: Location) -> Option<crate::record::RecordHeader> {
        let superblock = self.superblocks.get(&location.superblock)?;
        read_header(superblock, location.offset()).ok()
    }

    /// References point into any file, so they are looked up when all files have been read.
    fn resolve_references(&mut self) {
        for (number, record) in std::mem::take(&mut self.references) {
            let Some(name) = record.header.name else { continue };
            let here = Location::new(number, record.position, 0, ObjectState::Corrupt);
            let location = self.resolve(number, &record).unwrap_or(here);
            self.take_object(
                name,
                Location {
                    by_reference: true,
                    ..location
                },
            );
        }
    }

    fn resolve(&self, number: u32, record: &Found) -> Option<Location> {
        let mut body = [0; Reference::LEN];
        let file = &self.superblocks.get(&number)?.file;
        read_exact(&**file, &mut body, record.position + HEADER_LEN as u64).ok()?;
        let reference = Reference::decode(&body)?;
        let target = self
            .superblocks
            .values()
            .find(|superblock| superblock.header.uuid == reference.superblock)?;
        let header = read_header(target, reference.position).ok()?;
        let same = header.kind == RecordKind::Data
            && header.sha256 == reference.sha256
            && header.name.map(|name| name.chunk) == record.header.name.map(|name| name.chunk);
        let number = target.header.number;
        same.then(|| {
            Location::new(
                number,
                reference.position,
                header.body_len,
                ObjectState::Unchecked,
            )
        })
    }
}

impl RecoveryReport {
    /// Whether nothing was damaged or left aside. A torn tail is no damage.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.bad.is_empty()
            && self.corrupt.is_empty()
            && self.skipped.is_empty()
            && self.unread.is_empty()
            && self.contradictions.is_empty()
    }

    fn log(&self) {
        for torn in &self.torn {
            let bytes = torn.range.end - torn.range.start;
            info!(
                superblock = torn.superblock,
                offset = torn.range.start,
                bytes,
                "torn_tail"
            );
        }
        for bad in &self.bad {
            let BadRange {
                superblock,
                range,
                proven_rot,
            } = bad;
            warn!(superblock, ?range, proven_rot, "the bytes are damaged here");
        }
        for (chunk, ballot) in &self.corrupt {
            warn!(%chunk, %ballot, "object is corrupt");
        }
        for (chunk, ballot) in &self.contradictions {
            warn!(%chunk, %ballot, "two records with different bytes under one name, the first is kept");
        }
        for superblock in &self.unread {
            warn!(superblock, "the disk cannot read all of it, left as it is");
        }
        for file in &self.skipped {
            warn!(name = %file.name, reason = %file.reason, "superblock file left aside");
        }
        let Self {
            superblocks,
            records,
            duration_ms,
            ..
        } = self;
        info!(superblocks, records, duration_ms, "store opened");
    }
}
