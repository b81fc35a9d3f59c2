//! The policy that decides for a session: one of those that there are, behind the four things a session asks of it.

use crate::config::ClientConfig;
use crate::policy::{Action, ChunkSpec, Fact, Micros, NodeRecords, Seed};

#[derive(Debug)]
pub(super) enum Scheduler {
    Seed(Seed),
}

impl Scheduler {
    pub(super) fn new(config: &ClientConfig, specs: Vec<ChunkSpec>) -> Self {
        Self::Seed(Seed::new(config.seed(), specs))
    }

    /// One fact in, all actions out.
    pub(super) fn apply(&mut self, now: Micros, records: &mut NodeRecords, fact: Fact) -> Vec<Action> {
        match self {
            Self::Seed(seed) => seed.apply(now, records, fact),
        }
    }

    pub(super) fn position(&self) -> Micros {
        match self {
            Self::Seed(seed) => seed.position(),
        }
    }

    /// Verified time ahead of the playhead, without a gap.
    pub(super) fn level(&self) -> Micros {
        match self {
            Self::Seed(seed) => seed.level(),
        }
    }

    pub(super) fn reaches_end(&self) -> bool {
        match self {
            Self::Seed(seed) => seed.reaches_end(),
        }
    }
}
