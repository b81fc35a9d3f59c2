//! Writes and checks `ui/src/generated`. `TS_RS_EXPORT_DIR=DIR cargo test -p vstack-player export_bindings` writes
//! the files to `DIR`; without the variable the same test compares the committed files with the types.

use std::collections::BTreeMap;
use std::path::Path;

use ts_rs::{Config, ExportError, TS};

use crate::dto;

/// First line of every generated file.
const NOTE: &str = "// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.\n";

/// All files by name, with their text.
fn generated() -> Result<BTreeMap<String, String>, ExportError> {
    let folder = tempfile::tempdir().map_err(ExportError::Io)?;
    // JSON numbers: every u64 here is far below 2^53.
    let config = Config::new().with_large_int("number").with_out_dir(folder.path());
    dto::LibraryPage::export_all(&config)?;
    dto::LibrarySort::export_all(&config)?;
    dto::ClusterState::export_all(&config)?;
    dto::UploadItem::export_all(&config)?;
    dto::Playback::export_all(&config)?;
    dto::SourcePolicy::export_all(&config)?;
    dto::NodePanel::export_all(&config)?;
    dto::Report::export_all(&config)?;
    dto::VideoRect::export_all(&config)?;
    let mut files = read_folder(folder.path()).map_err(ExportError::Io)?;
    for text in files.values_mut() {
        let body = text.split_once('\n').map_or(text.as_str(), |(_, body)| body);
        let body: Vec<&str> = body.lines().map(str::trim_end).collect();
        *text = format!("{NOTE}{}\n", body.join("\n"));
    }
    let names: Vec<&str> = files.keys().filter_map(|name| name.strip_suffix(".ts")).collect();
    let index: String = names
        .iter()
        .map(|name| format!("export type {{ {name} }} from \"./{name}\";\n"))
        .collect();
    files.insert("index.ts".into(), format!("{NOTE}{index}"));
    Ok(files)
}

fn read_folder(folder: &Path) -> std::io::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        files.insert(
            entry.file_name().to_string_lossy().into_owned(),
            std::fs::read_to_string(entry.path())?,
        );
    }
    Ok(files)
}

#[test]
fn export_bindings() {
    let expected = generated().unwrap();
    if let Some(folder) = std::env::var_os("TS_RS_EXPORT_DIR") {
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in &expected {
            std::fs::write(Path::new(&folder).join(name), text).unwrap();
        }
        return;
    }
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ui/src/generated");
    let found = read_folder(&committed).unwrap();
    assert!(
        found == expected,
        "ui/src/generated is stale: run TS_RS_EXPORT_DIR=$PWD/ui/src/generated cargo test -p vstack-player export_bindings"
    );
}
