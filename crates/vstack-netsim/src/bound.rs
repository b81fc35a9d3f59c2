//! What no policy can beat: the fluid with perfect foresight (L1 to L5 of the design; L6 for crowds).
//!
//! Each node delivers from two round trips on (connect, ask), held back by slow start (L2), and nothing while it is down
//! or sends wrong bytes. The bound knows the future and splits freely, so a ratio of 1 cannot be reached; how near a
//! policy comes is what the ratio says.

use serde::Serialize;
use vstack_client::policy::PoolConfig;

use crate::net::INITIAL_WINDOW_BYTES;
use crate::scenario::{Change, NodePlan, Scenario};

/// Integration step.
const STEP_SEC: f64 = 0.001;

/// What the physics of a scenario allow to one client.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bound {
    /// Until the first chunk is there, and until the first `prefix_bytes` of it are and enough flows to start from them (R10):
    /// else the whole chunk is waited for.
    pub chunk_sec: f64,
    pub prefix_sec: f64,
    /// Until all is there; with playback's window not counted.
    pub done_sec: f64,
    /// Stalls that cannot be avoided after a start as early as `chunk_sec`.
    pub stall_sec: f64,
}

impl Bound {
    /// Of one client of the scenario, alone.
    #[must_use]
    pub fn of(scenario: &Scenario, prefix_bytes: u64) -> Self {
        let mut fluid = Fluid::new(scenario);
        let whole = scenario.chunk_bytes as f64;
        let total = whole * f64::from(scenario.chunks);
        let enough = PoolConfig::default().prefix_rate * whole / scenario.chunk_sec;
        let mut bound = Self {
            chunk_sec: scenario.limit_sec,
            prefix_sec: scenario.limit_sec,
            done_sec: scenario.limit_sec,
            stall_sec: 0.0,
        };
        let mut chunk_times = Vec::new();
        while fluid.time < scenario.limit_sec && fluid.all < total {
            fluid.step();
            let reached = |bytes: f64, had: f64, so_far: f64| {
                if had >= bytes {
                    so_far.min(fluid.time)
                } else {
                    so_far
                }
            };
            let start = if fluid.flow >= enough {
                (prefix_bytes as f64).min(whole)
            } else {
                whole
            };
            bound.prefix_sec = reached(start, fluid.first, bound.prefix_sec);
            bound.chunk_sec = reached(whole, fluid.first, bound.chunk_sec);
            bound.done_sec = reached(total, fluid.all, bound.done_sec);
            while fluid.all >= whole * (chunk_times.len() as f64 + 1.0) {
                chunk_times.push(fluid.time);
            }
        }
        bound.stall_sec = stall(&chunk_times, bound.chunk_sec, scenario.chunk_sec);
        bound
    }

    /// L6: start-up times of a crowd that arrives at these times (sorted), if all bandwidth serves starters in the order in
    /// which they come.
    #[must_use]
    pub fn crowd(scenario: &Scenario, arrivals_sec: &[f64], first_bytes: u64) -> Vec<f64> {
        let rate: f64 = scenario.nodes.iter().map(|node| node.mbps * 125_000.0).sum();
        let setup = scenario
            .nodes
            .iter()
            .map(|node| 2.0 * node.rtt_ms / 1_000.0)
            .fold(f64::MAX, f64::min);
        let mut free = 0.0_f64;
        let startup = |at: &f64| {
            free = free.max(*at) + first_bytes as f64 / rate;
            free - at + setup
        };
        arrivals_sec.iter().map(startup).collect()
    }
}

/// Stall time of playback that starts at `start` (L4).
fn stall(chunk_times: &[f64], start: f64, chunk_sec: f64) -> f64 {
    let due = (0..chunk_times.len()).map(|place| start + place as f64 * chunk_sec);
    chunk_times
        .iter()
        .zip(due)
        .map(|(at, due)| at - due)
        .fold(0.0, f64::max)
}

