//! The roles' real handlers on a simulated network and simulated disks: a whole cluster in one thread, decided by a seed.
//!
//! Storage nodes, the catalogue and the uploaders' ChunkPaxos driver are the product's, with their routes, time limits
//! and retries; beneath them are turmoil's sockets and clock, `SimDisk`, and SQLite on the one thread. Machines are killed
//! and lose their power, links break, slow down, pass messages one way only or late. What was acknowledged must be there
//! in the end, and everything must come to rest once the faults are over.
//!
//! Left out: FFmpeg and spooled files, the gateway and the players, scrub and compaction (which have proof runs of their
//! own), and threads: what happens here happens one after another.

mod forged;
mod hosts;
mod judge;
mod lying;
mod mutant;
mod panics;
mod plan;
mod rest;
mod shared;
mod trace;
mod wire;
mod work;
mod world;

pub use mutant::Mutant;
pub use wire::Machine;
pub use world::{Report, run};

/// The command that runs a seed again, every event shown.
#[must_use]
pub fn replay_command(seed: u64, mutant: Option<Mutant>) -> String {
    let mutant = mutant
        .map(|mutant| format!(" --mutant {mutant}"))
        .unwrap_or_default();
    format!("cargo run -p vstack-turmoil -- --seed {seed} --trace{mutant}")
}
