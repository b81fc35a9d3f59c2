//! The superblock file: its name, its 4096-byte header, how one is created.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `VSTACKSB` |
//! | 8 | 2 | format major: a reader refuses one it does not know |
//! | 10 | 2 | format minor: a reader ignores it |
//! | 12 | 4 | number, as in the file's name |
//! | 16 | 16 | uuid of the superblock |
//! | 32 | 16 | node id |
//! | 48 | 16 | cluster id, zero if the node had none |
//! | 64 | 8 | boot epoch in which the file was created |
//! | 72 | 8 | salt of the record positions |
//! | 80 | 2 | version of the record headers |
//! | 82 | 6 | zero |
//! | 88 | 16 | uuid of the superblock that this one replaced after a disk error, zero if none |
//! | 104 | 8 | length up to which that one counts: what lies beyond was never acknowledged |
//! | 112 | 4 | CRC32C of bytes 0 to 111 |
//!
//! The same 116 bytes stand again at offset 2048, so that one bad sector does not take a whole file with it.
//!
//! The header is written and synced before the file's name becomes visible.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use uuid::Uuid;
use vstack_core::id::NodeId;

use crate::disk::{Disk, DiskFile, OpenMode, read_up_to, write_all};
use crate::error::DiskFault;
use crate::record::{array_at, u32_at, u64_at};

/// Bytes before the first record.
pub const SUPERBLOCK_HEADER_LEN: usize = 4096;

const MAGIC: [u8; 8] = *b"VSTACKSB";
const FORMAT_MAJOR: u16 = 1;
const FORMAT_MINOR: u16 = 0;
const RECORD_VERSION: u16 = 1;
const CRC_AT: usize = 112;
const COPY_LEN: usize = 116;
/// Where the two copies stand.
const COPIES_AT: [usize; 2] = [0, 2048];

/// What a superblock says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuperblockHeader {
    pub number: u32,
    pub uuid: Uuid,
    pub node: NodeId,
    pub cluster: Option<Uuid>,
    pub creation_epoch: u64,
    pub salt: u64,
    /// A superblock that failed, and the length of it that counts.
    pub abandoned: Option<(Uuid, u64)>,
}

/// Why a file has no usable header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockFault {
    #[error("not a superblock, or both copies of its header are damaged")]
    Unreadable,
    #[error("written by a newer version (format {0})")]
    NewerFormat(u16),
}

impl SuperblockHeader {
    #[must_use]
    pub fn encode(&self) -> [u8; SUPERBLOCK_HEADER_LEN] {
        let mut copy = [0; COPY_LEN];
        copy[..8].copy_from_slice(&MAGIC);
        copy[8..10].copy_from_slice(&FORMAT_MAJOR.to_le_bytes());
        copy[10..12].copy_from_slice(&FORMAT_MINOR.to_le_bytes());
        copy[12..16].copy_from_slice(&self.number.to_le_bytes());
        copy[16..32].copy_from_slice(self.uuid.as_bytes());
        copy[32..48].copy_from_slice(self.node.0.as_bytes());
        copy[48..64].copy_from_slice(self.cluster.unwrap_or(Uuid::nil()).as_bytes());
        copy[64..72].copy_from_slice(&self.creation_epoch.to_le_bytes());
        copy[72..80].copy_from_slice(&self.salt.to_le_bytes());
        copy[80..82].copy_from_slice(&RECORD_VERSION.to_le_bytes());
        if let Some((uuid, upto)) = self.abandoned {
            copy[88..104].copy_from_slice(uuid.as_bytes());
            copy[104..112].copy_from_slice(&upto.to_le_bytes());
        }
        let crc = crc32c::crc32c(&copy[..CRC_AT]);
        copy[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        let mut bytes = [0; SUPERBLOCK_HEADER_LEN];
        for at in COPIES_AT {
            bytes[at..at + COPY_LEN].copy_from_slice(&copy);
        }
        bytes
    }

    /// Reads the header from a file's first bytes; either copy will do.
    ///
    /// # Errors
    /// No intact copy, or a format that this version does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, SuperblockFault> {
        let copies = COPIES_AT.iter().filter_map(|at| bytes.get(*at..at + COPY_LEN));
        copies
            .map(Self::decode_copy)
            .reduce(Result::or)
            .unwrap_or(Err(SuperblockFault::Unreadable))
    }

