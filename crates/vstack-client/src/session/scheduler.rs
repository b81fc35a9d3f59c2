//! The policy that decides for a session, as its settings name it, another one from a moment on, and the trace of what they
//! decide.

use crate::config::{ClientConfig, PolicyName};
use crate::policy::trace::Recorder;
use crate::policy::{Action, ChunkSpec, Fact, Micros, NodeRecords, Policy};

#[derive(Debug)]
pub(super) struct Scheduler {
    name: PolicyName,
    policy: Policy,
    recorder: Option<Recorder>,
}

impl Scheduler {
    pub(super) fn new(
        config: &ClientConfig,
        name: PolicyName,
        specs: Vec<ChunkSpec>,
        recorder: Option<Recorder>,
    ) -> Self {
        Self {
            name,
            policy: Policy::new(config.policy_config_of(name), specs),
            recorder,
        }
    }

    pub(super) const fn name(&self) -> PolicyName {
        self.name
    }

    /// Another policy takes over; what is to be done at once.
    pub(super) fn switch(
        &mut self,
        now: Micros,
        records: &NodeRecords,
        config: &ClientConfig,
        name: PolicyName,
    ) -> Vec<Action> {
        self.name = name;
        let to = config.policy_config_of(name);
        match &mut self.recorder {
            None => self.policy.switch(to),
            Some(recorder) => recorder.switch(&mut self.policy, now, records, to),
        }
    }

    /// One fact in, all actions out.
    pub(super) fn apply(&mut self, now: Micros, records: &mut NodeRecords, fact: Fact) -> Vec<Action> {
        match &mut self.recorder {
            None => self.policy.apply(now, records, fact),
            Some(recorder) => recorder.apply(&mut self.policy, now, records, fact),
        }
    }

    /// Verified blocks would be lost if another policy took over now.
    pub(super) fn has_begun(&self) -> bool {
        self.policy.has_begun()
    }

    /// So far ahead of the playhead the policy fetches by itself.
    pub(super) fn ahead(&self) -> Micros {
        self.policy.ahead()
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
