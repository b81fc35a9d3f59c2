//! The policy that decides for a session, as its settings name it.

use crate::config::ClientConfig;
use crate::policy::{Action, ChunkSpec, Fact, Micros, NodeRecords, Policy};

#[derive(Debug)]
pub(super) struct Scheduler(Policy);

impl Scheduler {
    pub(super) fn new(config: &ClientConfig, specs: Vec<ChunkSpec>) -> Self {
        Self(Policy::new(config.policy_config(), specs))
    }

    /// One fact in, all actions out.
    pub(super) fn apply(&mut self, now: Micros, records: &mut NodeRecords, fact: Fact) -> Vec<Action> {
        self.0.apply(now, records, fact)
    }

    pub(super) const fn position(&self) -> Micros {
        self.0.position()
    }

    /// Verified time ahead of the playhead, without a gap.
    pub(super) fn level(&self) -> Micros {
        self.0.level()
    }

    pub(super) fn reaches_end(&self) -> bool {
        self.0.reaches_end()
    }
}
