//! One disk call after another fails, once and for ever: EIO, a full disk, a short write, a read that fails.
//!
//! A script runs once undisturbed and its calls are counted. Then it runs again for each of them, and that call fails.
//! After each: nothing panicked, no file was written or synced again after it had failed, every refusal names the error,
//! nothing acknowledged is missing while the store runs (after failed reads it may be called corrupt or unavailable, but
//! not unknown), and after a power cut everything acknowledged is there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use vstack_store::sim::{Fault, Random, SimDisk};
use vstack_store::{ErrorKind, SteppedStore, StoreError};

use crate::ledger::Ledger;
use crate::meddling::{Call, Meddling, Verdict};
use crate::report::{Report, Settings};
use crate::script::{Contents, Script};
use crate::session::{SharedLedger, open, open_on, seed_identities};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What is done to the n-th call of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Disturbance {
    at: u64,
    what: What,
    for_ever: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// A call that changes the disk fails with this errno.
    Change(i32),
    /// A call that reads fails with EIO.
    Read,
    /// A write takes so many bytes only.
    ShortWrite(usize),
}

/// Sweeps over scripts, a seed for each, until `settings.count` calls have failed.
pub fn run(settings: Settings, mut progress: impl FnMut(u64) -> bool) -> Report {
    let started = Instant::now();
    let mut report = Report::new("nth-call", "failed calls");
    let mut seed = settings.seed;
    let mut refusals = 0;
    let mut going_on = true;
    while report.count < settings.count && going_on {
        let calls = count_calls(seed);
        for disturbance in disturbances(calls) {
            let outcome = catch_unwind(AssertUnwindSafe(|| disturb(seed, disturbance)));
            report.count += 1;
            match outcome {
                Ok(Ok(refused)) => refusals += refused,
                Ok(Err(what)) => report.fail(seed, format!("seed {seed}, {disturbance:?}: {what}")),
                Err(_) => report.fail(seed, format!("seed {seed}, {disturbance:?}: it panicked")),
            }
            going_on = progress(report.count);
            if !going_on {
                break;
            }
        }
        seed += 1;
    }
    report.milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    report.facts = vec![
        ("first seed", settings.seed),
        ("scripts, a seed each", seed - settings.seed),
        ("requests and starts refused, each with its reason", refusals),
    ];
    report
}

/// Calls of an undisturbed run: those that change, those that read, writes among the former.
#[derive(Debug, Clone, Copy)]
struct Calls {
    changes: u64,
    reads: u64,
    writes: u64,
}

fn disturbances(calls: Calls) -> Vec<Disturbance> {
    let mut all = Vec::new();
    for for_ever in [false, true] {
        let of = |what: What, count: u64| (0..count).map(move |at| Disturbance { at, what, for_ever });
        all.extend(of(What::Change(EIO), calls.changes));
        all.extend(of(What::Change(ENOSPC), calls.changes));
        all.extend(of(What::Read, calls.reads));
        for bytes in [1, 511, 4096] {
            all.extend(of(What::ShortWrite(bytes), calls.writes));
        }
    }
    all
}

fn count_calls(seed: u64) -> Calls {
    let disk = SimDisk::new();
    let meddling = Meddling::new(Arc::new(disk.clone()), |_, _| Verdict::Do);
    let run = Run::new(seed, meddling.clone(), false);
    // Undisturbed it refuses nothing but what the script asks in vain.
    drop(run.perform());
    Calls {
        changes: disk.calls(),
        reads: meddling.count(Call::Read),
        writes: meddling.count(Call::Write),
    }
}

