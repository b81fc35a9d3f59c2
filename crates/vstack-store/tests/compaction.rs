//! Compaction: what is kept, what goes, and that neither a crash nor an error at any of its steps loses or revives
//! anything.
//!
//! `VSTACK_COMPACTION_SEEDS=1000` runs the crash test with so many seeds a step instead of a few.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_store::sim::{Fault, Model, Random, SimDisk, Step, bytes_of, chunk, name};
use vstack_store::{
    AdoptRequest, Compacted, Compaction, CompactionStep, DeleteReason, ErrorKind, ObjectState, PutRequest,
    RecoveryReport, SteppedStore, Store, StoreError, StoreOptions,
};

mod common;
use common::{Folder, test_options};

const NODE: &str = "/disk/node";
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn options(disk: &SimDisk) -> StoreOptions {
    StoreOptions {
        superblock_bytes: 128 * 1024,
        idle_watermark: Duration::from_secs(3600),
        disk: Arc::new(disk.clone()),
        ..test_options()
    }
}

fn open(disk: &SimDisk) -> Result<(Store, RecoveryReport), StoreError> {
    Store::open(Path::new(NODE), options(disk))
}

fn must_open(disk: &SimDisk, what: &str) -> Store {
    open(disk).expect(what).0
}

const KEEP_ALL: vstack_store::Forgettable<'static> = &|_, _, _| false;

/// Compacts once, if anything is worth it at all.
fn compact(store: &Store) -> Result<Option<Compacted>, StoreError> {
    Compaction::begin(store, KEEP_ALL)?
        .map(Compaction::run)
        .transpose()
}

/// Several superblocks of which much is dead: deleted objects, adopted ones whose first name is gone, live ones.
fn script() -> Vec<Step> {
    let delete = |seq, ballot| Step::Delete { seq, ballot };
    let adopt = |seq, from, to| Step::Adopt { seq, from, to };
    vec![
        Step::Puts(vec![(1, 0, 30_000), (2, 0, 20_000), (3, 0, 100)]),
        adopt(2, 0, 6),
        adopt(1, 0, 5),
        delete(2, 0),
        Step::Puts(vec![(4, 0, 40_000)]),
        Step::Puts(vec![(5, 0, 40_000), (6, 7, 5000)]),
        delete(4, 0),
        Step::Puts(vec![(7, 0, 30_000), (8, 0, 20_000)]),
        delete(5, 0),
        adopt(8, 0, 9),
        delete(3, 0),
        Step::Puts(vec![(9, 0, 60_000)]),
        Step::Puts(vec![(10, 0, 60_000), (11, 0, 300)]),
        delete(7, 0),
        delete(9, 0),
    ]
}

/// A disk after the script, and what must be on it.
fn filled_disk() -> (SimDisk, Model) {
    let disk = SimDisk::new();
    let mut model = Model::default();
    let store = must_open(&disk, "an empty disk");
    script().iter().for_each(|step| model.run(&store, step));
    (disk, model)
}

fn check(model: &Model, store: &Store, what: &str) {
    assert_eq!(model.check(store), Ok(()), "{what}");
}

#[test]
fn what_is_dead_goes_and_everything_else_stays_as_it_was() {
    let (disk, model) = filled_disk();
    let store = must_open(&disk, "filled");
    let before = store.objects(None, usize::MAX);
    let used = disk.used();
    let done = compact(&store).unwrap().expect("much is dead");
    assert!(done.bytes_after < done.bytes_before / 10 * 7, "{done:?}");
    assert_eq!((done.lost, done.forgotten), (0, 0));
    check(&model, &store, "compacted");
    let names = |entries: Vec<vstack_store::ObjectEntry>| -> Vec<_> {
        entries
            .into_iter()
            .map(|entry| {
                (
                    entry.chunk,
                    entry.ballot,
                    entry.size_bytes,
                    entry.state == ObjectState::Deleted,
                )
            })
            .collect()
    };
    assert_eq!(names(store.objects(None, usize::MAX)), names(before));
    assert!(disk.used() < used, "{} {used}", disk.used());
    drop(store);
    let (store, report) = open(&disk).unwrap();
    assert!(report.is_clean() && report.torn.is_empty(), "{report:?}");
    check(&model, &store, "opened again");
    assert_eq!(compact(&store).unwrap(), None, "nothing is left to compact");
}

