//! Scrub, index snapshots, the checker, and a disk that fails: what they find, what they may not believe, and what stays
//! known over a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use vstack_core::ballot::Ballot;
use vstack_core::time::UnixMillis;
use vstack_store::sim::{
    Call, Fault, Model, Random, Repeat, SimDisk, Step, bytes_of, chunk, content, name, one_content_per_name,
};
use vstack_store::{
    CheckDepth, Compaction, DeleteReason, ErrorKind, IndexLine, ObjectState, PutRequest, RecoveryReport,
    Scrub, Store, StoreError, StoreOptions, Work, Worker, fsck, read_index,
};

mod common;
use common::{Folder, test_options};

const NODE: &str = "/disk/node";
const SNAPSHOT: &str = "/disk/node/index/chunk_index.0000000001.snap";

fn options(disk: &SimDisk) -> StoreOptions {
    StoreOptions {
        superblock_bytes: 96 * 1024,
        idle_watermark: Duration::from_secs(3600),
        disk: Arc::new(disk.clone()),
        ..test_options()
    }
}

fn open(disk: &SimDisk) -> (Store, RecoveryReport) {
    Store::open(Path::new(NODE), options(disk)).expect("the folder opens")
}

fn put(store: &Store, seq: u32, size: usize) {
    let request = PutRequest::new(chunk(seq), Ballot::PLAIN, Bytes::from(bytes_of(seq, size)));
    store.put_blocking(request).expect("stored");
}

/// Several closed superblocks and an open one.
fn filled() -> (SimDisk, Model) {
    let (disk, mut model) = (SimDisk::new(), Model::default());
    let (store, _) = open(&disk);
    for seq in 0..12 {
        model.put(&store, &[(seq, 0, 20_000 + seq as usize)]);
    }
    model.adopt(&store, 3, 0, 6);
    model.delete(&store, name(3, 0));
    model.delete(&store, name(4, 0));
    model.put(&store, &[(20, 0, 20_000), (21, 0, 30_000)]);
    (disk, model)
}

fn index_of(disk: &SimDisk, depth: CheckDepth) -> Vec<IndexLine> {
    read_index(Path::new(NODE), &options(disk), depth).expect("the folder can be read")
}

fn superblock(number: u32) -> PathBuf {
    Path::new(NODE).join(format!("data/superblock_{number:06}.dat"))
}

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
fn a_start_believes_footers_and_snapshots_and_builds_the_same_index() {
    let (disk, model) = filled();
    let (store, report) = open(&disk);
    assert!(report.by_footer >= 2 && report.by_snapshot == 0, "{report:?}");
    assert!(store.save_snapshot().unwrap(), "all is well, so one can be made");
    drop(store);
    let (store, report) = open(&disk);
    assert!(report.by_snapshot >= 2 && report.by_footer == 0, "{report:?}");
    assert_eq!(model.check(&store), Ok(()));
    drop(store);
    let believed = index_of(&disk, CheckDepth::AsAtStart);
    assert!(!believed.is_empty());
    assert_eq!(believed, index_of(&disk, CheckDepth::EveryByte));
}

/// Opens with a snapshot that must not count, and compares with what the files say.
fn check_ignored(disk: &SimDisk, model: &Model, what: &str) {
    let scanned = index_of(disk, CheckDepth::EveryByte);
    assert_eq!(index_of(disk, CheckDepth::AsAtStart), scanned, "{what}");
    let (store, report) = open(disk);
    assert_eq!(report.by_snapshot, 0, "{what}: {report:?}");
    assert!(report.is_clean(), "{what}: {report:?}");
    assert_eq!(model.check(&store), Ok(()), "{what}");
}

