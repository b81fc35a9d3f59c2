//! The policy that decides for a session, as its settings name it, and the trace of what it decides.

use crate::config::ClientConfig;
use crate::policy::trace::Recorder;
use crate::policy::{Action, ChunkSpec, Fact, Micros, NodeRecords, Policy};

#[derive(Debug)]
pub(super) struct Scheduler {
    policy: Policy,
    recorder: Option<Recorder>,
}

impl Scheduler {
    pub(super) fn new(config: &ClientConfig, specs: Vec<ChunkSpec>, recorder: Option<Recorder>) -> Self {
        Self {
            policy: Policy::new(config.policy_config(), specs),
            recorder,
        }
    }

    /// One fact in, all actions out.
    pub(super) fn apply(&mut self, now: Micros, records: &mut NodeRecords, fact: Fact) -> Vec<Action> {
        match &mut self.recorder {
            None => self.policy.apply(now, records, fact),
            Some(recorder) => recorder.apply(&mut self.policy, now, records, fact),
        }
    }

    pub(super) const fn position(&self) -> Micros {
        self.policy.position()
    }

    /// Verified time ahead of the playhead, without a gap.
    pub(super) fn level(&self) -> Micros {
        self.policy.level()
    }

    pub(super) fn reaches_end(&self) -> bool {
        self.policy.reaches_end()
    }
}