/// Runs the script of `seed` with one disturbance; returns how much was refused because of it.
fn disturb(seed: u64, disturbance: Disturbance) -> Result<u64, String> {
    let Disturbance { at, what, for_ever } = disturbance;
    let disk = SimDisk::new();
    let due = move |number: u64| number == at || (for_ever && number > at);
    let rule = move |call: Call, number: u64| match (what, call) {
        (What::Read, Call::Read) if due(number) => Verdict::Fail(EIO),
        (What::ShortWrite(bytes), Call::Write) if due(number) => Verdict::Shorten(bytes),
        _ => Verdict::Do,
    };
    if let What::Change(errno) = what {
        disk.inject(if for_ever {
            Fault::for_ever(at, errno)
        } else {
            Fault::once(at, errno)
        });
    }
    let meddling = Meddling::new(Arc::new(disk.clone()), rule);
    let (ledger, refusals) = Run::new(seed, meddling, what == What::Read).perform()?;
    if disk.touched_after_failure() {
        return Err("a file was written or synced again after it had failed".to_owned());
    }
    if let Some(silent) = refusals.iter().find(|refusal| !says_why(refusal, what)) {
        return Err(format!("a refusal does not say why: {silent}"));
    }
    disk.heal();
    let mut random = Random::new(seed ^ at);
    let (stepped, report) = open(&disk.restart(&mut random), 1 << 20)
        .map_err(|error| format!("does not open after a power cut: {error}"))?;
    if report.bad.iter().any(|bad| bad.proven_rot) || !report.skipped.is_empty() {
        return Err(format!("an error of the disk looks like rot: {report:?}"));
    }
    ledger
        .check(stepped.store())
        .map_err(|what| format!("{what} (after a power cut)"))?;
    Ok(refusals.len() as u64)
}

/// A refusal names the disk's error; a full disk may be called full.
fn says_why(refusal: &StoreError, what: What) -> bool {
    let errno = match what {
        What::Change(errno) => errno,
        What::Read => EIO,
        What::ShortWrite(_) => return false,
    };
    match refusal {
        StoreError::Disk(fault) | StoreError::ReadOnly(fault) => fault.code == Some(errno),
        StoreError::Full { .. } => errno == ENOSPC,
        StoreError::Unsure { .. } => what == What::Read,
        _ => false,
    }
}

struct Run {
    script: Script,
    contents: Contents,
    meddling: Meddling,
    reads_fail: bool,
}

impl Run {
    fn new(seed: u64, meddling: Meddling, reads_fail: bool) -> Self {
        let mut random = Random::new(seed);
        random.next_u64();
        seed_identities(seed);
        Self {
            script: Script::random(&mut random),
            contents: Contents::new(seed),
            meddling,
            reads_fail,
        }
    }

    /// All starts of the script, one after another; returns what was acknowledged and everything that was refused.
    fn perform(mut self) -> Result<(Ledger, Vec<StoreError>), String> {
        let ledger = SharedLedger::new(if self.reads_fail {
            Ledger::with_failing_reads()
        } else {
            Ledger::default()
        });
        let mut refusals = Vec::new();
        for moves in std::mem::take(&mut self.script.boots) {
            let disk = Arc::new(self.meddling.clone());
            let mut stepped = match open_on(disk, self.script.superblock_bytes) {
                Ok((stepped, _)) => stepped,
                Err(error) => {
                    refusals.push(error);
                    continue;
                }
            };
            for step in &moves {
                ledger.perform(&mut stepped, step, &mut self.contents);
            }
            check_running(&ledger.copy(), &stepped, self.reads_fail)?;
        }
        refusals.extend(ledger.refusals());
        let ledger = ledger.copy();
        Ok((ledger, refusals))
    }
}

/// What the running store says of everything acknowledged: the bytes, or, where reads fail, that they are damaged or out
/// of reach.
fn check_running(ledger: &Ledger, stepped: &SteppedStore, reads_fail: bool) -> Result<(), String> {
    for (name, data) in ledger.all_stored() {
        match stepped.store().get(name.0, Some(name.1)) {
            Ok(found) if found == *data => {}
            Err(error)
                if reads_fail && matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unavailable) => {}
            other => {
                let other = other.map(|data| data.len());
                return Err(format!(
                    "{} at ballot {} is acknowledged, the running store says {other:?}",
                    name.0, name.1
                ));
            }
        }
    }
    Ok(())
}