/// Bytes that have flowed by a time.
struct Fluid<'a> {
    scenario: &'a Scenario,
    time: f64,
    /// Delivered by each node so far, as far as it counts.
    by_node: Vec<f64>,
    /// All chunks together.
    all: f64,
    /// The first chunk alone, from the nodes that have it.
    first: f64,
    /// Bytes per second that all nodes deliver now.
    flow: f64,
}

impl<'a> Fluid<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        Self {
            scenario,
            time: 0.0,
            by_node: vec![0.0; scenario.nodes.len()],
            all: 0.0,
            first: 0.0,
            flow: 0.0,
        }
    }

    fn step(&mut self) {
        self.time += STEP_SEC;
        self.flow = 0.0;
        for (node, sum) in self.scenario.nodes.iter().zip(&mut self.by_node) {
            let rate = usable(node, self.time);
            *sum += rate * STEP_SEC;
            self.flow += rate;
        }
        let holders = self.scenario.parts.min(self.by_node.len());
        if self.scenario.needed == 1 {
            self.all = self.by_node.iter().sum();
            self.first = self.by_node.iter().take(holders).sum();
        } else {
            self.all = coded(&self.by_node, self.scenario.needed);
            self.first = coded(&self.by_node[..holders], self.scenario.needed);
        }
    }
}

/// L5: the largest object of which each of `sums` is at most one part of `needed`: max S with sum min(D_i, S/k) >= S.
fn coded(sums: &[f64], needed: u8) -> f64 {
    let needed = f64::from(needed);
    let (mut low, mut high) = (0.0, sums.iter().sum::<f64>());
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        let had: f64 = sums.iter().map(|sum| sum.min(middle / needed)).sum();
        if had >= middle {
            low = middle
        } else {
            high = middle
        }
    }
    low
}

/// Bytes per second of right bytes that a node delivers at a time.
fn usable(node: &NodePlan, time: f64) -> f64 {
    let (mut rate, mut up) = (node.mbps * 125_000.0, true);
    for (_, change) in node.changes.iter().filter(|(at, _)| *at <= time) {
        match change {
            Change::Bandwidth(mbps) => rate = mbps * 125_000.0,
            Change::Stalled(bad) | Change::Dead(bad) | Change::Corrupt(bad) => up = !bad,
        }
    }
    let rtt = (node.rtt_ms / 1_000.0).max(0.000_5);
    if !up || time < 2.0 * rtt {
        return 0.0;
    }
    let doublings = ((time - 2.0 * rtt) / rtt).min(40.0);
    rate.min(INITIAL_WINDOW_BYTES / rtt * doublings.exp2())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(nodes: &[(f64, f64)]) -> Scenario {
        let nodes = nodes.iter().map(|(mbps, rtt_ms)| NodePlan::new(*mbps, *rtt_ms));
        Scenario {
            bulk: true,
            ..Scenario::new("T", "test", nodes.collect())
        }
    }

    #[test]
    fn the_figures_of_the_design_come_out() {
        let bound = Bound::of(&bulk(&[(20.0, 20.0), (8.0, 40.0), (2.0, 80.0)]), 524_288);
        assert!((bound.prefix_sec - 0.22).abs() < 0.01, "{bound:?}");
        assert!((bound.chunk_sec - 0.61).abs() < 0.01, "{bound:?}");
        assert!((bound.done_sec - 16.1).abs() < 0.1, "{bound:?}");
    }

    #[test]
    fn rows_of_shards_are_bounded_by_the_third_best_node() {
        // r* of 20/8/8/4/2 is 11 Mbit/s, so the chunk's rate is 33 Mbit/s and 60 MB take 14.6 s.
        let coded = Scenario {
            needed: 3,
            parts: 5,
            ..bulk(&[(20.0, 20.0), (8.0, 40.0), (8.0, 30.0), (4.0, 60.0), (2.0, 80.0)])
        };
        let bound = Bound::of(&coded, 524_288);
        assert!((bound.done_sec - 14.6).abs() < 0.2, "{bound:?}");
    }
}
