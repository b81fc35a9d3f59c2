//! What a seed decides before the run begins: the size of the cluster, how bad the network is, which rare branches are
//! taken, and what is to be done.

use super::mutant::Mutant;
use super::random::Random;

/// Chances are per mille.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) mutant: Option<Mutant>,
    pub(super) nodes: usize,
    /// Machines that upload. Two more bring placements back to full strength.
    pub(super) clients: usize,
    pub(super) chunks: u32,
    /// Until then faults happen.
    pub(super) faults_ms: u64,
    pub(super) latency_ms: u64,
    pub(super) loss: u64,
    pub(super) duplication: u64,
    /// Messages that take a hundred times as long as others.
    pub(super) delay: u64,
    /// Pause between two faults, on average.
    pub(super) fault_pause_ms: u64,
    pub(super) lease_ms: u64,
    pub(super) collect_grace_ms: u64,
    pub(super) unknown_grace_ms: u64,
    pub(super) lazy_opens: bool,
    pub(super) restores: bool,
    /// A run of restores: many backups, an operator who is quick to use them, and nothing that waits.
    pub(super) storm: bool,
    /// A second client uploads the same chunk...
    pub(super) duels: u64,
    /// ...with other bytes.
    pub(super) other_bytes: u64,
    pub(super) deletions: u64,
    pub(super) conversions: u64,
    pub(super) request_timeout_ms: u64,
    /// Clocks are wrong by up to this much.
    pub(super) skew_ms: u64,
    /// A machine loses its power just after it has handled a message.
    pub(super) crash_points: u64,
    /// Faults that wait for their worst moment take it (see `ambush`).
    pub(super) ambushes: u64,
    /// Nodes list what they hold, between two heartbeats.
    pub(super) inventories: u64,
}

/// A day: far from zero, so that a clock can be behind.
pub(super) const EPOCH_MS: u64 = 86_400_000;

impl Plan {
    pub(super) fn draw(random: &mut Random, mutant: Option<Mutant>) -> Self {
        // Most runs are small, so that many fit into an hour; one in 32 has thousands of chunks.
        let chunks = match random.below(32) {
            0 => random.between(1_000, 4_000),
            1..=7 => random.between(64, 256),
            _ => random.between(4, 64),
        };
        let rarely =
            |random: &mut Random, usual: u64, rare: u64| if random.chance(250) { rare } else { usual };
        let bad = random.below(3);
        let plan = Self {
            mutant,
            nodes: 3 + random.index(6),
            clients: 2 + random.index(4),
            chunks: u32::try_from(chunks).expect("a few thousand"),
            faults_ms: 20_000 + random.below(60_000),
            latency_ms: 1 + random.below(40),
            loss: bad * random.below(60),
            duplication: bad * random.below(100),
            delay: random.below(30),
            fault_pause_ms: 500 + random.below(6_000),
            lease_ms: rarely(random, 10_000, 50),
            collect_grace_ms: rarely(random, 6_000, 0),
            unknown_grace_ms: 20_000,
            lazy_opens: random.chance(500),
            restores: random.chance(350),
            storm: random.chance(150),
            duels: random.below(300),
            other_bytes: random.below(300),
            deletions: random.below(200),
            conversions: random.below(400),
            request_timeout_ms: rarely(random, 2_000, 60),
            skew_ms: [0, 1_000, 3_600_000, EPOCH_MS / 2][random.index(4)],
            crash_points: rarely(random, 0, 12),
            ambushes: 0,
            inventories: rarely(random, 30, 300),
        };
        if plan.storm { plan.with_restores() } else { plan }
    }

    fn with_restores(self) -> Self {
        Self {
            restores: true,
            chunks: self.chunks.min(100),
            crash_points: 15,
            ambushes: 300,
            collect_grace_ms: 0,
            lease_ms: 50,
            loss: 120,
            delay: 60,
            duels: 700,
            lazy_opens: true,
            ..self
        }
    }
}
