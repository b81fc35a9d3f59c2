//! Power cuts and disk errors at every single operation, on a disk in memory that loses what was not synced.
//!
//! The rule that is checked after each: what was acknowledged is there with its bytes; what was acknowledged as deleted
//! is gone; what was under way is there whole or not at all; nothing else exists.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use vstack_core::ballot::Ballot;
use vstack_core::id::ChunkId;
use vstack_store::{
    AdoptRequest, DeleteReason, ErrorKind, PutRequest, RecoveryReport, Store, StoreError, StoreOptions,
};

mod common;
use common::crash_disk::CrashDisk;
use common::{bytes_of, chunk, test_options};

type Name = (ChunkId, Ballot);

/// One request of a script.
#[derive(Debug, Clone)]
enum Step {
    /// Puts of these sizes that are sent together, so that they share a batch.
    Puts(Vec<(u32, u64, usize)>),
    Adopt {
        seq: u32,
        from: u64,
        to: u64,
    },
    Delete {
        seq: u32,
        ballot: u64,
    },
    Reopen,
    /// Long enough for the idle watermark.
    Idle,
}

/// What may be read under a name.
#[derive(Debug, Clone, Default)]
struct Allowed {
    /// Acknowledged: these bytes, unless a delete is under way.
    stored: Option<Vec<u8>>,
    /// A request without an answer may have stored these.
    maybe_stored: Option<Vec<u8>>,
    maybe_deleted: bool,
    deleted: bool,
}

#[derive(Debug, Default)]
struct Model {
    names: BTreeMap<Name, Allowed>,
}

fn name(seq: u32, ballot: u64) -> Name {
    (chunk(seq), Ballot::from_number(ballot))
}

/// Two of three objects of one chunk have the same bytes, so that adopting and conflicting both happen.
fn content(seq: u32, ballot: u64, size: usize) -> Vec<u8> {
    bytes_of(seq * 10 + u32::from(ballot == 7), size)
}

fn options(disk: &CrashDisk) -> StoreOptions {
    StoreOptions {
        superblock_bytes: 64 * 1024,
        idle_watermark: Duration::from_millis(2),
        disk: Arc::new(disk.clone()),
        ..test_options()
    }
}

fn open(disk: &CrashDisk) -> Result<(Store, RecoveryReport), StoreError> {
    Store::open(Path::new("/disk/node"), options(disk))
}

impl Model {
    fn run(&mut self, store: &Store, step: &Step) {
        match step {
            Step::Puts(puts) => self.put(store, puts),
            Step::Adopt { seq, from, to } => self.adopt(store, *seq, *from, *to),
            Step::Delete { seq, ballot } => self.delete(store, name(*seq, *ballot)),
            Step::Idle => std::thread::sleep(Duration::from_millis(5)),
            Step::Reopen => {}
        }
    }

    fn put(&mut self, store: &Store, puts: &[(u32, u64, usize)]) {
        let (sender, outcomes) = channel();
        for (seq, ballot, size) in puts.iter().copied() {
            let data = content(seq, ballot, size);
            let (chunk, ballot) = name(seq, ballot);
            let sender = sender.clone();
            let request = PutRequest::new(chunk, ballot, Bytes::from(data.clone()));
            store.put(request, move |result| {
                drop(sender.send(((chunk, ballot), data, result)))
            });
        }
        drop(sender);
        for (name, data, result) in outcomes {
            self.note_put(name, data, result.map(drop));
        }
    }

    fn note_put(&mut self, name: Name, data: Vec<u8>, result: Result<(), StoreError>) {
        let allowed = self.names.entry(name).or_default();
        match result.map_err(|error| error.kind()) {
            Ok(()) => allowed.stored = Some(data),
            Err(ErrorKind::Unavailable) => allowed.maybe_stored = Some(data),
            Err(_) => {}
        }
    }

    fn adopt(&mut self, store: &Store, seq: u32, from: u64, to: u64) {
        let Some(data) = self
            .names
            .get(&name(seq, from))
            .and_then(|from| from.stored.clone())
        else {
            return;
        };
        let ((chunk, from), (_, ballot)) = (name(seq, from), name(seq, to));
        let result = store.adopt_blocking(AdoptRequest {
            chunk,
            ballot,
            from,
            sha256: None,
        });
        self.note_put((chunk, ballot), data, result.map(drop));
    }

    fn delete(&mut self, store: &Store, name: Name) {
        let result = store.delete_blocking(name.0, name.1, DeleteReason::Client);
        let allowed = self.names.entry(name).or_default();
        match result.map_err(|error| error.kind()) {
            Ok(_) => allowed.deleted = true,
            Err(ErrorKind::Unavailable) => allowed.maybe_deleted = true,
            Err(_) => {}
        }
    }