#[test]
fn compacting_again_and_again_keeps_everything() {
    let (disk, mut model) = filled_disk();
    for round in 0..6u32 {
        let store = must_open(&disk, "a round");
        while compact(&store).unwrap().is_some() {}
        check(&model, &store, &format!("round {round}"));
        let seq = 20 + 3 * round;
        model.put(
            &store,
            &[(seq, 0, 30_000), (seq + 1, 0, 30_000), (seq + 2, 0, 30_000)],
        );
        model.adopt(&store, seq, 0, 6);
        model.delete(&store, name(seq, 0));
        model.delete(&store, name(seq + 1, 0));
        if round > 0 {
            model.delete(&store, name(seq - 3, 6));
        }
    }
    let store = must_open(&disk, "at the end");
    check(&model, &store, "at the end");
}

/// Begins a compaction, does what may come in between, ends it; the disk may refuse at any time.
fn compact_amid_requests(disk: &SimDisk, model: &mut Model) {
    let Ok((store, _)) = open(disk) else { return };
    let Ok(Some(mut compaction)) = Compaction::begin(&store, KEEP_ALL) else {
        return;
    };
    let mut requests = [
        Step::Delete { seq: 6, ballot: 7 },
        Step::Adopt {
            seq: 2,
            from: 6,
            to: 9,
        },
        Step::Delete { seq: 2, ballot: 6 },
        Step::Puts(vec![(12, 0, 9000)]),
    ]
    .into_iter();
    loop {
        match compaction.step() {
            Ok(CompactionStep::Done(_)) | Err(_) => break,
            Ok(CompactionStep::Waiting) => std::thread::yield_now(),
            Ok(CompactionStep::Copied(_)) => {
                requests
                    .by_ref()
                    .take(2)
                    .for_each(|step| model.run(&store, &step));
            }
        }
    }
    requests.for_each(|step| model.run(&store, &step));
}

fn seeds() -> u64 {
    let wish = std::env::var("VSTACK_COMPACTION_SEEDS").ok();
    wish.and_then(|seeds| seeds.parse().ok()).unwrap_or(6)
}

#[test]
fn a_power_cut_at_any_step_loses_nothing_and_revives_nothing() {
    let (disk, model) = filled_disk();
    let calls = {
        let whole = disk.snapshot();
        compact_amid_requests(&whole, &mut model.clone());
        whole.calls()
    };
    assert!(calls > 25, "the compaction does something: {calls}");
    for at in 0..calls + 1 {
        let (cut, mut model) = (disk.snapshot(), model.clone());
        cut.crash_at(Some(at));
        compact_amid_requests(&cut, &mut model);
        for seed in 0..seeds() {
            let what = format!("power cut at call {at}, seed {seed}");
            let mut random = Random::new(seed ^ (at << 20));
            let after = cut.restart(&mut random);
            let (store, report) = open(&after).expect(&what);
            assert!(report.is_clean(), "{what}: {report:?}");
            check(&model, &store, &what);
            let mut settled = model.clone();
            settled.settle(&store);
            drop(store);
            // A second cut at rest, then compaction to the end, then a start without any help.
            let after = after.restart(&mut random);
            let store = must_open(&after, &what);
            check(&settled, &store, &format!("{what}, then again"));
            while compact(&store)
                .unwrap_or_else(|error| panic!("{what}: {error}"))
                .is_some()
            {}
            check(&settled, &store, &format!("{what}, then compacted"));
            drop(store);
            let leftovers = after
                .names()
                .into_iter()
                .map(|(name, _)| name.display().to_string());
            let leftovers: Vec<_> = leftovers
                .filter(|name| name.contains("/data/") && !name.ends_with(".dat"))
                .collect();
            assert!(leftovers.is_empty(), "{what}: {leftovers:?}");
            check(
                &settled,
                &must_open(&after, &what),
                &format!("{what}, at the end"),
            );
        }
    }
}

#[test]
fn an_error_at_any_step_leaves_a_store_that_goes_on() {
    let (disk, model) = filled_disk();
    let calls = {
        let whole = disk.snapshot();
        compact_amid_requests(&whole, &mut model.clone());
        whole.calls()
    };
    for at in 0..calls + 1 {
        for fault in [
            Fault::once(at, EIO),
            Fault::once(at, ENOSPC),
            Fault::for_ever(at, EIO),
            Fault::for_ever(at, ENOSPC),
        ] {
            let what = format!("{fault:?}");
            let (failing, mut model) = (disk.snapshot(), model.clone());
            failing.inject(fault);
            compact_amid_requests(&failing, &mut model);
            failing.heal();
            let after = failing.restart(&mut Random::new(at));
            let (store, report) = open(&after).expect(&what);
            assert!(report.is_clean(), "{what}: {report:?}");
            check(&model, &store, &what);
        }
    }
}

