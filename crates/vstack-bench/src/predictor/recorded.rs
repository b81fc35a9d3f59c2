//! Where the traces come from.

use std::path::Path;

use anyhow::Result;
use vstack_client::policy::{PolicyConfig, PoolConfig};
use vstack_core::time::UnixMillis;
use vstack_netsim::{NodePlan, Scenario, Setup, Sharing, run_traced};

use crate::{client, real};

const HOUR_MS: u64 = 3_600_000;
/// Of a week, at these hours somebody watches.
const WATCHED_HOURS: [u64; 4] = [8, 13, 20, 22];
const DAYS: u64 = 7;

/// A scenario's name and its sessions' traces.
pub(super) type Recorded = (String, Vec<Vec<String>>);

fn pool() -> Setup {
    Setup {
        name: "pool".to_owned(),
        policy: PolicyConfig::Pool(PoolConfig::default()),
        sharing: Sharing::Even,
        trusts: false,
    }
}

/// The scenarios of one viewer, and a week whose evenings are slow. In a scenario a session follows the other by an hour.
pub(super) fn in_virtual_time(sessions: u64, only: &str) -> Vec<Recorded> {
    let mut recorded: Vec<Recorded> = client::single_viewer()
        .iter()
        .map(|scenario| {
            let traces = (0..sessions).map(|seed| {
                let (_, lines) = run_traced(scenario, &pool(), seed, UnixMillis(seed * HOUR_MS));
                lines
            });
            (format!("{} {}", scenario.id, scenario.name), traces.collect())
        })
        .filter(|(name, _)| name.contains(only))
        .collect();
    let week = "week: the best node has a tenth after 18 h";
    if week.contains(only) {
        recorded.push((week.to_owned(), slow_evenings()));
    }
    recorded
}

fn slow_evenings() -> Vec<Vec<String>> {
    let session = |day: u64, hour: u64| {
        let best = if hour >= 18 { 2.0 } else { 20.0 };
        let nodes = vec![
            NodePlan::new(best, 20.0),
            NodePlan::new(8.0, 40.0),
            NodePlan::new(4.0, 60.0),
        ];
        let scenario = Scenario {
            chunks: 12,
            ..Scenario::new("week", "", nodes)
        };
        let at = UnixMillis((day * 24 + hour) * HOUR_MS);
        run_traced(&scenario, &pool(), day * 24 + hour, at).1
    };
    let hours = (0..DAYS).flat_map(|day| WATCHED_HOURS.map(move |hour| (day, hour)));
    hours.map(|(day, hour)| session(day, hour)).collect()
}

/// Our nodes behind emulated paths, as `bench client --layer sockets` has them.
pub(super) fn on_real_sockets(vstack: &Path, work: &Path, rounds: u16, only: &str) -> Result<Vec<Recorded>> {
    real::record_pool(vstack, work, rounds, only)
}
