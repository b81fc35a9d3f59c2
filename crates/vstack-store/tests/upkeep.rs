//! Scrub, the checker, and a disk that fails: what they find, and what stays known over a restart.

use std::path::Path;

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_core::time::UnixMillis;
use vstack_store::sim::{Call, Fault, Repeat, SimDisk, bytes_of, chunk, content, name};
use vstack_store::{
    CheckDepth, DeleteReason, ErrorKind, ObjectState, PutRequest, Scrub, Store, StoreError, Work, Worker,
    fsck,
};

mod common;
use common::small::*;
use common::{Folder, test_options};

/// One whole round.
fn scrub_all(store: &Store) {
    let mut scrub = Scrub::new(store);
    let before = store.scrub().last_ended;
    let mut steps = 0;
    while scrub.step() != Work::Nothing {
        steps += 1;
        assert!(steps < 100_000, "the scrub does not end");
    }
    assert!(store.scrub().last_ended > before, "{:?}", store.scrub());
}

#[test]
fn the_checker_says_what_the_next_start_says_and_changes_nothing() {
    let (disk, _) = filled();
    let whole = disk.read(&superblock(1)).expect("a superblock");
    let mut damaged_disks = vec![("whole", disk.snapshot())];
    for (what, at) in [
        ("object", 5000usize),
        ("header", 4096 + 20),
        ("footer", whole.len() - 50),
    ] {
        let damaged = disk.snapshot();
        (0..16).for_each(|bit| damaged.flip_bit(&superblock(1), at * 8 + 3 * bit));
        damaged_disks.push((what, damaged));
    }
    damaged_disks.push(("foreign file", disk.with_file(&superblock(9), vec![7; 9000])));
    let newest = disk
        .names()
        .into_iter()
        .rfind(|(path, _)| path.extension().is_some_and(|end| end == "dat"));
    let (newest, len) = newest.expect("a superblock");
    let torn = disk.read(&newest).expect("a superblock")[..len - 5000].to_vec();
    damaged_disks.push(("torn tail", disk.with_file(&newest, torn)));
    for (what, disk) in damaged_disks {
        let (before, calls) = (disk.names(), disk.calls());
        let checkup = fsck(Path::new(NODE), &options(&disk), CheckDepth::AsAtStart).expect(what);
        let every_byte = fsck(Path::new(NODE), &options(&disk), CheckDepth::EveryByte).expect(what);
        assert_eq!(
            (disk.names(), disk.calls()),
            (before, calls),
            "{what}: something was changed"
        );
        let (_, mut report) = open(&disk);
        report.duration_ms = checkup.report.duration_ms;
        assert_eq!(checkup.report, report, "{what}");
        // A footer repeats what the records say.
        let clean = matches!(what, "whole" | "torn tail" | "footer");
        assert_eq!(every_byte.is_clean(), clean, "{what}: {every_byte:?}");
    }
}

#[test]
fn the_checker_says_nothing_about_a_folder_in_use_or_none() {
    let folder = Folder::new();
    let options = test_options();
    let nothing = fsck(&folder.path(), &options, CheckDepth::AsAtStart).expect_err("no folder");
    assert_eq!(nothing.kind(), ErrorKind::Unavailable, "{nothing}");
    let store = folder.open();
    put(&store, 1, 100);
    let used = fsck(&folder.path(), &options, CheckDepth::AsAtStart).expect_err("in use");
    assert!(matches!(used, StoreError::Locked { .. }), "{used}");
    drop(store);
    let checkup = fsck(&folder.path(), &options, CheckDepth::EveryByte).expect("free");
    assert!(checkup.is_clean() && checkup.checked_bytes > 100 && checkup.objects == 1);
}

#[test]
fn scrub_finds_every_flip_and_a_restart_does_not_forget_it() {
    let (disk, _) = filled();
    let damaged = disk.snapshot();
    let flipped: Vec<u32> = vec![1, 5, 8, 20];
    for (path, _) in disk.names() {
        let file = disk.read(&path).expect("it is there");
        for seq in &flipped {
            let object = content(
                *seq,
                0,
                if *seq == 20 {
                    20_000
                } else {
                    20_000 + *seq as usize
                },
            );
            if let Some(at) = file.windows(object.len()).position(|window| window == object) {
                damaged.flip_bit(&path, (at + 1234) * 8 + 5);
            }
        }
    }
    let (store, report) = open(&damaged);
    assert!(report.is_clean(), "bodies are not read at the start: {report:?}");
    scrub_all(&store);
    let report = store.scrub();
    let mut found: Vec<_> = report.findings.iter().map(|finding| finding.chunk).collect();
    found.sort_unstable();
    assert_eq!(found, flipped.iter().map(|seq| chunk(*seq)).collect::<Vec<_>>());
    assert_eq!((report.last_clean, report.found_in_round), (UnixMillis(0), 4));
    assert_eq!(store.stats().corrupt_count, 4);
    drop(store);
    let (store, _) = open(&damaged);
    let scrub = Scrub::new(&store);
    assert_eq!(store.stats().corrupt_count, 4, "a restart forgot what was found");
    for seq in &flipped {
        let kind = store.get(chunk(*seq), None).map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::Corrupt), "{seq}");
        let size = if *seq == 20 {
            20_000
        } else {
            20_000 + *seq as usize
        };
        let again = PutRequest::new(chunk(*seq), Ballot::PLAIN, Bytes::from(content(*seq, 0, size)));
        store.put_blocking(again).expect("repaired");
    }
    assert_eq!(store.stats().corrupt_count, 0);
    assert_eq!(
        store.scrub().last_ended,
        report.last_ended,
        "the progress was kept"
    );
    drop(scrub);
}

