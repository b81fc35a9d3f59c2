//! A disk in memory that loses what was not synced.
//!
//! It counts every operation that changes something. From a chosen one on all operations fail, as if the machine were
//! off. [`CrashDisk::restart`] then gives back what a real disk might hold: synced bytes and names for certain, and of
//! everything else a random part, sector by sector, some of it garbage.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use vstack_store::disk::{Disk, DiskFile, DiskSpace, FolderEntry, OpenMode};

const SECTOR: usize = 512;

#[derive(Debug, Clone, Default)]
pub struct CrashDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
    folders: BTreeSet<PathBuf>,
    files: Vec<FileState>,
    operations: u64,
    crash_at: Option<u64>,
    /// Errors to inject: at this operation, this errno, once.
    fault: Option<(u64, i32)>,
    /// Every write is cut to at most this many bytes.
    short_writes: Option<usize>,
    /// A sync that reports failure has written everything all the same.
    failed_syncs_write: bool,
    /// A file was written or synced after it had failed.
    touched_after_failure: bool,
}

#[derive(Debug, Default, Clone)]
struct FileState {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Sectors that the next sync writes. A failed sync forgets them without writing, as Linux does.
    dirty: BTreeSet<usize>,
    failed: bool,
    locked: bool,
}

#[derive(Debug)]
struct Handle {
    disk: CrashDisk,
    file: usize,
    locks: Mutex<bool>,
}

impl CrashDisk {
    pub fn crash_at(&self, operation: Option<u64>) {
        self.lock().crash_at = operation;
    }

    pub fn fail_at(&self, operation: u64, errno: i32) {
        self.lock().fault = Some((operation, errno));
    }

    pub fn short_writes(&self, bytes: usize) {
        self.lock().short_writes = Some(bytes);
    }

    pub fn failed_syncs_write(&self) {
        self.lock().failed_syncs_write = true;
    }

    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    pub fn has_crashed(&self) -> bool {
        let state = self.lock();
        state.crash_at.is_some_and(|at| state.operations >= at)
    }

    pub fn touched_after_failure(&self) -> bool {
        self.lock().touched_after_failure
    }

    /// The disk after a power cut; `random` decides what became of everything that was not synced.
    pub fn restart(&self, random: &mut impl FnMut() -> u32) -> Self {
        let state = self.lock();
        let mut names = state.synced_names.clone();
        for (name, file) in &state.names {
            if names.get(name) != Some(file) && random().is_multiple_of(2) {
                names.insert(name.clone(), *file);
            }
        }
        names.retain(|name, _| state.names.contains_key(name) || random().is_multiple_of(2));
        let files = state
            .files
            .iter()
            .map(|file| file.after_power_cut(random))
            .collect();
        let after = State {
            synced_names: names.clone(),
            names,
            folders: state.folders.clone(),
            files,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(after)),
        }
    }

    /// What a file holds now.
    pub fn read(&self, path: &Path) -> Vec<u8> {
        let state = self.lock();
        state.files[state.names[path]].bytes.clone()
    }

    /// A copy of the disk on which `path` holds `bytes`, synced.
    pub fn with_file(&self, path: &Path, bytes: Vec<u8>) -> Self {
        let state = self.lock();
        let mut files: Vec<_> = state
            .files
            .iter()
            .map(|file| FileState {
                locked: false,
                ..file.clone()
            })
            .collect();
        files.push(FileState {
            synced: bytes.clone(),
            bytes,
            ..FileState::default()
        });
        let (mut names, mut synced_names) = (state.names.clone(), state.synced_names.clone());
        names.insert(path.to_owned(), files.len() - 1);
        synced_names.insert(path.to_owned(), files.len() - 1);
        let copy = State {
            names,
            synced_names,
            files,
            folders: state.folders.clone(),
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(copy)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the disk")
    }

    /// Counts a change, unless the machine is off or the fault is due.
    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        let now = state.operations;
        if state.crash_at.is_some_and(|at| now >= at) {
            return Err(io::Error::from_raw_os_error(5));
        }
        state.operations += 1;
        match state.fault {
            Some((at, errno)) if at == now => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(state),
        }
    }
}

impl FileState {
    fn sync(&mut self) {
        self.synced.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let range = sector * SECTOR..(sector * SECTOR + SECTOR).min(self.bytes.len());
            if !range.is_empty() {
                self.synced[range.clone()].copy_from_slice(&self.bytes[range]);
            }
        }
    }

    fn drop_cache(&mut self) {
        for sector in (0..self.bytes.len().div_ceil(SECTOR)).filter(|sector| !self.dirty.contains(sector)) {
            let range = sector * SECTOR..(sector * SECTOR + SECTOR).min(self.bytes.len());
            let on_disk = part(&self.synced, sector);
            self.bytes[range.clone()].fill(0);
            self.bytes[range][..on_disk.len()].copy_from_slice(on_disk);
        }
    }

    fn after_power_cut(&self, random: &mut impl FnMut() -> u32) -> Self {
        let mut bytes = self.synced.clone();
        if bytes.len() < self.bytes.len() {
            let grown = self.bytes.len() - bytes.len();
            let kept = random() as usize % (grown + 1);
            bytes.resize(bytes.len() + kept, 0);
        }
        let len = bytes.len();
        for sector in self.dirty.iter().copied().filter(|sector| sector * SECTOR < len) {
            let range = sector * SECTOR..(sector * SECTOR + SECTOR).min(bytes.len());
            match random() % 8 {
                0..5 => {
                    let written = part(&self.bytes, sector);
                    let len = written.len().min(range.len());
                    bytes[range][..len].copy_from_slice(&written[..len]);
                }
                5 => bytes[range].fill_with(|| random().to_le_bytes()[0]),
                _ => {}
            }
        }
        Self {
            synced: bytes.clone(),
            bytes,
            ..Self::default()
        }
    }
}

