//! Superblock files that somebody or something made: records with right checksums and wrong contents, doubled objects,
//! files of other clusters, pipes, files that may not be read. The node starts, serves what is good, and reports the rest;
//! the checker says the same.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::time::UnixMillis;
use vstack_store::record::{MARK_LEN, ObjectName, RecordHeader, RecordKind, data_record_len};
use vstack_store::superblock::{SUPERBLOCK_HEADER_LEN, SuperblockHeader};
use vstack_store::{CheckDepth, ErrorKind, PutRequest, RecoveryReport, SkipReason, Store, fsck};

mod common;
use common::{Folder, bytes_of, chunk, test_options};

const SALT: u64 = 0xfeed_beef;

/// A folder with three objects, closed.
fn folder() -> Folder {
    let folder = Folder::new();
    let store = folder.open();
    for seq in 0..3 {
        let request = PutRequest::new(chunk(seq), Ballot::PLAIN, Bytes::from(bytes_of(seq, 3000)));
        store.put_blocking(request).expect("stored");
    }
    folder
}

/// The header of a further superblock of the same node.
fn header_of(folder: &Folder, number: u32) -> SuperblockHeader {
    let first = std::fs::read(folder.superblock(0)).expect("a superblock");
    SuperblockHeader {
        number,
        uuid: Uuid::from_u128(u128::from(number) + 77),
        salt: SALT,
        abandoned: None,
        ..SuperblockHeader::decode(&first).expect("a header")
    }
}

/// A record's bytes at the first place of a superblock, up to the next boundary.
fn record(kind: RecordKind, seq: u32, data: &[u8], change: impl FnOnce(&mut RecordHeader)) -> Vec<u8> {
    let digest = ChunkDigest::of(data);
    let body_len = u32::try_from(data.len()).expect("small");
    let record_len = if kind == RecordKind::Data {
        data_record_len(body_len)
    } else {
        MARK_LEN
    };
    let mark = RecordHeader::mark(kind, record_len, SUPERBLOCK_HEADER_LEN as u64, UnixMillis(5));
    let name = ObjectName {
        chunk: chunk(seq),
        ballot: Ballot::PLAIN,
    };
    let mut header = RecordHeader {
        name: Some(name),
        body_len,
        sha256: digest.sha256,
        leaf_root: digest.leaf_root,
        ..mark
    };
    change(&mut header);
    let mut bytes = header.encode(SUPERBLOCK_HEADER_LEN as u64, SALT).to_vec();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(crc32c::crc32c(data).to_le_bytes());
    bytes.resize(record_len as usize, 0);
    bytes
}

fn write(folder: &Folder, number: u32, records: &[u8]) {
    let bytes = [&header_of(folder, number).encode()[..], records].concat();
    std::fs::write(folder.superblock(number), bytes).expect("written");
}

/// Opens the folder, with the checker's word on it before; the three objects are there.
fn check_opens(folder: &Folder, what: &str) -> (Store, RecoveryReport) {
    let checkup = fsck(&folder.path(), &test_options(), CheckDepth::AsAtStart).expect(what);
    let (store, mut report) = folder.try_open(|_| {}).expect(what);
    report.duration_ms = checkup.report.duration_ms;
    assert_eq!(checkup.report, report, "{what}: the checker says something else");
    for seq in 0..3 {
        assert_eq!(
            store.get(chunk(seq), None).expect(what),
            bytes_of(seq, 3000),
            "{what}"
        );
    }
    (store, report)
}

#[test]
fn a_file_with_nothing_but_its_header_is_an_empty_superblock() {
    let folder = folder();
    write(&folder, 1, &[]);
    let (_, report) = check_opens(&folder, "header only");
    assert!(report.is_clean() && report.superblocks == 2, "{report:?}");
}

