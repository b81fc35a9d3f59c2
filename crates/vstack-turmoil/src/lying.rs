//! A disk whose syncs do nothing: the seeded bug "acknowledged before it is durable".

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use vstack_store::disk::{Disk, DiskFile, DiskSpace, FolderEntry, OpenMode};
use vstack_store::sim::SimDisk;

#[derive(Debug)]
pub(crate) struct LyingDisk(pub(crate) SimDisk);

#[derive(Debug)]
struct LyingFile(Arc<dyn DiskFile>);

impl Disk for LyingDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.open(path, mode)?;
        // Who the node is was written down at its start, honestly.
        let is_superblock = path.parent().is_some_and(|folder| folder != Path::new("/node"));
        Ok(if is_superblock {
            Arc::new(LyingFile(file))
        } else {
            file
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.fsync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<FolderEntry>> {
        self.0.list(path)
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.0.space(path)
    }
}

impl DiskFile for LyingFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn pread(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.pread(buffer, offset)
    }

    fn pwritev(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.0.pwritev(pieces, offset)
    }

    fn fdatasync(&self) -> io::Result<()> {
        Ok(())
    }

    fn fsync(&self) -> io::Result<()> {
        Ok(())
    }

    fn fallocate(&self, bytes: u64) -> io::Result<()> {
        self.0.fallocate(bytes)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.truncate(bytes)
    }

    fn drop_cache(&self, offset: u64) -> io::Result<()> {
        self.0.drop_cache(offset)
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.0.try_lock()
    }
}
