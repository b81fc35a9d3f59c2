//! A run: the machines, the faults at their times, calm, and the judgment.

use std::sync::Arc;
use std::time::Duration;

use turmoil::Sim;
use vstack_core::digest::Sha256Digest;
use vstack_core::time::UnixMillis;
use vstack_store::sim::{Random, SimDisk};

use crate::hosts;
use crate::judge;
use crate::mutant::Mutant;
use crate::panics;
use crate::plan::{End, Fault, Plan};
use crate::rest;
use crate::shared::Shared;
use crate::trace::Trace;
use crate::wire::Machine;
use crate::work;

/// Messages arrive at these steps. Shorter ones cost more steps and find no more.
const TICK: Duration = Duration::from_millis(40);
/// From calm to rest: the longest lease twice, and repair, conversion and heartbeats on top.
const REST_WITHIN: Duration = Duration::from_secs(300);
/// A machine that is to lose its power in the middle of a write does so at the latest after this.
const MID_WRITE_WITHIN: Duration = Duration::from_secs(2);
/// How far back a catalogue that forgets goes: uploads take a second or two.
const KEPT_EVERY_MS: u64 = 5_000;
const WATCHER: &str = "uploader-0";

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// What never may happen, if it did.
    pub violation: Option<String>,
    /// Chunks that were acknowledged.
    pub acknowledged: usize,
    pub faults: usize,
    pub virtual_ms: u64,
    pub events: u64,
    /// Of all events: equal for equal runs.
    pub fingerprint: Sha256Digest,
    /// The events, where they were asked for.
    pub trace: Vec<String>,
}

/// Runs a seed.
///
/// # Errors
/// The system gives no folder.
pub fn run(seed: u64, mutant: Option<Mutant>, keep_trace: bool) -> std::io::Result<Report> {
    let trace = Trace::new(keep_trace);
    let shared = Shared::new(seed, mutant, trace.clone())?;
    panics::forget();
    align_task_ids()?;
    let mut world = World::new(Arc::clone(&shared));
    let mut violation = world.run().err();
    let virtual_ms = millis(world.sim.elapsed());
    drop(world);
    if violation.is_none() {
        violation = judge::judge(&shared).err();
    }
    let (trace, events, fingerprint) = trace.end();
    Ok(Report {
        violation,
        acknowledged: shared.acknowledged().len(),
        faults: shared.plan.faults.len(),
        virtual_ms,
        events,
        fingerprint,
        trace,
    })
}

/// Tokio drops the tasks of a machine that goes down by their numbers modulo four (a power of two), and counts tasks for
/// the whole process. A run begins at a multiple, so that it does not matter which runs came before.
fn align_task_ids() -> std::io::Result<()> {
    const MULTIPLE: u64 = 64;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let next = || runtime.spawn(async {}).id().to_string().parse::<u64>();
    while next().is_ok_and(|id| !(id + 1).is_multiple_of(MULTIPLE)) {}
    Ok(())
}

struct World {
    shared: Arc<Shared>,
    sim: Sim<'static>,
    random: Random,
    /// Machines whose disk fails from some call on, and when they go down at the latest.
    dying: Vec<(Machine, Duration)>,
    down: Vec<Machine>,
}