    /// Compares every name with the store. `what` is printed with the failure.
    fn check(&self, store: &Store, what: &str) {
        for ((chunk, ballot), allowed) in &self.names {
            let found = store.get(*chunk, Some(*ballot));
            let fits = match (&found, allowed) {
                (Err(error), Allowed { deleted: true, .. }) => error.kind() == ErrorKind::NotFound,
                (Ok(_), Allowed { deleted: true, .. }) => false,
                (
                    Ok(data),
                    Allowed {
                        stored: Some(stored), ..
                    },
                ) => data == stored,
                (Ok(data), Allowed { maybe_stored, .. }) => maybe_stored.as_ref() == Some(data),
                (
                    Err(error),
                    Allowed {
                        stored: Some(_),
                        maybe_deleted,
                        ..
                    },
                ) => *maybe_deleted && error.kind() == ErrorKind::NotFound,
                // A record that tore in the middle of its batch may be known to be damaged.
                (
                    Err(error),
                    Allowed {
                        maybe_stored: Some(_),
                        ..
                    },
                ) => {
                    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt)
                }
                (Err(error), _) => error.kind() == ErrorKind::NotFound,
            };
            assert!(
                fits,
                "{what}: {chunk} {ballot}: allowed {}, found {}",
                brief(allowed),
                brief_result(&found)
            );
        }
        let known = |entry: &vstack_store::ObjectEntry| self.names.contains_key(&(entry.chunk, entry.ballot));
        assert!(
            store.objects(None, usize::MAX).iter().all(known),
            "{what}: an object that nobody wrote"
        );
    }

    /// After a restart each name is what it was found to be.
    fn settle(&mut self, store: &Store) {
        for ((chunk, ballot), allowed) in &mut self.names {
            let found = store
                .ballots(*chunk)
                .into_iter()
                .find(|entry| entry.ballot == *ballot);
            allowed.stored = store.get(*chunk, Some(*ballot)).ok();
            allowed.deleted |= found.is_some_and(|entry| entry.state == vstack_store::ObjectState::Deleted);
        }
    }
}

fn brief(allowed: &Allowed) -> String {
    let len = |data: &Option<Vec<u8>>| data.as_ref().map(Vec::len);
    let Allowed {
        maybe_deleted,
        deleted,
        ..
    } = allowed;
    format!(
        "{:?} {:?} {maybe_deleted} {deleted}",
        len(&allowed.stored),
        len(&allowed.maybe_stored)
    )
}

fn brief_result(found: &Result<Vec<u8>, StoreError>) -> String {
    match found {
        Ok(data) => format!("{} bytes", data.len()),
        Err(error) => error.to_string(),
    }
}

/// Runs a script until its end or until the disk goes away; `disk` may be set to crash or to fail.
fn run_script(disk: &CrashDisk, model: &mut Model, script: &[Step]) {
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

fn xorshift(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u32::from_le_bytes([
            state.to_le_bytes()[2],
            state.to_le_bytes()[3],
            state.to_le_bytes()[4],
            state.to_le_bytes()[5],
        ])
    }
}

/// Cuts the power at operation `at` of `script`, restarts, checks, writes some more, cuts again, checks again.
fn check_power_cut(script: &[Step], at: u64, seed: u64) {
    let what = format!("power cut at operation {at}, seed {seed}");
    let mut random = xorshift(seed ^ (at << 20));
    let disk = CrashDisk::default();
    disk.crash_at(Some(at));
    let mut model = Model::default();
    run_script(&disk, &mut model, script);
    let disk = disk.restart(&mut random);
    let (store, report) = open(&disk).expect(&what);
    assert!(
        report.skipped.is_empty() && report.contradictions.is_empty(),
        "{what}: {report:?}"
    );
    model.check(&store, &what);
    model.settle(&store);
    drop(store);
    let disk = disk.restart(&mut random);
    let (store, _) = open(&disk).expect(&what);
    model.check(&store, &format!("{what}, then again at rest"));
    model.put(&store, &[(90, 0, 6000), (91, 0, 100)]);
    drop(store);
    let (store, _) = open(&disk.restart(&mut random)).expect(&what);
    model.check(&store, &format!("{what}, then writes and a cut"));
}

#[test]
fn nothing_acknowledged_is_lost_whenever_the_power_goes() {
    let script = fixed_script();
    let disk = CrashDisk::default();
    run_script(&disk, &mut Model::default(), &script);
    let operations = disk.operations() + 5;
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
    let disk = CrashDisk::default();
    disk.fail_at(at, errno);
    let mut model = Model::default();
    run_script(&disk, &mut model, script);
    assert!(
        !disk.touched_after_failure(),
        "{what}: a file was used again after it had failed"
    );
    let disk = disk.restart(&mut xorshift(at));
    let (store, _) = open(&disk).expect(&what);
    model.check(&store, &what);
}

