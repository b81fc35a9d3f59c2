//! The index snapshot: a cache of what closed superblocks hold, so that a start need not read them. It may always be
//! deleted.
//!
//! It says which closed superblocks it was made of, by uuid, length and the length that counted. It is believed only if
//! each of them is still there like that and no other file stands before the last of them; then it stands for exactly
//! these, and every later file is read. It is never made while any superblock is damaged. The two newest are kept.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `VSINDEX1` |
//! | 8 | 4 | format, 1 |
//! | 12 | 4 | superblocks |
//! | 16 | 8 | entries |
//! | 24 | 16 | node id |
//! | 40 | 40 each | superblock: number u32, zero u32, uuid, length of the file, length that counts |
//! | | 48 each | entry: key 24 B, ballot, superblock u32, position / 8 u32, size u32, state u8 (0 live, 1 deleted, 2 corrupt), 1 if by reference u8, zero u16 |
//! | | 4 | CRC32C of everything before |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};
use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, NodeId};
use vstack_core::limits::MAX_CHUNK_BYTES;

use crate::disk::{Disk, OpenMode, read_exact};
use crate::error::DiskFault;
use crate::identity::replace_file;
use crate::index::{Location, ObjectState};
use crate::read::read_header;
use crate::record::{ObjectName, RecordKind, array_at, u32_at, u64_at};
use crate::shared::Shared;
use crate::superblock::Superblock;

const MAGIC: [u8; 8] = *b"VSINDEX1";
const FORMAT: u32 = 1;
const HEAD_LEN: usize = 40;
const COVER_LEN: usize = 40;
const ENTRY_LEN: usize = 48;
const KEPT: usize = 2;
/// Entries copied under one hold of the index.
const PAGE: usize = 4096;

/// A superblock that a snapshot was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cover {
    number: u32,
    uuid: Uuid,
    len: u64,
    upto: u64,
}

/// A snapshot that fits the folder.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Numbers of the superblocks that it stands for, and the length of each that counts.
    pub(crate) covers: Vec<(u32, u64)>,
    pub(crate) entries: Vec<(ObjectName, Location)>,
}

/// Where snapshots are kept.
pub(crate) fn folder(node: &Path) -> PathBuf {
    node.join("index")
}

fn parse_name(name: &str) -> Option<u64> {
    name.strip_prefix("chunk_index.")?
        .strip_suffix(".snap")?
        .parse()
        .ok()
}

