//! The footer index: what a sealed superblock holds, told by its last record.
//!
//! A start reads it instead of all headers of the file. It is the body of the seal record:
//!
//! | bytes | field |
//! |---|---|
//! | 160 an entry | position of a record, and its header as it stands there; kinds data, tombstone, reference |
//! | 80 | behind the entry of a reference: its body |
//! | 32 a move | uuid of a superblock that compaction replaced by this one, a position there, the position here |
//! | | zeros, so that the seal record ends at a multiple of 4096 |
//! | 40 | the end, below |
//!
//! | offset in the end | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `VSFOOTR1` |
//! | 8 | 8 | position of the seal record XOR the file's salt |
//! | 16 | 4 | entries |
//! | 20 | 4 | moves |
//! | 24 | 12 | zero |
//! | 36 | 4 | CRC32C of the whole body before this field |
//!
//! It counts only when the file ends with it, and only if every entry is a valid header of its position. The moves let
//! references that were written while a compaction ran find what they name.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::disk::{DiskFile, read_exact};
use crate::record::{
    BATCH_ALIGN, HEADER_LEN, MARK_LEN, MAX_FOOTER_BYTES, RecordHeader, RecordKind, Reference, array_at,
    u32_at, u64_at,
};
use crate::superblock::SUPERBLOCK_HEADER_LEN;

const MAGIC: [u8; 8] = *b"VSFOOTR1";
const END_LEN: usize = 40;
const ENTRY_LEN: usize = 8 + HEADER_LEN;
const MOVE_LEN: usize = 32;
/// Records of one file that are remembered for its footer: 160 bytes each while the file is written. A file of objects
/// below 16 KiB on average is sealed when it has so many, before it is full: otherwise a start would have to read each of
/// its headers.
pub(crate) const MAX_ENTRIES: usize = 65_536;

/// A record that says something about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) position: u64,
    pub(crate) header: RecordHeader,
    /// Of a reference record, unless its bytes are damaged.
    pub(crate) reference: Option<Reference>,
}

/// Positions of data records in superblocks that a file replaced, and where they are in it.
pub(crate) type Moves = BTreeMap<(Uuid, u64), u64>;

/// A footer that was read.
#[derive(Debug, Default)]
pub(crate) struct Footer {
    pub(crate) entries: Vec<Entry>,
    pub(crate) moves: Moves,
}

/// Gathers a footer while a file is written.
#[derive(Debug, Default)]
pub(crate) struct FooterBuilder {
    bytes: Vec<u8>,
    entries: usize,
    too_many: bool,
}

impl FooterBuilder {
    /// Of a file that already holds `entries`.
    pub(crate) fn with(entries: &[Entry], salt: u64) -> Self {
        let mut builder = Self::default();
        for entry in entries {
            let body = entry.reference.map(|reference| reference.encode());
            builder.note(
                entry.position,
                &entry.header,
                body.as_ref().map_or(&[], |body| body),
                salt,
            );
        }
        builder
    }

    /// Notes a record that is in the file now; `tail` is the body of a reference.
    pub(crate) fn note(&mut self, position: u64, header: &RecordHeader, tail: &[u8], salt: u64) {
        if !header.kind.has_key() {
            return;
        }
        if self.entries == MAX_ENTRIES {
            self.too_many = true;
            self.bytes = Vec::new();
            return;
        }
        self.entries += 1;
        self.bytes.extend(position.to_le_bytes());
        self.bytes.extend(header.encode(position, salt));
        if header.kind == RecordKind::Reference {
            self.bytes.extend(tail);
        }
    }

    /// Whether there are at most `limit` records with `more` of them.
    pub(crate) const fn has_room(&self, more: usize, limit: usize) -> bool {
        !self.too_many && self.entries.saturating_add(more) <= limit
    }

    /// Length of the seal record after `more` further records.
    pub(crate) fn seal_len(&self, more: usize) -> u64 {
        let bytes = self.bytes.len() + more * (ENTRY_LEN + Reference::LEN) + END_LEN + HEADER_LEN;
        (bytes as u64).next_multiple_of(BATCH_ALIGN)
    }

