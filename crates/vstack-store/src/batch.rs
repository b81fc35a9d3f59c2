//! A batch on its way to the disk: records get their places, then one write and one sync for all of them.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;

use crate::record::{BATCH_ALIGN, HEADER_LEN, MARK_LEN, RecordHeader, RecordKind};
use crate::staging::Staging;
use crate::superblock::{Superblock, SuperblockHeader};

/// The superblock that is being written. `tail` is its length, all of it durable, and a multiple of 4096.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) superblock: Arc<Superblock>,
    pub(crate) tail: u64,
    /// A watermark or seal on disk says that the file is durable up to here.
    pub(crate) marked: u64,
    pub(crate) staging: Staging,
}

/// A record before it has a place.
pub(crate) struct Record<'a> {
    pub(crate) header: RecordHeader,
    pub(crate) data: &'a [Bytes],
    pub(crate) tail: Vec<u8>,
}

impl Record<'_> {
    pub(crate) const fn mark(header: RecordHeader) -> Self {
        Self {
            header,
            data: &[],
            tail: Vec::new(),
        }
    }
}

/// Where the records of a batch went.
pub(crate) struct Places {
    pub(crate) superblock: u32,
    pub(crate) positions: Vec<u64>,
}

/// Bytes of a batch with its padding.
pub(crate) fn batch_len(records: &[Record<'_>]) -> u64 {
    let bytes = records
        .iter()
        .map(|record| u64::from(record.header.record_len))
        .sum();
    bytes + u64::from(padding_after(bytes))
}

/// Length of the padding record that ends a batch of `bytes`; 0 if it ends at a boundary by itself.
fn padding_after(bytes: u64) -> u32 {
    let gap = bytes.next_multiple_of(BATCH_ALIGN) - bytes;
    let gap = if gap > 0 && gap < u64::from(MARK_LEN) {
        gap + BATCH_ALIGN
    } else {
        gap
    };
    u32::try_from(gap).expect("less than two blocks")
}

/// Content of padding records.
static ZEROS: [u8; 8192] = [0; 8192];
const _: () = assert!(ZEROS.len() as u64 == 2 * BATCH_ALIGN);

impl Active {
    /// Writes and syncs a batch. Every step's failure is final for this file.
    pub(crate) fn append(&mut self, records: &[Record<'_>]) -> Result<Places, (&'static str, io::Error)> {
        let SuperblockHeader { salt, number, .. } = self.superblock.header;
        let mut positions = Vec::with_capacity(records.len());
        let mut headers = Vec::with_capacity(records.len() + 1);
        let mut end = self.tail;
        for record in records {
            let header = RecordHeader {
                durable_upto: self.tail,
                ..record.header
            };
            headers.push(header.encode(end, salt));
            positions.push(end);
            end += u64::from(header.record_len);
        }
        let padding = padding_after(end - self.tail);
        if padding > 0 {
            let stored_at = records
                .first()
                .map(|record| record.header.stored_at)
                .unwrap_or_default();
            let header = RecordHeader::mark(RecordKind::Padding, padding, self.tail, stored_at);
            headers.push(header.encode(end, salt));
            end += u64::from(padding);
        }
        let mut pieces = Vec::new();
        for (header, record) in headers.iter().zip(records) {
            pieces.push(IoSlice::new(header));
            pieces.extend(record.data.iter().map(|piece| IoSlice::new(piece)));
            pieces.push(IoSlice::new(&record.tail));
        }
        if padding > 0 {
            pieces.extend(headers.last().map(|header| IoSlice::new(header)));
            pieces.push(IoSlice::new(&ZEROS[..padding as usize - HEADER_LEN]));
        }
        self.staging
            .write(&*self.superblock.file, &pieces, self.tail)
            .map_err(|cause| ("write", cause))?;
        self.superblock
            .file
            .fdatasync()
            .map_err(|cause| ("sync", cause))?;
        self.tail = end;
        Ok(Places {
            superblock: number,
            positions,
        })
    }
}
