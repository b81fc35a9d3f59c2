//! The record: what one object, tombstone or mark looks like inside a superblock.
//!
//! Every integer is little endian, every record starts 8-aligned, every batch of records 4096-aligned.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `VSR1` |
//! | 4 | 1 | kind: 1 data, 2 tombstone, 3 seal, 4 watermark, 5 padding, 6 reference |
//! | 5 | 1 | flags: the reason of a tombstone; 1 on a data record whose object is lost; 0 otherwise |
//! | 6 | 2 | header version, 1 |
//! | 8 | 32 | key: the 24 bytes of the `ChunkId`, then 8 zero; all zero for kinds 3 to 5 |
//! | 40 | 8 | ballot |
//! | 48 | 4 | body length: object bytes of a data record, 80 of a reference, the footer of a seal, 0 of the others |
//! | 52 | 4 | record length: from this header to the next record |
//! | 56 | 8 | position of this header in its file XOR the file's salt |
//! | 64 | 8 | length of the file known to be synced when this record was built |
//! | 72 | 32 | SHA-256 of the object |
//! | 104 | 32 | Merkle root over the object's 64 KiB leaves |
//! | 136 | 8 | stored at, Unix milliseconds; for the grace of unknown objects alone, never for ordering |
//! | 144 | 4 | zero |
//! | 148 | 4 | CRC32C of bytes 0 to 147 |
//! | 152 | | body |
//!
//! Body of a data record: the object, zeros to a multiple of 8, the CRC32C of each 64 KiB leaf (4 bytes each), zeros to
//! a multiple of 8. Body of a reference: see [`Reference`]. Body of a seal: the footer index (`footer.rs`), or nothing in
//! files of the first version. A *lost* data record has no body: compaction leaves it where an object was damaged, so that
//! its name stays known and its bytes can be put again. Padding fills a batch up to the next multiple of 4096.
//!
//! A header counts only at its own place in its own file: the salted position kills misdirected writes, stale bytes of
//! a recycled area, and payloads that contain a record on purpose.

use bytes::Bytes;
use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::digest::{ChunkDigest, LEAF_BYTES, Sha256Digest};
use vstack_core::id::ChunkId;
use vstack_core::limits::MAX_CHUNK_BYTES;
use vstack_core::time::UnixMillis;

/// Bytes of a record's header.
pub const HEADER_LEN: usize = 152;
/// Where batches begin. One block of every common file system, so that no write touches acknowledged bytes.
pub const BATCH_ALIGN: u64 = 4096;

/// First bytes of every record.
pub const MAGIC: [u8; 4] = *b"VSR1";
const HEADER_VERSION: u16 = 1;
const CRC_AT: usize = 148;

/// Flag of a data record without its object.
pub const FLAG_LOST: u8 = 1;
/// The largest body of a seal. A file of so many small records is scanned at the start instead.
pub const MAX_FOOTER_BYTES: u32 = 64 << 20;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    Data = 1,
    Tombstone = 2,
    Seal = 3,
    Watermark = 4,
    Padding = 5,
    Reference = 6,
}

impl RecordKind {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Data,
            2 => Self::Tombstone,
            3 => Self::Seal,
            4 => Self::Watermark,
            5 => Self::Padding,
            6 => Self::Reference,
            _ => return None,
        })
    }

    /// Whether the record says something about an object.
    #[must_use]
    pub const fn has_key(self) -> bool {
        matches!(self, Self::Data | Self::Tombstone | Self::Reference)
    }
}

/// The name of an object: write-once, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    pub chunk: ChunkId,
    pub ballot: Ballot,
}

/// A record's header, without its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    pub kind: RecordKind,
    pub flags: u8,
    /// Present exactly when [`RecordKind::has_key`].
    pub name: Option<ObjectName>,
    pub body_len: u32,
    pub record_len: u32,
    pub durable_upto: u64,
    pub sha256: Sha256Digest,
    pub leaf_root: Sha256Digest,
    pub stored_at: UnixMillis,
}

/// Why bytes are not a record header of this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    #[error("no record begins here")]
    Magic,
    #[error("the header fails its checksum")]
    Checksum,
    #[error("the header belongs to another place or file")]
    Position,
    #[error("the header has version {0}")]
    Version(u16),
    #[error("the header contradicts itself: {0}")]
    Fields(&'static str),
}

impl RecordHeader {
    /// The header of a record of `kind` that names no object.
    #[must_use]
    pub const fn mark(kind: RecordKind, record_len: u32, durable_upto: u64, stored_at: UnixMillis) -> Self {
        let zero = Sha256Digest([0; 32]);
        Self {
            kind,
            flags: 0,
            name: None,
            body_len: 0,
            record_len,
            durable_upto,
            sha256: zero,
            leaf_root: zero,
            stored_at,
        }
    }

