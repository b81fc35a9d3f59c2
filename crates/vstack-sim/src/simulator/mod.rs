//! The simulator: whole clusters in one thread, decided by one seed.
//!
//! The protocol is `vstack_core::paxos` as the roles run it. Around it everything is simulated and everything can go
//! wrong: messages are lost, doubled, late and out of order, links are cut one way or both, machines lose their power
//! with half their writes, disks are replaced, the catalogue is restored from a backup, clocks are wrong, uploaders die
//! and others take over. After every event an oracle that sees all machines checks what must hold; when the faults
//! stop, all work must come to an end and everything that was acknowledged must be readable.
//!
//! One generator, seeded once, decides everything, and nothing else does: no clock, no thread, no map with an order of
//! its own. So a seed is a run, bit for bit.
//!
//! Left out: HTTP, plain clients (ballot 0), and the rebuild of a catalogue from its nodes. After a restore the chunks
//! that changed since the backup are the operator's loss, as documented; the oracle then asks only that nothing is
//! confused.

mod catalogue;
mod client;
mod disk;
mod message;
mod mutant;
mod node;
mod oracle;
mod outbox;
mod plan;
mod random;
mod reading;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use mutant::{Mutant, UnknownMutant};
pub use oracle::{Rule, Violation};
pub use world::Report;

use world::World;

/// Runs one seed. An assertion of the core that fails is a violation, too; the report then has no more than that.
#[must_use]
pub fn run(seed: u64, mutant: Option<Mutant>, trace: bool) -> Report {
    let run = catch_unwind(AssertUnwindSafe(|| World::new(seed, mutant, trace).run()));
    run.unwrap_or_else(|cause| {
        let text = cause.downcast_ref::<String>().cloned();
        let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let violation = Violation {
            rule: Rule::Asserted,
            detail: text.unwrap_or_default(),
            at_ms: 0,
        };
        Report {
            seed,
            violation: Some(violation),
            ..Report::default()
        }
    })
}

/// The command that runs a seed again and shows every event.
#[must_use]
pub fn replay_command(seed: u64, mutant: Option<Mutant>) -> String {
    let mutant = mutant.map_or_else(String::new, |mutant| format!(" --mutant {mutant}"));
    format!("cargo run --release -p vstack-sim --bin vstack-sim -- --seed {seed}{mutant} --trace")
}
