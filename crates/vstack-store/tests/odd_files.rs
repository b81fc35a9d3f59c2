//! Odd files under a superblock's name, and superblocks at the wrong place: empty ones, other things than files, copies,
//! other nodes' and yesterday's files, records moved about, payloads that are superblocks, formats of the future. The node
//! starts, serves what is good, deletes nothing, and the checker says the same.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_store::record::HEADER_LEN;
use vstack_store::superblock::{SUPERBLOCK_HEADER_LEN, SuperblockHeader};
use vstack_store::{CheckDepth, DeleteReason, ErrorKind, PutRequest, SkipReason, StoreError, fsck};

mod common;
use common::{Folder, bytes_of, chunk, copy_folder, test_options};

/// A folder on the real disk with some objects, closed.
fn real_folder() -> Folder {
    let folder = Folder::new();
    let store = folder.open();
    for seq in 0..3 {
        store
            .put_blocking(PutRequest::new(
                chunk(seq),
                Ballot::PLAIN,
                Bytes::from(bytes_of(seq, 3000)),
            ))
            .expect("stored");
    }
    folder
}

fn check_odd_file(
    make: impl FnOnce(&Folder, &Path),
    reason: impl Fn(&SkipReason) -> bool,
    may_hold_objects: bool,
) {
    let folder = real_folder();
    let odd: PathBuf = folder.superblock(1);
    make(&folder, &odd);
    let checkup = fsck(&folder.path(), &test_options(), CheckDepth::AsAtStart).expect("it can be checked");
    let (store, report) = folder.try_open(|_| {}).expect("the node starts");
    assert_eq!(
        checkup.report.skipped, report.skipped,
        "the checker says something else"
    );
    assert_eq!(report.skipped.len(), 1, "{report:?}");
    assert!(reason(&report.skipped[0].reason), "{report:?}");
    for seq in 0..3 {
        assert_eq!(
            store.get(chunk(seq), None).expect("a good record"),
            bytes_of(seq, 3000)
        );
    }
    let unknown = store.get(chunk(77), None).expect_err("never stored").kind();
    let expected = if may_hold_objects {
        ErrorKind::Unavailable
    } else {
        ErrorKind::NotFound
    };
    assert_eq!(unknown, expected);
    let deleted = store
        .delete_blocking(chunk(77), Ballot::PLAIN, DeleteReason::Client)
        .expect_err("never stored");
    assert_eq!(deleted.kind(), expected);
    let put = |ballot| store.put_blocking(PutRequest::new(chunk(8), ballot, Bytes::from_static(b"new")));
    put(Ballot::from_number(3))
        .expect("writes go on under the catalogue's ballots, which are never used twice");
    // A plain name may have been deleted, and the tombstone be in the file.
    assert_eq!(put(Ballot::PLAIN).is_err(), may_hold_objects);
    assert!(odd.symlink_metadata().is_ok(), "the odd file was removed");
}

#[test]
fn odd_files_are_left_aside_and_reported() {
    let unreadable = |reason: &SkipReason| matches!(reason, SkipReason::Header(_));
    check_odd_file(
        |_, odd| std::fs::write(odd, b"").expect("written"),
        unreadable,
        true,
    );
    check_odd_file(
        |_, odd| std::fs::write(odd, vec![0; 1 << 20]).expect("written"),
        unreadable,
        true,
    );
    check_odd_file(
        |_, odd| std::fs::write(odd, bytes_of(1, 1 << 20)).expect("written"),
        unreadable,
        true,
    );
    let not_a_file = |reason: &SkipReason| *reason == SkipReason::NotAFile;
    check_odd_file(
        |_, odd| std::fs::create_dir(odd).expect("made"),
        not_a_file,
        false,
    );
    check_odd_file(
        |folder, odd| symlink(folder.superblock(0), odd).expect("linked"),
        not_a_file,
        false,
    );
    let renamed = |reason: &SkipReason| *reason == SkipReason::OtherNumber(0);
    let copy = |folder: &Folder, odd: &Path| {
        std::fs::copy(folder.superblock(0), odd).expect("copied");
    };
    check_odd_file(copy, renamed, false);
}

/// Rewrites the header of a superblock.
fn change_header(file: &Path, change: impl FnOnce(&mut SuperblockHeader)) {
    let mut bytes = std::fs::read(file).expect("a superblock");
    let mut header = SuperblockHeader::decode(&bytes).expect("a header");
    change(&mut header);
    bytes[..SUPERBLOCK_HEADER_LEN].copy_from_slice(&header.encode());
    std::fs::write(file, bytes).expect("written");
}