impl World {
    fn new(shared: Arc<Shared>) -> Self {
        let plan = &shared.plan;
        let mut sim = turmoil::Builder::new()
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(3_600))
            .min_message_latency(plan.latency.0)
            .max_message_latency(plan.latency.1)
            .fail_rate(plan.loss)
            .repair_rate(0.2)
            .tcp_capacity(1_024)
            .enable_random_order()
            .rng_seed(shared.seed)
            .build();
        for machine in plan.machines() {
            let shared = Arc::clone(&shared);
            match machine {
                Machine::Catalogue => {
                    sim.host(machine.to_string(), move || hosts::catalogue(Arc::clone(&shared)))
                }
                Machine::Node(number) => {
                    sim.host(machine.to_string(), move || {
                        hosts::node(Arc::clone(&shared), number)
                    });
                }
                Machine::Uploader(number) => {
                    sim.host(machine.to_string(), move || {
                        work::uploader(Arc::clone(&shared), number)
                    });
                }
            }
        }
        let random = Random::new(shared.seed ^ 0x5eed);
        Self {
            shared,
            sim,
            random,
            dying: Vec::new(),
            down: Vec::new(),
        }
    }

    fn run(&mut self) -> Result<(), String> {
        let Plan {
            faults, calm_from, ..
        } = self.shared.plan.clone();
        let mut faults = faults.into_iter().peekable();
        while self.sim.elapsed() < calm_from || faults.peek().is_some() {
            while let Some((_, fault)) = faults.next_if(|(at, _)| *at <= self.sim.elapsed()) {
                self.shared.trace.note(|| format!("FAULT: {fault:?}"));
                self.strike(fault);
            }
            self.step()?;
        }
        self.calm();
        let shared = Arc::clone(&self.shared);
        self.sim.host(WATCHER, move || rest::watch(Arc::clone(&shared)));
        let deadline = self.sim.elapsed() + REST_WITHIN;
        while !self.shared.is_settled() {
            self.step()?;
            if self.sim.elapsed() > deadline {
                let waits = self.shared.restless();
                return Err(format!(
                    "not at rest {} s after calm: {waits}",
                    REST_WITHIN.as_secs()
                ));
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.shared.trace.at(UnixMillis(millis(self.sim.elapsed())));
        let stepped = self.sim.step().map_err(|error| error.to_string());
        if let Some(panic) = panics::seen() {
            return Err(format!("a task panicked: {panic}"));
        }
        stepped?;
        let now = self.sim.elapsed();
        if self.shared.mutant == Some(Mutant::CatalogueForgets) && millis(now).is_multiple_of(KEPT_EVERY_MS) {
            self.shared.keep_catalogue();
        }
        let (dead, dying) = std::mem::take(&mut self.dying)
            .into_iter()
            .partition(|(machine, latest)| {
                now >= *latest || self.disk_of(*machine).is_some_and(|disk| disk.has_crashed())
            });
        self.dying = dying;
        for (machine, _) in dead {
            self.crash(machine, End::PowerCut);
        }
        self.shared.what_is_wrong().map_or(Ok(()), Err)
    }

    fn strike(&mut self, fault: Fault) {
        let name = |machine: Machine| machine.to_string();
        match fault {
            // What is off writes nothing.
            Fault::Crash(machine, _) if self.is_down(machine) => {}
            Fault::Crash(machine, End::MidWrite) if self.disk_of(machine).is_some() => {
                if let Some(disk) = self.disk_of(machine) {
                    disk.crash_at(Some(disk.calls() + 1 + self.random.below(6)));
                }
                self.dying.push((machine, self.sim.elapsed() + MID_WRITE_WITHIN));
            }
            Fault::Crash(machine, end) => self.crash(machine, end),
            Fault::Bounce(machine) => self.bounce(machine),
            Fault::Part(one, other) => self.sim.partition(name(one), name(other)),
            Fault::PartOneWay(from, to) => self.sim.partition_oneway(name(from), name(to)),
            Fault::Repair(one, other) => self.sim.repair(name(one), name(other)),
            Fault::Slow(one, other, latency) => self.sim.set_link_latency(name(one), name(other), latency),
            Fault::Hold(one, other) => self.sim.hold(name(one), name(other)),
            Fault::Release(one, other) => self.sim.release(name(one), name(other)),
            Fault::ClockJump(ahead) => self.shared.catalogue_clock.advance(millis(ahead)),
        }
    }

    fn is_down(&self, machine: Machine) -> bool {
        self.down.contains(&machine)
    }

    fn disk_of(&self, machine: Machine) -> Option<SimDisk> {
        match machine {
            Machine::Node(number) => Some(self.shared.disk(number)),
            Machine::Catalogue | Machine::Uploader(_) => None,
        }
    }

    fn crash(&mut self, machine: Machine, end: End) {
        self.dying.retain(|(dying, _)| *dying != machine);
        if self.is_down(machine) {
            return;
        }
        self.shared.trace.note(|| format!("{machine} goes down: {end:?}"));
        self.sim.crash(machine.to_string());
        self.down.push(machine);
        let Machine::Node(number) = machine else {
            if machine == Machine::Catalogue && self.shared.mutant == Some(Mutant::CatalogueForgets) {
                self.shared.forget_catalogue();
            }
            return;
        };
        let disk = self.shared.disk(number);
        let next = match end {
            End::Killed => disk.snapshot(),
            End::PowerCut | End::MidWrite => disk.restart(&mut self.random),
            End::DiskLost => SimDisk::new(),
        };
        self.shared.put_disk(number, next);
    }

    fn bounce(&mut self, machine: Machine) {
        if self.dying.iter().any(|(dying, _)| *dying == machine) {
            self.crash(machine, End::PowerCut);
        }
        if let Some(place) = self.down.iter().position(|down| *down == machine) {
            self.down.remove(place);
            self.shared.trace.note(|| format!("{machine} is back"));
            self.sim.bounce(machine.to_string());
        }
    }

    /// From here on everything works.
    fn calm(&mut self) {
        self.shared.trace.note(|| "CALM".to_owned());
        self.sim.set_fail_rate(0.0);
        let machines: Vec<Machine> = self.shared.plan.machines().collect();
        for (number, one) in machines.iter().enumerate() {
            for other in machines.iter().skip(number + 1) {
                let (one, other) = (one.to_string(), other.to_string());
                self.sim.release(one.as_str(), other.as_str());
                self.sim
                    .set_link_latency(one.as_str(), other.as_str(), Duration::from_millis(5));
            }
        }
        for (machine, _) in std::mem::take(&mut self.dying) {
            self.crash(machine, End::PowerCut);
        }
        for machine in self.down.clone() {
            self.bounce(machine);
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
