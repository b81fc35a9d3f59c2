//! Which files of the folder are superblocks of this node.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;
use vstack_core::id::NodeId;

use super::merge::Recovery;
use super::{Mode, RecoveryReport, SkipReason, SkippedFile};
use crate::compact;
use crate::disk::{Disk, OpenMode};
use crate::error::DiskFault;
use crate::superblock::{Superblock, open_header, parse_file_name};

/// A superblock file by its name.
#[derive(Debug, Clone)]
pub(super) struct FileAt {
    pub(super) number: u32,
    pub(super) path: PathBuf,
    name: String,
    is_plain: bool,
}

/// All superblock files, in the order of their numbers. Half-made files (`.tmp`) never held anything acknowledged and go.
pub(super) fn list_superblocks(
    disk: &dyn Disk,
    data: &Path,
    mode: Mode,
    report: &mut RecoveryReport,
) -> Result<Vec<FileAt>, DiskFault> {
    let entries = disk
        .list(data)
        .map_err(|error| DiskFault::new("list", data, &error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = data.join(&entry.name);
        if mode.repair && entry.name.ends_with(".dat.tmp") && entry.is_plain_file {
            disk.remove(&path)
                .map_err(|error| DiskFault::new("remove", &path, &error))?;
        } else if let Some(number) = parse_file_name(&entry.name) {
            files.push(FileAt {
                number,
                path,
                name: entry.name,
                is_plain: entry.is_plain_file,
            });
        }
    }
    if !mode.repair {
        foresee_compactions(disk, data, &mut files)?;
    }
    files.sort_unstable_by_key(|file| file.number);
    for file in files.iter().filter(|file| !file.is_plain) {
        report.skipped.push(SkippedFile {
            name: file.name.clone(),
            reason: SkipReason::NotAFile,
        });
    }
    Ok(files)
}

/// What the next start will find once it has ended the compactions that were interrupted.
fn foresee_compactions(disk: &dyn Disk, data: &Path, files: &mut Vec<FileAt>) -> Result<(), DiskFault> {
    for pending in compact::pending(disk, data)? {
        files.retain(|file| !pending.replaces(file.number));
        let name = pending.file_name();
        files.push(FileAt {
            number: pending.number(),
            path: data.join(&name),
            name,
            is_plain: true,
        });
    }
    Ok(())
}

impl Recovery<'_> {
    pub(super) fn open_files(&mut self, files: &[FileAt], node: NodeId, cluster: Option<Uuid>) {
        let mut uuids = HashMap::new();
        for file in files.iter().filter(|file| file.is_plain) {
            let opened = self.open_file(file).and_then(|superblock| {
                let header = &superblock.header;
                if header.node != node {
                    return Err(SkipReason::OtherNode(header.node));
                }
                if header
                    .cluster
                    .zip(cluster)
                    .is_some_and(|(theirs, ours)| theirs != ours)
                {
                    return Err(SkipReason::OtherCluster);
                }
                match uuids.insert(header.uuid, file.number) {
                    Some(original) => Err(SkipReason::CopyOf(original)),
                    None => Ok(superblock),
                }
            });
            match opened {
                Ok(superblock) => drop(self.superblocks.insert(file.number, Arc::new(superblock))),
                Err(reason) => self.report.skipped.push(SkippedFile {
                    name: file.name.clone(),
                    reason,
                }),
            }
        }
    }

    fn open_file(&self, at: &FileAt) -> Result<Superblock, SkipReason> {
        let path = &at.path;
        let fault = |operation| move |error| SkipReason::Disk(DiskFault::new(operation, path, &error));
        let mode = if self.mode.repair {
            OpenMode::Write
        } else {
            OpenMode::Read
        };
        let file = self.disk.open(path, mode).map_err(fault("open"))?;
        let header = open_header(&*file)
            .map_err(fault("read"))?
            .map_err(SkipReason::Header)?;
        if header.number != at.number {
            return Err(SkipReason::OtherNumber(header.number));
        }
        Ok(Superblock::new(header, path.clone(), file))
    }
}
