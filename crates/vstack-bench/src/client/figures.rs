//! From the runs of one scenario and policy to the figures of a table's row.

use serde::Serialize;
use vstack_netsim::{Bound, Outcome, Run, Scenario, Setup};

use super::scenarios;
use crate::load::percentile;

/// All runs of one scenario with one policy.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) scenario: Scenario,
    pub(crate) policy: String,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) bounds: Vec<Bound>,
}

impl Figures {
    pub(crate) fn new(scenario: &Scenario, setup: &Setup) -> Self {
        Self {
            scenario: scenario.clone(),
            policy: setup.name.clone(),
            outcomes: Vec::new(),
            bounds: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, run: &Run, bound: Bound) {
        self.outcomes.extend(run.outcomes.iter().cloned());
        self.bounds.push(bound);
    }

    pub(crate) fn mean(&self, value: impl Fn(&Outcome) -> f64) -> f64 {
        self.outcomes.iter().map(value).sum::<f64>() / self.outcomes.len().max(1) as f64
    }

    /// Start-up times in order; what never started counts as the limit.
    pub(crate) fn startups(&self) -> Vec<f64> {
        let limit = self.scenario.limit_sec;
        sorted(
            self.outcomes
                .iter()
                .map(|outcome| outcome.startup_sec.unwrap_or(limit)),
        )
    }

    pub(crate) fn startup(&self, share: f64) -> f64 {
        percentile(&self.startups(), share)
    }

    pub(crate) fn mean_startup(&self) -> f64 {
        self.mean(|outcome| outcome.startup_sec.unwrap_or(self.scenario.limit_sec))
    }

    /// Of what the policy starts from: a prefix, or the whole first chunk.
    pub(crate) fn startup_bound(&self) -> f64 {
        let from_prefix = self.policy == scenarios::POOL;
        self.mean_bound(|bound| {
            if from_prefix {
                bound.prefix_sec
            } else {
                bound.chunk_sec
            }
        })
    }

    pub(crate) fn done(&self) -> f64 {
        self.mean(|outcome| outcome.done_sec.unwrap_or(self.scenario.limit_sec))
    }

    pub(crate) fn done_ratio(&self) -> f64 {
        self.done() / self.mean_bound(|bound| bound.done_sec)
    }

    fn mean_bound(&self, value: impl Fn(&Bound) -> f64) -> f64 {
        self.bounds.iter().map(value).sum::<f64>() / self.bounds.len().max(1) as f64
    }

    /// Of all that was received, percent.
    pub(crate) fn waste_percent(&self) -> f64 {
        let received: f64 = self.outcomes.iter().map(|outcome| outcome.received_bytes).sum();
        let wasted: f64 = self.outcomes.iter().map(|outcome| outcome.wasted_bytes).sum();
        100.0 * wasted / received.max(1.0)
    }

    pub(crate) fn requests_per_chunk(&self) -> f64 {
        self.mean(|outcome| outcome.requests as f64) / self.mean(|outcome| f64::from(outcome.chunks)).max(1.0)
    }

    /// Sessions that began within 2 s and never stalled, percent.
    pub(crate) fn good_percent(&self) -> f64 {
        100.0
            * self.mean(|outcome| {
                let quick = outcome.startup_sec.is_some_and(|startup| startup < 2.0);
                f64::from(u8::from(quick && outcome.stalls == 0))
            })
    }

    pub(crate) fn stalled_percent(&self) -> f64 {
        100.0 * self.mean(|outcome| f64::from(u8::from(outcome.stalls > 0)))
    }

    /// Jain's index over the viewers' stall-free start-ups: 1 when all wait equally long.
    pub(crate) fn fairness(&self) -> f64 {
        let waits = self.startups();
        let sum: f64 = waits.iter().sum();
        let squares: f64 = waits.iter().map(|wait| wait * wait).sum();
        sum * sum / (waits.len() as f64 * squares).max(1e-9)
    }

    /// Time from the fault to the first thing done about it, where something was.
    pub(crate) fn detect(&self) -> Option<f64> {
        let times: Vec<f64> = self
            .outcomes
            .iter()
            .filter_map(|outcome| outcome.detect_sec)
            .collect();
        (!times.is_empty()).then(|| times.iter().sum::<f64>() / times.len() as f64)
    }

    /// In order.
    pub(crate) fn seeks(&self) -> Vec<f64> {
        sorted(
            self.outcomes
                .iter()
                .flat_map(|outcome| outcome.seek_sec.iter().copied()),
        )
    }

    pub(crate) fn wrong_delivered(&self) -> u32 {
        self.outcomes
            .iter()
            .map(|outcome| outcome.wrong_chunks_delivered)
            .sum()
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// A run as a line of JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    scenario: &'a str,
    name: &'a str,
    policy: &'a str,
    seed: u64,
    ended_sec: f64,
    bound: Bound,
    sent_by_node: &'a [f64],
    outcomes: &'a [Outcome],
}

pub(crate) fn line<'a>(scenario: &'a Scenario, run: &'a Run, bound: Bound) -> Line<'a> {
    Line {
        scenario: scenario.id,
        name: &scenario.name,
        policy: &run.policy,
        seed: run.seed,
        ended_sec: run.ended_sec,
        bound,
        sent_by_node: &run.sent_by_node,
        outcomes: &run.outcomes,
    }
}