#[test]
fn a_clean_round_is_noted_and_the_next_one_waits() {
    let (disk, _) = filled();
    let (store, _) = open(&disk);
    scrub_all(&store);
    let report = store.scrub();
    assert!(
        report.last_clean.0 > 0 && report.last_clean == report.last_ended,
        "{report:?}"
    );
    assert!(
        report.checked_bytes >= report.total_bytes && report.total_bytes > 200_000,
        "{report:?}"
    );
    assert_eq!(
        Scrub::new(&store).step(),
        Work::Nothing,
        "a new round began at once"
    );
}

#[test]
fn a_damaged_tombstone_is_written_again() {
    let folder = Folder::new();
    let store = folder.open();
    put(&store, 1, 5000);
    put(&store, 2, 100);
    store
        .delete_blocking(chunk(1), Ballot::PLAIN, DeleteReason::Order)
        .expect("deleted");
    let mut bytes = std::fs::read(folder.superblock(0)).unwrap();
    // The tombstone begins the last batch: many bits of its header turn.
    let at = bytes.len() - 4096;
    bytes[at + 8..at + 40].fill(0x55);
    std::fs::write(folder.superblock(0), &bytes).unwrap();
    let mut scrub = Scrub::new(&store);
    while scrub.step() != Work::Nothing {}
    // Closing waits for what the writer has been sent.
    drop((scrub, store));
    let (store, report) = folder.try_open(|_| {}).unwrap();
    assert!(report.bad.iter().any(|bad| bad.proven_rot), "{report:?}");
    assert_eq!(
        store.get(chunk(1), None).map(|_| ()).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(store.ballots(chunk(1))[0].state, ObjectState::Deleted);
}

#[test]
fn more_than_three_disk_errors_within_an_hour_make_the_store_read_only() {
    let disk = SimDisk::new();
    let (store, _) = open(&disk);
    put(&store, 1, 100);
    for error in 1..=4 {
        assert_eq!(store.stats().read_only, None, "after {} errors", error - 1);
        disk.inject(Fault {
            call: Some(Call::Sync),
            repeat: Repeat::Once,
            at: disk.calls(),
            errno: 5,
        });
        let request = PutRequest::new(chunk(2), Ballot::PLAIN, Bytes::from_static(b"x"));
        // The next superblock may be what fails: then the store is read-only at once.
        store.put_blocking(request).expect_err("the sync failed");
        let in_between = PutRequest::new(chunk(10 + error), Ballot::PLAIN, Bytes::from_static(b"z"));
        // Refused only when that error was the last one.
        let refused = store.put_blocking(in_between).is_err();
        assert_eq!(refused, store.stats().read_only.is_some());
        if store.stats().read_only.is_some() {
            break;
        }
    }
    assert!(store.stats().read_only.is_some() && store.stats().disk_errors >= 1);
    let refused = store.put_blocking(PutRequest::new(chunk(3), Ballot::PLAIN, Bytes::from_static(b"y")));
    assert!(matches!(refused, Err(StoreError::ReadOnly(_))), "{refused:?}");
    assert_eq!(store.get(chunk(1), None).expect("reads go on"), bytes_of(1, 100));
    assert!(!disk.touched_after_failure());
}

#[test]
fn a_superblock_whose_disk_failed_is_checked_first() {
    let (disk, _) = filled();
    let (store, _) = open(&disk);
    scrub_all(&store);
    disk.inject(Fault {
        call: Some(Call::Sync),
        repeat: Repeat::Once,
        at: disk.calls(),
        errno: 5,
    });
    store
        .put_blocking(PutRequest::new(
            chunk(50),
            Ballot::PLAIN,
            Bytes::from_static(b"x"),
        ))
        .expect_err("the sync failed");
    let mut scrub = Scrub::new(&store);
    assert!(
        matches!(scrub.step(), Work::Did { .. }),
        "the failed file is not checked"
    );
}

#[test]
fn deletes_work_on_a_disk_without_any_room() {
    let (disk, mut model) = filled();
    let (store, _) = open(&disk);
    disk.set_capacity(Some(disk.used()));
    let refused = PutRequest::new(chunk(60), Ballot::PLAIN, Bytes::from(bytes_of(60, 60_000)));
    let mut full = false;
    for seq in 60..64 {
        full |= matches!(
            store.put_blocking(PutRequest {
                chunk: chunk(seq),
                ..refused.clone()
            }),
            Err(StoreError::Full { .. })
        );
    }
    assert!(full, "the disk is not full");
    for seq in [0, 1, 2, 5, 6, 7, 8, 9] {
        model.delete(&store, name(seq, 0));
        assert_eq!(
            store.get(chunk(seq), None).map_err(|error| error.kind()),
            Err(ErrorKind::NotFound),
            "{seq} was not deleted"
        );
    }
    assert!(store.get(chunk(10), None).is_ok(), "reads go on");
    disk.set_capacity(None);
    drop(store);
    let (store, report) = open(&disk);
    assert!(report.is_clean(), "{report:?}");
    for seq in [0, 1, 2, 5, 6, 7, 8, 9] {
        assert_eq!(
            store.get(chunk(seq), None).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
}
