//! What the user set, in `settings.json` of the app's configuration folder. A file that cannot be read changes nothing.

use std::path::Path;

use serde::Deserialize;

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    /// Metadata service of the cluster to use instead of one's own.
    pub(super) metadata_url: Option<String>,
}

impl Settings {
    pub(super) fn read(folder: &Path) -> Self {
        let file = folder.join("settings.json");
        let Ok(text) = std::fs::read(&file) else {
            return Self::default();
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(file = %file.display(), %error, "the settings are not understood and are ignored");
            Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
