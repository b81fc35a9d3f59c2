//! What the store's tests share: a folder that can be opened again, names, and bytes that can be made again.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test file uses its part"
)]

pub mod small;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
pub use vstack_store::sim::{bytes_of, chunk};
use vstack_store::{RecoveryReport, Reserve, Store, StoreError, StoreOptions};

/// A data folder that goes when the test ends.
pub struct Folder {
    temporary: TempDir,
}

impl Folder {
    pub fn new() -> Self {
        Self {
            temporary: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.temporary.path().join("node")
    }

    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub fn superblock(&self, number: u32) -> PathBuf {
        self.data().join(format!("superblock_{number:06}.dat"))
    }

    pub fn open(&self) -> Store {
        self.open_with(|_| {})
    }

    pub fn open_with(&self, change: impl FnOnce(&mut StoreOptions)) -> Store {
        self.try_open(change).expect("the folder opens").0
    }

    pub fn try_open(
        &self,
        change: impl FnOnce(&mut StoreOptions),
    ) -> Result<(Store, RecoveryReport), StoreError> {
        let mut options = test_options();
        change(&mut options);
        Store::open(&self.path(), options)
    }

    /// For tests of one life: an open store that takes its folder along.
    pub fn into_open(self) -> OpenFolder {
        OpenFolder {
            store: self.open(),
            _folder: self,
        }
    }
}

/// A store and the folder it lives in; they go together.
pub struct OpenFolder {
    store: Store,
    _folder: Folder,
}

impl std::ops::Deref for OpenFolder {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

/// Small superblocks and no reserve: the machine's disk is not what is tested.
pub fn test_options() -> StoreOptions {
    StoreOptions {
        superblock_bytes: 16 << 20,
        reserve: Reserve::Bytes(0),
        ..StoreOptions::default()
    }
}

/// Waits for a condition.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
