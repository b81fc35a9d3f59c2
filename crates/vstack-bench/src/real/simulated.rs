//! The same scenarios in virtual time, to see what real sockets add.

use std::collections::BTreeMap;

use serde::Serialize;
use vstack_netsim::{Bound, Change, NodePlan, Scenario as InVirtualTime, run};

use super::scenario::{Scenario, Turn};
use super::{CHUNK_BYTES, Row};
use crate::client::{PREFIX_BYTES, setup_of};

/// What the simulator says of a row's scenario, round and policy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Simulated {
    /// Of the time for everything to the simulator's own bound.
    pub(super) ratio: f64,
    pub(super) startup_s: Option<f64>,
}

/// Programs that are no policy of ours get nothing.
pub(super) fn simulate(scenarios: &[Scenario], rows: &mut [Row]) {
    let mut known: BTreeMap<(&str, u16, String), Option<Simulated>> = BTreeMap::new();
    for row in rows {
        let key = (row.id, row.round, row.contestant.clone());
        let scenario = scenarios.iter().find(|scenario| scenario.id == row.id);
        let simulated = known
            .entry(key)
            .or_insert_with(|| play(scenario?, row.round, &row.contestant, row.chunks));
        row.simulated = *simulated;
    }
}

fn play(scenario: &Scenario, round: u16, policy: &str, chunks: u32) -> Option<Simulated> {
    let setup = setup_of(policy)?;
    let scenario = in_virtual_time(&scenario.in_round(round), chunks);
    let bound = Bound::of(&scenario, PREFIX_BYTES);
    let run = run(&scenario, &setup, u64::from(round));
    let outcome = run.outcomes.first()?;
    Some(Simulated {
        ratio: outcome.done_sec? / bound.done_sec,
        startup_s: outcome.startup_sec,
    })
}

fn in_virtual_time(scenario: &Scenario, chunks: u32) -> InVirtualTime {
    let plan = |(line, of): (usize, &super::scenario::Line)| {
        let plan = NodePlan::new(of.mbps, of.rtt_ms as f64);
        let events = scenario.events.iter().filter(|event| event.line == line);
        events.fold(plan, |plan, event| {
            let changes = match event.turn {
                Turn::Share(share) => vec![Change::Bandwidth(of.mbps * share)],
                Turn::Stall => vec![Change::Stalled(true)],
                Turn::Die => vec![Change::Dead(true)],
                Turn::Corrupt => vec![Change::Corrupt(true)],
                Turn::Well => vec![
                    Change::Stalled(false),
                    Change::Dead(false),
                    Change::Corrupt(false),
                ],
            };
            changes
                .into_iter()
                .fold(plan, |plan, change| plan.with(event.at_s, change))
        })
    };
    let nodes = scenario.lines.iter().enumerate().map(plan).collect();
    InVirtualTime {
        chunks,
        chunk_bytes: CHUNK_BYTES as u64,
        parts: scenario.parts,
        needed: scenario.needed,
        bulk: true,
        ..InVirtualTime::new(scenario.id, scenario.name, nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::emulated;
    use super::*;

    #[test]
    fn both_clocks_know_the_same_bound() {
        for scenario in emulated().iter().filter(|scenario| !scenario.has_fault()) {
            let own = super::super::bound::Bound::of(scenario, PREFIX_BYTES, CHUNK_BYTES as u64, 2);
            let theirs = Bound::of(&in_virtual_time(scenario, 2), PREFIX_BYTES);
            // Theirs has a round trip more, and slow start.
            let difference = theirs.done_sec - own.whole_s;
            assert!(
                (0.0..0.35).contains(&difference),
                "{}: {difference} s",
                scenario.name
            );
        }
    }

    #[test]
    fn the_pool_comes_near_its_bound_in_virtual_time_and_a_stranger_has_no_figure() {
        let steady = &emulated()[0];
        let pool = play(steady, 0, "pool", 6).unwrap();
        assert!((1.0..1.3).contains(&pool.ratio), "{pool:?}");
        assert!(pool.startup_s.is_some_and(|startup| startup < 0.6), "{pool:?}");
        assert_eq!(play(steady, 0, "aria2", 6), None);
    }
}
