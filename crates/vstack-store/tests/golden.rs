//! The folder that the first version wrote is opened for ever, and what is written today is the same, byte for byte.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::time::UnixMillis;
use vstack_store::{AdoptRequest, DeleteReason, ErrorKind, PutRequest, Store, StoreOptions};

mod common;
use common::{Folder, bytes_of, chunk, copy_folder, test_options};

const FILES: [&str; 3] = [
    "node.json",
    "data/superblock_000000.dat",
    "data/superblock_000001.dat",
];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Each call another uuid, the same ones in every run. Used by one test of this binary only.
fn counted_uuid() -> Uuid {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Uuid::from_u64_pair(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), number)
}

fn fixed_options() -> StoreOptions {
    StoreOptions {
        superblock_bytes: 24 * 1024,
        new_uuid: counted_uuid,
        now: || UnixMillis(1_790_000_000_000),
        // Only closing writes a watermark here: none may depend on how fast the test runs.
        idle_watermark: std::time::Duration::from_secs(3600),
        ..test_options()
    }
}

/// Every kind of record, in two superblocks, the first of them sealed.
fn write_golden(folder: &Path) {
    let (store, _) = Store::open(folder, fixed_options()).expect("a new folder");
    let put = |seq, ballot, size| {
        let request = PutRequest::new(
            chunk(seq),
            Ballot::from_number(ballot),
            Bytes::from(bytes_of(seq, size)),
        );
        store.put_blocking(request).expect("stored");
    };
    put(1, 0, 100);
    put(2, (1 << 40) + 7, 5000);
    let adopt = AdoptRequest {
        chunk: chunk(1),
        ballot: Ballot::from_number(9),
        from: Ballot::PLAIN,
        sha256: None,
    };
    store.adopt_blocking(adopt).expect("adopted");
    put(3, 0, 40);
    store
        .delete_blocking(chunk(3), Ballot::PLAIN, DeleteReason::Order)
        .expect("deleted");
}

#[test]
fn the_folder_of_the_first_version_opens_and_reads_as_it_was() {
    let folder = Folder::new();
    copy_folder(&golden(), &folder.path());
    let (store, report) = folder.try_open(|_| {}).unwrap();
    assert!(report.is_clean() && report.torn.is_empty(), "{report:?}");
    assert_eq!(report.superblocks, 2);
    for (seq, ballot, size) in [(1, 0, 100), (1, 9, 100), (2, (1 << 40) + 7, 5000)] {
        assert_eq!(
            store.get(chunk(seq), Some(Ballot::from_number(ballot))).unwrap(),
            bytes_of(seq, size)
        );
    }
    assert_eq!(store.get(chunk(3), None).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        store.stat(chunk(2), None).unwrap().stored_at,
        UnixMillis(1_790_000_000_000)
    );
    store
        .put_blocking(PutRequest::new(
            chunk(4),
            Ballot::PLAIN,
            Bytes::from_static(b"and goes on"),
        ))
        .unwrap();
}

/// Set to write the golden folder anew: after a deliberate change of the format only, under a new version of it.
const RENEW: &str = "VSTACK_RENEW_GOLDEN";

#[test]
fn what_is_written_today_is_what_the_first_version_wrote() {
    let folder = Folder::new();
    write_golden(&folder.path());
    for file in FILES {
        let today = std::fs::read(folder.path().join(file)).unwrap();
        if std::env::var_os(RENEW).is_some() {
            std::fs::create_dir_all(golden().join("data")).unwrap();
            std::fs::write(golden().join(file), &today).unwrap();
        }
        let first = std::fs::read(golden().join(file)).unwrap();
        assert!(
            first == today,
            "{file} differs from the first version's at byte {:?}",
            first.iter().zip(&today).position(|(a, b)| a != b)
        );
    }
}
