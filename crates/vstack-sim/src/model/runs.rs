//! A run of the checker and what it found.

use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};
use vstack_core::paxos::trace::Trace;

use super::config::Config;
use super::tell;

/// How long a run takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// Seconds in a debug build: part of the tests.
    Small,
    /// Up to minutes in a release build.
    Medium,
    /// Longer, or more than 2 GB of memory.
    Big,
}

/// A run with its name.
#[derive(Clone, Debug)]
pub struct Run {
    /// In kebab-case.
    pub name: &'static str,
    /// What it explores, or what it breaks.
    pub title: &'static str,
    pub size: Size,
    pub config: Config,
}

/// What a run found.
#[derive(Debug)]
pub struct Outcome {
    pub states_generated: usize,
    pub states_unique: usize,
    pub depth: usize,
    pub duration: Duration,
    /// The invariant that breaks, and the shortest way there.
    pub violation: Option<Trace>,
    /// What should have been reached and was not.
    pub unreached: Vec<&'static str>,
}

impl Outcome {
    /// Every invariant holds, and the run reached what makes that worth something.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.violation.is_none() && self.unreached.is_empty()
    }
}

/// Explores all states; a run that is broken on purpose stops at the first violation, by the shortest way there.
#[must_use]
pub fn check(run: &Run, threads: usize) -> Outcome {
    let begin = Instant::now();
    let checker = run.config.clone().checker().threads(threads);
    match run.config.broken {
        Some(_) => {
            let checker = checker.finish_when(HasDiscoveries::AnyFailures);
            outcome(run, &checker.spawn_bfs().join(), begin)
        }
        None => outcome(run, &checker.spawn_bfs().join(), begin),
    }
}

/// The same states in another order: it remembers them all, but no queue of those that come next, which is most of the
/// memory. Paths are not the shortest.
#[must_use]
pub fn check_depth_first(run: &Run, threads: usize) -> Outcome {
    let begin = Instant::now();
    let checker = run.config.clone().checker().threads(threads);
    outcome(run, &checker.spawn_dfs().join(), begin)
}

fn outcome(run: &Run, checker: &impl Checker<Config>, begin: Instant) -> Outcome {
    let discoveries = checker.discoveries();
    let properties = run.config.properties();
    let (musts, mays): (Vec<_>, Vec<_>) = properties
        .iter()
        .map(|property| property.name)
        .partition(|name| name.starts_with('I'));
    let broken = musts
        .iter()
        .find_map(|name| discoveries.get(name).map(|path| (*name, path)));
    Outcome {
        states_generated: checker.state_count(),
        states_unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        duration: begin.elapsed(),
        violation: broken.map(|(name, path)| tell::trace(run, name, path.clone())),
        unreached: mays
            .into_iter()
            .filter(|name| !discoveries.contains_key(name))
            .collect(),
    }
}
