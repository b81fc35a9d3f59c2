//! Power cuts and disk errors at every single operation, on a disk in memory that loses what was not synced.
//!
//! The rule that is checked after each: what was acknowledged is there with its bytes; what was acknowledged as deleted
//! is gone; what was under way is there whole or not at all; nothing else exists.

use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use vstack_core::ballot::Ballot;
use vstack_store::sim::{
    Call, Fault, Model, Random, SimDisk, Step, chunk, content, name, one_content_per_name,
};
use vstack_store::{ErrorKind, PutRequest, RecoveryReport, SteppedStore, Store, StoreError, StoreOptions};

mod common;
use common::test_options;

fn options(disk: &SimDisk) -> StoreOptions {
    StoreOptions {
        superblock_bytes: 64 * 1024,
        idle_watermark: Duration::from_millis(2),
        disk: Arc::new(disk.clone()),
        ..test_options()
    }
}

fn open(disk: &SimDisk) -> Result<(Store, RecoveryReport), StoreError> {
    Store::open(Path::new("/disk/node"), options(disk))
}

/// Compares the store with what was acknowledged; `what` is printed with the failure.
fn check(model: &Model, store: &Store, what: &str) {
    assert_eq!(model.check(store), Ok(()), "{what}");
}

/// Runs a script until its end or until the disk goes away; `disk` may be set to crash or to fail.
fn run_script(disk: &SimDisk, model: &mut Model, script: &[Step]) {
    let mut store = open(disk).ok();
    for step in script {
        if matches!(step, Step::Reopen) {
            drop(store.take());
            store = open(disk).ok();
        }
        if let Some((store, _)) = &store {
            model.run(store, step);
        }
    }
}

fn fixed_script() -> Vec<Step> {
    vec![
        Step::Puts(vec![(1, 0, 100)]),
        Step::Puts(vec![(2, 0, 5000), (3, 0, 70_000), (4, 5, 10), (5, 5, 3000)]),
        Step::Adopt {
            seq: 2,
            from: 0,
            to: 6,
        },
        Step::Idle,
        Step::Puts(vec![(6, 0, 20_000), (7, 0, 1)]),
        Step::Delete { seq: 2, ballot: 0 },
        Step::Reopen,
        Step::Puts(vec![(8, 0, 9000), (1, 0, 100), (9, 9, 30_000)]),
        Step::Delete { seq: 3, ballot: 0 },
        Step::Puts(vec![(2, 0, 5000), (10, 0, 4096), (11, 3, 4096 - 152)]),
    ]
}

/// Cuts the power at operation `at` of `script`, restarts, checks, writes some more, cuts again, checks again.
fn check_power_cut(script: &[Step], at: u64, seed: u64) {
    let what = format!("power cut at operation {at}, seed {seed}");
    let mut random = Random::new(seed ^ (at << 20));
    let disk = SimDisk::default();
    disk.crash_at(Some(at));
    let mut model = Model::default();
    run_script(&disk, &mut model, script);
    let disk = disk.restart(&mut random);
    let (store, report) = open(&disk).expect(&what);
    assert!(
        report.skipped.is_empty() && report.contradictions.is_empty(),
        "{what}: {report:?}"
    );
    check(&model, &store, &what);
    model.settle(&store);
    drop(store);
    let disk = disk.restart(&mut random);
    let (store, _) = open(&disk).expect(&what);
    check(&model, &store, &format!("{what}, then again at rest"));
    model.put(&store, &[(90, 0, 6000), (91, 0, 100)]);
    drop(store);
    let (store, _) = open(&disk.restart(&mut random)).expect(&what);
    check(&model, &store, &format!("{what}, then writes and a cut"));
}

#[test]
fn nothing_acknowledged_is_lost_whenever_the_power_goes() {
    let script = fixed_script();
    let disk = SimDisk::default();
    run_script(&disk, &mut Model::default(), &script);
    let operations = disk.calls() + 5;
    assert!(operations > 40, "the script does something: {operations}");
    for at in 0..operations {
        for seed in 0..5 {
            check_power_cut(&script, at, seed);
        }
    }
}

/// Fails operation `at` with `errno`, lets the script go on, then cuts the power.
fn check_fault(script: &[Step], at: u64, errno: i32) {
    let what = format!("errno {errno} at operation {at}");
    let disk = SimDisk::default();
    disk.inject(Fault::once(at, errno));
    let mut model = Model::default();
    run_script(&disk, &mut model, script);
    assert!(
        !disk.touched_after_failure(),
        "{what}: a file was used again after it had failed"
    );
    let disk = disk.restart(&mut Random::new(at));
    let (store, _) = open(&disk).expect(&what);
    check(&model, &store, &what);
}

#[test]
fn after_an_error_nothing_is_acknowledged_and_the_file_is_left_alone() {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    let script = fixed_script();
    let disk = SimDisk::default();
    run_script(&disk, &mut Model::default(), &script);
    for at in 0..disk.calls() + 5 {
        check_fault(&script, at, EIO);
        check_fault(&script, at, ENOSPC);
    }
}

