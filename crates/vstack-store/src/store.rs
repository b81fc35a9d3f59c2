//! The public handle: what a storage node asks of its files.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_core::digest::{ChunkDigest, Sha256Digest};
use vstack_core::id::ChunkId;
use vstack_core::limits::MAX_CHUNK_BYTES;

use crate::compact::quarantine;
use crate::error::{DiskFault, StoreError};
use crate::identity::{FolderLock, Identity};
use crate::index::ObjectEntry;
use crate::read::{ObjectReader, ObjectStat};
use crate::record::{ObjectName, leaf_crcs};
use crate::recover::{self, Opened, RecoveryReport};
use crate::request::{DeleteDone, DeleteReason, Done, PutDone, Request};
use crate::shared::{Shared, StoreOptions, StoreStats};
use crate::upkeep::{CompactionReport, ScrubReport};
use crate::writer::Writer;

/// An object to store.
#[derive(Debug, Clone)]
pub struct PutRequest {
    pub chunk: ChunkId,
    pub ballot: Ballot,
    /// The object's bytes, in pieces of any length, in order.
    pub data: Vec<Bytes>,
    /// What the caller computed while the bytes arrived; readers are held to it.
    pub digest: ChunkDigest,
}

impl PutRequest {
    /// A request for bytes that are in memory in one piece.
    #[must_use]
    pub fn new(chunk: ChunkId, ballot: Ballot, data: Bytes) -> Self {
        let digest = ChunkDigest::of(&data);
        Self {
            chunk,
            ballot,
            data: vec![data],
            digest,
        }
    }
}

/// An object to store under another ballot without sending its bytes again.
#[derive(Debug, Clone, Copy)]
pub struct AdoptRequest {
    pub chunk: ChunkId,
    /// The ballot that the object gets.
    pub ballot: Ballot,
    /// The ballot under which it is stored here.
    pub from: Ballot,
    /// What the bytes must be, if the caller knows.
    pub sha256: Option<Sha256Digest>,
}

/// An open data folder. Cheap to clone; the last clone that goes lets the writer end its work and closes the folder.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    requests: Mutex<Option<Sender<Request>>>,
    /// None if the caller works the writer itself.
    writer: Option<JoinHandle<()>>,
    /// Held until the writer has ended.
    _lock: FolderLock,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("identity", &self.inner.shared.identity)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.requests
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = self.writer.take()
            // A callback may hold the last handle; the writer cannot wait for itself.
            && writer.thread().id() != std::thread::current().id()
        {
            // A writer that panicked has ended the process.
            drop(writer.join());
        }
    }
}

impl Inner {
    fn open(folder: &Path, options: StoreOptions) -> Result<(Self, Writer, RecoveryReport), StoreError> {
        let Opened {
            shared,
            lock,
            resume,
            report,
        } = recover::open(folder, options)?;
        let shared = Arc::new(shared);
        let (requests, waiting) = channel();
        let was_torn = resume.active.as_ref().is_some_and(|active| active.was_torn);
        let mut writer = Writer::new(Arc::clone(&shared), waiting, resume);
        if was_torn {
            // What vouched for the last batch may have been cut off with the tail. Without it, rot in that batch would
            // look like another torn tail at the next start.
            writer.write_watermark();
        }
        let inner = Self {
            shared,
            requests: Mutex::new(Some(requests)),
            writer: None,
            _lock: lock,
        };
        Ok((inner, writer, report))
    }
}

