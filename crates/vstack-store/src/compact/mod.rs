//! Compaction: the live records of old superblocks move into a new one, and the room of the dead ones is free again.
//!
//! Sources are closed superblocks of which more than 30 % is dead. Their live records are copied, each object checked
//! against its SHA-256 on the way, into `superblock_N.dat.new`, which is sealed and synced. Then a marker makes the
//! exchange happen ([`marker`]), whatever comes; the files change places, and the index follows in one step between two
//! batches of the writer. Readers that have an old file open keep it until they are done.
//!
//! - Every (chunk, ballot) that is not deleted keeps its bytes. Names that share bytes go on sharing them.
//! - A damaged object keeps its name as a *lost* record, and its old file goes to `quarantine/` instead of away.
//! - A tombstone stays until nothing on this node can hold its name and the caller knows that the delete is confirmed.
//! - Nothing starts without room, and a failure before the marker leaves the sources as they were.

mod choose;
mod copy;
mod exchange;
mod marker;
mod plan;
mod run;

use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::disk::Disk;
use crate::error::DiskFault;
use crate::superblock::parse_file_name;
use marker::{EXTENSION, Marker};

pub(crate) use plan::records_of;
pub use run::{Compacted, Compaction, CompactionStep, Forgettable};

/// Where superblocks are set aside; nothing is ever removed from there.
pub(crate) fn quarantine(folder: &Path) -> PathBuf {
    folder.join("quarantine")
}

/// A compaction that was decided and whose files have not changed places yet.
#[derive(Debug)]
pub(crate) struct Pending {
    marker: Marker,
    renamed: bool,
}

impl Pending {
    pub(crate) const fn number(&self) -> u32 {
        self.marker.number
    }

    pub(crate) fn replaces(&self, number: u32) -> bool {
        self.marker.replaced.iter().any(|old| old.number == number)
    }

    /// Where the new superblock is now.
    pub(crate) fn file_name(&self) -> String {
        if self.renamed {
            crate::superblock::file_name(self.marker.number)
        } else {
            marker::new_file_name(self.marker.number)
        }
    }
}

/// The compactions that the next start will end.
///
/// # Errors
/// The folder or a marker cannot be read.
pub(crate) fn pending(disk: &dyn Disk, data: &Path) -> Result<Vec<Pending>, DiskFault> {
    let mut pending = Vec::new();
    for name in names(disk, data)? {
        if name.ends_with(EXTENSION) {
            let marker = Marker::read(disk, &data.join(&name))?;
            if let Some(marker) = marker {
                pending.extend(decided(disk, data, marker)?);
            }
        }
    }
    Ok(pending)
}

/// A marker counts if the new superblock is there as a whole.
fn decided(disk: &dyn Disk, data: &Path, marker: Marker) -> Result<Option<Pending>, DiskFault> {
    let new = data.join(marker::new_file_name(marker.number));
    let place = data.join(crate::superblock::file_name(marker.number));
    let renamed = marker.is_complete_at(disk, &place)?;
    let counts = renamed || marker.is_complete_at(disk, &new)?;
    Ok(counts.then_some(Pending { marker, renamed }))
}

fn names(disk: &dyn Disk, data: &Path) -> Result<Vec<String>, DiskFault> {
    let entries = disk
        .list(data)
        .map_err(|error| DiskFault::new("list", data, &error))?;
    Ok(entries
        .into_iter()
        .filter(|entry| entry.is_plain_file)
        .map(|entry| entry.name)
        .collect())
}

/// Ends the compactions that a crash interrupted: forward where the marker stands, back where it does not.
///
/// # Errors
/// A disk that refuses. Nothing is lost then; the next start tries again.
pub(crate) fn settle(disk: &dyn Disk, folder: &Path) -> Result<(), DiskFault> {
    let data = folder.join("data");
    for pending in pending(disk, &data)? {
        let Marker { number, replaced, .. } = &pending.marker;
        info!(
            superblock = number,
            replaced = replaced.len(),
            "an interrupted compaction is ended"
        );
        pending.marker.roll_forward(disk, folder)?;
    }
    let names = names(disk, &data)?;
    let mut kept = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(EXTENSION)) {
        if sources_are_there(disk, &data, name)? {
            remove(disk, &data, name)?;
        } else {
            warn!(
                name,
                "a compaction whose new superblock is damaged is left as it is"
            );
            kept.push(name.replace(EXTENSION, ".dat.new"));
        }
    }
    for name in names {
        let half_made = name.ends_with(".commit.tmp")
            || name
                .strip_suffix(".new")
                .is_some_and(|name| parse_file_name(name).is_some());
        if half_made && !kept.contains(&name) {
            remove(disk, &data, &name)?;
        }
    }
    Ok(())
}

fn remove(disk: &dyn Disk, data: &Path, name: &str) -> Result<(), DiskFault> {
    let path = data.join(name);
    disk.remove(&path)
        .map_err(|error| DiskFault::new("remove", &path, &error))
}

/// Whether a marker that does not count can go: everything that it would have replaced is still there.
fn sources_are_there(disk: &dyn Disk, data: &Path, name: &str) -> Result<bool, DiskFault> {
    let Some(marker) = Marker::read(disk, &data.join(name))? else {
        return Ok(true);
    };
    for old in &marker.replaced {
        let path = data.join(crate::superblock::file_name(old.number));
        if marker::uuid_at(disk, &path)? != Some(old.uuid) {
            return Ok(false);
        }
    }
    Ok(true)
}
