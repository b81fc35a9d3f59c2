//! What a start may believe instead of reading all files: footers and index snapshots, and what it may not.

use std::path::Path;

use proptest::prelude::*;
use vstack_core::ballot::Ballot;
use vstack_store::sim::{Model, Random, SimDisk, Step, bytes_of, chunk, name, one_content_per_name};
use vstack_store::{CheckDepth, Compaction, DeleteReason, Scrub, Store, StoreOptions, Work, Worker, fsck};

mod common;
use common::small::*;

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
