//! The simulated disk: names, calls, and what goes wrong with them.
//!
//! It counts every call that changes something; a [`Fault`] names a call by that number. Changes of names are atomic and
//! become durable with the sync of their folder; a power cut keeps any subset of those that were not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::Random;
use super::file::FileState;
use crate::disk::{Disk, DiskFile, DiskSpace, FolderEntry, OpenMode};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// The calls that change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    Create,
    Write,
    Sync,
    SyncFolder,
    Rename,
    Remove,
    Reserve,
    Truncate,
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Repeat {
    Once,
    ForEver,
}

/// A call that fails: the first one that fits from number `at` on, or all from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fault {
    pub at: u64,
    pub errno: i32,
    pub repeat: Repeat,
    /// Only calls of this kind; all if `None`.
    pub call: Option<Call>,
}

impl Fault {
    /// Call number `at` fails, whatever it is.
    #[must_use]
    pub const fn once(at: u64, errno: i32) -> Self {
        Self {
            at,
            errno,
            repeat: Repeat::Once,
            call: None,
        }
    }

    /// Every call from number `at` on fails.
    #[must_use]
    pub const fn for_ever(at: u64, errno: i32) -> Self {
        Self {
            repeat: Repeat::ForEver,
            ..Self::once(at, errno)
        }
    }
}

/// A disk in memory. Clones are handles of the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    observer: Arc<Mutex<Option<Observer>>>,
}

/// Called before each change with its number.
type Observer = Box<dyn FnMut(u64, Call) + Send>;

/// A change of a name that is not durable yet.
#[derive(Debug, Clone)]
enum NameChange {
    Made(PathBuf, usize),
    Renamed(PathBuf, PathBuf, usize),
    Removed(PathBuf),
}

#[derive(Debug, Default, Clone)]
struct State {
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
    /// In their order.
    pending: Vec<NameChange>,
    folders: BTreeSet<PathBuf>,
    files: Vec<FileState>,
    calls: u64,
    crash_at: Option<u64>,
    faults: Vec<Fault>,
    short_writes: Option<usize>,
    failed_syncs_write: bool,
    touched_after_failure: bool,
    capacity: Option<usize>,
}

#[derive(Debug)]
struct Handle {
    disk: SimDisk,
    file: usize,
    locks: Mutex<bool>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").finish_non_exhaustive()
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Made(name, file) => drop(names.insert(name.clone(), *file)),
            Self::Renamed(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Self::Removed(name) => drop(names.remove(name)),
        }
    }

    fn is_in(&self, folder: &Path) -> bool {
        let (Self::Made(name, _) | Self::Renamed(name, ..) | Self::Removed(name)) = self;
        name.parent() == Some(folder)
    }
}

