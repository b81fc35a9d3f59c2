//! Reading objects: no byte leaves before its leaf's CRC32C has been checked.
//!
//! The first time an object of an earlier boot is opened, all of it is read and checked against its SHA-256; from then
//! on the leaf checksums of every read are enough, since they catch what the disk does to the bytes in between.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use rustix::io::Errno;
use vstack_core::ballot::Ballot;
use vstack_core::digest::{ChunkDigest, ChunkHasher, LEAF_BYTES, Sha256Digest, WholeHasher};
use vstack_core::id::ChunkId;
use vstack_core::time::UnixMillis;

use crate::disk::{read_cached, read_exact};
use crate::error::{DiskFault, StoreError};
use crate::heal::heal;
use crate::index::{Location, ObjectState};
use crate::record::{HEADER_LEN, ObjectName, RecordHeader, RecordKind, align8, leaf_count, u32_at};
use crate::shared::Shared;
use crate::superblock::Superblock;

/// Bytes read at once while a whole object is checked.
const CHECK_BYTES: usize = 16 * LEAF_BYTES;

/// What is stored under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectStat {
    pub chunk: ChunkId,
    pub ballot: Ballot,
    pub digest: ChunkDigest,
    pub stored_at: UnixMillis,
}

/// An open object. Its bytes stay readable while this lives, even if the object is deleted meanwhile.
#[derive(Debug)]
pub struct ObjectReader {
    shared: Arc<Shared>,
    place: Place,
    leaf_crcs: Vec<u32>,
}

/// Where an object's record is, with its header.
#[derive(Debug, Clone)]
struct Place {
    name: ObjectName,
    superblock: Arc<Superblock>,
    location: Location,
    header: RecordHeader,
}

/// Why a record cannot be read.
#[derive(Debug)]
pub(crate) enum ReadFault {
    /// The bytes are damaged.
    Damaged(&'static str),
    /// The disk does not answer; the bytes may be fine.
    Disk(io::Error),
}

/// How bytes are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetch {
    /// From wherever they are.
    Wait,
    /// From memory, or not at all.
    CachedOnly,
}

impl Fetch {
    /// Fills `buffer`; false if the bytes would have to be waited for.
    fn fill(self, superblock: &Superblock, buffer: &mut [u8], position: u64) -> Result<bool, ReadFault> {
        Ok(match self {
            Self::Wait => read_exact(&*superblock.file, buffer, position).map(|()| true)?,
            Self::CachedOnly => read_cached(&*superblock.file, buffer, position)?,
        })
    }
}

impl From<io::Error> for ReadFault {
    fn from(error: io::Error) -> Self {
        // What a disk says about a sector that it cannot give back, or a file system about its own damage.
        let lost = [
            Errno::IO,
            Errno::NODATA,
            Errno::BADMSG,
            Errno::ILSEQ,
            Errno::UCLEAN,
        ];
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Damaged("the file ends inside the record")
        } else if lost
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
        {
            Self::Damaged("the disk cannot read it")
        } else {
            Self::Disk(error)
        }
    }
}

/// Reads and checks the header at `position`.
pub(crate) fn read_header(superblock: &Superblock, position: u64) -> Result<RecordHeader, ReadFault> {
    let header = fetch_header(superblock, position, Fetch::Wait)?;
    Ok(header.expect("a fetch that may wait is never put off"))
}

/// Nothing if it would have to be waited for.
fn fetch_header(
    superblock: &Superblock,
    position: u64,
    fetch: Fetch,
) -> Result<Option<RecordHeader>, ReadFault> {
    let mut bytes = [0; HEADER_LEN];
    if !fetch.fill(superblock, &mut bytes, position)? {
        return Ok(None);
    }
    let salt = superblock.header.salt;
    let header = RecordHeader::decode(&bytes, position, salt)
        .ok()
        .or_else(|| heal(&bytes, position, salt));
    header
        .map(Some)
        .ok_or(ReadFault::Damaged("its header is damaged"))
}