#[test]
fn writing_goes_on_in_a_new_superblock_after_a_failed_sync() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk).unwrap();
    let mut model = Model::default();
    model.put(&store, &[(1, 0, 100)]);
    disk.failed_syncs_write();
    // The write of the next batch, then its sync.
    disk.inject(Fault::once(disk.calls() + 1, 5));
    let refused = store.put_blocking(PutRequest::new(
        chunk(2),
        Ballot::PLAIN,
        Bytes::from_static(b"refused"),
    ));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
    model.put(&store, &[(2, 0, 100), (3, 0, 100)]);
    assert!(model.is_stored(name(2, 0)), "the store did not go on");
    assert_eq!(store.stats().superblock_count, 2);
    // The refused bytes are in the first file, whole, and must not come back under the name that others have now.
    drop(store);
    let (store, report) = open(&disk).unwrap();
    assert!(report.contradictions.is_empty(), "{report:?}");
    check(&model, &store, "after a restart");
    assert!(!disk.touched_after_failure());
}

/// A put while no superblock can be made for want of `errno`'s resource, and one after it.
fn check_shortage(errno: i32) {
    let disk = SimDisk::default();
    let (store, _) = open(&disk).expect("an empty disk opens");
    let put = || store.put_blocking(PutRequest::new(chunk(1), Ballot::PLAIN, Bytes::from_static(b"x")));
    disk.inject(Fault {
        call: Some(Call::Create),
        ..Fault::once(disk.calls(), errno)
    });
    assert_eq!(
        put().expect_err("it needs the resource").kind(),
        ErrorKind::Unavailable,
        "errno {errno}"
    );
    assert_eq!(store.stats().read_only, None, "errno {errno}");
    put().expect("it has passed");
}

#[test]
fn too_many_open_files_refuse_a_put_and_do_not_make_the_store_read_only() {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    const ENOMEM: i32 = 12;
    for errno in [EMFILE, ENFILE, ENOMEM] {
        check_shortage(errno);
    }
}

#[test]
fn a_file_system_that_was_remounted_read_only_makes_the_store_so_and_reads_go_on() {
    const EROFS: i32 = 30;
    let disk = SimDisk::default();
    let (store, _) = open(&disk).unwrap();
    let mut model = Model::default();
    model.put(&store, &[(1, 0, 100)]);
    disk.inject(Fault::for_ever(disk.calls(), EROFS));
    let put = || store.put_blocking(PutRequest::new(chunk(2), Ballot::PLAIN, Bytes::from_static(b"x")));
    // The open superblock fails, then a new one cannot be made.
    put().expect_err("nothing can be written");
    put().expect_err("nothing can be written");
    let fault = store.stats().read_only.expect("it says so");
    assert_eq!(fault.code, Some(EROFS));
    assert!(matches!(put(), Err(StoreError::ReadOnly(_))));
    check(&model, &store, "read-only");
}

/// Opens the store again after a failure, writes, cuts the power, and checks that what was acknowledged is there.
fn check_after_failure(disk: &SimDisk, mut model: Model, what: &str) {
    let (store, _) = open(disk).expect(what);
    check(&model, &store, what);
    model.put(&store, &[(8, 0, 9000), (9, 0, 100)]);
    drop(store);
    let (store, report) = open(&disk.restart(&mut Random::new(1))).expect(what);
    assert!(
        report.bad.is_empty(),
        "{what}: the writer left a hole: {report:?}"
    );
    check(&model, &store, &format!("{what}, then writes and a power cut"));
}

/// A store whose operations can be counted: it writes no mark before it is dropped.
fn open_without_idle_marks(disk: &SimDisk) -> Store {
    let options = StoreOptions {
        idle_watermark: Duration::from_secs(3600),
        ..options(disk)
    };
    Store::open(Path::new("/disk/node"), options)
        .expect("an empty disk opens")
        .0
}

#[test]
fn a_superblock_whose_name_could_not_be_synced_is_not_lost_later() {
    let disk = SimDisk::default();
    let store = open_without_idle_marks(&disk);
    // The first batch makes a superblock: create, allocate, write, sync, rename, and the folder's sync.
    disk.inject(Fault::once(disk.calls() + 5, 5));
    let mut model = Model::default();
    model.put(&store, &[(1, 0, 100)]);
    assert!(!model.is_stored(name(1, 0)), "the fault was not met");
    drop(store);
    check_after_failure(&disk, model, "the folder's sync failed");
}

#[test]
fn a_mark_that_could_not_be_synced_is_no_ground_to_build_on() {
    for operation in ["write", "sync"] {
        let disk = SimDisk::default();
        let store = open_without_idle_marks(&disk);
        let mut model = Model::default();
        model.put(&store, &[(1, 0, 100)]);
        // Leaving writes the mark and syncs it.
        disk.inject(Fault::once(disk.calls() + u64::from(operation == "sync"), 5));
        drop(store);
        let path = Path::new("/disk/node/data").join("superblock_000000.dat");
        let cached = disk.read(&path).map(|bytes| bytes.len());
        let on_disk = disk
            .restart(&mut Random::new(1))
            .read(&path)
            .map(|bytes| bytes.len());
        assert_eq!(
            cached > on_disk,
            operation == "sync",
            "{operation}: {cached:?} {on_disk:?}"
        );
        check_after_failure(&disk, model, &format!("the {operation} of the mark failed"));
    }
}

