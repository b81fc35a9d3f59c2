//! Whose folder this is: the lock, the node's identity, the boot epoch.
//!
//! `LOCK` carries the `flock` that keeps a second process out, and in it the pid and the boot epoch. `node.json` is
//! written once, when the folder is formatted. A folder that has superblocks but no `node.json` is refused: a new
//! identity over old data would make every other node's memory of this one wrong.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vstack_core::id::{Incarnation, NodeId};

use crate::disk::{Disk, DiskFile, OpenMode, read_up_to, write_all};
use crate::error::{DiskFault, StoreError};
use crate::shared::StoreOptions;

/// Version of the folder's layout.
const FORMAT_VERSION: u32 = 1;
const GENERATION_FILE: &str = "generation";
/// Far more than `node.json` or `LOCK` ever have.
const MAX_FILE_BYTES: usize = 4096;

/// Who this node is, and which of its lives this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub node_id: NodeId,
    pub incarnation: Incarnation,
    pub cluster_id: Option<Uuid>,
    /// Grows by one with each start.
    pub boot_epoch: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct NodeFile {
    format_version: u32,
    node_id: NodeId,
    incarnation: Incarnation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster_id: Option<Uuid>,
}

/// The held lock of a data folder.
#[derive(Debug)]
pub(crate) struct FolderLock {
    file: Arc<dyn DiskFile>,
    epoch: u64,
}

impl FolderLock {
    /// Takes the lock and raises the boot epoch that the file holds by one.
    pub(crate) fn take(disk: &dyn Disk, folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("LOCK");
        let fault = |operation| {
            let path = &path;
            move |error| DiskFault::new(operation, path, &error)
        };
        let file = disk.open(&path, OpenMode::WriteOrCreate).map_err(fault("open"))?;
        let (pid, epoch) = read_lock(&*file).map_err(fault("read"))?;
        if !file.try_lock().map_err(fault("lock"))? {
            return Err(StoreError::Locked {
                path: folder.to_owned(),
                pid,
            });
        }
        let mut lock = Self { file, epoch };
        lock.raise_epoch(disk, folder, epoch + 1)?;
        Ok(lock)
    }

    /// Makes sure that no process uses the folder while it is looked at, without changing anything. A copy of a folder
    /// may lack the file.
    pub(crate) fn look(disk: &dyn Disk, folder: &Path) -> Result<Option<Self>, StoreError> {
        let path = folder.join("LOCK");
        let fault = |operation| {
            let path = &path;
            move |error| DiskFault::new(operation, path, &error)
        };
        let file = match disk.open(&path, OpenMode::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(fault("open"))?,
        };
        let (pid, epoch) = read_lock(&*file).map_err(fault("read"))?;
        if !file.try_lock().map_err(fault("lock"))? {
            return Err(StoreError::Locked {
                path: folder.to_owned(),
                pid,
            });
        }
        Ok(Some(Self { file, epoch }))
    }

    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Makes `epoch` durable. Called again when a superblock shows that the file had lost its epoch.
    pub(crate) fn raise_epoch(
        &mut self,
        disk: &dyn Disk,
        folder: &Path,
        epoch: u64,
    ) -> Result<(), StoreError> {
        let path = folder.join("LOCK");
        let text = lock_text(std::process::id(), epoch);
        write_all(&*self.file, &mut [IoSlice::new(text.as_bytes())], 0)
            .and_then(|()| self.file.fsync())
            .and_then(|()| disk.fsync_dir(folder))
            .map_err(|error| DiskFault::new("write", &path, &error))?;
        self.epoch = epoch;
        Ok(())
    }
}

/// Always the same length, so that writing it again never leaves a rest of the older text.
fn lock_text(pid: u32, epoch: u64) -> String {
    format!("pid {pid:010}\nboot_epoch {epoch:020}\n")
}

fn read_lock(file: &dyn DiskFile) -> std::io::Result<(String, u64)> {
    let mut bytes = [0; MAX_FILE_BYTES];
    let read = read_up_to(file, &mut bytes, 0)?;
    let text = String::from_utf8_lossy(&bytes[..read]);
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    let pid = field("pid ").map_or_else(|| "(unknown)".to_owned(), |pid| pid.to_string());
    Ok((pid, field("boot_epoch ").unwrap_or(0)))
}

/// What `node.json` says: the node, its incarnation, its cluster.
type Node = (NodeId, Incarnation, Option<Uuid>);