impl State {
    fn of(names: BTreeMap<PathBuf, usize>, folders: BTreeSet<PathBuf>, files: Vec<FileState>) -> Self {
        Self {
            synced_names: names.clone(),
            names,
            folders,
            files,
            ..Self::default()
        }
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    /// Room taken by what has a name or is open.
    fn used(&self) -> usize {
        let named: BTreeSet<usize> = self.names.values().copied().collect();
        let lives = |(number, file): &(usize, &FileState)| named.contains(number) || file.handles > 0;
        let files = self.files.iter().enumerate().filter(lives);
        files.map(|(_, file)| file.room()).sum()
    }

    fn available(&self) -> usize {
        self.capacity
            .map_or(1 << 40, |capacity| capacity.saturating_sub(self.used()))
    }

    fn due(&mut self, call: Call) -> Option<i32> {
        let now = self.calls;
        let hit = self
            .faults
            .iter()
            .position(|fault| now >= fault.at && fault.call.is_none_or(|only| only == call))?;
        let Fault { errno, repeat, .. } = self.faults[hit];
        if repeat == Repeat::Once {
            self.faults.remove(hit);
        }
        Some(errno)
    }
}

impl SimDisk {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with_state(state: State) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
            observer: Arc::default(),
        }
    }

    /// From call number `at` on every call fails, as if the machine were off; `None` turns it on again.
    pub fn crash_at(&self, at: Option<u64>) {
        self.lock().crash_at = at;
    }

    /// Adds a fault.
    pub fn inject(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// Every write is cut to at most `bytes`.
    pub fn short_writes(&self, bytes: usize) {
        self.lock().short_writes = Some(bytes);
    }

    /// A sync that reports failure has written everything all the same.
    pub fn failed_syncs_write(&self) {
        self.lock().failed_syncs_write = true;
    }

    /// The disk holds `bytes`; without end if `None`.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.lock().capacity = bytes;
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.lock().used()
    }

    /// Calls so far that changed something or tried to.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    #[must_use]
    pub fn has_crashed(&self) -> bool {
        let state = self.lock();
        state.crash_at.is_some_and(|at| state.calls >= at)
    }

    /// Whether a file was written or synced again after it had failed.
    #[must_use]
    pub fn touched_after_failure(&self) -> bool {
        self.lock().touched_after_failure
    }

    /// Lets `observer` see every call before it happens, on the thread that makes it. It may use the disk.
    pub fn observe(&self, observer: Option<Box<dyn FnMut(u64, Call) + Send>>) {
        *self.observer.lock().expect("an observer does not panic") = observer;
    }

    /// A copy of everything, the unsynced included, with nothing open and no faults.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let state = self.lock();
        Self::with_state(State {
            pending: state.pending.clone(),
            synced_names: state.synced_names.clone(),
            capacity: state.capacity,
            ..State::of(
                state.names.clone(),
                state.folders.clone(),
                state.files.iter().map(FileState::at_rest).collect(),
            )
        })
    }

    /// The disk after a power cut; `random` decides what became of everything that was not synced.
    #[must_use]
    pub fn restart(&self, random: &mut Random) -> Self {
        let state = self.lock();
        let mut names = state.synced_names.clone();
        for change in &state.pending {
            if random.one_in(2) {
                change.apply(&mut names);
            }
        }
        let files = state
            .files
            .iter()
            .map(|file| file.after_power_cut(random))
            .collect();
        Self::with_state(State {
            capacity: state.capacity,
            ..State::of(names, state.folders.clone(), files)
        })
    }

    /// What a file holds now, if it is there.
    #[must_use]
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        let file = state.names.get(path)?;
        Some(state.files[*file].bytes.clone())
    }

    /// Every name with the length of its file.
    #[must_use]
    pub fn names(&self) -> Vec<(PathBuf, usize)> {
        let state = self.lock();
        let names = state.names.iter();
        names
            .map(|(name, file)| (name.clone(), state.files[*file].bytes.len()))
            .collect()
    }

    /// A copy of the disk on which `path` holds `bytes`, all of it durable.
    #[must_use]
    pub fn with_file(&self, path: &Path, bytes: Vec<u8>) -> Self {
        let copy = self.snapshot();
        let mut state = copy.lock();
        state.files.push(FileState::of(bytes));
        let file = state.files.len() - 1;
        state.names.insert(path.to_owned(), file);
        state.synced_names = state.names.clone();
        state.pending.clear();
        drop(state);
        copy
    }

    /// A copy of the disk without `path`.
    #[must_use]
    pub fn without_file(&self, path: &Path) -> Self {
        let copy = self.snapshot();
        let mut state = copy.lock();
        state.names.remove(path);
        state.synced_names = state.names.clone();
        state.pending.clear();
        drop(state);
        copy
    }

    /// Turns one bit over, in memory and on the platter.
    pub fn flip_bit(&self, path: &Path, bit: usize) {
        let mut state = self.lock();
        if let Some(file) = state.names.get(path).copied() {
            state.files[file].flip_bit(bit);
        }
    }

    /// The platter can no longer give back `range` of a file.
    pub fn lose_sectors(&self, path: &Path, range: Range<usize>) {
        let mut state = self.lock();
        if let Some(file) = state.names.get(path).copied() {
            state.files[file].unreadable.push(range);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while it holds the disk")
    }

    /// Counts a change, unless the machine is off or a fault is due.
    fn change(&self, call: Call) -> io::Result<MutexGuard<'_, State>> {
        self.tell(call);
        let mut state = self.lock();
        if state.crash_at.is_some_and(|at| state.calls >= at) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let fault = state.due(call);
        state.calls += 1;
        match fault {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(state),
        }
    }

    fn tell(&self, call: Call) {
        // Taken out for the call, so that the observer may use this disk.
        let taken = self.observer.lock().expect("an observer does not panic").take();
        if let Some(mut observer) = taken {
            observer(self.calls(), call);
            let mut place = self.observer.lock().expect("an observer does not panic");
            if place.is_none() {
                *place = Some(observer);
            }
        }
    }

    fn make_file(&self, path: &Path) -> io::Result<usize> {
        let mut state = self.change(Call::Create)?;
        state.files.push(FileState::default());
        let file = state.files.len() - 1;
        state.change_name(NameChange::Made(path.to_owned(), file));
        Ok(file)
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.lock().folders.insert(path.to_owned());
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let found = self.lock().names.get(path).copied();
        let file = match (found, mode) {
            (Some(file), OpenMode::CreateEmpty) => {
                let mut state = self.change(Call::Create)?;
                state.files[file].truncate(0);
                file
            }
            (Some(file), _) => file,
            (None, OpenMode::Read | OpenMode::Write) => return Err(io::ErrorKind::NotFound.into()),
            (None, OpenMode::WriteOrCreate | OpenMode::CreateEmpty) => self.make_file(path)?,
        };
        let mut state = self.lock();
        if mode != OpenMode::Read {
            // A new start may use what failed in an earlier one.
            state.files[file].failed = false;
        }
        state.files[file].handles += 1;
        Ok(Arc::new(Handle {
            disk: self.clone(),
            file,
            locks: Mutex::new(false),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.change(Call::Rename)?;
        let file = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.change_name(NameChange::Renamed(from.to_owned(), to.to_owned(), file));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change(Call::Remove)?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Removed(path.to_owned()));
        Ok(())
    }

    fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change(Call::SyncFolder)?;
        let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition(|change| change.is_in(path));
        state.pending = later;
        for change in now {
            change.apply(&mut state.synced_names);
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<FolderEntry>> {
        let state = self.lock();
        let inside = state.names.keys().filter(|name| name.parent() == Some(path));
        let names = inside.filter_map(|name| Some(name.file_name()?.to_string_lossy().into_owned()));
        Ok(names
            .map(|name| FolderEntry {
                name,
                is_plain_file: true,
            })
            .collect())
    }

    fn space(&self, _: &Path) -> io::Result<DiskSpace> {
        let state = self.lock();
        Ok(DiskSpace {
            used_bytes: state.used() as u64,
            available_bytes: state.available() as u64,
        })
    }
}

impl Handle {
    fn change(&self, call: Call) -> io::Result<MutexGuard<'_, State>> {
        match self.disk.change(call) {
            Ok(mut state) => {
                let failed = state.files[self.file].failed;
                state.touched_after_failure |= failed && matches!(call, Call::Write | Call::Sync);
                Ok(state)
            }
            Err(error) => {
                self.disk.lock().files[self.file].failed = true;
                Err(error)
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        match self.change(Call::Sync) {
            Ok(mut state) => state.files[self.file].sync(),
            Err(error) => {
                let mut state = self.disk.lock();
                if state.failed_syncs_write {
                    state.files[self.file].sync();
                }
                state.files[self.file].dirty.clear();
                return Err(error);
            }
        }
        Ok(())
    }
}

impl DiskFile for Handle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files[self.file].bytes.len() as u64)
    }

    fn pread(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.lock();
        let file = &state.files[self.file];
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(file.bytes.len());
        let len = buffer.len().min(file.bytes.len() - start);
        if !file.can_read(&(start..start + len)) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        buffer[..len].copy_from_slice(&file.bytes[start..start + len]);
        Ok(len)
    }

    fn pwritev(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut state = self.change(Call::Write)?;
        let start = usize::try_from(offset).expect("small files");
        // Inside its own room a write always fits; beyond, as far as there is room.
        let room = state.files[self.file].room();
        let fits = room.saturating_add(state.available()).saturating_sub(start);
        let limit = state.short_writes.unwrap_or(usize::MAX).min(fits);
        if limit == 0 && pieces.iter().any(|piece| !piece.is_empty()) {
            state.files[self.file].failed = true;
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        let mut all = Vec::new();
        for piece in pieces {
            all.extend_from_slice(&piece[..piece.len().min(limit - all.len())]);
        }
        state.files[self.file].write(&all, start);
        Ok(all.len())
    }

    fn fdatasync(&self) -> io::Result<()> {
        self.sync()
    }

    fn fsync(&self) -> io::Result<()> {
        self.sync()
    }

    fn fallocate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.change(Call::Reserve)?;
        let bytes = usize::try_from(bytes).expect("small files");
        let more = bytes.saturating_sub(state.files[self.file].room());
        if more > state.available() {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        let file = &mut state.files[self.file];
        file.reserved = file.reserved.max(bytes);
        Ok(())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.change(Call::Truncate)?;
        state.files[self.file].truncate(usize::try_from(bytes).expect("small files"));
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
        *self.locks.lock().expect("held for a moment only") |= free;
        Ok(free)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let locks = self.locks.lock().is_ok_and(|locks| *locks);
        if let Ok(mut state) = self.disk.state.lock() {
            let file = &mut state.files[self.file];
            file.handles -= 1;
            file.locked &= !locks;
        }
    }
}