/// Snapshots in the folder, newest first.
fn list(disk: &dyn Disk, folder: &Path) -> std::io::Result<Vec<(u64, String)>> {
    let entries = disk.list(folder)?.into_iter();
    let mut found: Vec<_> = entries
        .filter(|entry| entry.is_plain_file)
        .filter_map(|entry| Some((parse_name(&entry.name)?, entry.name)))
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// The newest snapshot of `node` that fits `superblocks`. Whatever is wrong with one, it is ignored.
pub(crate) fn load(
    disk: &dyn Disk,
    node_folder: &Path,
    node: NodeId,
    superblocks: &BTreeMap<u32, Arc<Superblock>>,
) -> Option<Snapshot> {
    let folder = folder(node_folder);
    let names = list(disk, &folder).ok()?;
    names.into_iter().find_map(|(_, name)| {
        let loaded = read(disk, &folder.join(&name))
            .and_then(|bytes| decode(&bytes, node))
            .and_then(|(covers, entries)| fit(covers, entries, superblocks));
        match loaded {
            Ok(snapshot) => Some(snapshot),
            Err(reason) => {
                info!(name, reason, "index snapshot ignored");
                None
            }
        }
    })
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, &'static str> {
    let unreadable = |_| "it cannot be read";
    let file = disk.open(path, OpenMode::Read).map_err(unreadable)?;
    let len = usize::try_from(file.size().map_err(unreadable)?).map_err(|_| "it is too large")?;
    let mut bytes = vec![0; len];
    read_exact(&*file, &mut bytes, 0).map_err(unreadable)?;
    Ok(bytes)
}

type Decoded = (Vec<Cover>, Vec<(ObjectName, Location)>);

fn decode(bytes: &[u8], node: NodeId) -> Result<Decoded, &'static str> {
    let body = bytes
        .len()
        .checked_sub(4)
        .filter(|len| *len >= HEAD_LEN)
        .ok_or("it is too short")?;
    if bytes[..8] != MAGIC {
        return Err("it is no snapshot");
    }
    if crc32c::crc32c(&bytes[..body]) != u32_at(bytes, body) {
        return Err("it fails its checksum");
    }
    if u32_at(bytes, 8) != FORMAT {
        return Err("another version wrote it");
    }
    if NodeId(Uuid::from_bytes(array_at(bytes, 24))) != node {
        return Err("it belongs to another node");
    }
    let covers_len = u64::from(u32_at(bytes, 12)) * COVER_LEN as u64;
    let entries_len = u64_at(bytes, 16).checked_mul(ENTRY_LEN as u64);
    let expected = entries_len.and_then(|len| len.checked_add(covers_len + HEAD_LEN as u64));
    if expected != Some(body as u64) {
        return Err("it does not have the length it claims");
    }
    let entries_at = HEAD_LEN + u32_at(bytes, 12) as usize * COVER_LEN;
    let covers = bytes[HEAD_LEN..entries_at].chunks_exact(COVER_LEN);
    let entries = bytes[entries_at..body].chunks_exact(ENTRY_LEN);
    let entries = entries.map(decode_entry).collect::<Option<Vec<_>>>();
    Ok((
        covers.map(decode_cover).collect(),
        entries.ok_or("it has an entry that makes no sense")?,
    ))
}

fn decode_cover(bytes: &[u8]) -> Cover {
    Cover {
        number: u32_at(bytes, 0),
        uuid: Uuid::from_bytes(array_at(bytes, 8)),
        len: u64_at(bytes, 24),
        upto: u64_at(bytes, 32),
    }
}

fn decode_entry(bytes: &[u8]) -> Option<(ObjectName, Location)> {
    let name = ObjectName {
        chunk: ChunkId::from_bytes(&array_at(bytes, 0)).ok()?,
        ballot: Ballot::from_number(u64_at(bytes, 24)),
    };
    let state = match bytes[44] {
        0 => ObjectState::Unchecked,
        1 => ObjectState::Deleted,
        2 => ObjectState::Corrupt,
        _ => return None,
    };
    let size_bytes = u32_at(bytes, 40);
    if u64::from(size_bytes) > MAX_CHUNK_BYTES {
        return None;
    }
    let location = Location {
        superblock: u32_at(bytes, 32),
        offset_words: u32_at(bytes, 36),
        size_bytes,
        state,
        by_reference: bytes[45] == 1,
    };
    Some((name, location))
}

/// Whether the files are those that the snapshot was made of.
fn fit(
    covers: Vec<Cover>,
    entries: Vec<(ObjectName, Location)>,
    superblocks: &BTreeMap<u32, Arc<Superblock>>,
) -> Result<Snapshot, &'static str> {
    let first: Vec<_> = superblocks.iter().take(covers.len()).collect();
    if first.len() != covers.len() {
        return Err("a superblock of it is gone");
    }
    for (cover, (number, superblock)) in covers.iter().zip(first) {
        let len = superblock
            .file
            .size()
            .map_err(|_| "a superblock cannot be measured")?;
        let same = cover.number == *number && cover.uuid == superblock.header.uuid && cover.len == len;
        if !same || cover.upto > len {
            return Err("a superblock of it has changed");
        }
    }
    let Some(last) = covers.last().map(|cover| cover.number) else {
        return Err("it stands for no superblock");
    };
    // What newer files say is read from them.
    let entries = entries
        .into_iter()
        .filter(|(_, location)| location.superblock <= last)
        .collect();
    Ok(Snapshot {
        covers: covers.iter().map(|cover| (cover.number, cover.upto)).collect(),
        entries,
    })
}