impl Shared {
    /// Where the object is that `ballot` names, or that has the chunk's highest ballot.
    fn locate(&self, chunk: ChunkId, ballot: Option<Ballot>) -> Result<(ObjectName, Location), StoreError> {
        let index = self.index();
        let found = match ballot {
            None => index.highest(chunk),
            Some(ballot) => index
                .get(ObjectName { chunk, ballot })
                .map(|location| (ballot, location)),
        };
        // Only its own tombstone says of an object that it is not in a file that cannot be read.
        let deleted = match found {
            Some((ballot, location)) if location.state != ObjectState::Deleted => {
                return Ok((ObjectName { chunk, ballot }, location));
            }
            other => other.is_some(),
        };
        drop(index);
        if deleted || self.unread_files == 0 {
            Err(StoreError::NotFound { chunk, ballot })
        } else {
            Err(StoreError::Unsure {
                chunk,
                files: self.unread_files,
            })
        }
    }

    fn place(&self, name: ObjectName, location: Location) -> Result<Place, StoreError> {
        let place = self.fetch_place(name, location, Fetch::Wait)?;
        Ok(place.expect("a fetch that may wait is never put off"))
    }

    /// Nothing if it would have to be waited for.
    fn fetch_place(
        &self,
        name: ObjectName,
        location: Location,
        fetch: Fetch,
    ) -> Result<Option<Place>, StoreError> {
        let read = || {
            let superblock = self
                .superblock(location.superblock)
                .ok_or(ReadFault::Damaged("its file is missing"))?;
            let Some(header) = fetch_header(&superblock, location.offset(), fetch)? else {
                return Ok(None);
            };
            let same_name = header.name.is_some_and(|found| {
                found.chunk == name.chunk && (location.by_reference || found.ballot == name.ballot)
            });
            if header.kind != RecordKind::Data || !same_name || header.body_len != location.size_bytes {
                return Err(ReadFault::Damaged("another record is in its place"));
            }
            Ok(Some(Place {
                name,
                superblock,
                location,
                header,
            }))
        };
        read().map_err(|fault| self.read_error(name, location, fault))
    }

    /// Notes damage in the index and makes the caller's error.
    fn read_error(&self, name: ObjectName, location: Location, fault: ReadFault) -> StoreError {
        match fault {
            ReadFault::Damaged(reason) => {
                self.index_mut().set_state(name, location, ObjectState::Corrupt);
                corrupt(name, location, reason)
            }
            ReadFault::Disk(error) => DiskFault::new("read", &self.data, &error).into(),
        }
    }

    /// The digest of an object, from its header. Also of one whose bytes are damaged, while the header is not.
    pub(crate) fn recorded_digest(
        &self,
        name: ObjectName,
        location: Location,
    ) -> Result<ChunkDigest, StoreError> {
        Ok(self.place(name, location)?.header.digest())
    }

    /// Looks again where a compaction has moved the object between the look into the index and the read: what was found
    /// at its old place is no damage.
    fn at_its_place<T>(
        &self,
        chunk: ChunkId,
        ballot: Option<Ballot>,
        read: impl Fn(ObjectName, Location) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        loop {
            let (name, location) = self.locate(chunk, ballot)?;
            refuse_corrupt(name, location)?;
            let result = read(name, location);
            let moved = || {
                let now = self.index().get(name);
                now.is_some_and(|now| !now.is_at(location.superblock, location.offset()))
            };
            match result {
                Err(StoreError::Corrupt { .. }) if moved() => {}
                result => return result,
            }
        }
    }

    pub(crate) fn stat(&self, chunk: ChunkId, ballot: Option<Ballot>) -> Result<ObjectStat, StoreError> {
        let (name, header) = self.at_its_place(chunk, ballot, |name, location| {
            Ok((name, self.place(name, location)?.header))
        })?;
        Ok(ObjectStat {
            chunk,
            ballot: name.ballot,
            digest: header.digest(),
            stored_at: header.stored_at,
        })
    }
}

