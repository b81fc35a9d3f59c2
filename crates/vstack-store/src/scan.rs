//! Reads what a superblock holds after a start, and tells a torn tail from rot.
//!
//! Let W be the length that the file is known to have had synced: the highest `durable_upto` of any intact header in
//! it. Below W everything was acknowledged, so whatever fails there is rot. From W on there is only the last batch;
//! what fails there and has nothing valid after it is a torn tail, the trace of a crash, and is dropped.
//!
//! - No valid record is ever given up because an earlier one is bad: after a bad header the scan goes on in steps of 8
//!   bytes (batches begin at multiples of 4096, but the neighbours of a bad record may share its batch).
//! - A length is believed only after the header's checksum. One turned bit in a header is turned back (`heal`), so that
//!   the record keeps its name; the place counts as bad all the same.
//! - Bodies below W are not read here: that would take minutes for a full disk. A damaged one shows at its first read,
//!   which checks its SHA-256.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use crate::disk::{DiskFile, read_exact, read_up_to};
use crate::footer;
use crate::heal::heal;
use crate::record::{
    BATCH_ALIGN, HEADER_LEN, MAGIC, RecordHeader, RecordKind, Reference, data_tail, leaf_crcs,
};
use crate::superblock::SUPERBLOCK_HEADER_LEN;

/// Read ahead of the scan. Headers of 2 MiB chunks are far apart, so a larger window would be read in vain.
const WINDOW_BYTES: usize = 16 * 1024;

/// A record whose header is intact.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) position: u64,
    pub(crate) header: RecordHeader,
    /// The header is intact but the rest is not.
    pub(crate) damaged: bool,
}

impl Found {
    const fn end(&self) -> u64 {
        self.position + self.header.record_len as u64
    }

    /// The record with what it refers to.
    pub(crate) fn with_reference(&self, file: &dyn DiskFile) -> footer::Entry {
        let mut body = [0; Reference::LEN];
        let reference = (self.header.kind == RecordKind::Reference)
            .then(|| read_exact(file, &mut body, self.position + HEADER_LEN as u64).ok())
            .flatten()
            .and_then(|()| Reference::decode(&body));
        footer::Entry {
            position: self.position,
            header: self.header,
            reference,
        }
    }
}

/// What a scan found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) records: Vec<Found>,
    /// Ranges in which no header could be read, and whether they were acknowledged (rot) or may not have been.
    pub(crate) bad: Vec<(Range<u64>, bool)>,
    /// The torn tail, if there is one.
    pub(crate) torn: Option<Range<u64>>,
    /// Length of the file known to be synced.
    pub(crate) durable: u64,
    /// Where the next record would go.
    pub(crate) end: u64,
    pub(crate) sealed: bool,
    /// The disk failed to read somewhere, so nothing may be concluded from what is missing.
    pub(crate) read_errors: bool,
    /// The file could not be synced: it may not be written or synced again.
    pub(crate) sync_error: Option<io::Error>,
}

impl Scan {
    /// Whether the writer may go on at [`Scan::end`].
    pub(crate) fn appendable(&self) -> bool {
        self.is_sound() && !self.sealed && self.sync_error.is_none() && self.end.is_multiple_of(BATCH_ALIGN)
    }

    /// Whether every byte up to [`Scan::end`] could be read as a record.
    pub(crate) fn is_sound(&self) -> bool {
        self.bad.is_empty() && !self.read_errors && !self.records.iter().any(|record| record.damaged)
    }

    /// The moves in the footer of a sealed superblock that was scanned all the same.
    pub(crate) fn moves(&self, file: &dyn DiskFile, salt: u64) -> Option<footer::Moves> {
        let seal = self
            .records
            .iter()
            .find(|record| record.header.kind == RecordKind::Seal && record.header.body_len > 0)?;
        Some(read_footer(file, seal, salt).ok()??.moves)
    }
}

impl Scan {
    /// Whether a watermark ends the file, so that no other is needed.
    pub(crate) fn ends_in_watermark(&self) -> bool {
        let last = self
            .records
            .iter()
            .rev()
            .find(|record| record.header.kind != RecordKind::Padding);
        last.is_some_and(|record| record.header.kind == RecordKind::Watermark)
    }
}

/// What is known about a file before it is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// Bytes of the file.
    pub(crate) len: u64,
    /// A later superblock says that only so much of it counts, and that so much was synced.
    pub(crate) abandoned_at: Option<u64>,
}