    /// What the object's bytes must hash to. For data records, whose body is the object.
    #[must_use]
    pub fn digest(&self) -> ChunkDigest {
        ChunkDigest {
            size_bytes: u64::from(self.body_len),
            sha256: self.sha256,
            leaf_root: self.leaf_root,
        }
    }

    /// The header's bytes for `position` of the file with `salt`.
    #[must_use]
    pub fn encode(&self, position: u64, salt: u64) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = self.kind as u8;
        bytes[5] = self.flags;
        bytes[6..8].copy_from_slice(&HEADER_VERSION.to_le_bytes());
        if let Some(name) = self.name {
            bytes[8..32].copy_from_slice(&name.chunk.to_bytes());
            bytes[40..48].copy_from_slice(&name.ballot.number().to_le_bytes());
        }
        bytes[48..52].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.record_len.to_le_bytes());
        bytes[56..64].copy_from_slice(&(position ^ salt).to_le_bytes());
        bytes[64..72].copy_from_slice(&self.durable_upto.to_le_bytes());
        bytes[72..104].copy_from_slice(&self.sha256.0);
        bytes[104..136].copy_from_slice(&self.leaf_root.0);
        bytes[136..144].copy_from_slice(&self.stored_at.0.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header at `position` of the file with `salt`.
    ///
    /// # Errors
    /// Whatever is there is no intact header written for exactly this place by a version we know.
    pub fn decode(bytes: &[u8; HEADER_LEN], position: u64, salt: u64) -> Result<Self, HeaderFault> {
        if bytes[..4] != MAGIC {
            return Err(HeaderFault::Magic);
        }
        if crc32c::crc32c(&bytes[..CRC_AT]) != u32_at(bytes, CRC_AT) {
            return Err(HeaderFault::Checksum);
        }
        if u64_at(bytes, 56) ^ salt != position {
            return Err(HeaderFault::Position);
        }
        let version = u16::from_le_bytes([bytes[6], bytes[7]]);
        if version != HEADER_VERSION {
            return Err(HeaderFault::Version(version));
        }
        let kind = RecordKind::from_byte(bytes[4]).ok_or(HeaderFault::Fields("unknown kind"))?;
        let header = Self {
            kind,
            flags: bytes[5],
            name: name_of(bytes, kind)?,
            body_len: u32_at(bytes, 48),
            record_len: u32_at(bytes, 52),
            durable_upto: u64_at(bytes, 64),
            sha256: Sha256Digest(array_at(bytes, 72)),
            leaf_root: Sha256Digest(array_at(bytes, 104)),
            stored_at: UnixMillis(u64_at(bytes, 136)),
        };
        header.check_lengths()?;
        if kind == RecordKind::Padding && !header.ends_a_block(position) {
            return Err(HeaderFault::Fields("padding that does not end its batch"));
        }
        Ok(header)
    }

    /// Whether a record at `position` ends where a batch may begin.
    fn ends_a_block(&self, position: u64) -> bool {
        position
            .wrapping_add(u64::from(self.record_len))
            .is_multiple_of(BATCH_ALIGN)
    }

    /// Whether the object of this data record is lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.kind == RecordKind::Data && self.flags == FLAG_LOST
    }

    fn check_lengths(&self) -> Result<(), HeaderFault> {
        let expected = match self.kind {
            RecordKind::Data if u64::from(self.body_len) > MAX_CHUNK_BYTES => {
                return Err(HeaderFault::Fields("larger than any chunk"));
            }
            RecordKind::Data if self.is_lost() => MARK_LEN,
            RecordKind::Data => data_record_len(self.body_len),
            RecordKind::Reference if self.body_len as usize != Reference::LEN => {
                return Err(HeaderFault::Fields("length of a reference"));
            }
            RecordKind::Reference => REFERENCE_RECORD_LEN,
            RecordKind::Padding => padding_len_ok(self.record_len)?,
            RecordKind::Seal => seal_len(self.body_len)?,
            RecordKind::Tombstone | RecordKind::Watermark => MARK_LEN,
        };
        if self.record_len == expected {
            Ok(())
        } else {
            Err(HeaderFault::Fields("record length"))
        }
    }
}

fn padding_len_ok(record_len: u32) -> Result<u32, HeaderFault> {
    let fits =
        record_len >= MARK_LEN && u64::from(record_len) < 2 * BATCH_ALIGN && record_len.is_multiple_of(8);
    if fits {
        Ok(record_len)
    } else {
        Err(HeaderFault::Fields("padding length"))
    }
}

/// A seal with a footer fills whole blocks, so that the footer is found from the end of the file.
fn seal_len(body_len: u32) -> Result<u32, HeaderFault> {
    if body_len > MAX_FOOTER_BYTES {
        return Err(HeaderFault::Fields("larger than any footer"));
    }
    let record_len = MARK_LEN + body_len;
    if body_len == 0 || u64::from(record_len).is_multiple_of(BATCH_ALIGN) {
        Ok(record_len)
    } else {
        Err(HeaderFault::Fields("length of a footer"))
    }
}

