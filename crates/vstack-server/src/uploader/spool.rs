//! The spool: originals on disk while they become videos, and for seven days after they failed to.
//!
//! A job has up to two files, named by its id and never by anything a user said: `{id}.original` and `{id}.json`, the
//! note from which a restarted uploader learns what to go on with and what to tidy up. Both are synced before the client
//! is told that its file is here.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vstack_core::id::VideoId;
use vstack_core::limits::SPOOL_KEEP_MS;
use vstack_core::time::UnixMillis;

use crate::role::StartError;

/// Extension of a note that is being written.
const FRESH_NOTE: &str = "fresh";

/// The folder `spool` of the role's data, locked for this process.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    /// Held for as long as the role lives; the system frees it with the process.
    _lock: File,
}

/// What is known of an original on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) job_id: String,
    pub(super) video_id: VideoId,
    pub(super) title: String,
    /// The catalogue may still have rows and chunks of it.
    pub(super) must_abort: bool,
    /// All of the original is on disk: a restart goes on with it.
    #[serde(default)]
    pub(super) received: bool,
    /// Another uploader had stored chunks of this video before. It is not ours to abort.
    #[serde(default)]
    pub(super) joined: bool,
    /// How often a start of the role has taken it up.
    #[serde(default)]
    pub(super) starts: u32,
    /// When it failed; `None` while it is worked on.
    pub(super) failed_at: Option<UnixMillis>,
    /// Code of the failure.
    pub(super) code: Option<String>,
}

impl Spool {
    /// Opens and locks the folder.
    pub(super) fn open(data: &Path) -> Result<Self, StartError> {
        let folder = data.join("spool");
        let problem = |error: io::Error| StartError::Data {
            path: data.display().to_string(),
            reason: error.to_string(),
        };
        fs::create_dir_all(&folder).map_err(problem)?;
        let lock = lock(data)?;
        Ok(Self { folder, _lock: lock })
    }

    pub(super) fn original(&self, job_id: &str) -> PathBuf {
        self.folder.join(format!("{job_id}.original"))
    }

    fn note_path(&self, job_id: &str) -> PathBuf {
        self.folder.join(format!("{job_id}.json"))
    }

    /// Replaces a job's note. On return it is durable, and so is the name of its original.
    pub(super) fn write_note(&self, note: &Note) -> io::Result<()> {
        let path = self.note_path(&note.job_id);
        let fresh = path.with_extension(FRESH_NOTE);
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(note)?)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// How long an original is; `None` when it is not here.
    pub(super) fn original_bytes(&self, job_id: &str) -> Option<u64> {
        fs::metadata(self.original(job_id)).ok().map(|facts| facts.len())
    }

    /// Removes what was received of a file; its note stays.
    pub(super) fn remove_original(&self, job_id: &str) -> io::Result<()> {
        match fs::remove_file(self.original(job_id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes a job's files; those that are not there are no matter.
    pub(super) fn remove(&self, job_id: &str) -> io::Result<()> {
        for path in [self.original(job_id), self.note_path(job_id)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes of all jobs on disk. Files that no note names are what a crash left of a file being received: removed.
    pub(super) fn notes(&self) -> io::Result<Vec<Note>> {
        let mut notes = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                match serde_json::from_slice(&fs::read(&path)?) {
                    Ok(note) => notes.push(note),
                    Err(_) => fs::remove_file(&path)?,
                }
            }
        }
        Ok(notes)
    }

    /// Removes originals that no note names.
    pub(super) fn remove_strays(&self, notes: &[Note]) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let stem = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            let half_written = path.extension().is_some_and(|extension| extension == FRESH_NOTE);
            if half_written || !notes.iter().any(|note| note.job_id == stem) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

impl Note {
    /// Whether its seven days are over.
    pub(super) fn is_over(&self, now: UnixMillis) -> bool {
        self.failed_at
            .is_some_and(|failed_at| now.since(failed_at) > SPOOL_KEEP_MS)
    }
}

/// Locks `{data}/lock` and writes our process id into it; a second uploader on the folder is told that id.
fn lock(data: &Path) -> Result<File, StartError> {
    let path = data.join("lock");
    let problem = |error: io::Error| StartError::Data {
        path: data.display().to_string(),
        reason: error.to_string(),
    };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(problem)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(problem)?;
            return Err(StartError::Locked {
                path: data.display().to_string(),
                pid: pid.trim().to_owned(),
            });
        }
        Err(fs::TryLockError::Error(error)) => return Err(problem(error)),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(problem)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn note(job_id: &str, failed_at: Option<u64>) -> Note {
        Note {
            job_id: job_id.to_owned(),
            video_id: VideoId(Uuid::from_u128(1)),
            title: "title".to_owned(),
            must_abort: true,
            received: false,
            joined: false,
            starts: 0,
            failed_at: failed_at.map(UnixMillis),
            code: None,
        }
    }

    #[test]
    fn a_folder_in_use_names_the_process() {
        let data = tempfile::tempdir().unwrap();
        let _first = Spool::open(data.path()).unwrap();
        let second = Spool::open(data.path()).unwrap_err();
        assert!(matches!(second, StartError::Locked { pid, .. } if pid == std::process::id().to_string()));
    }

    #[test]
    fn what_a_crash_left_is_found_and_strays_are_removed() {
        let data = tempfile::tempdir().unwrap();
        let spool = Spool::open(data.path()).unwrap();
        fs::write(spool.original("kept"), b"bytes").unwrap();
        fs::write(spool.original("stray"), b"bytes").unwrap();
        spool.write_note(&note("kept", None)).unwrap();
        fs::write(spool.note_path("broken"), b"{").unwrap();
        fs::write(spool.note_path("kept").with_extension(FRESH_NOTE), b"{").unwrap();
        let notes = spool.notes().unwrap();
        assert_eq!(notes, [note("kept", None)]);
        spool.remove_strays(&notes).unwrap();
        assert!(spool.original("kept").exists() && !spool.original("stray").exists());
        spool.remove("kept").unwrap();
        spool.remove("kept").unwrap();
        assert_eq!(fs::read_dir(&spool.folder).unwrap().count(), 0);
    }

    #[test]
    fn an_original_is_kept_for_seven_days_after_its_failure() {
        let day = 24 * 3_600_000;
        assert!(!note("a", Some(0)).is_over(UnixMillis(7 * day)));
        assert!(note("a", Some(0)).is_over(UnixMillis(7 * day + 1)));
        assert!(!note("a", None).is_over(UnixMillis(100 * day)));
    }
}