fn part(bytes: &[u8], sector: usize) -> &[u8] {
    let start = (sector * SECTOR).min(bytes.len());
    &bytes[start..(start + SECTOR).min(bytes.len())]
}

impl Disk for CrashDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.lock().folders.insert(path.to_owned());
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let found = self.lock().names.get(path).copied();
        let file = match (found, mode) {
            (Some(file), OpenMode::CreateEmpty) => {
                let mut state = self.change()?;
                state.files[file].bytes.clear();
                state.files[file].failed = false;
                file
            }
            (Some(file), _) => {
                // A new start may use what failed in an earlier one.
                self.lock().files[file].failed = false;
                file
            }
            (None, OpenMode::Read | OpenMode::Write) => return Err(io::ErrorKind::NotFound.into()),
            (None, OpenMode::WriteOrCreate | OpenMode::CreateEmpty) => {
                let mut state = self.change()?;
                state.files.push(FileState::default());
                let file = state.files.len() - 1;
                state.names.insert(path.to_owned(), file);
                file
            }
        };
        Ok(Arc::new(Handle {
            disk: self.clone(),
            file,
            locks: Mutex::new(false),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change()?
            .names
            .remove(path)
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        let inside = |name: &Path| name.parent() == Some(path);
        state.synced_names.retain(|name, _| !inside(name));
        let now: Vec<_> = state
            .names
            .iter()
            .filter(|(name, _)| inside(name))
            .map(|(name, file)| (name.clone(), *file))
            .collect();
        state.synced_names.extend(now);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<FolderEntry>> {
        let state = self.lock();
        let inside = state.names.keys().filter(|name| name.parent() == Some(path));
        let name = |name: &PathBuf| {
            name.file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
        };
        Ok(inside
            .map(|path| FolderEntry {
                name: name(path),
                is_plain_file: true,
            })
            .collect())
    }

    fn space(&self, _: &Path) -> io::Result<DiskSpace> {
        Ok(DiskSpace {
            used_bytes: 1 << 30,
            available_bytes: 1 << 40,
        })
    }
}

impl Handle {
    fn sync(&self) -> io::Result<()> {
        let mut state = match self.disk.change() {
            Ok(state) => state,
            Err(error) => {
                let error = self.fail(error);
                let mut state = self.disk.lock();
                if state.failed_syncs_write {
                    state.files[self.file].sync();
                }
                state.files[self.file].dirty.clear();
                return Err(error);
            }
        };
        state.touched_after_failure |= state.files[self.file].failed;
        state.files[self.file].sync();
        Ok(())
    }

    fn fail(&self, error: io::Error) -> io::Error {
        self.disk.lock().files[self.file].failed = true;
        error
    }
}

impl DiskFile for Handle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files[self.file].bytes.len() as u64)
    }

    fn pread(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.lock();
        let bytes = &state.files[self.file].bytes;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let len = buffer.len().min(bytes.len() - start);
        buffer[..len].copy_from_slice(&bytes[start..start + len]);
        Ok(len)
    }

    fn pwritev(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut state = match self.disk.change() {
            Ok(state) => state,
            Err(error) => return Err(self.fail(error)),
        };
        state.touched_after_failure |= state.files[self.file].failed;
        let mut all = Vec::new();
        let limit = state.short_writes.unwrap_or(usize::MAX);
        for piece in pieces {
            all.extend_from_slice(&piece[..piece.len().min(limit - all.len())]);
        }
        let bytes = &mut state.files[self.file].bytes;
        let start = usize::try_from(offset).expect("small files");
        bytes.resize(bytes.len().max(start + all.len()), 0);
        bytes[start..start + all.len()].copy_from_slice(&all);
        let sectors = start / SECTOR..(start + all.len()).div_ceil(SECTOR);
        state.files[self.file].dirty.extend(sectors);
        Ok(all.len())
    }

    fn fdatasync(&self) -> io::Result<()> {
        self.sync()
    }

    fn fsync(&self) -> io::Result<()> {
        self.sync()
    }

    fn fallocate(&self, _: u64) -> io::Result<()> {
        self.disk.change().map(drop)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.change()?;
        state.files[self.file]
            .bytes
            .truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(())
    }

    fn drop_cache(&self, _: u64) -> io::Result<()> {
        self.disk.lock().files[self.file].drop_cache();
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut state = self.disk.lock();
        let file = &mut state.files[self.file];
        let free = !file.locked;
        file.locked = true;
        *self.locks.lock().expect("one test thread") |= free;
        Ok(free)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if *self.locks.lock().expect("one test thread") {
            self.disk.lock().files[self.file].locked = false;
        }
    }
}