#[test]
fn after_an_error_nothing_is_acknowledged_and_the_file_is_left_alone() {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    let script = fixed_script();
    let disk = CrashDisk::default();
    run_script(&disk, &mut Model::default(), &script);
    for at in 0..disk.operations() + 5 {
        check_fault(&script, at, EIO);
        check_fault(&script, at, ENOSPC);
    }
}

#[test]
fn writing_goes_on_in_a_new_superblock_after_a_failed_sync() {
    let disk = CrashDisk::default();
    let (store, _) = open(&disk).unwrap();
    let mut model = Model::default();
    model.put(&store, &[(1, 0, 100)]);
    disk.failed_syncs_write();
    // The write of the next batch, then its sync.
    disk.fail_at(disk.operations() + 1, 5);
    let refused = store.put_blocking(PutRequest::new(
        chunk(2),
        Ballot::PLAIN,
        Bytes::from_static(b"refused"),
    ));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
    model.put(&store, &[(2, 0, 100), (3, 0, 100)]);
    assert!(
        model.names[&name(2, 0)].stored.is_some(),
        "the store did not go on"
    );
    assert_eq!(store.stats().superblock_count, 2);
    // The refused bytes are in the first file, whole, and must not come back under the name that others have now.
    drop(store);
    let (store, report) = open(&disk).unwrap();
    assert!(report.contradictions.is_empty(), "{report:?}");
    model.check(&store, "after a restart");
    assert!(!disk.touched_after_failure());
}

/// Opens the store again after a failure, writes, cuts the power, and checks that what was acknowledged is there.
fn check_after_failure(disk: &CrashDisk, mut model: Model, what: &str) {
    let (store, _) = open(disk).expect(what);
    model.check(&store, what);
    model.put(&store, &[(8, 0, 9000), (9, 0, 100)]);
    drop(store);
    let (store, report) = open(&disk.restart(&mut xorshift(1))).expect(what);
    assert!(
        report.bad.is_empty(),
        "{what}: the writer left a hole: {report:?}"
    );
    model.check(&store, &format!("{what}, then writes and a power cut"));
}

/// A store whose operations can be counted: it writes no mark before it is dropped.
fn open_without_idle_marks(disk: &CrashDisk) -> Store {
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
    let disk = CrashDisk::default();
    let store = open_without_idle_marks(&disk);
    // The first batch makes a superblock: create, allocate, write, sync, rename, and the folder's sync.
    disk.fail_at(disk.operations() + 5, 5);
    let mut model = Model::default();
    model.put(&store, &[(1, 0, 100)]);
    assert!(model.names[&name(1, 0)].stored.is_none(), "the fault was not met");
    drop(store);
    check_after_failure(&disk, model, "the folder's sync failed");
}

#[test]
fn a_mark_that_could_not_be_synced_is_no_ground_to_build_on() {
    for operation in ["write", "sync"] {
        let disk = CrashDisk::default();
        let store = open_without_idle_marks(&disk);
        let mut model = Model::default();
        model.put(&store, &[(1, 0, 100)]);
        // Leaving writes the mark and syncs it.
        disk.fail_at(disk.operations() + u64::from(operation == "sync"), 5);
        drop(store);
        let path = Path::new("/disk/node/data").join("superblock_000000.dat");
        let cached = disk.read(&path).len();
        let on_disk = disk.restart(&mut xorshift(1)).read(&path).len();
        assert_eq!(
            cached > on_disk,
            operation == "sync",
            "{operation}: {cached} {on_disk}"
        );
        check_after_failure(&disk, model, &format!("the {operation} of the mark failed"));
    }
}

#[test]
fn short_writes_change_nothing() {
    for bytes in [13, 511, 4096] {
        let disk = CrashDisk::default();
        disk.short_writes(bytes);
        let mut model = Model::default();
        run_script(&disk, &mut model, &fixed_script());
        let (store, report) = open(&disk.restart(&mut xorshift(1))).unwrap();
        assert!(report.is_clean() && report.torn.is_empty(), "{report:?}");
        assert!(model.names.values().all(|allowed| allowed.maybe_stored.is_none()));
        model.check(&store, "short writes");
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

/// Puts under one name must have one content in a script, whatever their sizes: the first one's.
fn one_content_per_name(mut script: Vec<Step>) -> Vec<Step> {
    let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
    for step in &mut script {
        if let Step::Puts(puts) = step {
            puts.iter_mut()
                .for_each(|(seq, _, size)| *size = *sizes.entry(*seq).or_insert(*size));
        }
    }
    script
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
        let disk = CrashDisk::default();
        let mut model = Model::default();
        run_script(&disk, &mut model, &script);
        let (store, report) = open(&disk).expect("the folder opens");
        prop_assert!(report.is_clean() && report.torn.is_empty(), "{:?}", report);
        model.check(&store, "restart");
    }
}