impl Shared {
    /// Writes a snapshot of the closed superblocks and removes all but the two newest; false if there is nothing that one
    /// can stand for. Not while a compaction is being published.
    pub(crate) fn save_snapshot(&self) -> Result<bool, DiskFault> {
        let Some(covers) = self.covers()? else {
            return Ok(false);
        };
        let bytes = self.encode_snapshot(&covers);
        let disk = &*self.options.disk;
        let folder = folder(self.folder());
        let fault = |error| DiskFault::new("write the index snapshot in", &folder, &error);
        let old = list(disk, &folder).map_err(fault)?;
        let number = old.first().map_or(1, |(newest, _)| newest.saturating_add(1));
        replace_file(disk, &folder, &format!("chunk_index.{number:010}.snap"), &bytes)?;
        for (_, name) in old.into_iter().skip(KEPT - 1) {
            disk.remove(&folder.join(name)).map_err(fault)?;
        }
        Ok(true)
    }

    /// The closed superblocks before the first open one, if all is well with all of them.
    fn covers(&self) -> Result<Option<Vec<Cover>>, DiskFault> {
        let superblocks = self.superblocks();
        if self.unread_files > 0 || superblocks.iter().any(|superblock| superblock.is_damaged()) {
            return Ok(None);
        }
        let closed = superblocks.iter().take_while(|superblock| superblock.is_closed());
        let covers: Vec<Cover> = closed
            .map(|superblock| {
                let len = superblock
                    .file
                    .size()
                    .map_err(|error| DiskFault::new("measure", &superblock.path, &error))?;
                Ok(Cover {
                    number: superblock.header.number,
                    uuid: superblock.header.uuid,
                    len,
                    upto: superblock.durable(),
                })
            })
            .collect::<Result<_, DiskFault>>()?;
        Ok(Some(covers).filter(|covers| !covers.is_empty()))
    }

    fn encode_snapshot(&self, covers: &[Cover]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(u32::try_from(covers.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(self.identity.node_id.0.as_bytes());
        for cover in covers {
            bytes.extend(cover.number.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(cover.uuid.as_bytes());
            bytes.extend(cover.len.to_le_bytes());
            bytes.extend(cover.upto.to_le_bytes());
        }
        let mut count: u64 = 0;
        let mut after = None;
        loop {
            let page = self.index().after(after, PAGE);
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            count += page.len() as u64;
            for (name, location) in page {
                let state = self.lasting_state(location);
                bytes.extend(name.chunk.to_bytes());
                bytes.extend(name.ballot.number().to_le_bytes());
                bytes.extend(location.superblock.to_le_bytes());
                bytes.extend(location.offset_words.to_le_bytes());
                bytes.extend(location.size_bytes.to_le_bytes());
                bytes.extend([state, u8::from(location.by_reference), 0, 0]);
            }
        }
        bytes[16..24].copy_from_slice(&count.to_le_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        bytes
    }

    /// What a start would say about an object from its record's header: damage that a read found is found again.
    fn lasting_state(&self, location: Location) -> u8 {
        match location.state {
            ObjectState::Unchecked | ObjectState::Checked => 0,
            ObjectState::Deleted => 1,
            ObjectState::Corrupt => {
                let superblock = self.superblock(location.superblock);
                let header =
                    superblock.and_then(|superblock| read_header(&superblock, location.offset()).ok());
                let lost = header.is_some_and(|header| header.is_lost() || header.kind != RecordKind::Data);
                if lost { 2 } else { 0 }
            }
        }
    }

    /// As [`Shared::save_snapshot`], for those to whom it is a mere cache.
    pub(crate) fn try_save_snapshot(&self) {
        if let Err(fault) = self.save_snapshot() {
            warn!(%fault, "no index snapshot; the next start reads more");
        }
    }
}
