//! Copying one record: objects are checked on the way, whatever was checked before.

use std::io;

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkHasher;

use super::plan::{Keep, What};
use crate::disk::read_exact;
use crate::record::{
    FLAG_LOST, HEADER_LEN, MARK_LEN, ObjectName, REFERENCE_RECORD_LEN, RecordHeader, RecordKind, Reference,
    data_tail, leaf_crcs,
};

/// An object's bytes; `None` if they are not what its header says.
///
/// # Errors
/// The disk does not give them back. That is no proof of damage: the next read may succeed.
pub(super) fn read_object(keep: &Keep) -> io::Result<Option<Bytes>> {
    let header = &keep.entry.header;
    let mut body = vec![0; header.body_len as usize];
    let at = keep.entry.position + HEADER_LEN as u64;
    // From the disk: what memory holds may be better than that, and will not outlive the machine.
    keep.source.file.drop_cache(at)?;
    match read_exact(&*keep.source.file, &mut body, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut hasher = ChunkHasher::new();
    hasher.update(&body);
    let (digest, _) = hasher.finish();
    Ok((digest == header.digest()).then(|| Bytes::from(body)))
}

/// A record for the new superblock.
pub(super) struct Copy {
    pub(super) header: RecordHeader,
    pub(super) data: Vec<Bytes>,
    pub(super) tail: Vec<u8>,
}

fn named(header: RecordHeader, ballot: Ballot) -> RecordHeader {
    let name = header.name.map(|name| ObjectName { ballot, ..name });
    RecordHeader { name, ..header }
}

/// The object's record under `ballot`.
pub(super) fn object(keep: &Keep, ballot: Ballot, body: Bytes) -> Copy {
    let header = named(keep.entry.header, ballot);
    let crcs = leaf_crcs(std::slice::from_ref(&body));
    Copy {
        header,
        tail: data_tail(header.body_len, &crcs),
        data: vec![body],
    }
}

/// What stays of an object whose bytes are damaged.
pub(super) fn lost(keep: &Keep, ballot: Ballot) -> Copy {
    let size_bytes = match keep.entry.reference {
        Some(reference) => u32::try_from(reference.size_bytes).unwrap_or(0),
        None if keep.entry.header.kind == RecordKind::Data => keep.entry.header.body_len,
        None => 0,
    };
    let header = RecordHeader {
        kind: RecordKind::Data,
        flags: FLAG_LOST,
        body_len: size_bytes,
        record_len: MARK_LEN,
        ..named(keep.entry.header, ballot)
    };
    Copy {
        header,
        data: Vec::new(),
        tail: Vec::new(),
    }
}

/// A record that names the bytes at `reference` under `ballot`.
pub(super) fn reference(keep: &Keep, ballot: Ballot, reference: Reference) -> Copy {
    let header = RecordHeader {
        kind: RecordKind::Reference,
        flags: 0,
        body_len: REFERENCE_RECORD_LEN - MARK_LEN,
        record_len: REFERENCE_RECORD_LEN,
        ..named(keep.entry.header, ballot)
    };
    Copy {
        header,
        data: Vec::new(),
        tail: reference.encode().to_vec(),
    }
}

/// The tombstone as it was.
pub(super) fn tombstone(keep: &Keep) -> Copy {
    debug_assert!(keep.what == What::Tombstone);
    Copy {
        header: keep.entry.header,
        data: Vec::new(),
        tail: Vec::new(),
    }
}