    fn decode_copy(copy: &[u8]) -> Result<Self, SuperblockFault> {
        if copy[..8] != MAGIC || crc32c::crc32c(&copy[..CRC_AT]) != u32_at(copy, CRC_AT) {
            return Err(SuperblockFault::Unreadable);
        }
        let [major, record] = [8, 80].map(|at| u16::from_le_bytes(array_at(copy, at)));
        if major != FORMAT_MAJOR || record != RECORD_VERSION {
            return Err(SuperblockFault::NewerFormat(major.max(record)));
        }
        let some_uuid = |at| Some(Uuid::from_bytes(array_at(copy, at))).filter(|uuid| !uuid.is_nil());
        Ok(Self {
            number: u32_at(copy, 12),
            uuid: Uuid::from_bytes(array_at(copy, 16)),
            node: NodeId(Uuid::from_bytes(array_at(copy, 32))),
            cluster: some_uuid(48),
            creation_epoch: u64_at(copy, 64),
            salt: u64_at(copy, 72),
            abandoned: some_uuid(88).map(|uuid| (uuid, u64_at(copy, 104))),
        })
    }
}

/// An open superblock: what readers need.
#[derive(Debug)]
pub(crate) struct Superblock {
    pub(crate) header: SuperblockHeader,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Length of it that counts; grows while it is written.
    durable: AtomicU64,
    /// Nothing is appended any more.
    closed: AtomicBool,
    /// Some of its records cannot be read.
    damaged: AtomicBool,
}

impl Superblock {
    /// A superblock that is open for writing, or not yet read.
    pub(crate) fn new(header: SuperblockHeader, path: PathBuf, file: Arc<dyn DiskFile>) -> Self {
        Self {
            header,
            path,
            file,
            durable: AtomicU64::new(SUPERBLOCK_HEADER_LEN as u64),
            closed: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
        }
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Notes the new length, once the index shows what is in it.
    pub(crate) fn grow(&self, durable: u64) {
        self.durable.store(durable, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Nothing will be appended; `durable` bytes count.
    pub(crate) fn close(&self, durable: u64) {
        self.grow(durable);
        self.closed.store(true, Ordering::Release);
    }

    /// The writer goes on in it.
    pub(crate) fn reopen(&self, durable: u64) {
        self.grow(durable);
        self.closed.store(false, Ordering::Release);
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    pub(crate) fn note_damage(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }
}

/// `superblock_000007.dat`
pub(crate) fn file_name(number: u32) -> String {
    format!("superblock_{number:06}.dat")
}

/// The number in a superblock's file name.
pub(crate) fn parse_file_name(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("superblock_")?.strip_suffix(".dat")?;
    let number = digits.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// Creates a superblock in `folder` with room for `preallocate` bytes. When this returns, file and name are durable.
pub(crate) fn create(
    disk: &dyn Disk,
    folder: &Path,
    header: SuperblockHeader,
    preallocate: u64,
) -> Result<Superblock, DiskFault> {
    let path = folder.join(file_name(header.number));
    let temporary = path.with_extension("dat.tmp");
    let created = create_at(disk, &temporary, &header, preallocate).and_then(|file| {
        let renamed = disk.rename(&temporary, &path);
        renamed.map_err(|error| DiskFault::new("rename", &temporary, &error))?;
        Ok(file)
    });
    // Only a name without acknowledged content is removed here; if that fails too, the next start does it.
    let file = created.inspect_err(|_: &DiskFault| drop(disk.remove(&temporary)))?;
    disk.fsync_dir(folder)
        .map_err(|error| DiskFault::new("sync", folder, &error))?;
    Ok(Superblock::new(header, path, file))
}

/// Creates a superblock under a name that nothing looks for yet. The file is durable, its name is not.
pub(crate) fn create_at(
    disk: &dyn Disk,
    path: &Path,
    header: &SuperblockHeader,
    preallocate: u64,
) -> Result<Arc<dyn DiskFile>, DiskFault> {
    let fault = |operation| move |error| DiskFault::new(operation, path, &error);
    let file = disk.open(path, OpenMode::CreateEmpty).map_err(fault("create"))?;
    file.fallocate(preallocate).map_err(fault("reserve room for"))?;
    write_all(&*file, &mut [IoSlice::new(&header.encode())], 0).map_err(fault("write"))?;
    file.fsync().map_err(fault("sync"))?;
    Ok(file)
}

/// Opens an existing superblock for reading.
pub(crate) fn open_header(file: &dyn DiskFile) -> std::io::Result<Result<SuperblockHeader, SuperblockFault>> {
    let mut bytes = [0; SUPERBLOCK_HEADER_LEN];
    let read = read_up_to(file, &mut bytes, 0)?;
    Ok(SuperblockHeader::decode(&bytes[..read]))
}