#[test]
fn a_length_that_no_record_can_have_is_not_believed() {
    for (body_len, record_len) in [(u32::MAX, u32::MAX), (5, u32::MAX), (u32::MAX, MARK_LEN), (5, 0)] {
        let folder = folder();
        let bad = record(RecordKind::Data, 9, b"hello", |header| {
            header.body_len = body_len;
            header.record_len = record_len;
        });
        write(&folder, 1, &[bad, vec![0; 4096]].concat());
        let (store, _) = check_opens(&folder, "length");
        let kind = store.get(chunk(9), None).map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::NotFound), "{body_len} {record_len}");
    }
}

#[test]
fn the_same_object_in_two_files_is_one_object_and_other_bytes_are_reported() {
    let doubled = folder();
    write(
        &doubled,
        1,
        &record(RecordKind::Data, 1, &bytes_of(1, 3000), |_| {}),
    );
    let (store, report) = check_opens(&doubled, "the same bytes");
    assert!(report.contradictions.is_empty(), "{report:?}");
    assert_eq!(store.stats().chunk_count, 3);
    let contradicted = folder();
    write(
        &contradicted,
        1,
        &record(RecordKind::Data, 1, &bytes_of(77, 3000), |_| {}),
    );
    let (_, report) = check_opens(&contradicted, "other bytes");
    assert_eq!(report.contradictions, [(chunk(1), Ballot::PLAIN)]);
}

#[test]
fn a_tombstone_of_an_unknown_object_only_uses_its_name_up() {
    let folder = folder();
    write(&folder, 1, &record(RecordKind::Tombstone, 50, &[], |_| {}));
    let (store, report) = check_opens(&folder, "tombstone");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(
        store.get(chunk(50), None).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let again = PutRequest::new(chunk(50), Ballot::PLAIN, Bytes::from_static(b"x"));
    assert_eq!(store.put_blocking(again).unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn a_file_of_another_cluster_is_left_aside() {
    let folder = Folder::new();
    let ours = Uuid::from_u128(1);
    drop(folder.open_with(|options| options.cluster_id = Some(ours)));
    let store = folder.open();
    let request = PutRequest::new(chunk(0), Ballot::PLAIN, Bytes::from_static(b"ours"));
    store.put_blocking(request).expect("stored");
    drop(store);
    let foreign = SuperblockHeader {
        cluster: Some(Uuid::from_u128(2)),
        ..header_of(&folder, 1)
    };
    std::fs::write(folder.superblock(1), foreign.encode()).expect("written");
    let (store, report) = folder.try_open(|_| {}).expect("opens");
    assert_eq!(report.skipped.len(), 1, "{report:?}");
    assert_eq!(report.skipped[0].reason, SkipReason::OtherCluster);
    assert_eq!(store.get(chunk(0), None).expect("ours"), b"ours");
}

#[test]
fn a_pipe_is_neither_opened_nor_waited_for() {
    let folder = folder();
    let made = Command::new("mkfifo").arg(folder.superblock(1)).status();
    assert!(made.expect("mkfifo is part of every system").success());
    let (_, report) = check_opens(&folder, "pipe");
    assert_eq!(report.skipped[0].reason, SkipReason::NotAFile);
}

#[test]
fn a_file_that_may_not_be_read_makes_the_node_unsure_and_not_wrong() {
    let folder = folder();
    write(&folder, 1, &record(RecordKind::Data, 9, b"hello", |_| {}));
    std::fs::set_permissions(folder.superblock(1), std::fs::Permissions::from_mode(0o0)).expect("changed");
    if may_read(&folder.superblock(1)) {
        // Nothing is forbidden to root.
        return;
    }
    let (store, report) = check_opens(&folder, "mode 0000");
    assert!(
        matches!(report.skipped[0].reason, SkipReason::Disk(_)),
        "{report:?}"
    );
    assert_eq!(
        store.get(chunk(9), None).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
}

fn may_read(path: &Path) -> bool {
    std::fs::File::open(path).is_ok()
}
