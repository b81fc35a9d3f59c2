//! What the user set, in `settings.json` of the app's configuration folder. A file that cannot be read changes nothing,
//! and is not written over either: it may be of a newer version, or hold what somebody typed.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use vstack_client::PolicyName;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    /// Metadata service of the cluster to use instead of one's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metadata_url: Option<String>,
    /// Who chooses the sources of chunks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<PolicyName>,
}

impl Settings {
    pub(super) fn read(folder: &Path) -> Self {
        let file = file_in(folder);
        match read(&file) {
            Ok(settings) => settings,
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the settings are not understood and are ignored");
                Self::default()
            }
        }
    }
}

/// Where settings are kept. One writer at a time; what others wrote in the meantime stays.
#[derive(Debug)]
pub(super) struct SettingsFile {
    folder: PathBuf,
    writing: Mutex<()>,
}

impl SettingsFile {
    pub(super) const fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            writing: Mutex::new(()),
        }
    }

    /// Changes the settings on disk. Blocks.
    ///
    /// # Errors
    /// They cannot be read, understood or written; nothing has changed then.
    pub(super) fn change(&self, change: impl FnOnce(&mut Settings)) -> io::Result<()> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let file = file_in(&self.folder);
        let before = read(&file)?;
        let mut settings = before.clone();
        change(&mut settings);
        if settings == before {
            return Ok(());
        }
        std::fs::create_dir_all(&self.folder)?;
        replace(&file, &serde_json::to_vec_pretty(&settings)?)
    }

    pub(super) fn path(&self) -> PathBuf {
        file_in(&self.folder)
    }
}

fn file_in(folder: &Path) -> PathBuf {
    folder.join("settings.json")
}

/// The new text comes whole or not at all: it is written beside the file and takes its place.
fn replace(file: &Path, text: &[u8]) -> io::Result<()> {
    let fresh = file.with_extension("json.new");
    let mut opened = std::fs::File::create(&fresh)?;
    opened.write_all(text)?;
    opened.sync_all()?;
    std::fs::rename(fresh, file)
}

/// A file that is not there holds nothing.
fn read(file: &Path) -> io::Result<Settings> {
    match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Settings::default()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_disk(folder: &Path) -> String {
        std::fs::read_to_string(file_in(folder)).unwrap()
    }

    #[test]
    fn settings_are_read_and_broken_ones_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Settings::read(folder.path()), Settings::default());
        let file = folder.path().join("settings.json");
        std::fs::write(&file, r#"{"metadata_url":"http://10.0.0.2:7000"}"#).unwrap();
        assert_eq!(
            Settings::read(folder.path()).metadata_url.as_deref(),
            Some("http://10.0.0.2:7000")
        );
        std::fs::write(&file, r#"{"metadata":1}"#).unwrap();
        assert_eq!(Settings::read(folder.path()), Settings::default());
    }

    #[test]
    fn a_changed_policy_is_read_back_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = SettingsFile::new(folder.path().join("not there yet"));
        file.change(|settings| settings.metadata_url = Some("http://10.0.0.2:7000".into()))
            .unwrap();
        for policy in PolicyName::ALL {
            file.change(|settings| settings.policy = Some(policy)).unwrap();
            let read = Settings::read(&file.folder);
            assert_eq!(read.policy, Some(policy));
            assert_eq!(read.metadata_url.as_deref(), Some("http://10.0.0.2:7000"));
        }
        let left: Vec<_> = std::fs::read_dir(&file.folder).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn settings_that_are_not_understood_are_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            "{\"metadata_url\": ",
            "{\"from_next_year\":1}",
            "{\"policy\":\"fastest\"}",
        ] {
            std::fs::write(file_in(folder.path()), text).unwrap();
            let file = SettingsFile::new(folder.path().to_owned());
            let refused = file.change(|settings| settings.policy = Some(PolicyName::Seed));
            assert!(refused.is_err(), "{text}");
            assert_eq!(on_disk(folder.path()), text);
        }
    }
}
