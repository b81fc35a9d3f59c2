//! Power cuts before every disk call of random scripts.
//!
//! One run: a script of requests and compactions over one to three starts of the store. Before each call that changes the
//! disk, recovery included, the power goes in several ways, or the process alone dies: each sector, length and name that was not synced is there, is not, or is
//! garbage. Each such *crash point* is started again and compared with the ledger; some then write on and lose power
//! once more. The next start of the script goes on from one of the points, so that the traces of crashes pile up.
//!
//! Besides what the ledger says, a power cut alone must never look like rot, and readers of the running store must see
//! exactly what is acknowledged.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use vstack_store::sim::{Random, SimDisk};
use vstack_store::{RecoveryReport, Store};

use crate::ledger::{Ledger, Seen};
use crate::report::{Report, Settings};
use crate::script::{Contents, Request, Script, pick};
use crate::session::{SharedLedger, open, seed_identities};

/// Ways in which the power goes before each call.
const OUTCOMES: u64 = 3;
/// One crash point in so many is the death of the process alone.
const KILLED: u64 = 6;
/// One crash point in so many is written to and loses power once more.
const WRITTEN_ON: u64 = 8;

/// Runs scripts until `settings.count` crash points are done, from `settings.seed` on, a seed for each script.
///
/// `progress` is called after each script with the points so far; it says whether to go on.
pub fn run(settings: Settings, mut progress: impl FnMut(u64) -> bool) -> Report {
    let started = Instant::now();
    let mut report = Report::new("crash-points", "crash points");
    let mut total = Figures::default();
    let mut seed = settings.seed;
    while report.count < settings.count {
        let (figures, failure) = run_script(seed);
        report.count += figures.points;
        total.add(&figures);
        if let Some(what) = failure {
            report.fail(seed, format!("seed {seed}: {what}"));
        }
        seed += 1;
        if !progress(report.count) {
            break;
        }
    }
    report.milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    report.facts = total.facts(settings.seed, seed - settings.seed);
    report
}

#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    points: u64,
    written_on: u64,
    torn_tails: u64,
    superblocks: u64,
    seen: Seen,
}

impl Figures {
    fn add(&mut self, other: &Self) {
        self.points += other.points;
        self.written_on += other.written_on;
        self.torn_tails += other.torn_tails;
        self.superblocks += other.superblocks;
        self.see(other.seen);
    }

    fn see(&mut self, seen: Seen) {
        self.seen.stored += seen.stored;
        self.seen.deleted += seen.deleted;
        self.seen.unacknowledged_kept += seen.unacknowledged_kept;
        self.seen.unacknowledged_torn += seen.unacknowledged_torn;
    }

    fn facts(&self, first_seed: u64, scripts: u64) -> Vec<(&'static str, u64)> {
        vec![
            ("first seed", first_seed),
            ("scripts, a seed each", scripts),
            ("acknowledged objects read back", self.seen.stored),
            ("acknowledged deletes still gone", self.seen.deleted),
            (
                "unacknowledged puts that were there whole",
                self.seen.unacknowledged_kept,
            ),
            (
                "unacknowledged puts that were torn, and said to be",
                self.seen.unacknowledged_torn,
            ),
            ("torn tails cut off", self.torn_tails),
            ("points written on and cut once more", self.written_on),
            ("superblocks opened", self.superblocks),
        ]
    }
}

/// What the observer of a disk needs, while the store is at work.
#[derive(Debug)]
struct Watch {
    random: Random,
    superblock_bytes: u64,
    /// What the disk was left as by the last crash until the store has opened: then nothing is visible yet.
    store: Option<Store>,
    figures: Figures,
    failure: Option<String>,
    /// Where the next start goes on: one of the points so far, each as likely as the others.
    next: Option<(SimDisk, Ledger)>,
    points_of_this_start: u64,
}

fn run_script(seed: u64) -> (Figures, Option<String>) {
    let mut random = Random::new(seed);
    random.next_u64();
    seed_identities(seed);
    let script = Script::random(&mut random);
    let watch = Arc::new(Mutex::new(Watch {
        random,
        superblock_bytes: script.superblock_bytes,
        store: None,
        figures: Figures::default(),
        failure: None,
        next: None,
        points_of_this_start: 0,
    }));
    let mut contents = Contents::new(seed);
    let mut from = (SimDisk::new(), Ledger::default());
    for moves in &script.boots {
        let ledger = SharedLedger::new(from.1);
        observe(&from.0, &ledger, &watch);
        let outcome = run_start(
            &from.0,
            script.superblock_bytes,
            &ledger,
            &watch,
            moves,
            &mut contents,
        );
        from.0.observe(None);
        let mut watch = lock(&watch);
        watch.store = None;
        watch.points_of_this_start = 0;
        if let Err(what) = outcome {
            watch.failure.get_or_insert(what);
        }
        match watch.next.take() {
            Some(next) if watch.failure.is_none() => from = next,
            _ => break,
        }
    }
    let watch = lock(&watch);
    (watch.figures, watch.failure.clone())
}

