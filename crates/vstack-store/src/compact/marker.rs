//! The marker of a compaction: the one file whose appearing decides that the new superblock replaces the old ones.
//!
//! `data/superblock_000007.commit` says in JSON, with its CRC32C in the last line, which new superblock
//! (`superblock_000007.dat.new`, complete and synced by then) replaces which old ones. With it the compaction is ended,
//! by the process that ran it or by the next start; without it the new file goes. Both may be repeated at will.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::disk::{Disk, DiskFile, OpenMode, read_up_to};
use crate::error::DiskFault;
use crate::footer;
use crate::identity::replace_file;
use crate::superblock::{SuperblockHeader, file_name, open_header};

const FORMAT: u32 = 1;
/// Far more than a marker ever has.
const MAX_BYTES: usize = 64 * 1024;
pub(super) const EXTENSION: &str = ".commit";

/// An old superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replaced {
    pub(crate) number: u32,
    pub(crate) uuid: Uuid,
    /// Something in it could not be read, so it is set aside instead of removed.
    pub(crate) damaged: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    format: u32,
    /// The new superblock takes the number of the newest that it replaces.
    pub(crate) number: u32,
    pub(crate) uuid: Uuid,
    pub(crate) replaced: Vec<Replaced>,
}

pub(crate) fn new_file_name(number: u32) -> String {
    format!("{}.new", file_name(number))
}

pub(super) fn name(number: u32) -> String {
    file_name(number).replace(".dat", EXTENSION)
}

impl Marker {
    pub(super) fn new(header: &SuperblockHeader, replaced: Vec<Replaced>) -> Self {
        Self {
            format: FORMAT,
            number: header.number,
            uuid: header.uuid,
            replaced,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut text = serde_json::to_string(self).expect("numbers and uuids are always JSON");
        text.push('\n');
        let crc = crc32c::crc32c(text.as_bytes());
        text.push_str(&format!("{crc:08x}\n"));
        text.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (json, crc) = text.trim_end_matches('\n').rsplit_once('\n')?;
        let json = &text[..json.len() + 1];
        if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(json.as_bytes()) {
            return None;
        }
        serde_json::from_str(json)
            .ok()
            .filter(|marker: &Self| marker.format == FORMAT)
    }

    /// Makes the compaction happen: when this returns it will, whatever comes.
    pub(super) fn write(&self, disk: &dyn Disk, data: &Path) -> Result<(), DiskFault> {
        replace_file(disk, data, &name(self.number), &self.encode())
    }

    /// Reads a marker; `None` if it is damaged.
    pub(super) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Self>, DiskFault> {
        let fault = |error| DiskFault::new("read", path, &error);
        let file = disk.open(path, OpenMode::Read).map_err(fault)?;
        let mut bytes = vec![0; MAX_BYTES];
        let read = read_up_to(&*file, &mut bytes, 0).map_err(fault)?;
        Ok(Self::decode(&bytes[..read]))
    }

    /// Whether the new superblock is in the file at `path`, complete.
    ///
    /// # Errors
    /// The file cannot be read, so nothing may be concluded.
    pub(super) fn is_complete_at(&self, disk: &dyn Disk, path: &Path) -> Result<bool, DiskFault> {
        let fault = |error| DiskFault::new("read", path, &error);
        let Some((file, header)) = opened(disk, path).map_err(fault)? else {
            return Ok(false);
        };
        let len = file.size().map_err(fault)?;
        Ok(header.uuid == self.uuid && footer::read(&*file, header.salt, len).is_some())
    }

    /// Puts the new superblock in the place of the old ones. Every step may have been done before.
    pub(super) fn roll_forward(&self, disk: &dyn Disk, folder: &Path) -> Result<(), DiskFault> {
        let data = folder.join("data");
        let new = data.join(new_file_name(self.number));
        let place = data.join(file_name(self.number));
        let fault = |operation, path: &Path| {
            let path: PathBuf = path.to_owned();
            move |error| DiskFault::new(operation, &path, &error)
        };
        let mut set_aside = false;
        for old in self.replaced.iter().filter(|old| old.damaged) {
            let path = data.join(file_name(old.number));
            if uuid_at(disk, &path)? == Some(old.uuid) {
                let name = format!("superblock_{:06}.{}.dat", old.number, old.uuid);
                let kept = super::quarantine(folder).join(name);
                disk.rename(&path, &kept).map_err(fault("set aside", &path))?;
                set_aside = true;
            }
        }
        if set_aside {
            let quarantine = super::quarantine(folder);
            disk.fsync_dir(&quarantine).map_err(fault("sync", &quarantine))?;
        }
        if uuid_at(disk, &new)? == Some(self.uuid) {
            disk.rename(&new, &place).map_err(fault("rename", &new))?;
        }
        if uuid_at(disk, &place)? != Some(self.uuid) {
            let gone = std::io::ErrorKind::NotFound.into();
            return Err(DiskFault::new("find the new superblock at", &place, &gone));
        }
        disk.fsync_dir(&data).map_err(fault("sync", &data))?;
        for old in self.replaced.iter().filter(|old| old.number != self.number) {
            let path = data.join(file_name(old.number));
            if uuid_at(disk, &path)? == Some(old.uuid) {
                disk.remove(&path).map_err(fault("remove", &path))?;
            }
        }
        disk.fsync_dir(&data).map_err(fault("sync", &data))?;
        self.remove(disk, &data)
    }

    pub(super) fn remove(&self, disk: &dyn Disk, data: &Path) -> Result<(), DiskFault> {
        let path = data.join(name(self.number));
        disk.remove(&path)
            .and_then(|()| disk.fsync_dir(data))
            .map_err(|error| DiskFault::new("remove", &path, &error))
    }
}

/// Which superblock the file at `path` is; `None` if there is none.
///
/// # Errors
/// The file cannot be read. That must never look like a file that is gone: old files are removed by what this says.
pub(super) fn uuid_at(disk: &dyn Disk, path: &Path) -> Result<Option<Uuid>, DiskFault> {
    let opened = opened(disk, path).map_err(|error| DiskFault::new("read", path, &error))?;
    Ok(opened.map(|(_, header)| header.uuid))
}

fn opened(disk: &dyn Disk, path: &Path) -> std::io::Result<Option<(Arc<dyn DiskFile>, SuperblockHeader)>> {
    let file = match disk.open(path, OpenMode::Read) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    Ok(open_header(&*file)?.ok().map(|header| (file, header)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_with_a_turned_bit_or_cut_short_is_none() {
        let replaced = Replaced {
            number: 3,
            uuid: Uuid::from_u128(1),
            damaged: true,
        };
        let marker = Marker {
            format: FORMAT,
            number: 3,
            uuid: Uuid::from_u128(2),
            replaced: vec![replaced],
        };
        let bytes = marker.encode();
        assert_eq!(Marker::decode(&bytes), Some(marker.clone()));
        for bit in 0..(bytes.len() - 1) * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read = Marker::decode(&damaged);
            // A letter of the checksum may change its case.
            assert!(read.is_none() || read.as_ref() == Some(&marker), "bit {bit}");
        }
        for len in 0..bytes.len() - 1 {
            assert_eq!(Marker::decode(&bytes[..len]), None, "length {len}");
        }
    }
}