/// Scans a superblock with `salt`.
///
/// The last batch of a file cannot vouch for itself, so the file is synced and what stands after the durable length is
/// read once more, from the disk and not from the cache. Otherwise a repeated PUT would be told "already stored" about
/// bytes that a power cut takes away; and after a failed sync, which leaves in the cache what is not on the disk, the
/// writer would go on behind a hole. If the sync fails now, what the disk itself gives back counts all the same: the last
/// acknowledged batch is in it, and nothing else vouches for that.
///
/// # Errors
/// What memory holds of the file cannot be dropped, so that nobody knows what is on the disk.
pub(crate) fn scan(file: &dyn DiskFile, salt: u64, extent: Extent) -> io::Result<Scan> {
    let limit = extent.abandoned_at.map_or(extent.len, |at| at.min(extent.len));
    let mut window = Window::new(file, limit);
    let mut walk = Walk::all(&mut window, salt);
    let durable = walk.durable().max(extent.abandoned_at.unwrap_or(0));
    let mut sync_error = None;
    if limit > durable {
        sync_error = file.fdatasync().err();
        file.drop_cache(durable)?;
        let from = walk.cut_at(durable);
        window.forget();
        walk.go_on(&mut window, salt, from);
    }
    let mut scan = finish(file, salt, walk, window.read_errors, limit, durable);
    scan.sync_error = sync_error;
    Ok(scan)
}

/// Checks the bodies of the last batch and divides what failed.
fn finish(
    file: &dyn DiskFile,
    salt: u64,
    mut walk: Walk,
    mut read_errors: bool,
    limit: u64,
    durable: u64,
) -> Scan {
    for record in walk
        .records
        .iter_mut()
        .filter(|record| record.end() > durable.min(limit))
    {
        match body_is_intact(file, salt, record, limit) {
            Ok(intact) => record.damaged = !intact,
            // Not a word about the bytes: the first read will tell.
            Err(_) => read_errors = true,
        }
    }
    let mut scan = Scan {
        records: walk.records,
        durable,
        end: limit,
        read_errors,
        ..Scan::default()
    };
    scan.sort_out(walk.bad, limit);
    scan
}

/// As [`scan`], without a sync: for a look that changes nothing. What it says about the last batch is what the next start
/// will find if no power cut comes in between.
pub(crate) fn scan_unsynced(file: &dyn DiskFile, salt: u64, extent: Extent) -> Scan {
    let limit = extent.abandoned_at.map_or(extent.len, |at| at.min(extent.len));
    let mut window = Window::new(file, limit);
    let walk = Walk::all(&mut window, salt);
    let durable = walk.durable().max(extent.abandoned_at.unwrap_or(0));
    finish(file, salt, walk, window.read_errors, limit, durable)
}

impl Scan {
    /// Divides what failed into rot and torn tail, and drops the tail.
    fn sort_out(&mut self, mut bad: Vec<Range<u64>>, limit: u64) {
        if limit < self.durable {
            // The file has lost its end, and all of it had been acknowledged.
            bad.push(limit..self.durable);
        }
        split_at(&mut bad, self.durable);
        let last_good = self
            .records
            .iter()
            .rev()
            .find(|record| !record.damaged && counts(record.header.kind));
        let settled = last_good.map_or(0, Found::end).max(self.durable);
        let failed = bad.iter().map(|range| range.start);
        let damaged = self
            .records
            .iter()
            .filter(|record| record.damaged)
            .map(|record| record.position);
        let torn_at = failed
            .chain(damaged)
            .filter(|position| *position >= settled)
            .min();
        if let Some(torn_at) = torn_at.filter(|_| !self.read_errors) {
            self.records.retain(|record| record.position < torn_at);
            bad.retain(|range| range.start < torn_at);
            self.torn = Some(torn_at..limit);
            self.end = torn_at;
        }
        let durable = self.durable;
        self.bad = bad
            .into_iter()
            .map(|range| (range.clone(), range.start < durable))
            .collect();
        self.sealed = self
            .records
            .iter()
            .any(|record| record.header.kind == RecordKind::Seal);
    }
}

/// Divides the range that `place` lies in: what is before is rot, what comes after may be a torn tail.
fn split_at(ranges: &mut Vec<Range<u64>>, place: u64) {
    if let Some(at) = ranges
        .iter()
        .position(|range| range.start < place && place < range.end)
    {
        let after = place..ranges[at].end;
        ranges[at].end = place;
        ranges.insert(at + 1, after);
    }
}

/// Whether a record says anything, so that a bad one before it cannot be the tail.
const fn counts(kind: RecordKind) -> bool {
    !matches!(kind, RecordKind::Padding)
}

