//! A disk in front of a disk, in which somebody meddles with chosen calls.
//!
//! Over the real disk it makes a store whose syncs do nothing, to see whether a harness notices. Over the simulated one
//! it fails reads and shortens single writes, which that disk does not do by itself.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vstack_store::disk::{Disk, DiskFile, DiskSpace, FolderEntry, OpenMode};

/// A call that can be meddled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// Opening, listing, measuring, reading.
    Read,
    Write,
    Sync,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Do,
    /// It says yes and does nothing.
    Pretend,
    /// It fails with this errno and does nothing.
    Fail(i32),
    /// A write takes at most so many bytes.
    Shorten(usize),
}

/// Decides about the n-th call of its kind, counted from 0.
type Rule = Arc<dyn Fn(Call, u64) -> Verdict + Send + Sync>;

/// See the module.
#[derive(Clone)]
pub(crate) struct Meddling {
    disk: Arc<dyn Disk>,
    rule: Rule,
    counts: Arc<[AtomicU64; 3]>,
}

#[derive(Debug)]
struct MeddledFile {
    file: Arc<dyn DiskFile>,
    by: Meddling,
}

impl fmt::Debug for Meddling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meddling")
            .field("disk", &self.disk)
            .finish_non_exhaustive()
    }
}

impl Meddling {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        rule: impl Fn(Call, u64) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        Self {
            disk,
            rule: Arc::new(rule),
            counts: Arc::default(),
        }
    }

    /// A disk whose syncs say yes and do nothing.
    pub(crate) fn without_syncs(disk: Arc<dyn Disk>) -> Self {
        Self::new(disk, |call, _| {
            if call == Call::Sync {
                Verdict::Pretend
            } else {
                Verdict::Do
            }
        })
    }

    /// Calls of a kind so far.
    pub(crate) fn count(&self, call: Call) -> u64 {
        self.counts[call as usize].load(Ordering::Relaxed)
    }

    /// `None` if the call is only pretended, else how much of a write may be done.
    fn judge(&self, call: Call) -> io::Result<Option<usize>> {
        let number = self.counts[call as usize].fetch_add(1, Ordering::Relaxed);
        match (self.rule)(call, number) {
            Verdict::Do => Ok(Some(usize::MAX)),
            Verdict::Shorten(bytes) => Ok(Some(bytes)),
            Verdict::Pretend => Ok(None),
            Verdict::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn read<T>(&self, call: impl FnOnce(&dyn Disk) -> io::Result<T>) -> io::Result<T> {
        self.judge(Call::Read)?;
        call(&*self.disk)
    }
}

impl Disk for Meddling {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.read(|disk| disk.open(path, mode))?;
        let by = self.clone();
        Ok(Arc::new(MeddledFile { file, by }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        match self.judge(Call::Sync)? {
            Some(_) => self.disk.fsync_dir(path),
            None => Ok(()),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<FolderEntry>> {
        self.read(|disk| disk.list(path))
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.read(|disk| disk.space(path))
    }
}

impl DiskFile for MeddledFile {
    fn size(&self) -> io::Result<u64> {
        self.by.judge(Call::Read)?;
        self.file.size()
    }

    fn pread(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.by.judge(Call::Read)?;
        self.file.pread(buffer, offset)
    }

    fn pwritev(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        match self.by.judge(Call::Write)? {
            None => Ok(total),
            Some(limit) if limit >= total => self.file.pwritev(pieces, offset),
            Some(limit) => {
                let bytes: Vec<u8> = pieces
                    .iter()
                    .flat_map(|piece| piece.iter().copied())
                    .take(limit)
                    .collect();
                self.file.pwritev(&[IoSlice::new(&bytes)], offset)
            }
        }
    }

    fn fdatasync(&self) -> io::Result<()> {
        match self.by.judge(Call::Sync)? {
            Some(_) => self.file.fdatasync(),
            None => Ok(()),
        }
    }

    fn fsync(&self) -> io::Result<()> {
        match self.by.judge(Call::Sync)? {
            Some(_) => self.file.fsync(),
            None => Ok(()),
        }
    }

    fn fallocate(&self, bytes: u64) -> io::Result<()> {
        self.file.fallocate(bytes)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.truncate(bytes)
    }

    fn drop_cache(&self, offset: u64) -> io::Result<()> {
        self.file.drop_cache(offset)
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}
