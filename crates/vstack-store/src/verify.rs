//! Reading a record from the disk, and nothing but the disk, to see whether it is what was written.

use vstack_core::digest::{ChunkHasher, LEAF_BYTES};

use crate::disk::read_exact;
use crate::index::Location;
use crate::read::{ReadFault, read_header};
use crate::record::{HEADER_LEN, ObjectName, RecordKind, data_tail};
use crate::superblock::Superblock;

/// Bytes read at once.
const PIECE_BYTES: usize = 16 * LEAF_BYTES;

/// Checks the object at `location`: its header, each leaf's CRC32C, its SHA-256 and its Merkle root. Returns the bytes
/// that were read.
///
/// # Errors
/// What is damaged, or that the disk does not answer.
pub(crate) fn object(
    superblock: &Superblock,
    name: ObjectName,
    location: Location,
) -> Result<u64, ReadFault> {
    let position = location.offset();
    superblock.file.drop_cache(position)?;
    let header = read_header(superblock, position)?;
    let same_name = header.name.is_some_and(|found| {
        found.chunk == name.chunk && (location.by_reference || found.ballot == name.ballot)
    });
    if header.kind != RecordKind::Data || header.is_lost() || !same_name {
        return Err(ReadFault::Damaged("another record is in its place"));
    }
    let body = position + HEADER_LEN as u64;
    let size = u64::from(header.body_len);
    let mut hasher = ChunkHasher::new();
    let mut crcs = Vec::new();
    let mut piece = Vec::new();
    for start in (0..size).step_by(PIECE_BYTES) {
        let len = usize::try_from(size - start).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        piece.resize(len, 0);
        read_exact(&*superblock.file, &mut piece, body + start)?;
        hasher.update(&piece);
        crcs.extend(piece.chunks(LEAF_BYTES).map(crc32c::crc32c));
    }
    let expected = data_tail(header.body_len, &crcs);
    let mut tail = vec![0; expected.len()];
    read_exact(&*superblock.file, &mut tail, body + size)?;
    if tail != expected {
        return Err(ReadFault::Damaged("a leaf fails its checksum"));
    }
    if hasher.finish().0 != header.digest() {
        return Err(ReadFault::Damaged("it fails its SHA-256"));
    }
    Ok(u64::from(header.record_len))
}
