//! The folders that earlier versions wrote are opened for ever, and what is written today is what the newest of them has,
//! byte for byte.
//!
//! `golden_1` is of the first version: seals without a footer, no index snapshot. `golden_2` has sealed superblocks with
//! footers, one of them made by a compaction with a lost object in it, and a snapshot.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::time::UnixMillis;
use vstack_store::{AdoptRequest, Compaction, DeleteReason, ErrorKind, PutRequest, Store, StoreOptions};

mod common;
use common::{Folder, bytes_of, chunk, copy_folder, test_options};

/// What of a folder is the same in every run.
const FILES: [&str; 4] = [
    "node.json",
    "data/superblock_000001.dat",
    "data/superblock_000002.dat",
    "index/chunk_index.0000000001.snap",
];

fn golden(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden_{version}"))
}

/// Each call another uuid, the same ones in every run. Used by one test of this binary only.
fn counted_uuid() -> Uuid {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Uuid::from_u64_pair(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), number)
}

fn fixed_options() -> StoreOptions {
    StoreOptions {
        superblock_bytes: 64 * 1024,
        new_uuid: counted_uuid,
        now: || UnixMillis(1_790_000_000_000),
        // Only closing writes a watermark here: none may depend on how fast the test runs.
        idle_watermark: std::time::Duration::from_secs(3600),
        ..test_options()
    }
}

/// Every kind of record. Superblocks 0 and 1 become one by compaction, 2 is open.
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
    let delete = |seq| {
        store
            .delete_blocking(chunk(seq), Ballot::PLAIN, DeleteReason::Order)
            .expect("deleted");
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
    delete(3);
    put(4, 0, 9000);
    put(5, 0, 3000);
    delete(4);
    put(6, 0, 12_000);
    put(7, 0, 700);
    put(8, 0, 20_000);
    put(9, 0, 9000);
    rot(&folder.join("data/superblock_000000.dat"), &bytes_of(5, 3000));
    let compaction = Compaction::begin(&store, &|_, _, _| false).expect("the disk works");
    let done = compaction
        .expect("more than 30 % is dead")
        .run()
        .expect("compacted");
    assert_eq!((done.sources, done.lost), (2, 1));
}

/// Turns a bit of an object over.
fn rot(file: &Path, object: &[u8]) {
    let mut bytes = std::fs::read(file).expect("a superblock");
    let at = bytes
        .windows(object.len())
        .position(|window| window == object)
        .expect("the object is there");
    bytes[at] ^= 1;
    std::fs::write(file, bytes).expect("written");
}

#[test]
fn the_folder_of_the_first_version_opens_and_reads_as_it_was() {
    let folder = Folder::new();
    copy_folder(&golden(1), &folder.path());
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

#[test]
fn the_folder_of_the_second_version_opens_and_reads_as_it_was() {
    for with_snapshot in [true, false] {
        let folder = Folder::new();
        copy_folder(&golden(2), &folder.path());
        if !with_snapshot {
            std::fs::remove_dir_all(folder.path().join("index")).unwrap();
        }
        let (store, report) = folder.try_open(|_| {}).unwrap();
        let lost = [(chunk(5), Ballot::PLAIN)];
        assert_eq!(
            (report.superblocks, &report.corrupt[..]),
            (2, &lost[..]),
            "{report:?}"
        );
        let shortcuts = if with_snapshot { (1, 0) } else { (0, 1) };
        assert_eq!((report.by_snapshot, report.by_footer), shortcuts);
        assert!(report.bad.is_empty() && report.torn.is_empty(), "{report:?}");
        for (seq, ballot, size) in [
            (1, 0, 100),
            (1, 9, 100),
            (2, (1 << 40) + 7, 5000),
            (6, 0, 12_000),
            (7, 0, 700),
            (8, 0, 20_000),
            (9, 0, 9000),
        ] {
            let ballot = Some(Ballot::from_number(ballot));
            assert_eq!(store.get(chunk(seq), ballot).unwrap(), bytes_of(seq, size));
        }
        for (seq, kind) in [
            (3, ErrorKind::NotFound),
            (4, ErrorKind::NotFound),
            (5, ErrorKind::Corrupt),
        ] {
            assert_eq!(store.get(chunk(seq), None).unwrap_err().kind(), kind);
        }
    }
}

/// Set to write the golden folder anew: after a deliberate change of the format only, under a new version of it.
const RENEW: &str = "VSTACK_RENEW_GOLDEN";

#[test]
fn what_is_written_today_is_what_the_second_version_wrote() {
    let folder = Folder::new();
    write_golden(&folder.path());
    for file in FILES {
        let today = std::fs::read(folder.path().join(file)).unwrap();
        if std::env::var_os(RENEW).is_some() {
            std::fs::create_dir_all(golden(2).join(file).parent().unwrap()).unwrap();
            std::fs::write(golden(2).join(file), &today).unwrap();
        }
        let first = std::fs::read(golden(2).join(file)).unwrap();
        assert!(
            first == today,
            "{file} differs from the second version's at byte {:?}",
            first.iter().zip(&today).position(|(a, b)| a != b)
        );
    }
}
