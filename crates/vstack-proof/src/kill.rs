//! A real process on the real disk, killed with SIGKILL again and again: nothing that it acknowledged is lost.
//!
//! The page cache survives SIGKILL, so this proves recovery and not syncing; [`crate::crash_points`] and
//! [`crate::power_cut`] prove that. The seed decides how much each process may say before it is killed; where the kill
//! meets it is the machine's doing, so a seed makes a failure likely again and not certain.

use std::path::{Path, PathBuf};
use std::time::Instant;

use vstack_store::Store;
use vstack_store::sim::Random;

use crate::report::{Report, Settings};
use crate::writer_process::{Acknowledged, NAMES_PER_PROCESS, WriterProcess, options};

/// A new folder after so many kills, since each start checks everything in it.
const KILLS_PER_FOLDER: u64 = 25;

/// Kills `settings.count` processes of `program`, which is this crate's binary, in folders below `scratch`.
pub fn run(
    settings: Settings,
    program: &Path,
    scratch: &Path,
    mut progress: impl FnMut(u64) -> bool,
) -> Report {
    let started = Instant::now();
    let mut report = Report::new("kill", "kills");
    let mut totals = [0; 3];
    let mut folder = Folder::new(scratch, 0);
    for cycle in 0..settings.count {
        if cycle.is_multiple_of(KILLS_PER_FOLDER) {
            folder = folder.replaced(&mut totals, scratch, cycle);
        }
        let seed = settings.seed + cycle;
        if let Err(what) = folder.kill_once(program, seed, cycle, &mut totals) {
            report.fail(seed, format!("kill {cycle}: {what}"));
            break;
        }
        report.count += 1;
        if !progress(report.count) {
            break;
        }
    }
    drop(folder.replaced(&mut totals, scratch, settings.count));
    report.milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let [answers, torn, superblocks] = totals;
    report.facts = vec![
        ("puts and deletes acknowledged before a kill", answers),
        ("torn tails cut off", torn),
        ("superblocks opened", superblocks),
    ];
    report
}

struct Folder {
    path: PathBuf,
    acknowledged: Acknowledged,
}

impl Folder {
    fn new(scratch: &Path, number: u64) -> Self {
        Self {
            path: scratch.join(format!("kill-{number}")),
            acknowledged: Acknowledged::default(),
        }
    }

    fn replaced(self, totals: &mut [u64; 3], scratch: &Path, number: u64) -> Self {
        totals[0] += self.acknowledged.answers();
        // One that was never used is not there.
        drop(std::fs::remove_dir_all(&self.path));
        Self::new(scratch, number)
    }

    fn kill_once(
        &mut self,
        program: &Path,
        seed: u64,
        cycle: u64,
        totals: &mut [u64; 3],
    ) -> Result<(), String> {
        let mut random = Random::new(seed);
        random.next_u64();
        let first = u32::try_from(cycle % KILLS_PER_FOLDER).unwrap_or(0) * NAMES_PER_PROCESS;
        let mut writer = WriterProcess::start(program, &self.path, first, true, &mut self.acknowledged)?;
        writer.hear(1 + random.below(60), &mut self.acknowledged)?;
        writer.kill()?;
        writer.drain(&mut self.acknowledged)?;
        let (store, report) = Store::open(&self.path, options()).map_err(|error| error.to_string())?;
        if !report.is_clean() {
            return Err(format!("a kill looks like damage: {report:?}"));
        }
        totals[1] += report.torn.len() as u64;
        totals[2] += report.superblocks as u64;
        self.acknowledged.check(&store)
    }
}