#[test]
fn without_room_nothing_starts_and_a_disk_that_fills_up_aborts_it() {
    let (disk, model) = filled_disk();
    let store = must_open(&disk, "filled");
    disk.set_capacity(Some(disk.used() + 10_000));
    assert_eq!(compact(&store).unwrap(), None, "it started without room");
    disk.set_capacity(None);
    let mut compaction = Compaction::begin(&store, KEEP_ALL)
        .unwrap()
        .expect("much is dead");
    disk.inject(Fault::for_ever(disk.calls(), ENOSPC));
    let failed = loop {
        match compaction.step() {
            Err(error) => break error,
            Ok(step) => assert!(
                !matches!(step, CompactionStep::Done(_)),
                "it ended on a full disk"
            ),
        }
    };
    assert!(matches!(failed, StoreError::Full { .. }), "{failed}");
    disk.heal();
    check(&model, &store, "after the abort");
    assert_eq!(store.stats().read_only, None);
    compact(&store).unwrap().expect("there is room again");
    check(&model, &store, "compacted in the end");
}

#[test]
fn an_object_adopted_or_deleted_while_its_superblock_moves_is_so_afterwards() {
    let (disk, mut model) = filled_disk();
    let (mut stepped, _) = SteppedStore::open(Path::new(NODE), options(&disk)).unwrap();
    let store = stepped.store().clone();
    let mut compaction = Compaction::begin(&store, KEEP_ALL)
        .unwrap()
        .expect("much is dead");
    while !matches!(compaction.step().unwrap(), CompactionStep::Waiting) {}
    // The files have changed places; the writer does not know yet.
    for to in [9u64, 10] {
        let adopt = AdoptRequest {
            chunk: chunk(2),
            ballot: Ballot::from_number(to),
            from: Ballot::from_number(6),
            sha256: None,
        };
        store.adopt(adopt, |result| assert!(result.is_ok(), "{result:?}"));
        stepped.write_batch();
        model.note_put(name(2, to), vstack_store::sim::content(2, to, 20_000), Ok(()));
    }
    store.delete(chunk(2), Ballot::from_number(6), DeleteReason::Client, |result| {
        assert!(result.is_ok(), "{result:?}");
    });
    stepped.write_all();
    model.note_delete(name(2, 6), Ok(()));
    assert!(matches!(compaction.step().unwrap(), CompactionStep::Done(_)));
    check(&model, &store, "in this life");
    drop((compaction, store, stepped));
    let (store, report) = open(&disk).unwrap();
    assert!(report.is_clean(), "{report:?}");
    check(&model, &store, "in the next life");
}

#[test]
fn a_reader_that_holds_the_old_file_reads_on() {
    let (disk, _) = filled_disk();
    let store = must_open(&disk, "filled");
    let reader = store.open_object(chunk(6), None).expect("there");
    let range = reader.cover(0..u64::MAX);
    let mut bytes = vec![0; 5000];
    compact(&store).unwrap().expect("much is dead");
    reader
        .read_leaves(range, &mut bytes)
        .expect("the old file is still there for it");
    assert_eq!(bytes, vstack_store::sim::content(6, 7, 5000));
}

/// A folder on the real disk with an old superblock of which much is dead, and its path.
fn folder_with_dead_objects() -> (Folder, Store) {
    let folder = Folder::new();
    let store = folder.open_with(|options| options.superblock_bytes = 128 * 1024);
    for seq in 0..8 {
        let request = PutRequest::new(chunk(seq), Ballot::PLAIN, Bytes::from(bytes_of(seq, 30_000)));
        store.put_blocking(request).expect("stored");
    }
    for seq in 1..3 {
        store
            .delete_blocking(chunk(seq), Ballot::PLAIN, DeleteReason::Client)
            .expect("deleted");
    }
    (folder, store)
}