/// All headers in order, and the ranges that are damaged: between headers, or a header that was healed.
#[derive(Debug, Default)]
struct Walk {
    records: Vec<Found>,
    bad: Vec<Range<u64>>,
}

impl Walk {
    fn all(window: &mut Window<'_>, salt: u64) -> Self {
        let mut walk = Self::default();
        walk.go_on(window, salt, SUPERBLOCK_HEADER_LEN as u64);
        walk
    }

    fn go_on(&mut self, window: &mut Window<'_>, salt: u64, from: u64) {
        let mut position = from;
        while position < window.limit {
            if let Some((header, healed)) = window.header(position, salt) {
                let found = Found {
                    position,
                    header,
                    damaged: false,
                };
                if healed {
                    self.bad.push(position..position + HEADER_LEN as u64);
                }
                self.records.push(found);
                position = found.end();
            } else {
                let next = window.resync(position, salt);
                self.bad.push(position..next);
                position = next;
            }
        }
    }

    /// Length of the file known to be synced. A header is proof even if it is only in the cache itself: it was written
    /// after the sync that it tells of.
    fn durable(&self) -> u64 {
        let marks = self.records.iter().map(|record| record.header.durable_upto);
        marks.max().unwrap_or(0).max(SUPERBLOCK_HEADER_LEN as u64)
    }

    /// Forgets what begins at `end` or later, and returns where the walk stood after the last record that is left. To go on
    /// from there, and not from `end` itself, finds what a walk of the whole file finds: in a file that nobody's writer
    /// made a record may lie across `end`, and the next start would not see what begins inside it.
    fn cut_at(&mut self, end: u64) -> u64 {
        self.records.retain(|record| record.position < end);
        let stood_at = self
            .records
            .last()
            .map_or(SUPERBLOCK_HEADER_LEN as u64, Found::end);
        self.bad.retain(|range| range.start < stood_at);
        stood_at
    }
}

fn body_is_intact(file: &dyn DiskFile, salt: u64, record: &Found, limit: u64) -> io::Result<bool> {
    if record.end() > limit {
        return Ok(false);
    }
    match record.header.kind {
        RecordKind::Data if record.header.is_lost() => Ok(true),
        RecordKind::Data => data_is_intact(file, record),
        RecordKind::Seal if record.header.body_len > 0 => Ok(read_footer(file, record, salt)?.is_some()),
        RecordKind::Reference => {
            let mut body = [0; Reference::LEN];
            read_exact(file, &mut body, record.position + HEADER_LEN as u64)?;
            Ok(Reference::decode(&body).is_some())
        }
        _ => Ok(true),
    }
}

fn read_footer(file: &dyn DiskFile, seal: &Found, salt: u64) -> io::Result<Option<footer::Footer>> {
    let mut body = vec![0; seal.header.body_len as usize];
    read_exact(file, &mut body, seal.position + HEADER_LEN as u64)?;
    Ok(footer::decode(&body, seal.position, salt))
}

/// Checks the leaf checksums of one object; at most 64 MiB, and only for the last batch of a file.
fn data_is_intact(file: &dyn DiskFile, record: &Found) -> io::Result<bool> {
    let len = record.header.body_len;
    let mut body = vec![0; record.header.record_len as usize - HEADER_LEN];
    read_exact(file, &mut body, record.position + HEADER_LEN as u64)?;
    let tail = body.split_off(len as usize);
    Ok(tail == data_tail(len, &leaf_crcs(&[Bytes::from(body)])))
}

/// A sliding view of the file. What the disk cannot read looks like zeros, which are no header.
struct Window<'a> {
    file: &'a dyn DiskFile,
    limit: u64,
    start: u64,
    bytes: Vec<u8>,
    read_errors: bool,
}

impl<'a> Window<'a> {
    const fn new(file: &'a dyn DiskFile, limit: u64) -> Self {
        Self {
            file,
            limit,
            start: 0,
            bytes: Vec::new(),
            read_errors: false,
        }
    }

    /// What was read before may be outdated.
    fn forget(&mut self) {
        self.bytes.clear();
    }

    /// The header at `position`, and whether a bit of it had to be turned back.
    fn header(&mut self, position: u64, salt: u64) -> Option<(RecordHeader, bool)> {
        let bytes: &[u8; HEADER_LEN] = self.view(position)?.first_chunk()?;
        let intact = RecordHeader::decode(bytes, position, salt).ok();
        intact
            .map(|header| (header, false))
            .or_else(|| heal(bytes, position, salt).map(|header| (header, true)))
    }

