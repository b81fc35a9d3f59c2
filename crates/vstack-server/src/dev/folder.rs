//! The folder of a development cluster: its lock, its key, and where its processes are.
//!
//! ```text
//! cluster.lock   held by the supervisor, its pid inside
//! cluster.key    32 random bytes, for the owner alone
//! cluster.json   addresses and pids while the cluster runs
//! metadata/ uploader/ node-1/ node-2/ ...
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rand::TryRngCore as _;
use rustix::fs::{FlockOperation, flock};
use vstack_core::keys::ClusterKey;

use super::state::ClusterState;
use crate::StartError;

const LOCK: &str = "cluster.lock";
const KEY: &str = "cluster.key";
const KEY_BYTES: usize = 32;

/// A locked folder. The lock goes with the process, even one that is killed.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder and its key where they are missing, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, StartError> {
        let made = fs::create_dir_all(path).and_then(|()| path.canonicalize());
        let path = made.map_err(|cause| unusable(path, &cause))?;
        let folder = Self {
            _lock: lock(&path)?,
            path,
        };
        folder.make_key()?;
        Ok(folder)
    }

    pub(super) fn of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn key_file(&self) -> PathBuf {
        self.path.join(KEY)
    }

    /// Under a name that no process is told before the file is complete.
    fn make_key(&self) -> Result<(), StartError> {
        let file = self.key_file();
        if file.exists() {
            return read_key(&file).map(drop);
        }
        let new = self.path.join("cluster.key.new");
        write_random(&new)
            .and_then(|()| fs::rename(&new, &file))
            .map_err(|cause| unusable(&file, &cause))
    }

    /// Replaces the file in one step, so that a reader sees the old one or the new one.
    pub(super) fn write_state(&self, state: &ClusterState) -> Result<(), StartError> {
        let (file, new) = (ClusterState::file(&self.path), self.path.join("cluster.json.new"));
        let text = serde_json::to_vec_pretty(state).map_err(io::Error::other);
        text.and_then(|text| fs::write(&new, text))
            .and_then(|()| fs::rename(&new, &file))
            .map_err(|cause| unusable(&file, &cause))
    }

    pub(super) fn forget_state(&self) {
        // The next start overwrites it anyway.
        let _ = fs::remove_file(ClusterState::file(&self.path));
    }
}

/// Reads a cluster key.
///
/// # Errors
/// The file is missing, unreadable, or no key.
pub fn read_key(file: &Path) -> Result<ClusterKey, StartError> {
    let bytes = fs::read(file).map_err(|cause| unusable(file, &cause))?;
    ClusterKey::from_bytes(&bytes).map_err(|bad| unusable(file, &bad))
}

fn lock(folder: &Path) -> Result<File, StartError> {
    let path = folder.join(LOCK);
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let mut file = opened.map_err(|cause| unusable(&path, &cause))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(StartError::Locked {
                path: folder.display().to_string(),
                pid: pid.trim().to_owned(),
            });
        }
        Err(cause) => return Err(unusable(&path, &cause)),
    }
    note_pid(&mut file).map_err(|cause| unusable(&path, &cause))?;
    Ok(file)
}

fn note_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(std::process::id().to_string().as_bytes())
}

fn write_random(path: &Path) -> io::Result<()> {
    let mut key = [0; KEY_BYTES];
    rand::rngs::OsRng
        .try_fill_bytes(&mut key)
        .map_err(io::Error::other)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&key)?;
    file.sync_all()
}

fn unusable(path: &Path, cause: &dyn std::fmt::Display) -> StartError {
    StartError::Data {
        path: path.display().to_string(),
        reason: cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_key_is_made_once_and_for_the_owner_alone() {
        let data = tempfile::tempdir().unwrap();
        let key = {
            let folder = Folder::open(data.path()).unwrap();
            fs::read(folder.key_file()).unwrap()
        };
        let folder = Folder::open(data.path()).unwrap();
        assert_eq!(fs::read(folder.key_file()).unwrap(), key);
        assert_eq!(
            fs::metadata(folder.key_file()).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_folder_in_use_names_its_user() {
        let data = tempfile::tempdir().unwrap();
        let _held = Folder::open(data.path()).unwrap();
        let StartError::Locked { pid, .. } = Folder::open(data.path()).unwrap_err() else {
            panic!("it was opened twice")
        };
        assert_eq!(pid, std::process::id().to_string());
    }

    #[test]
    fn a_damaged_key_is_refused() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join(KEY), b"short").unwrap();
        assert!(matches!(Folder::open(data.path()), Err(StartError::Data { .. })));
    }
}