#[test]
fn files_of_other_nodes_and_copies_are_left_aside() {
    let other = |folder: &Folder, odd: &Path| {
        let foreign = real_folder();
        std::fs::copy(foreign.superblock(0), odd).expect("copied");
        change_header(odd, |header| header.number = 1);
        assert_ne!(folder.path(), foreign.path());
    };
    check_odd_file(other, |reason| matches!(reason, SkipReason::OtherNode(_)), false);
    let copy = |folder: &Folder, odd: &Path| {
        std::fs::copy(folder.superblock(0), odd).expect("copied");
        change_header(odd, |header| header.number = 1);
    };
    check_odd_file(copy, |reason| *reason == SkipReason::CopyOf(0), false);
}

#[test]
fn a_superblock_of_another_life_under_the_right_name_gives_no_bytes_to_the_wrong_object() {
    // Yesterday's file is put back: same node, same name, but its records are for its own uuid and salt.
    let folder = real_folder();
    let kept = Folder::new();
    copy_folder(&folder.data(), &kept.data());
    let store = folder.open();
    store
        .put_blocking(PutRequest::new(
            chunk(9),
            Ballot::PLAIN,
            Bytes::from_static(b"today"),
        ))
        .expect("stored");
    drop(store);
    std::fs::copy(kept.superblock(0), folder.superblock(0)).expect("copied");
    let store = folder.open();
    assert_eq!(
        store.get(chunk(9), None).expect_err("lost").kind(),
        ErrorKind::NotFound
    );
    assert_eq!(store.get(chunk(1), None).expect("kept"), bytes_of(1, 3000));
}

#[test]
fn a_record_copied_to_another_place_is_not_believed() {
    let folder = real_folder();
    let path = folder.superblock(0);
    let mut file = std::fs::read(&path).expect("a superblock");
    // The second batch over the third: a misdirected write.
    let batch = file[8192..12_288].to_vec();
    file[12_288..16_384].copy_from_slice(&batch);
    std::fs::write(&path, file).expect("written");
    let (store, report) = folder.try_open(|_| {}).expect("opens");
    assert!(report.bad.iter().any(|bad| bad.proven_rot), "{report:?}");
    assert_eq!(
        store.get(chunk(1), None).expect("its own place"),
        bytes_of(1, 3000)
    );
    assert_eq!(
        store.get(chunk(2), None).expect_err("overwritten").kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn a_payload_that_holds_whole_superblocks_stays_a_payload() {
    let folder = real_folder();
    let hostile = std::fs::read(folder.superblock(0)).expect("a superblock");
    let store = folder.open();
    let request = PutRequest::new(chunk(20), Ballot::PLAIN, Bytes::from(hostile.clone()));
    store.put_blocking(request).expect("stored");
    drop(store);
    // The header before it is lost, so the scan walks through the payload.
    let mut file = std::fs::read(folder.superblock(0)).expect("a superblock");
    let at = file
        .windows(4096)
        .rposition(|window| window == &hostile[..4096])
        .expect("the payload")
        - HEADER_LEN;
    file[at] ^= 0xff;
    std::fs::write(folder.superblock(0), file).expect("written");
    let (store, report) = folder.try_open(|_| {}).expect("opens");
    assert_eq!(store.stats().chunk_count, 3, "{report:?}");
    assert_eq!(
        store.get(chunk(20), None).expect_err("its header is gone").kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn a_future_format_is_left_aside_and_a_future_folder_refused() {
    let newer = |folder: &Folder, odd: &Path| {
        let mut bytes = std::fs::read(folder.superblock(0)).expect("a superblock");
        for at in [0, 2048] {
            bytes[at + 8] = 2;
            let crc = crc32c::crc32c(&bytes[at..at + 112]);
            bytes[at + 112..at + 116].copy_from_slice(&crc.to_le_bytes());
        }
        std::fs::write(odd, bytes).expect("written");
    };
    check_odd_file(newer, |reason| matches!(reason, SkipReason::Header(_)), true);
    let folder = real_folder();
    let node = folder.path().join("node.json");
    let text = std::fs::read_to_string(&node).expect("node.json");
    std::fs::write(
        &node,
        text.replace("\"format_version\": 1", "\"format_version\": 2"),
    )
    .expect("written");
    assert!(matches!(
        folder.try_open(|_| {}),
        Err(StoreError::BadFolder { .. })
    ));
    std::fs::write(&node, "{").expect("written");
    assert!(matches!(
        folder.try_open(|_| {}),
        Err(StoreError::BadFolder { .. })
    ));
}