    /// The first intact header after `position`, or the end of the file.
    fn resync(&mut self, position: u64, salt: u64) -> u64 {
        let mut at = position.next_multiple_of(8);
        loop {
            at += 8;
            let Some(view) = self.view(at) else {
                return self.limit;
            };
            if view[..MAGIC.len()] == MAGIC && self.header(at, salt).is_some() {
                return at;
            }
        }
    }

    /// At least one header's bytes from `position`, unless the file ends before.
    fn view(&mut self, position: u64) -> Option<&[u8]> {
        let end = position
            .checked_add(HEADER_LEN as u64)
            .filter(|end| *end <= self.limit)?;
        if position < self.start || end > self.start + self.bytes.len() as u64 {
            self.load(position);
        }
        let skip = usize::try_from(position - self.start).ok()?;
        self.bytes.get(skip..).filter(|view| view.len() >= HEADER_LEN)
    }

    fn load(&mut self, position: u64) {
        let want = usize::try_from(self.limit - position).map_or(WINDOW_BYTES, |left| left.min(WINDOW_BYTES));
        self.start = position;
        self.bytes.clear();
        self.bytes.resize(want, 0);
        match read_up_to(self.file, &mut self.bytes, position) {
            Ok(read) => self.bytes.truncate(read),
            Err(_) => self.load_in_blocks(position),
        }
    }

    /// Reads what can be read around a bad sector.
    fn load_in_blocks(&mut self, position: u64) {
        self.read_errors = true;
        let mut at = 0;
        while at < self.bytes.len() {
            let from = position + at as u64;
            let to_boundary = BATCH_ALIGN - from % BATCH_ALIGN;
            let block = usize::try_from(to_boundary).map_or(1, |len| len.min(self.bytes.len() - at));
            if read_exact(self.file, &mut self.bytes[at..at + block], from).is_err() {
                self.bytes[at..at + block].fill(0);
            }
            at += block;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::{Disk as _, OpenMode};
    use crate::record::{ObjectName, data_record_len};
    use crate::sim::SimDisk;
    use uuid::Uuid;
    use vstack_core::ballot::Ballot;
    use vstack_core::digest::Sha256Digest;
    use vstack_core::id::{ChunkId, VideoId};
    use vstack_core::time::UnixMillis;

    const SALT: u64 = 99;

    /// A data record at `position` with `body`.
    fn data_record(position: u64, durable_upto: u64, body: &[u8]) -> Vec<u8> {
        let body_len = u32::try_from(body.len()).expect("small");
        let mark = RecordHeader::mark(
            RecordKind::Data,
            data_record_len(body_len),
            durable_upto,
            UnixMillis(1),
        );
        let header = RecordHeader {
            name: Some(ObjectName {
                chunk: ChunkId::media(VideoId(Uuid::from_u128(7)), 1),
                ballot: Ballot::from_number(position),
            }),
            body_len,
            sha256: Sha256Digest::of(body),
            ..mark
        };
        let tail = data_tail(body_len, &leaf_crcs(&[Bytes::copy_from_slice(body)]));
        [&header.encode(position, SALT), body, &tail].concat()
    }

    fn positions(bytes: Vec<u8>) -> Vec<u64> {
        let path = Path::new("/superblock");
        let disk = SimDisk::new().with_file(path, bytes);
        let file = disk.open(path, OpenMode::Write).expect("it is there");
        let extent = Extent {
            len: file.size().expect("a size"),
            abandoned_at: None,
        };
        let found = scan(&*file, SALT, extent).expect("readable");
        let looked_at = scan_unsynced(&*file, SALT, extent);
        let of = |scan: &Scan| scan.records.iter().map(|record| record.position).collect();
        let positions: Vec<u64> = of(&found);
        assert_eq!(
            positions,
            of(&looked_at),
            "a start and a look see the same records"
        );
        positions
    }

    /// No writer makes such a file. But what a start finds in it must not depend on how much of it was known to be synced,
    /// or the next start finds something else.
    #[test]
    fn a_record_across_the_durable_length_is_followed_by_what_follows_it() {
        let inner = data_record(8192, 4096, b"a record in the body of another");
        let mut body = vec![0; 9000];
        let at = 8192 - 4096 - HEADER_LEN;
        body[at..at + inner.len()].copy_from_slice(&inner);
        let outer = data_record(4096, 4096, &body);
        let next_at = 4096 + outer.len() as u64;
        let next = data_record(next_at, 8192, b"it says that 8192 bytes are durable");
        let file = [&vec![0; 4096][..], &outer, &next].concat();
        assert_eq!(positions(file), [4096, next_at]);
    }
}