#[test]
fn a_rotten_object_keeps_its_name_and_its_file_is_set_aside() {
    let (folder, store) = folder_with_dead_objects();
    let path = folder.superblock(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let object = bytes_of(0, 30_000);
    let at = bytes.windows(object.len()).position(|window| window == object);
    bytes[at.expect("the object is in the first superblock") + 777] ^= 4;
    std::fs::write(&path, &bytes).unwrap();
    let done = compact(&store).unwrap().expect("much is dead");
    assert_eq!(done.lost, 1);
    let kind = |store: &Store, seq| store.get(chunk(seq), None).map_err(|error| error.kind());
    assert_eq!(kind(&store, 0), Err(ErrorKind::Corrupt));
    drop(store);
    let kept = std::fs::read_dir(folder.path().join("quarantine")).unwrap();
    let kept: Vec<_> = kept
        .flatten()
        .map(|entry| std::fs::read(entry.path()).unwrap())
        .collect();
    assert_eq!(kept, [bytes], "the damaged file is set aside as it was");
    let (store, report) = folder.try_open(|_| {}).unwrap();
    assert_eq!(report.corrupt, [(chunk(0), Ballot::PLAIN)]);
    assert_eq!(
        kind(&store, 0),
        Err(ErrorKind::Corrupt),
        "a restart does not forget it"
    );
    assert_eq!(kind(&store, 1), Err(ErrorKind::NotFound));
    assert_eq!(kind(&store, 3), Ok(bytes_of(3, 30_000)));
    // Its bytes, and only they, heal it.
    let put = |data: Vec<u8>| store.put_blocking(PutRequest::new(chunk(0), Ballot::PLAIN, Bytes::from(data)));
    assert_eq!(put(bytes_of(9, 30_000)).unwrap_err().kind(), ErrorKind::Conflict);
    put(object.clone()).expect("the same bytes");
    assert_eq!(kind(&store, 0), Ok(object.clone()));
    drop(store);
    let (store, report) = folder.try_open(|_| {}).unwrap();
    assert_eq!(kind(&store, 0), Ok(object), "{report:?}");
}

#[test]
fn a_tombstone_goes_only_when_it_is_confirmed_and_nothing_else_holds_its_name() {
    let (folder, store) = folder_with_dead_objects();
    let state = |store: &Store, seq| {
        let ballots = store.ballots(chunk(seq));
        ballots.first().map(|entry| entry.state)
    };
    // The objects are in the first superblock, their tombstones in a later one.
    compact(&store).unwrap().expect("much is dead");
    assert_eq!(state(&store, 1), Some(ObjectState::Deleted), "not confirmed");
    for seq in 4..8 {
        store
            .delete_blocking(chunk(seq), Ballot::PLAIN, DeleteReason::Client)
            .expect("deleted");
    }
    // Fills what is open, so that the tombstones are in closed superblocks.
    for seq in 20..24 {
        let request = PutRequest::new(chunk(seq), Ballot::PLAIN, Bytes::from(bytes_of(seq, 30_000)));
        store.put_blocking(request).expect("stored");
    }
    let confirmed: vstack_store::Forgettable<'_> = &|id, _, _| id == chunk(1) || id == chunk(4);
    let mut forgotten = 0;
    while let Some(compaction) = Compaction::begin(&store, confirmed).unwrap() {
        forgotten += compaction.run().unwrap().forgotten;
    }
    assert!(forgotten >= 1, "a confirmed tombstone stayed");
    assert_eq!(state(&store, 1), None, "its tombstone was the last word about it");
    for seq in [2, 5, 6, 7] {
        assert_eq!(
            state(&store, seq),
            Some(ObjectState::Deleted),
            "{seq} was not confirmed"
        );
    }
    let before = store.objects(None, usize::MAX).len();
    drop(store);
    let store = folder.open();
    assert_eq!(store.objects(None, usize::MAX).len(), before, "nothing came back");
    assert_eq!(store.get(chunk(1), None).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_confirmed_tombstone_stays_while_another_file_holds_the_object() {
    let folder = Folder::new();
    let store = folder.open_with(|options| options.superblock_bytes = 128 * 1024);
    let put = |seq| {
        let request = PutRequest::new(chunk(seq), Ballot::PLAIN, Bytes::from(bytes_of(seq, 20_000)));
        store.put_blocking(request).expect("stored");
    };
    let delete = |seq| {
        let deleted = store.delete_blocking(chunk(seq), Ballot::PLAIN, DeleteReason::Client);
        deleted.expect("deleted");
    };
    // The first file stays as it is; the tombstone is in the second, of which most is dead.
    (0..5).for_each(put);
    put(20);
    delete(0);
    (21..34).for_each(put);
    (20..26).for_each(delete);
    let mut compacted = 0;
    while let Some(compaction) = Compaction::begin_at(&store, 50, &|_, _, _| true).expect("the disk works") {
        compaction.run().expect("the disk works");
        compacted += 1;
    }
    assert!(compacted > 0, "nothing was worth it");
    drop(store);
    // A snapshot knows nothing of the object; a start that reads all files would find it.
    std::fs::remove_dir_all(folder.path().join("index")).expect("snapshots may go");
    let store = folder.open();
    for seq in std::iter::once(0).chain(20..26) {
        let found = store.get(chunk(seq), None).map(|bytes| bytes.len());
        assert_eq!(
            found.map_err(|error| error.kind()),
            Err(ErrorKind::NotFound),
            "{seq} came back"
        );
    }
    for seq in (1..5).chain(26..34) {
        assert_eq!(
            store.get(chunk(seq), None).expect("it lives"),
            bytes_of(seq, 20_000)
        );
    }
}