    /// The body of the seal record at `position`; `None` if there are too many records for one.
    pub(crate) fn finish(&self, moves: &Moves, position: u64, salt: u64) -> Option<Vec<u8>> {
        let mut body = self.bytes.clone();
        for ((uuid, from), to) in moves {
            body.extend(uuid.as_bytes());
            body.extend(from.to_le_bytes());
            body.extend(to.to_le_bytes());
        }
        let align = usize::try_from(BATCH_ALIGN).ok()?;
        let record_len = (HEADER_LEN + body.len() + END_LEN).next_multiple_of(align);
        body.resize(record_len - HEADER_LEN - END_LEN, 0);
        body.extend(MAGIC);
        body.extend((position ^ salt).to_le_bytes());
        body.extend(u32::try_from(self.entries).ok()?.to_le_bytes());
        body.extend(u32::try_from(moves.len()).ok()?.to_le_bytes());
        body.extend([0; 12]);
        body.extend(crc32c::crc32c(&body).to_le_bytes());
        let fits = !self.too_many && u32::try_from(body.len()).is_ok_and(|len| len <= MAX_FOOTER_BYTES);
        fits.then_some(body)
    }
}

/// Reads the footer of a file of `len` bytes; `None` if it has none that is whole.
pub(crate) fn read(file: &dyn DiskFile, salt: u64, len: u64) -> Option<Footer> {
    let end_at = len.checked_sub(END_LEN as u64)?;
    if !len.is_multiple_of(BATCH_ALIGN) || len <= SUPERBLOCK_HEADER_LEN as u64 {
        return None;
    }
    let mut end = [0; END_LEN];
    read_exact(file, &mut end, end_at).ok()?;
    let sealed_at = seal_position(&end, salt)?;
    if !sealed_at.is_multiple_of(BATCH_ALIGN) || sealed_at >= len {
        return None;
    }
    let mut header = [0; HEADER_LEN];
    read_exact(file, &mut header, sealed_at).ok()?;
    let header = RecordHeader::decode(&header, sealed_at, salt).ok()?;
    let ends_the_file = sealed_at.checked_add(u64::from(header.record_len)) == Some(len);
    if header.kind != RecordKind::Seal || !ends_the_file || header.durable_upto != sealed_at {
        return None;
    }
    let mut body = vec![0; header.body_len as usize];
    read_exact(file, &mut body, sealed_at + HEADER_LEN as u64).ok()?;
    decode(&body, sealed_at, salt)
}

fn seal_position(end: &[u8], salt: u64) -> Option<u64> {
    (end[..8] == MAGIC).then(|| u64_at(end, 8) ^ salt)
}