fn name_of(bytes: &[u8; HEADER_LEN], kind: RecordKind) -> Result<Option<ObjectName>, HeaderFault> {
    if !kind.has_key() {
        return if bytes[8..48].iter().all(|byte| *byte == 0) {
            Ok(None)
        } else {
            Err(HeaderFault::Fields("a key where none belongs"))
        };
    }
    let chunk = ChunkId::from_bytes(&array_at(bytes, 8)).map_err(|_| HeaderFault::Fields("no chunk id"))?;
    Ok(Some(ObjectName {
        chunk,
        ballot: Ballot::from_number(u64_at(bytes, 40)),
    }))
}

/// Length of a record without a body.
pub const MARK_LEN: u32 = 152;
/// Length of a reference record.
pub const REFERENCE_RECORD_LEN: u32 = 152 + 80;

/// Length of the record of an object of `len` bytes, at most [`MAX_CHUNK_BYTES`].
#[must_use]
pub const fn data_record_len(len: u32) -> u32 {
    MARK_LEN + align8(len) + align8(4 * leaf_count(len))
}

/// 64 KiB leaves of an object of `len` bytes.
#[must_use]
pub const fn leaf_count(len: u32) -> u32 {
    len.div_ceil(LEAF_LEN)
}

/// [`LEAF_BYTES`] in the width of the lengths on disk.
pub(crate) const LEAF_LEN: u32 = 64 * 1024;
const _: () = assert!(LEAF_LEN as usize == LEAF_BYTES);
const _: () = assert!(MARK_LEN as usize == HEADER_LEN);

pub(crate) const fn align8(len: u32) -> u32 {
    len.next_multiple_of(8)
}

/// CRC32C of each leaf of an object that is held in pieces of any length.
pub(crate) fn leaf_crcs(pieces: &[Bytes]) -> Vec<u32> {
    let mut crcs = Vec::new();
    let mut crc = 0;
    let mut filled = 0;
    for piece in pieces {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(LEAF_BYTES - filled));
            crc = crc32c::crc32c_append(crc, now);
            filled += now.len();
            if filled == LEAF_BYTES {
                crcs.push(std::mem::take(&mut crc));
                filled = 0;
            }
            rest = later;
        }
    }
    if filled > 0 {
        crcs.push(crc);
    }
    crcs
}

/// What comes after the object's bytes in a data record: zeros to 8, the leaf CRCs, zeros to 8.
pub(crate) fn data_tail(len: u32, crcs: &[u32]) -> Vec<u8> {
    let mut tail = vec![0; (align8(len) - len) as usize];
    tail.extend(crcs.iter().flat_map(|crc| crc.to_le_bytes()));
    tail.resize((align8(len) - len + align8(4 * leaf_count(len))) as usize, 0);
    tail
}

/// Where the bytes of an adopted object lie: the body of a reference record.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 8 | ballot of the record that holds the bytes |
/// | 8 | 16 | uuid of its superblock |
/// | 24 | 8 | position of its header |
/// | 32 | 8 | length of the object |
/// | 40 | 32 | SHA-256 of the object |
/// | 72 | 4 | CRC32C of bytes 0 to 71 |
/// | 76 | 4 | zero |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    pub from_ballot: Ballot,
    pub superblock: Uuid,
    pub position: u64,
    pub size_bytes: u64,
    pub sha256: Sha256Digest,
}

impl Reference {
    pub const LEN: usize = 80;

    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.from_ballot.number().to_le_bytes());
        bytes[8..24].copy_from_slice(self.superblock.as_bytes());
        bytes[24..32].copy_from_slice(&self.position.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.size_bytes.to_le_bytes());
        bytes[40..72].copy_from_slice(&self.sha256.0);
        let crc = crc32c::crc32c(&bytes[..72]);
        bytes[72..76].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the body of a reference record; `None` if its bytes are damaged.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
        (crc32c::crc32c(&bytes[..72]) == u32_at(bytes, 72)).then(|| Self {
            from_ballot: Ballot::from_number(u64_at(bytes, 0)),
            superblock: Uuid::from_bytes(array_at(bytes, 8)),
            position: u64_at(bytes, 24),
            size_bytes: u64_at(bytes, 32),
            sha256: Sha256Digest(array_at(bytes, 40)),
        })
    }
}

