//! The corpus: real video files beside the project that the media tests run over.

use std::path::{Path, PathBuf};

use crate::say;

/// Where the tests look for it: `VSTACK_CORPUS`, else `../shared/corpus` from the root.
pub(crate) fn folder(root: &Path) -> PathBuf {
    std::env::var_os("VSTACK_CORPUS").map_or_else(|| root.join("../shared/corpus"), PathBuf::from)
}

/// The last line of a test run: how many files of the corpus were there to be tested.
pub(crate) fn report(root: &Path) {
    match files_present(&folder(root)) {
        0 => say::text("CORPUS NOT RUN\n"),
        count => say::text(&format!("corpus: {count} files\n")),
    }
}

/// Files of `INDEX.tsv` (a header, then one file a line) that exist.
fn files_present(folder: &Path) -> usize {
    let index = std::fs::read_to_string(folder.join("INDEX.tsv")).unwrap_or_default();
    let names = index.lines().skip(1).filter_map(|line| line.split('\t').next());
    names
        .filter(|name| !name.is_empty() && folder.join(name).is_file())
        .count()
}