#[test]
fn a_snapshot_that_is_damaged_or_not_of_these_files_is_ignored() {
    let (disk, model) = filled();
    let (store, _) = open(&disk);
    store.save_snapshot().unwrap();
    drop(store);
    let snapshot = disk.read(Path::new(SNAPSHOT)).expect("it was made");
    let with = |bytes: Vec<u8>| disk.with_file(Path::new(SNAPSHOT), bytes);
    check_ignored(&disk.without_file(Path::new(SNAPSHOT)), &model, "missing");
    for len in (0..snapshot.len()).step_by(7) {
        check_ignored(&with(snapshot[..len].to_vec()), &model, &format!("cut to {len}"));
    }
    for bit in (0..snapshot.len() * 8).step_by(13) {
        let mut damaged = snapshot.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        check_ignored(&with(damaged), &model, &format!("bit {bit}"));
    }
    let first_entry = 40 + 40 * usize::from(snapshot[12]);
    // With a right checksum: another version, 10^9 entries, 10^9 superblocks, another node, another length of a file, an
    // object larger than any.
    for (at, value) in [
        (first_entry + 40, u32::MAX),
        (8, 2),
        (16, 1_000_000_000),
        (12, 1_000_000_000),
        (24, 7),
        (40 + 24, 99),
        (40 + 8, 5),
        (40, 900),
    ] {
        let mut changed = snapshot.clone();
        changed[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let end = changed.len() - 4;
        let crc = crc32c::crc32c(&changed[..end]);
        changed[end..].copy_from_slice(&crc.to_le_bytes());
        check_ignored(&with(changed), &model, &format!("field at {at}"));
    }
    // It knows a file that is shorter now.
    let mut cut = disk.read(&superblock(0)).expect("a superblock");
    cut.truncate(cut.len() - 4096);
    let shorter = disk.with_file(&superblock(0), cut);
    let (store, report) = open(&shorter);
    assert_eq!(report.by_snapshot, 0, "{report:?}");
    assert_eq!(model.check(&store), Ok(()), "only the footer was lost");
}

#[test]
fn an_older_snapshot_serves_until_a_file_that_it_knows_is_replaced() {
    let (disk, mut model) = filled();
    let (store, _) = open(&disk);
    store.save_snapshot().unwrap();
    model.put(
        &store,
        &[(30, 0, 30_000), (31, 0, 30_000), (32, 0, 30_000), (33, 0, 30_000)],
    );
    model.delete(&store, name(1, 0));
    drop(store);
    let (store, report) = open(&disk);
    assert!(report.by_snapshot > 0 && report.by_footer > 0, "{report:?}");
    assert_eq!(model.check(&store), Ok(()));
    for seq in [0, 2, 5, 6] {
        model.delete(&store, name(seq, 0));
    }
    let old = disk.read(Path::new(SNAPSHOT)).expect("it was made");
    let compaction = Compaction::begin(&store, &|_, _, _| false).unwrap();
    compaction.expect("much is dead").run().expect("compacted");
    drop(store);
    let newest = disk.names().into_iter().map(|(path, _)| path);
    let snapshots: Vec<_> = newest
        .filter(|path| path.starts_with("/disk/node/index"))
        .collect();
    assert_eq!(snapshots.len(), 2, "two generations are kept: {snapshots:?}");
    let mut stale = disk.clone();
    for path in snapshots {
        stale = stale.with_file(&path, old.clone());
    }
    check_ignored(&stale, &model, "made before the compaction");
}

fn any_step() -> impl Strategy<Value = Step> {
    let ballot = prop::sample::select(vec![0u64, 0, 5, 6, 7]);
    let size = prop::sample::select(vec![1usize, 3000, 20_000, 40_000]);
    let put = (0u32..12, ballot.clone(), size);
    prop_oneof![
        6 => prop::collection::vec(put, 1..5).prop_map(Step::Puts),
        2 => (0u32..12, ballot.clone(), ballot.clone()).prop_map(|(seq, from, to)| Step::Adopt { seq, from, to }),
        3 => (0u32..12, ballot).prop_map(|(seq, ballot)| Step::Delete { seq, ballot }),
        1 => Just(Step::Reopen),
        2 => Just(Step::Compact),
        1 => Just(Step::Scrub),
    ]
}

/// Does a script; each [`Step::Reopen`] leaves a snapshot behind.
fn run_script(disk: &SimDisk, model: &mut Model, script: &[Step]) {
    let mut store = open(disk).0;
    for step in script {
        match step {
            Step::Reopen => {
                store.save_snapshot().expect("the disk works");
                drop(store);
                store = open(disk).0;
            }
            Step::Compact => {
                let begun = Compaction::begin_at(&store, 5, &|_, _, _| false).expect("the disk works");
                if let Some(compaction) = begun {
                    compaction.run().expect("the disk works");
                }
            }
            Step::Scrub => {
                let mut scrub = Scrub::new(&store);
                while scrub.step() != Work::Nothing {}
                assert!(store.scrub().findings.is_empty(), "{:?}", store.scrub());
            }
            step => model.run(&store, step),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_done_a_start_with_shortcuts_builds_the_index_of_a_full_scan(
        script in prop::collection::vec(any_step(), 1..24).prop_map(one_content_per_name),
        seed in any::<u64>(),
    ) {
        let (disk, mut model) = (SimDisk::new(), Model::default());
        run_script(&disk, &mut model, &script);
        let believed = index_of(&disk, CheckDepth::AsAtStart);
        prop_assert_eq!(&believed, &index_of(&disk, CheckDepth::EveryByte));
        let checkup = fsck(Path::new(NODE), &options(&disk), CheckDepth::EveryByte).expect("it can be read");
        prop_assert!(checkup.is_clean(), "{:?}", checkup);
        let disk = disk.restart(&mut Random::new(seed));
        let (store, _) = open(&disk);
        prop_assert_eq!(model.check(&store), Ok(()));
    }
}

/// Found by the test above: the reference in the open file names bytes that compaction has written under its own name.
#[test]
fn a_name_whose_bytes_became_its_own_is_no_reference_whatever_is_believed() {
    let script = [
        Step::Puts(vec![(2, 0, 1)]),
        Step::Reopen,
        Step::Puts(vec![
            (11, 6, 20_000),
            (11, 0, 20_000),
            (1, 7, 20_000),
            (0, 6, 20_000),
        ]),
        Step::Compact,
        Step::Delete { seq: 11, ballot: 6 },
        Step::Compact,
    ];
    let (disk, mut model) = (SimDisk::new(), Model::default());
    run_script(&disk, &mut model, &script);
    assert_eq!(
        index_of(&disk, CheckDepth::AsAtStart),
        index_of(&disk, CheckDepth::EveryByte)
    );
}

/// Found by the test above: a second compaction wrote a new reference for a name whose old one lies in a file that it did not
/// touch. The old one leads nowhere, and was told as damage before the new one was read.
#[test]
fn a_reference_that_a_newer_one_replaces_is_no_damage() {
    let script = [
        Step::Puts(vec![(11, 5, 20_000), (10, 5, 3000), (0, 0, 3000)]),
        Step::Puts(vec![(1, 7, 3000)]),
        Step::Adopt {
            seq: 7,
            from: 0,
            to: 7,
        },
        Step::Delete { seq: 10, ballot: 0 },
        Step::Puts(vec![(4, 0, 40_000), (9, 0, 40_000), (0, 6, 3000), (10, 0, 3000)]),
        Step::Puts(vec![
            (11, 7, 20_000),
            (3, 7, 20_000),
            (11, 0, 20_000),
            (2, 0, 3000),
        ]),
        Step::Delete { seq: 7, ballot: 7 },
        Step::Reopen,
        Step::Puts(vec![
            (11, 5, 20_000),
            (7, 0, 40_000),
            (9, 6, 40_000),
            (2, 7, 3000),
        ]),
        Step::Compact,
        Step::Delete { seq: 4, ballot: 5 },
        Step::Adopt {
            seq: 9,
            from: 7,
            to: 7,
        },
        Step::Puts(vec![(10, 7, 3000), (8, 0, 3000), (9, 7, 40_000), (4, 6, 40_000)]),
        Step::Compact,
        Step::Compact,
    ];
    let (disk, mut model) = (SimDisk::new(), Model::default());
    run_script(&disk, &mut model, &script);
    let checkup = fsck(Path::new(NODE), &options(&disk), CheckDepth::EveryByte).expect("it can be read");
    assert!(checkup.is_clean(), "{checkup:?}");
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

#[test]
fn the_index_takes_at_most_96_bytes_an_object() {
    // In a process of its own where the runner gives each test one; otherwise other tests only add to it.
    let Some(bytes) = vstack_store::sim::index_bytes_per_object(1_000_000) else {
        return;
    };
    assert!(bytes > 20.0 && bytes <= 96.0, "{bytes} bytes an object");
}

#[test]
fn a_superblock_ends_when_its_footer_is_full_and_no_start_reads_more_headers_than_that() {
    const RECORDS: usize = 4;
    let disk = SimDisk::new();
    let few = || StoreOptions {
        superblock_records: RECORDS,
        ..options(&disk)
    };
    let open = || Store::open(Path::new(NODE), few()).expect("the folder opens");
    let (store, _) = open();
    for seq in 0..10 {
        put(&store, seq, 100);
    }
    drop(store);
    let (store, report) = open();
    assert_eq!((report.superblocks, report.by_footer), (3, 2), "{report:?}");

    // Half of two superblocks would fit into one by its bytes, and all that is left of three by no footer.
    for seq in [0, 1, 4] {
        let deleted = store.delete_blocking(chunk(seq), Ballot::PLAIN, DeleteReason::Client);
        deleted.expect("deleted");
    }
    while let Some(compaction) = Compaction::begin_at(&store, 5, &|_, _, _| false).expect("the disk works") {
        compaction.run().expect("its footer has room");
    }
    drop(store);
    let (store, report) = open();
    assert_eq!(
        report.superblocks,
        report.by_footer + report.by_snapshot + 1,
        "{report:?}"
    );
    for seq in [2, 3, 5, 6, 7, 8, 9] {
        assert_eq!(store.get(chunk(seq), None).expect("there"), bytes_of(seq, 100));
    }
}