fn corrupt(name: ObjectName, location: Location, reason: &'static str) -> StoreError {
    let ObjectName { chunk, ballot } = name;
    StoreError::Corrupt {
        chunk,
        ballot,
        superblock: location.superblock,
        offset: location.offset(),
        reason,
    }
}

pub(crate) fn refuse_corrupt(name: ObjectName, location: Location) -> Result<(), StoreError> {
    if location.state == ObjectState::Corrupt {
        return Err(corrupt(name, location, "found damaged before"));
    }
    Ok(())
}

impl ObjectReader {
    pub(crate) fn open(
        shared: &Arc<Shared>,
        chunk: ChunkId,
        ballot: Option<Ballot>,
    ) -> Result<Self, StoreError> {
        shared.at_its_place(chunk, ballot, |name, location| Self::at(shared, name, location))
    }

    fn at(shared: &Arc<Shared>, name: ObjectName, location: Location) -> Result<Self, StoreError> {
        let reader = Self::fetch(shared, name, location, Fetch::Wait)?;
        let reader = reader.expect("a fetch that may wait is never put off");
        if location.state == ObjectState::Unchecked {
            reader.check_sha256()?;
            reader
                .shared
                .index_mut()
                .set_state(name, location, ObjectState::Checked);
        }
        Ok(reader)
    }

    /// As [`ObjectReader::open`] for an object that was checked in this boot and whose header is in memory.
    pub(crate) fn open_cached(
        shared: &Arc<Shared>,
        chunk: ChunkId,
        ballot: Option<Ballot>,
    ) -> Result<Option<Self>, StoreError> {
        shared.at_its_place(chunk, ballot, |name, location| {
            if location.state == ObjectState::Unchecked {
                return Ok(None);
            }
            Self::fetch(shared, name, location, Fetch::CachedOnly)
        })
    }

    fn fetch(
        shared: &Arc<Shared>,
        name: ObjectName,
        location: Location,
        fetch: Fetch,
    ) -> Result<Option<Self>, StoreError> {
        let Some(place) = shared.fetch_place(name, location, fetch)? else {
            return Ok(None);
        };
        let leaf_crcs =
            fetch_leaf_crcs(&place, fetch).map_err(|fault| shared.read_error(name, location, fault))?;
        Ok(leaf_crcs.map(|leaf_crcs| Self {
            shared: Arc::clone(shared),
            place,
            leaf_crcs,
        }))
    }

    #[must_use]
    pub fn chunk(&self) -> ChunkId {
        self.place.name.chunk
    }

    #[must_use]
    pub fn ballot(&self) -> Ballot {
        self.place.name.ballot
    }