/// Reads the body of the seal record at `sealed_at`; `None` unless all of it is as it was written.
pub(crate) fn decode(body: &[u8], sealed_at: u64, salt: u64) -> Option<Footer> {
    let end = body.get(body.len().checked_sub(END_LEN)?..)?;
    if seal_position(end, salt) != Some(sealed_at)
        || crc32c::crc32c(&body[..body.len() - 4]) != u32_at(end, 36)
    {
        return None;
    }
    let mut rest = &body[..body.len() - END_LEN];
    let mut entries = Vec::new();
    for _ in 0..u32_at(end, 16) {
        let position = u64_at(take(&mut rest, 8)?, 0);
        let header = take(&mut rest, HEADER_LEN)?.first_chunk()?;
        let header = RecordHeader::decode(header, position, salt).ok()?;
        let reference = match header.kind {
            RecordKind::Reference => Some(Reference::decode(
                take(&mut rest, Reference::LEN)?.first_chunk()?,
            )?),
            RecordKind::Data | RecordKind::Tombstone => None,
            _ => return None,
        };
        if position.checked_add(u64::from(header.record_len))? > sealed_at {
            return None;
        }
        entries.push(Entry {
            position,
            header,
            reference,
        });
    }
    let mut moves = Moves::new();
    for _ in 0..u32_at(end, 20) {
        let bytes = take(&mut rest, MOVE_LEN)?;
        moves.insert(
            (Uuid::from_bytes(array_at(bytes, 0)), u64_at(bytes, 16)),
            u64_at(bytes, 24),
        );
    }
    Some(Footer { entries, moves })
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

/// The header of a seal with a body of `body_len` bytes.
pub(crate) fn seal_header(body_len: usize, mark: RecordHeader) -> Option<RecordHeader> {
    let body_len = u32::try_from(body_len).ok()?;
    Some(RecordHeader {
        body_len,
        record_len: MARK_LEN + body_len,
        ..mark
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ObjectName;
    use vstack_core::ballot::Ballot;
    use vstack_core::digest::Sha256Digest;
    use vstack_core::id::{ChunkId, VideoId};
    use vstack_core::time::UnixMillis;

    const SALT: u64 = 0x1234_5678;
    const SEALED_AT: u64 = 1 << 20;

    fn entry(seq: u32, kind: RecordKind, reference: Option<Reference>) -> Entry {
        let record_len = MARK_LEN + if reference.is_some() { 80 } else { 0 };
        let mark = RecordHeader::mark(kind, record_len, 4096, UnixMillis(5));
        let name = ObjectName {
            chunk: ChunkId::media(VideoId(Uuid::from_u128(7)), seq),
            ballot: Ballot::from_number(9),
        };
        let header = RecordHeader {
            name: Some(name),
            body_len: if reference.is_some() { 80 } else { 0 },
            ..mark
        };
        Entry {
            position: 4096 * u64::from(seq + 1),
            header,
            reference,
        }
    }

    fn sample() -> (Vec<Entry>, Moves, Vec<u8>) {
        let reference = Reference {
            from_ballot: Ballot::PLAIN,
            superblock: Uuid::from_u128(3),
            position: 4096,
            size_bytes: 5,
            sha256: Sha256Digest::of(b"x"),
        };
        let entries = vec![
            entry(0, RecordKind::Tombstone, None),
            entry(1, RecordKind::Reference, Some(reference)),
        ];
        let moves = Moves::from([((Uuid::from_u128(4), 8192), 4096)]);
        let body = FooterBuilder::with(&entries, SALT)
            .finish(&moves, SEALED_AT, SALT)
            .expect("two entries fit");
        (entries, moves, body)
    }

    #[test]
    fn a_footer_is_read_back_at_its_own_place_only() {
        let (entries, moves, body) = sample();
        let footer = decode(&body, SEALED_AT, SALT).expect("intact");
        assert_eq!((footer.entries, footer.moves), (entries, moves));
        assert!(decode(&body, SEALED_AT + 4096, SALT).is_none());
        assert!(decode(&body, SEALED_AT, SALT + 1).is_none());
        assert_eq!((body.len() + HEADER_LEN) % 4096, 0);
    }

    #[test]
    fn a_footer_with_a_turned_bit_or_cut_short_is_no_footer() {
        let (_, _, body) = sample();
        for bit in 0..body.len() * 8 {
            let mut damaged = body.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged, SEALED_AT, SALT).is_none(), "bit {bit}");
        }
        for len in 0..body.len() {
            assert!(decode(&body[..len], SEALED_AT, SALT).is_none(), "length {len}");
        }
    }

    #[test]
    fn a_footer_that_claims_more_than_it_has_is_no_footer() {
        let (_, _, mut body) = sample();
        let end = body.len() - END_LEN;
        for at in [16, 20] {
            let mut claim = body.clone();
            claim[end + at..end + at + 4].copy_from_slice(&1_000_000_000u32.to_le_bytes());
            let crc = crc32c::crc32c(&claim[..claim.len() - 4]);
            claim[end + 36..].copy_from_slice(&crc.to_le_bytes());
            assert!(decode(&claim, SEALED_AT, SALT).is_none());
        }
        body[0] ^= 1;
        assert!(decode(&body, SEALED_AT, SALT).is_none());
    }
}