/// What a process leaves in memory that is killed after it wrote a second batch and before it synced it.
fn killed_before_the_sync_of_object_2() -> SimDisk {
    let disk = SimDisk::default();
    let store = open_without_idle_marks(&disk);
    let put = |seq| {
        let request = PutRequest::new(chunk(seq), Ballot::PLAIN, Bytes::from(content(seq, 0, 3000)));
        store.put_blocking(request).expect("stored");
    };
    put(1);
    let left: Arc<Mutex<Option<SimDisk>>> = Arc::default();
    let (seen, keep) = (disk.clone(), Arc::clone(&left));
    disk.observe(Some(Box::new(move |_, call| {
        if call == Call::Sync {
            keep.lock()
                .expect("held for a moment")
                .get_or_insert_with(|| seen.snapshot());
        }
    })));
    put(2);
    disk.observe(None);
    let left = left.lock().expect("held for a moment").take();
    left.expect("a put is synced")
}

#[test]
fn what_a_start_finds_in_memory_is_on_the_disk_before_anybody_is_told() {
    let killed = killed_before_the_sync_of_object_2();
    let store = open_without_idle_marks(&killed);
    assert!(store.get(chunk(2), None).is_ok(), "memory has all of it");
    // The store is open and has written nothing: what it found must not depend on that.
    for seed in 0..20 {
        let after = killed.restart(&mut Random::new(seed));
        let (again, _) = open(&after).unwrap();
        assert_eq!(again.get(chunk(2), None), Ok(content(2, 0, 3000)), "seed {seed}");
    }
}

#[test]
fn a_sync_that_fails_at_the_start_loses_no_acknowledged_batch() {
    let disk = SimDisk::new();
    let mut model = Model::default();
    let (mut stepped, _) = SteppedStore::open(Path::new("/disk/node"), options(&disk)).unwrap();
    let data = content(1, 0, 5000);
    let (sender, outcome) = channel();
    let (chunk, ballot) = name(1, 0);
    let request = PutRequest::new(chunk, ballot, Bytes::from(data.clone()));
    stepped.store().put(request, move |result| {
        sender.send(result).expect("the test waits")
    });
    stepped.write_all();
    model.note_put((chunk, ballot), data, outcome.recv().unwrap().map(drop));
    assert!(model.is_stored((chunk, ballot)));
    // No mark after the batch vouches for it, and the next start's sync of the file fails.
    drop(stepped);
    let syncs_the_lock = 5;
    disk.inject(Fault {
        call: Some(Call::Sync),
        ..Fault::once(disk.calls() + syncs_the_lock, 5)
    });
    check_after_failure(&disk, model, "the sync of the file at the start failed");
    assert!(!disk.touched_after_failure());
}

#[test]
fn short_writes_change_nothing() {
    for bytes in [13, 511, 4096] {
        let disk = SimDisk::default();
        disk.short_writes(bytes);
        let mut model = Model::default();
        run_script(&disk, &mut model, &fixed_script());
        let (store, report) = open(&disk.restart(&mut Random::new(1))).unwrap();
        assert!(report.is_clean() && report.torn.is_empty(), "{report:?}");
        assert!(!model.has_open_requests());
        check(&model, &store, "short writes");
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let ballot = prop::sample::select(vec![0u64, 0, 5, 6, 7]);
    let put = (
        0u32..8,
        ballot.clone(),
        prop::sample::select(vec![1usize, 64, 3000, 4096, 40_000]),
    );
    prop_oneof![
        6 => prop::collection::vec(put, 1..5).prop_map(Step::Puts),
        2 => (0u32..8, ballot.clone(), ballot.clone()).prop_map(|(seq, from, to)| Step::Adopt { seq, from, to }),
        2 => (0u32..8, ballot).prop_map(|(seq, ballot)| Step::Delete { seq, ballot }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Idle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_script_and_any_power_cut_keep_the_promise(
        script in prop::collection::vec(any_step(), 1..14).prop_map(one_content_per_name),
        at in 0u64..80,
        seed in any::<u64>(),
    ) {
        check_power_cut(&script, at, seed);
    }

    #[test]
    fn any_script_reads_back_after_any_restart(script in prop::collection::vec(any_step(), 1..20).prop_map(one_content_per_name)) {
        let disk = SimDisk::default();
        let mut model = Model::default();
        run_script(&disk, &mut model, &script);
        let (store, report) = open(&disk).expect("the folder opens");
        prop_assert!(report.is_clean() && report.torn.is_empty(), "{:?}", report);
        check(&model, &store, "restart");
    }
}
