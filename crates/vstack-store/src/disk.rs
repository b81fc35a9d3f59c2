//! Every file operation of the store, as two small traits.
//!
//! The store touches the disk through these traits alone, so that a test can fail, shorten or lose any single operation.
//! [`RealDisk`] is the operating system. The traits promise what POSIX promises and no more: a written byte is durable
//! after `fdatasync` of its file, a name after `fsync_dir` of its folder, and any write may be short.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use tracing::info;

/// Pieces that one `pwritev` takes; Linux's `IOV_MAX`.
const MAX_PIECES: usize = 1024;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// For reading and writing; made empty if it does not exist, left as it is otherwise.
    WriteOrCreate,
    /// For reading and writing; made empty if it exists.
    CreateEmpty,
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderEntry {
    pub name: String,
    /// False for folders, links, pipes and devices.
    pub is_plain_file: bool,
}

/// Room on the file system that holds a folder, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    pub used_bytes: u64,
    /// What an ordinary process may still use.
    pub available_bytes: u64,
}

impl DiskSpace {
    /// Share in use, as `df` shows it.
    #[must_use]
    pub fn used_percent(self) -> f64 {
        let total = self.used_bytes.saturating_add(self.available_bytes);
        if total == 0 {
            100.0
        } else {
            100.0 * self.used_bytes as f64 / total as f64
        }
    }
}

/// Folders and names.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Makes a folder (its parent exists); an existing one is fine.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the folder's names durable.
    fn fsync_dir(&self, path: &Path) -> io::Result<()>;
    fn list(&self, path: &Path) -> io::Result<Vec<FolderEntry>>;
    fn space(&self, path: &Path) -> io::Result<DiskSpace>;
}

/// An open file.
pub trait DiskFile: Send + Sync + fmt::Debug {
    fn size(&self) -> io::Result<u64>;
    /// Reads at `offset`; fewer bytes than asked for are allowed, 0 means the end of the file.
    fn pread(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// As [`DiskFile::pread`], if that needs not wait for the disk; `None` if it would, or if nobody knows.
    fn pread_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let _ = (buffer, offset);
        Ok(None)
    }
    /// Writes at `offset`; fewer bytes than given are allowed.
    fn pwritev(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Writes whole blocks of 4096 bytes, which begin at such a boundary in memory and in the file: past the page cache
    /// where the system can, so that no other memory has to be found for them. Fewer bytes than given are allowed.
    fn pwrite_blocks(&self, blocks: &[u8], offset: u64) -> io::Result<usize> {
        self.pwritev(&[IoSlice::new(blocks)], offset)
    }
    fn fdatasync(&self) -> io::Result<()>;
    fn fsync(&self) -> io::Result<()>;
    /// Reserves room for `bytes` without changing the size.
    fn fallocate(&self, bytes: u64) -> io::Result<()>;
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    /// Forgets what memory holds of the file from `offset` on, so that the next read comes from the disk. After a
    /// failed sync the pages in memory look clean and may never have been written.
    fn drop_cache(&self, offset: u64) -> io::Result<()>;
    /// Takes the file's exclusive lock; false if another process has it. Held until the file is closed.
    fn try_lock(&self) -> io::Result<bool>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile {
    file: File,
    /// The same file, opened to be written past the page cache, once somebody wanted that; nothing where it cannot be.
    direct: OnceLock<Option<File>>,
    /// The system took the flag and refuses such writes all the same.
    refused: AtomicBool,
}

impl RealFile {
    const fn new(file: File) -> Self {
        Self {
            file,
            direct: OnceLock::new(),
            refused: AtomicBool::new(false),
        }
    }

    fn direct(&self) -> Option<&File> {
        if self.refused.load(Ordering::Relaxed) {
            return None;
        }
        self.direct.get_or_init(|| self.open_direct()).as_ref()
    }

    /// By its descriptor: the file's name may have changed since it was opened.
    fn open_direct(&self) -> Option<File> {
        use std::os::fd::AsRawFd as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let flag = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        match OpenOptions::new().write(true).custom_flags(flag).open(path) {
            Ok(file) => Some(file),
            Err(error) => {
                info!(%error, "this file system takes no direct writes; chunks go through the page cache");
                None
            }
        }
    }
}

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match std::fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let writes = mode != OpenMode::Read;
        let file = OpenOptions::new()
            .read(true)
            .write(writes)
            .create(matches!(mode, OpenMode::WriteOrCreate | OpenMode::CreateEmpty))
            .truncate(mode == OpenMode::CreateEmpty)
            .open(path)?;
        Ok(Arc::new(RealFile::new(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<FolderEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push(FolderEntry {
                name,
                is_plain_file: entry.file_type()?.is_file(),
            });
        }
        Ok(entries)
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        let space = rustix::fs::statvfs(path)?;
        let used_blocks = space.f_blocks.saturating_sub(space.f_bfree);
        Ok(DiskSpace {
            used_bytes: used_blocks.saturating_mul(space.f_frsize),
            available_bytes: space.f_bavail.saturating_mul(space.f_frsize),
        })
    }
}

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn pread(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn pread_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let mut pieces = [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&self.file, &mut pieces, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(Some(read)),
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn pwrite_blocks(&self, blocks: &[u8], offset: u64) -> io::Result<usize> {
        if let Some(direct) = self.direct() {
            match direct.write_at(blocks, offset) {
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                    info!("this disk takes no direct writes of 4096 bytes; chunks go through the page cache");
                    self.refused.store(true, Ordering::Relaxed);
                }
                written => return written,
            }
        }
        self.file.write_at(blocks, offset)
    }

    fn pwritev(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&self.file, pieces, offset)?)
    }

    fn fdatasync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn fsync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn fallocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, bytes) {
            // Not every file system can reserve room; then a full disk shows at the write.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            other => Ok(other?),
        }
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn drop_cache(&self, offset: u64) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.file, offset, None, Advice::DontNeed)?)
    }

    fn try_lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Reads until `buffer` is full or the file ends; returns how many bytes there were.
pub(crate) fn read_up_to(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.pread(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Fills `buffer`; the end of the file before that is [`io::ErrorKind::UnexpectedEof`].
pub(crate) fn read_exact(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    if read_up_to(file, buffer, offset)? == buffer.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Fills `buffer` if that needs not wait for the disk; whether it did.
pub(crate) fn read_cached(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.pread_cached(&mut buffer[filled..], offset + filled as u64) {
            // The end of the file is told by the read that may wait.
            Ok(None | Some(0)) => return Ok(false),
            Ok(Some(read)) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Writes all pieces one after another from `offset`, however short the single writes are.
pub(crate) fn write_all(
    file: &dyn DiskFile,
    mut pieces: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut pieces, 0);
    while !pieces.is_empty() {
        match file.pwritev(&pieces[..pieces.len().min(MAX_PIECES)], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut pieces, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