/// `N` bytes at a constant offset of a fixed-size area.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vstack_core::id::VideoId;

    fn any_header() -> impl Strategy<Value = RecordHeader> {
        let kind = prop::sample::select(vec![
            RecordKind::Data,
            RecordKind::Tombstone,
            RecordKind::Seal,
            RecordKind::Watermark,
            RecordKind::Padding,
            RecordKind::Reference,
        ]);
        let fields = (
            any::<u8>(),
            any::<u128>(),
            any::<u32>(),
            any::<u64>(),
            0..=64u32 << 20,
        );
        let rest = (any::<u64>(), any::<[u8; 32]>(), any::<[u8; 32]>(), any::<u64>());
        (kind, fields, rest).prop_map(|(kind, (flags, video, seq, ballot, len), rest)| {
            let (durable_upto, sha256, leaf_root, stored_at) = rest;
            let chunk = ChunkId::media(VideoId(Uuid::from_u128(video)), seq);
            let name = ObjectName {
                chunk,
                ballot: Ballot::from_number(ballot),
            };
            let (body_len, record_len) = match kind {
                RecordKind::Data => (len, data_record_len(len)),
                RecordKind::Reference => (80, REFERENCE_RECORD_LEN),
                RecordKind::Padding => (0, MARK_LEN + len % 4000 / 8 * 8),
                RecordKind::Seal => {
                    let record_len = (1 + len % 1000) * 4096;
                    (record_len - MARK_LEN, record_len)
                }
                _ => (0, MARK_LEN),
            };
            let lost = kind == RecordKind::Data && flags == FLAG_LOST;
            let record_len = if lost { MARK_LEN } else { record_len };
            RecordHeader {
                kind,
                flags,
                name: kind.has_key().then_some(name),
                body_len,
                record_len,
                durable_upto,
                sha256: Sha256Digest(sha256),
                leaf_root: Sha256Digest(leaf_root),
                stored_at: UnixMillis(stored_at),
            }
        })
    }

    /// `position`, or for padding the place before it that has the padding end a block.
    fn at_home(header: &RecordHeader, position: u64) -> u64 {
        if header.kind == RecordKind::Padding {
            (position & !(BATCH_ALIGN - 1)).wrapping_sub(u64::from(header.record_len))
        } else {
            position
        }
    }

    #[test]
    fn padding_that_does_not_end_a_block_is_no_record() {
        let header = RecordHeader::mark(RecordKind::Padding, 160, 4096, UnixMillis(1));
        let decoded = |position| RecordHeader::decode(&header.encode(position, 7), position, 7);
        assert_eq!(decoded(8192 - 160), Ok(header));
        for position in [8192 - 152, 8192 - 168, 8192] {
            let fault = HeaderFault::Fields("padding that does not end its batch");
            assert_eq!(decoded(position), Err(fault), "at {position}");
        }
    }

    proptest! {
        #[test]
        fn a_header_is_read_back_at_its_own_place_only(
            header in any_header(), position in any::<u64>(), salt in any::<u64>(), elsewhere in any::<u64>(),
        ) {
            let position = at_home(&header, position);
            let bytes = header.encode(position, salt);
            prop_assert_eq!(RecordHeader::decode(&bytes, position, salt), Ok(header));
            if elsewhere != position {
                prop_assert_eq!(RecordHeader::decode(&bytes, elsewhere, salt), Err(HeaderFault::Position));
            }
        }

        #[test]
        fn a_turned_bit_anywhere_in_a_header_is_noticed(header in any_header(), bit in 0..HEADER_LEN * 8) {
            let mut bytes = header.encode(4096, 7);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(RecordHeader::decode(&bytes, 4096, 7).is_err());
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), HEADER_LEN)) {
            let mut bytes: [u8; HEADER_LEN] = bytes.try_into().unwrap();
            bytes[..4].copy_from_slice(&MAGIC);
            let crc = crc32c::crc32c(&bytes[..CRC_AT]);
            bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
            let position = u64_at(&bytes, 56);
            prop_assert!(RecordHeader::decode(&bytes, position, 0).is_err());
        }

        #[test]
        fn leaf_checksums_do_not_depend_on_the_pieces(len in 0usize..200_000, step in 1usize..70_000) {
            let data: Vec<u8> = (0..len).map(|index| (index * 31 % 251).to_le_bytes()[0]).collect();
            let pieces: Vec<Bytes> = data.chunks(step).map(Bytes::copy_from_slice).collect();
            let expected: Vec<u32> = data.chunks(LEAF_BYTES).map(crc32c::crc32c).collect();
            prop_assert_eq!(leaf_crcs(&pieces), expected);
        }
    }

    #[test]
    fn a_reference_with_a_turned_bit_is_refused() {
        let reference = Reference {
            from_ballot: Ballot::from_number(3),
            superblock: Uuid::from_u128(9),
            position: 4096,
            size_bytes: 77,
            sha256: Sha256Digest::of(b"x"),
        };
        let bytes = reference.encode();
        assert_eq!(Reference::decode(&bytes), Some(reference));
        for bit in 0..76 * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Reference::decode(&damaged), None, "bit {bit}");
        }
    }
}
