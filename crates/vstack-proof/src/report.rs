//! What a run is asked and what it says.

use std::fmt;

/// Where a run begins and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The first seed. The same seed does the same.
    pub seed: u64,
    /// How many points, cycles or cases, in the run's own unit; a run does a little more rather than less.
    pub count: u64,
}

/// Something that must not have happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The seed that shows it again with a count of 1.
    pub seed: u64,
    pub what: String,
}

/// The result of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The run's name on the command line.
    pub name: &'static str,
    /// What was counted: "crash points".
    pub unit: &'static str,
    pub count: u64,
    pub milliseconds: u64,
    /// Figures worth knowing, in the order in which they are printed.
    pub facts: Vec<(&'static str, u64)>,
    /// The first few; the rest would say the same.
    pub failures: Vec<Failure>,
    pub failure_count: u64,
}

/// Failures that are told in full.
const MAX_FAILURES: usize = 5;

impl Report {
    pub(crate) fn new(name: &'static str, unit: &'static str) -> Self {
        Self {
            name,
            unit,
            ..Self::default()
        }
    }

    pub(crate) fn fail(&mut self, seed: u64, what: String) {
        self.failure_count += 1;
        if self.failures.len() < MAX_FAILURES {
            self.failures.push(Failure { seed, what });
        }
    }

    /// A harness that does not notice what it must notice proves nothing.
    pub fn blunt(&mut self, seed: u64, found_out: u64) {
        self.fail(
            seed,
            format!("the harness is blunt: a store that does not sync was found out {found_out} times only"),
        );
    }

    #[must_use]
    pub fn passed(&self) -> bool {
        self.failure_count == 0
    }

    /// Counts a second.
    #[must_use]
    pub fn per_second(&self) -> u64 {
        self.count.saturating_mul(1000) / self.milliseconds.max(1)
    }

    /// One line of JSON. Names and units are ours and need no escapes; what failed may hold anything.
    #[must_use]
    pub fn to_json(&self) -> String {
        let facts: Vec<String> = self
            .facts
            .iter()
            .map(|(name, count)| format!("\"{}\":{count}", name.replace(' ', "_")))
            .collect();
        let failures: Vec<String> = self
            .failures
            .iter()
            .map(|failure| format!("{{\"seed\":{},\"what\":{:?}}}", failure.seed, failure.what))
            .collect();
        format!(
            "{{\"name\":\"{}\",\"unit\":\"{}\",\"count\":{},\"milliseconds\":{},\"facts\":{{{}}},\"failure_count\":{},\"failures\":[{}]}}",
            self.name,
            self.unit,
            self.count,
            self.milliseconds,
            facts.join(","),
            self.failure_count,
            failures.join(",")
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name, unit, count, ..
        } = self;
        let seconds = self.milliseconds as f64 / 1000.0;
        writeln!(
            f,
            "{name}: {count} {unit} in {seconds:.1} s ({} a second)",
            self.per_second()
        )?;
        for (fact, count) in &self.facts {
            writeln!(f, "  {count:>12}  {fact}")?;
        }
        for Failure { seed, what } in &self.failures {
            writeln!(f, "FAILED: {what}")?;
            writeln!(f, "  again: cargo xtask prove {name} --seed {seed} --count 1")?;
        }
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        write!(f, "{name}: {verdict}, {} failures", self.failure_count)
    }
}