/// Reads `node.json`, or formats the folder when it is new.
pub(crate) fn load_or_format(
    disk: &dyn Disk,
    folder: &Path,
    has_superblocks: bool,
    options: &StoreOptions,
) -> Result<Node, StoreError> {
    let path = folder.join("node.json");
    let bad = |reason: String| StoreError::BadFolder {
        path: path.clone(),
        reason,
    };
    let node = match disk.open(&path, OpenMode::Read) {
        Ok(file) => read_node_file(&*file, &path)?,
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(DiskFault::new("open", &path, &error).into());
        }
        Err(_) if has_superblocks => {
            return Err(bad("it is missing although the folder holds superblocks".into()));
        }
        Err(_) => format_folder(disk, folder, options)?,
    };
    checked(node, &path, options)
}

/// Reads `node.json` of a folder that was formatted before.
pub(crate) fn load_node(disk: &dyn Disk, folder: &Path, options: &StoreOptions) -> Result<Node, StoreError> {
    let path = folder.join("node.json");
    let file = disk
        .open(&path, OpenMode::Read)
        .map_err(|error| DiskFault::new("open", &path, &error))?;
    checked(read_node_file(&*file, &path)?, &path, options)
}

fn checked(node: NodeFile, path: &Path, options: &StoreOptions) -> Result<Node, StoreError> {
    let bad = |reason: String| StoreError::BadFolder {
        path: path.to_owned(),
        reason,
    };
    if node.format_version != FORMAT_VERSION {
        return Err(bad(format!(
            "format version {} (this program knows {FORMAT_VERSION})",
            node.format_version
        )));
    }
    if let (Some(ours), Some(asked)) = (node.cluster_id, options.cluster_id)
        && ours != asked
    {
        return Err(bad(format!("it belongs to cluster {ours}, not to {asked}")));
    }
    Ok((node.node_id, node.incarnation, node.cluster_id))
}

fn read_node_file(file: &dyn DiskFile, path: &Path) -> Result<NodeFile, StoreError> {
    let mut bytes = [0; MAX_FILE_BYTES];
    let read = read_up_to(file, &mut bytes, 0).map_err(|error| DiskFault::new("read", path, &error))?;
    serde_json::from_slice(&bytes[..read]).map_err(|error| StoreError::BadFolder {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn format_folder(disk: &dyn Disk, folder: &Path, options: &StoreOptions) -> Result<NodeFile, StoreError> {
    let node = NodeFile {
        format_version: FORMAT_VERSION,
        node_id: NodeId((options.new_uuid)()),
        incarnation: Incarnation((options.new_uuid)()),
        cluster_id: options.cluster_id,
    };
    let mut text = serde_json::to_vec_pretty(&node).expect("four plain fields are always JSON");
    text.push(b'\n');
    replace_file(disk, folder, "node.json", &text)?;
    Ok(node)
}

/// The highest generation of the catalogue that the folder remembers; 0 if it never saw one or the file is damaged
/// (the ballots of the stored objects then say how high it must be).
pub(crate) fn load_generation(disk: &dyn Disk, folder: &Path) -> Result<u64, DiskFault> {
    let path = folder.join(GENERATION_FILE);
    let file = match disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(DiskFault::new("open", &path, &error)),
    };
    let mut bytes = [0; MAX_FILE_BYTES];
    let read = read_up_to(&*file, &mut bytes, 0).map_err(|error| DiskFault::new("read", &path, &error))?;
    Ok(String::from_utf8_lossy(&bytes[..read])
        .trim()
        .parse()
        .unwrap_or(0))
}

pub(crate) fn save_generation(disk: &dyn Disk, folder: &Path, generation: u64) -> Result<(), DiskFault> {
    replace_file(
        disk,
        folder,
        GENERATION_FILE,
        format!("{generation}\n").as_bytes(),
    )
}

/// Writes a small file so that after a crash either the old or the new content is there, whole.
pub(crate) fn replace_file(
    disk: &dyn Disk,
    folder: &Path,
    name: &str,
    content: &[u8],
) -> Result<(), DiskFault> {
    let path = folder.join(name);
    let temporary = folder.join(format!("{name}.tmp"));
    let fault = |error| DiskFault::new("write", &path, &error);
    let file = disk.open(&temporary, OpenMode::CreateEmpty).map_err(fault)?;
    write_all(&*file, &mut [IoSlice::new(content)], 0).map_err(fault)?;
    file.fsync().map_err(fault)?;
    disk.rename(&temporary, &path).map_err(fault)?;
    disk.fsync_dir(folder).map_err(fault)
}