fn lock(watch: &Mutex<Watch>) -> std::sync::MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One start of the store on `disk`, and its part of the script.
fn run_start(
    disk: &SimDisk,
    superblock_bytes: u64,
    ledger: &SharedLedger,
    watch: &Arc<Mutex<Watch>>,
    moves: &[crate::script::Move],
    contents: &mut Contents,
) -> Result<(), String> {
    let (mut stepped, report) =
        open(disk, superblock_bytes).map_err(|error| format!("does not open: {error}"))?;
    check_report(&report)?;
    let mut settled = ledger.copy();
    settled.check(stepped.store())?;
    settled.settle(stepped.store());
    *ledger.lock() = settled;
    lock(watch).store = Some(stepped.store().clone());
    for step in moves {
        ledger.perform(&mut stepped, step, contents);
        if lock(watch).failure.is_some() {
            return Ok(());
        }
    }
    ledger.lock().check_visible(stepped.store())
}

/// Cuts the power before each call that `disk` gets from now on.
fn observe(disk: &SimDisk, ledger: &SharedLedger, watch: &Arc<Mutex<Watch>>) {
    let (seen_disk, ledger, watch) = (disk.clone(), ledger.clone(), Arc::clone(watch));
    disk.observe(Some(Box::new(move |number, call| {
        let mut watch = lock(&watch);
        if watch.failure.is_none() {
            let ledger = ledger.copy();
            if let Err(what) = watch.cut(&seen_disk, &ledger) {
                watch.failure = Some(format!("power cut before call {number} ({call:?}): {what}"));
            }
        }
    })));
}

impl Watch {
    fn cut(&mut self, disk: &SimDisk, ledger: &Ledger) -> Result<(), String> {
        if let Some(store) = &self.store {
            ledger.check_visible(store)?;
        }
        for _ in 0..OUTCOMES {
            // A process that dies alone leaves everything in memory, synced or not.
            let after = if self.random.one_in(KILLED) {
                disk.snapshot()
            } else {
                disk.restart(&mut self.random)
            };
            self.points_of_this_start += 1;
            if self.random.one_in(self.points_of_this_start) {
                self.next = Some((after.snapshot(), ledger.clone()));
            }
            self.check(&after, ledger)?;
        }
        Ok(())
    }

    /// Starts the store on what the power cut left.
    fn check(&mut self, disk: &SimDisk, ledger: &Ledger) -> Result<(), String> {
        self.figures.points += 1;
        let opened = open(disk, self.superblock_bytes);
        let (stepped, report) = opened.map_err(|error| format!("does not open: {error}"))?;
        check_report(&report)?;
        let seen = ledger.check(stepped.store())?;
        self.figures.see(seen);
        self.figures.torn_tails += report.torn.len() as u64;
        self.figures.superblocks += report.superblocks as u64;
        if self.random.one_in(WRITTEN_ON) {
            self.figures.written_on += 1;
            let mut settled = ledger.clone();
            settled.settle(stepped.store());
            return self.write_on(disk, stepped, settled);
        }
        Ok(())
    }

    /// Writes to a store that came back, cuts the power again, and starts it once more.
    fn write_on(
        &mut self,
        disk: &SimDisk,
        mut stepped: vstack_store::SteppedStore,
        settled: Ledger,
    ) -> Result<(), String> {
        let ledger = SharedLedger::new(settled);
        let mut contents = Contents::new(self.random.next_u64());
        // What the start has found must be there even if nothing is synced any more.
        if pick(&mut self.random, 3) > 0 {
            for seq in [90, 91] {
                let put = Request::Put { seq, ballot: 0 };
                ledger.send(stepped.store(), put, &mut contents);
            }
            stepped.write_all();
        }
        if pick(&mut self.random, 2) == 0 {
            stepped.idle();
        }
        let after = disk.restart(&mut self.random);
        drop(stepped);
        let opened = open(&after, self.superblock_bytes);
        let (stepped, report) =
            opened.map_err(|error| format!("does not open after a second cut: {error}"))?;
        check_report(&report)?;
        let ledger = ledger.copy();
        ledger
            .check(stepped.store())
            .map(drop)
            .map_err(|what| format!("{what} (after more writes and a second cut)"))
    }
}

/// A power cut leaves torn tails and holes in the last batch; it never turns a synced bit, so it must not look like rot.
fn check_report(report: &RecoveryReport) -> Result<(), String> {
    let sound = report.skipped.is_empty()
        && report.contradictions.is_empty()
        && !report.bad.iter().any(|bad| bad.proven_rot);
    if sound {
        Ok(())
    } else {
        Err(format!("a power cut looks like damage: {report:?}"))
    }
}