impl Store {
    /// Opens the data folder `folder`, formatting it if it is new. Its parent must exist.
    ///
    /// # Errors
    /// [`StoreError::Locked`] with the pid that uses it; [`StoreError::BadFolder`] for one that is not ours or too new;
    /// [`StoreError::Disk`].
    pub fn open(folder: &Path, options: StoreOptions) -> Result<(Self, RecoveryReport), StoreError> {
        let (mut inner, writer, report) = Inner::open(folder, options)?;
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| DiskFault::new("start a writer for", folder, &error))?;
        inner.writer = Some(writer);
        Ok((
            Self {
                inner: Arc::new(inner),
            },
            report,
        ))
    }

    /// As [`Store::open`], with the writer in the caller's hands.
    pub(crate) fn open_with_writer(
        folder: &Path,
        options: StoreOptions,
    ) -> Result<(Self, Writer, RecoveryReport), StoreError> {
        let (inner, writer, report) = Inner::open(folder, options)?;
        let inner = Arc::new(inner);
        Ok((Self { inner }, writer, report))
    }

    /// Stores an object. `done` is called on the writer's thread once the outcome is known (it must not block); success
    /// means that the object survives a power cut.
    ///
    /// Under a name that is taken the same bytes are a success and others [`StoreError::Conflict`]; ballot 0 is also
    /// compared with the chunk's highest ballot.
    pub fn put<F>(&self, request: PutRequest, done: F)
    where
        F: FnOnce(Result<PutDone, StoreError>) + Send + 'static,
    {
        let PutRequest {
            chunk,
            ballot,
            data,
            digest,
        } = request;
        let len: u64 = data.iter().map(|piece| piece.len() as u64).sum();
        if len != digest.size_bytes || len == 0 || len > MAX_CHUNK_BYTES {
            return done(Err(StoreError::Invalid {
                reason: "an object has 1 byte to 64 MiB, as its digest says",
            }));
        }
        // On the caller's thread, so that the writer only writes.
        let leaf_crcs = leaf_crcs(&data);
        let name = ObjectName { chunk, ballot };
        self.send(Request::Put {
            name,
            digest,
            data,
            leaf_crcs,
            done: Box::new(done),
        });
    }

    /// As [`Store::put`], waiting for the outcome.
    ///
    /// # Errors
    /// See [`Store::put`].
    pub fn put_blocking(&self, request: PutRequest) -> Result<PutDone, StoreError> {
        wait(|done| self.put(request, done))
    }

    /// Gives an object another ballot: a small record that refers to the bytes. Checks the bytes first if this boot has
    /// not done so yet, so it reads; `done` as in [`Store::put`].
    pub fn adopt<F>(&self, request: AdoptRequest, done: F)
    where
        F: FnOnce(Result<PutDone, StoreError>) + Send + 'static,
    {
        let AdoptRequest {
            chunk,
            ballot,
            from,
            sha256,
        } = request;
        if let Err(refused) = self.open_object(chunk, Some(from)) {
            return done(Err(refused));
        }
        let name = ObjectName { chunk, ballot };
        self.send(Request::Adopt {
            name,
            from,
            sha256,
            done: Box::new(done),
        });
    }

    /// As [`Store::adopt`], waiting for the outcome.
    ///
    /// # Errors
    /// See [`Store::adopt`].
    pub fn adopt_blocking(&self, request: AdoptRequest) -> Result<PutDone, StoreError> {
        wait(|done| self.adopt(request, done))
    }

    /// Deletes exactly this object; `done` as in [`Store::put`]. Its name is never used again.
    pub fn delete<F>(&self, chunk: ChunkId, ballot: Ballot, reason: DeleteReason, done: F)
    where
        F: FnOnce(Result<DeleteDone, StoreError>) + Send + 'static,
    {
        self.send(Request::Delete {
            name: ObjectName { chunk, ballot },
            reason,
            done: Box::new(done),
        });
    }

    /// As [`Store::delete`], waiting for the outcome.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the object never existed; disk errors.
    pub fn delete_blocking(
        &self,
        chunk: ChunkId,
        ballot: Ballot,
        reason: DeleteReason,
    ) -> Result<DeleteDone, StoreError> {
        wait(|done| self.delete(chunk, ballot, reason, done))
    }

    /// Opens an object for reading; `None` means the chunk's highest ballot. The first opening after a start reads all
    /// of the object and checks its SHA-256.
    ///
    /// # Errors
    /// Not found, corrupt or unavailable, which are three different things.
    pub fn open_object(&self, chunk: ChunkId, ballot: Option<Ballot>) -> Result<ObjectReader, StoreError> {
        ObjectReader::open(&self.inner.shared, chunk, ballot)
    }

    /// As [`Store::open_object`], if that needs not wait for the disk: the object was checked in this boot and its
    /// header is in memory. `None` otherwise, which says nothing about the object.
    ///
    /// # Errors
    /// As [`Store::open_object`].
    pub fn open_cached(
        &self,
        chunk: ChunkId,
        ballot: Option<Ballot>,
    ) -> Result<Option<ObjectReader>, StoreError> {
        ObjectReader::open_cached(&self.inner.shared, chunk, ballot)
    }

    /// What is stored under a name, from its header alone.
    ///
    /// # Errors
    /// As [`Store::open_object`].
    pub fn stat(&self, chunk: ChunkId, ballot: Option<Ballot>) -> Result<ObjectStat, StoreError> {
        self.inner.shared.stat(chunk, ballot)
    }

    /// All bytes of an object.
    ///
    /// # Errors
    /// As [`Store::open_object`].
    pub fn get(&self, chunk: ChunkId, ballot: Option<Ballot>) -> Result<Vec<u8>, StoreError> {
        self.read_range(chunk, ballot, 0..u64::MAX)
    }

    /// The bytes of `range`, clipped to the object.
    ///
    /// # Errors
    /// As [`Store::open_object`].
    pub fn read_range(
        &self,
        chunk: ChunkId,
        ballot: Option<Ballot>,
        range: Range<u64>,
    ) -> Result<Vec<u8>, StoreError> {
        let object = self.open_object(chunk, ballot)?;
        let cover = object.cover(range.clone());
        let len = |range: &Range<u64>| usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        let mut bytes = vec![0; len(&cover)];
        object.read_leaves(cover.clone(), &mut bytes)?;
        bytes.truncate(len(&(cover.start..range.end.min(object.size_bytes()))));
        bytes.drain(..len(&(cover.start..range.start)).min(bytes.len()));
        Ok(bytes)
    }

    /// SHA-256 of each 64 KiB leaf, checked against the recorded Merkle root.
    ///
    /// # Errors
    /// As [`Store::open_object`].
    pub fn leaves(&self, chunk: ChunkId, ballot: Option<Ballot>) -> Result<Vec<Sha256Digest>, StoreError> {
        self.open_object(chunk, ballot)?.hash_leaves()
    }

    /// Every ballot of a chunk on this node, lowest first, tombstones included.
    #[must_use]
    pub fn ballots(&self, chunk: ChunkId) -> Vec<ObjectEntry> {
        let index = self.inner.shared.index();
        let entry = |(ballot, location): (Ballot, crate::index::Location)| ObjectEntry {
            chunk,
            ballot,
            size_bytes: location.size_bytes,
            state: location.state,
        };
        index.ballots(chunk).map(entry).collect()
    }

    /// The highest ballot under which anything of this chunk is or was here, whole or as a shard; 0 if nothing.
    #[must_use]
    pub fn highest_ballot(&self, chunk: ChunkId) -> Ballot {
        self.inner
            .shared
            .index()
            .highest_of_all_parts(chunk)
            .unwrap_or_default()
    }

    /// The highest generation of the catalogue that this folder remembers.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.shared.generation()
    }

    /// Remembers that the catalogue has reached `generation`. On return it is durable; it never goes back.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub fn note_generation(&self, generation: u64) -> Result<(), StoreError> {
        Ok(self.inner.shared.note_generation(generation)?)
    }

    /// Up to `limit` entries of the inventory after `after`, ordered by chunk and ballot, tombstones included.
    #[must_use]
    pub fn objects(&self, after: Option<(ChunkId, Ballot)>, limit: usize) -> Vec<ObjectEntry> {
        let after = after.map(|(chunk, ballot)| ObjectName { chunk, ballot });
        self.inner.shared.index().page(after, limit)
    }

    /// Whether an object of `bytes` would be taken now, so that a body need not be read in vain.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::ReadOnly`].
    pub fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        self.inner.shared.check_room(bytes)
    }

    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.inner.shared.stats()
    }

    /// Where the scrub stands and what it found; empty until a [`crate::Scrub`] was made for this store.
    #[must_use]
    pub fn scrub(&self) -> ScrubReport {
        self.inner.shared.upkeep.scrub()
    }

    /// What compaction did since the start.
    #[must_use]
    pub fn compaction(&self) -> CompactionReport {
        self.inner.shared.upkeep.compaction()
    }

    /// Files that were set aside, by name. Nothing removes them by itself.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub fn quarantined(&self) -> Result<Vec<String>, StoreError> {
        let shared = &self.inner.shared;
        let folder = quarantine(shared.folder());
        let entries = shared.options.disk.list(&folder);
        let entries = entries.map_err(|error| DiskFault::new("list", &folder, &error))?;
        Ok(entries.into_iter().map(|entry| entry.name).collect())
    }

    /// Writes an index snapshot now, if one can be made; false if not.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub fn save_snapshot(&self) -> Result<bool, StoreError> {
        Ok(self.inner.shared.save_snapshot()?)
    }

    #[must_use]
    pub fn identity(&self) -> Identity {
        self.inner.shared.identity
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    pub(crate) fn send(&self, request: Request) {
        let requests = self.inner.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let unsent = match requests.as_ref() {
            Some(requests) => requests.send(request).err().map(|unsent| unsent.0),
            None => Some(request),
        };
        drop(requests);
        match unsent {
            None | Some(Request::Between(_)) => {}
            Some(Request::Put { done, .. } | Request::Adopt { done, .. }) => done(Err(StoreError::Stopped)),
            Some(Request::Delete { done, .. } | Request::Rebury { done, .. }) => {
                done(Err(StoreError::Stopped))
            }
        }
    }
}

/// Runs a request and waits for its callback.
fn wait<T: Send + 'static>(start: impl FnOnce(Done<T>)) -> Result<T, StoreError> {
    let (sender, receiver) = channel();
    start(Box::new(move |result| {
        // The receiver below outlives every callback; if not, nobody wants the answer.
        drop(sender.send(result));
    }));
    receiver.recv().unwrap_or(Err(StoreError::Stopped))
}
