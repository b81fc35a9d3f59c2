//! The checker: what the next start would say about a folder, or what every byte of it says, without changing anything.

use std::path::Path;

use serde::Serialize;
use vstack_core::ballot::Ballot;
use vstack_core::id::ChunkId;

use crate::error::StoreError;
use crate::index::ObjectState;
use crate::read::ReadFault;
use crate::recover::{Inspected, RecoveryReport, inspect};
use crate::shared::StoreOptions;
use crate::verify;

/// How far a check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckDepth {
    /// As far as a start: footers and snapshots are believed where they may be, bodies are not read.
    AsAtStart,
    /// Every header, whatever footers and snapshots say, and every byte of every object.
    EveryByte,
}

/// An object whose record is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damaged {
    pub chunk: ChunkId,
    pub ballot: Ballot,
    pub superblock: u32,
    pub offset: u64,
    pub reason: String,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checkup {
    pub report: RecoveryReport,
    /// Objects that are not deleted.
    pub objects: u64,
    pub stored_bytes: u64,
    /// Bytes of objects that were read and compared; 0 unless every byte was asked for.
    pub checked_bytes: u64,
    /// What reading every byte found beyond the report.
    pub damaged: Vec<Damaged>,
}

impl Checkup {
    /// Whether nothing is damaged or left aside. A torn tail is no damage.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.report.is_clean() && self.damaged.is_empty()
    }
}

/// A line of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct IndexLine {
    pub chunk: ChunkId,
    pub ballot: Ballot,
    pub superblock: u32,
    /// Of the record's header in the file.
    pub offset: u64,
    pub size_bytes: u32,
    pub state: ObjectState,
    /// The record was written for another ballot; a reference record names it for this one.
    pub by_reference: bool,
}

/// Checks a folder that no process uses.
///
/// # Errors
/// It is in use, is no data folder of a version that this one knows, or the disk does not answer: nothing can be said.
pub fn fsck(folder: &Path, options: &StoreOptions, depth: CheckDepth) -> Result<Checkup, StoreError> {
    let inspected = inspect(folder, options, depth == CheckDepth::AsAtStart)?;
    let (objects, stored_bytes, _) = inspected.index.totals();
    let mut checkup = Checkup {
        report: inspected.report.clone(),
        objects,
        stored_bytes,
        checked_bytes: 0,
        damaged: Vec::new(),
    };
    if depth == CheckDepth::EveryByte {
        read_everything(&inspected, &mut checkup);
    }
    Ok(checkup)
}

fn read_everything(inspected: &Inspected, checkup: &mut Checkup) {
    for (name, location) in inspected.index.after(None, usize::MAX) {
        if matches!(location.state, ObjectState::Deleted | ObjectState::Corrupt) {
            continue;
        }
        let read = match inspected.superblocks.get(&location.superblock) {
            Some(superblock) => verify::object(superblock, name, location),
            None => Err(ReadFault::Damaged("its file is missing")),
        };
        match read {
            Ok(bytes) => checkup.checked_bytes += bytes,
            Err(fault) => checkup.damaged.push(Damaged {
                chunk: name.chunk,
                ballot: name.ballot,
                superblock: location.superblock,
                offset: location.offset(),
                reason: match fault {
                    ReadFault::Damaged(reason) => reason.to_owned(),
                    ReadFault::Disk(error) => error.to_string(),
                },
            }),
        }
    }
}

/// The index that the next start would build, ordered by chunk and ballot, tombstones included.
///
/// # Errors
/// As [`fsck`].
pub fn read_index(
    folder: &Path,
    options: &StoreOptions,
    depth: CheckDepth,
) -> Result<Vec<IndexLine>, StoreError> {
    let inspected = inspect(folder, options, depth == CheckDepth::AsAtStart)?;
    let lines = inspected.index.after(None, usize::MAX).into_iter();
    Ok(lines
        .map(|(name, location)| IndexLine {
            chunk: name.chunk,
            ballot: name.ballot,
            superblock: location.superblock,
            offset: location.offset(),
            size_bytes: location.size_bytes,
            state: location.state,
            by_reference: location.by_reference,
        })
        .collect())
}