    #[must_use]
    pub fn digest(&self) -> ChunkDigest {
        self.place.header.digest()
    }

    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        u64::from(self.place.header.body_len)
    }

    /// The whole leaves that cover `range` (clipped to the object): what [`ObjectReader::read_leaves`] can read.
    #[must_use]
    pub fn cover(&self, range: Range<u64>) -> Range<u64> {
        const LEAF: u64 = LEAF_BYTES as u64;
        let end = range.end.min(self.size_bytes());
        let start = range.start.min(end);
        start / LEAF * LEAF..end.next_multiple_of(LEAF).min(self.size_bytes())
    }

    /// Reads the leaves of `cover`, a range that [`ObjectReader::cover`] returned, into a buffer of its length.
    ///
    /// # Errors
    /// Corrupt: the buffer then holds bytes that must not be used. Unavailable: the disk does not answer.
    pub fn read_leaves(&self, cover: Range<u64>, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.fetch_leaves(cover, buffer, Fetch::Wait).map(drop)
    }

    /// As [`ObjectReader::read_leaves`], if that needs not wait for the disk; false if it would, and the buffer then
    /// holds bytes that must not be used.
    ///
    /// # Errors
    /// As [`ObjectReader::read_leaves`].
    pub fn read_leaves_cached(&self, cover: Range<u64>, buffer: &mut [u8]) -> Result<bool, StoreError> {
        self.fetch_leaves(cover, buffer, Fetch::CachedOnly)
    }

    fn fetch_leaves(&self, cover: Range<u64>, buffer: &mut [u8], fetch: Fetch) -> Result<bool, StoreError> {
        if self.cover(cover.clone()) != cover || cover.end - cover.start != buffer.len() as u64 {
            return Err(StoreError::Invalid {
                reason: "a read covers whole leaves and fills its buffer",
            });
        }
        self.fetch_checked(cover.start, buffer, fetch).map_err(|fault| {
            let Place { name, location, .. } = self.place;
            self.shared.read_error(name, location, fault)
        })
    }

    fn fetch_checked(&self, start: u64, buffer: &mut [u8], fetch: Fetch) -> Result<bool, ReadFault> {
        let Place {
            superblock, location, ..
        } = &self.place;
        let position = location.offset() + HEADER_LEN as u64 + start;
        if !fetch.fill(superblock, buffer, position)? {
            return Ok(false);
        }
        let first = usize::try_from(start).map_or(usize::MAX, |start| start / LEAF_BYTES);
        for (index, leaf) in buffer.chunks(LEAF_BYTES).enumerate() {
            if self.leaf_crcs.get(first.saturating_add(index)) != Some(&crc32c::crc32c(leaf)) {
                return Err(ReadFault::Damaged("a leaf fails its checksum"));
            }
        }
        Ok(true)
    }

    /// Reads all of the object and checks it against its SHA-256 and Merkle root; returns the hash of each leaf.
    ///
    /// # Errors
    /// As [`ObjectReader::read_leaves`].
    pub fn hash_leaves(&self) -> Result<Vec<Sha256Digest>, StoreError> {
        let mut hasher = ChunkHasher::new();
        self.read_all(|bytes| hasher.update(bytes))?;
        let (digest, leaves) = hasher.finish();
        self.must_be(digest == self.digest())?;
        Ok(leaves)
    }

    /// As [`ObjectReader::hash_leaves`] without the Merkle root, which takes as long again and says the same of the bytes.
    fn check_sha256(&self) -> Result<(), StoreError> {
        let mut hasher = WholeHasher::default();
        self.read_all(|bytes| hasher.update(bytes))?;
        self.must_be(hasher.sha256() == self.place.header.sha256)
    }

    fn read_all(&self, mut each: impl FnMut(&[u8])) -> Result<(), StoreError> {
        let mut buffer = Vec::new();
        for start in (0..self.size_bytes()).step_by(CHECK_BYTES) {
            let cover = self.cover(start..start + CHECK_BYTES as u64);
            buffer.resize(usize::try_from(cover.end - cover.start).unwrap_or(0), 0);
            self.read_leaves(cover, &mut buffer)?;
            each(&buffer);
        }
        Ok(())
    }

    fn must_be(&self, right: bool) -> Result<(), StoreError> {
        if right {
            return Ok(());
        }
        let Place { name, location, .. } = self.place;
        Err(self
            .shared
            .read_error(name, location, ReadFault::Damaged("it fails its SHA-256")))
    }
}

/// Nothing if they would have to be waited for.
fn fetch_leaf_crcs(place: &Place, fetch: Fetch) -> Result<Option<Vec<u32>>, ReadFault> {
    let len = place.header.body_len;
    let position = place.location.offset() + HEADER_LEN as u64 + u64::from(align8(len));
    let mut bytes = vec![0; 4 * leaf_count(len) as usize];
    if !fetch.fill(&place.superblock, &mut bytes, position)? {
        return Ok(None);
    }
    Ok(Some(bytes.chunks_exact(4).map(|crc| u32_at(crc, 0)).collect()))
}
