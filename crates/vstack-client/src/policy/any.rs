//! The policy that a session runs, whichever it is, and changing it while it runs.

use serde::{Deserialize, Serialize};

use super::{
    Action, AttemptId, CancelReason, ChunkSpec, DropReason, Fact, Micros, NodeRecords, Pool, PoolConfig,
    Seed, SeedConfig,
};

/// Which policy, with its figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyConfig {
    /// Whole chunks: the base policy, and those it is compared with.
    Seed(SeedConfig),
    /// Ranges from several nodes.
    Pool(PoolConfig),
}

/// A policy at work.
#[derive(Debug, Clone)]
pub enum Policy {
    Seed(Seed),
    Pool(Box<Pool>),
}

impl Policy {
    /// A session at the start of a video that has these chunks, in order. Nothing starts before the first fact.
    #[must_use]
    pub fn new(config: PolicyConfig, chunks: Vec<ChunkSpec>) -> Self {
        match config {
            PolicyConfig::Seed(config) => Self::Seed(Seed::new(config, chunks)),
            PolicyConfig::Pool(config) => Self::Pool(Box::new(Pool::new(config, chunks))),
        }
    }

    /// Takes one fact in and answers what to do now. `records` learns from transfers.
    pub fn apply(&mut self, now: Micros, records: &mut NodeRecords, fact: Fact) -> Vec<Action> {
        match self {
            Self::Seed(seed) => seed.apply(now, records, fact),
            Self::Pool(pool) => pool.apply(now, records, fact),
        }
    }

    /// Another policy takes over where this one is: what is whole stays, what is under way is cancelled, and blocks of
    /// unfinished chunks are given up. A caller that tells [`Fact::Leaving`] before, and waits until nothing
    /// [has begun](Self::has_begun), loses none. It applies the actions, and then a [`Fact::Tick`].
    pub fn switch(&mut self, config: PolicyConfig) -> Vec<Action> {
        let handover = match self {
            Self::Seed(seed) => seed.hand_over(),
            Self::Pool(pool) => pool.hand_over(),
        };
        let cancels = handover
            .running
            .iter()
            .map(|(attempt, seq, node)| Action::Cancel {
                attempt: *attempt,
                seq: *seq,
                node: *node,
                why: CancelReason::PolicyChanged,
            });
        let drops = handover.partial.iter().map(|seq| Action::Drop {
            seq: *seq,
            why: DropReason::PolicyChanged,
        });
        let actions = cancels.chain(drops).collect();
        *self = match config {
            PolicyConfig::Seed(config) => Self::Seed(Seed::resume(config, handover)),
            PolicyConfig::Pool(config) => Self::Pool(Box::new(Pool::resume(config, handover))),
        };
        actions
    }

    /// Whether chunks that playback needs have begun to come block by block: a switch now would give them up.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        match self {
            Self::Seed(_) => false,
            Self::Pool(pool) => pool.has_begun(),
        }
    }

    /// Time ahead of the playhead that may be played.
    #[must_use]
    pub fn level(&self) -> Micros {
        match self {
            Self::Seed(seed) => seed.level(),
            Self::Pool(pool) => pool.level(),
        }
    }

    /// Everything up to the end of the video is held.
    #[must_use]
    pub fn reaches_end(&self) -> bool {
        match self {
            Self::Seed(seed) => seed.reaches_end(),
            Self::Pool(pool) => pool.reaches_end(),
        }
    }

    /// So far ahead of the playhead the policy fetches by itself.
    #[must_use]
    pub fn ahead(&self) -> Micros {
        match self {
            Self::Seed(seed) => seed.ahead(),
            Self::Pool(pool) => pool.ahead(),
        }
    }

    #[must_use]
    pub const fn position(&self) -> Micros {
        match self {
            Self::Seed(seed) => seed.position(),
            Self::Pool(pool) => pool.position(),
        }
    }

    /// How long an attempt that begins now will take, from its request to its last byte, with all that was asked of its
    /// node before: as the pool's moving averages have it. `None` for policies that expect nothing.
    #[must_use]
    pub fn expected(&self, attempt: AttemptId) -> Option<Micros> {
        match self {
            Self::Seed(_) => None,
            Self::Pool(pool) => pool.expected(attempt),
        }
    }

    /// Attempts under way.
    #[must_use]
    pub fn running_count(&self) -> usize {
        match self {
            Self::Seed(seed) => seed.running_count(),
            Self::Pool(pool) => pool.running_count(),
        }
    }
}

/// What one policy leaves to the next.
#[derive(Debug, Clone)]
pub(super) struct Handover {
    pub(super) chunks: Vec<ChunkSpec>,
    /// Chunks that are whole, or whose hash is being checked.
    pub(super) held: Vec<u32>,
    /// Chunks of which some blocks are stored.
    pub(super) partial: Vec<u32>,
    pub(super) wanted: std::collections::BTreeSet<u32>,
    pub(super) position: Micros,
    pub(super) starved: bool,
    pub(super) running: Vec<(AttemptId, u32, super::NodeIndex)>,
    pub(super) next_attempt: u64,
    pub(super) reading_manifest: bool,
}
