//! How many passed and how many failed, over all parts of a run, read from what the test runners print.

use crate::say;

/// Counts, and the names of the steps in which something failed.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
}

impl Tally {
    /// A check that is one test by itself.
    pub(crate) fn check(&mut self, name: &str, complaints: &[String]) {
        for complaint in complaints {
            say::error(complaint);
        }
        self.add(
            name,
            u64::from(complaints.is_empty()),
            u64::from(!complaints.is_empty()),
        );
    }

    /// A runner that ended; `lines` is all it printed. One that failed without counting a failure (it did not build)
    /// counts as one failure.
    pub(crate) fn runner(&mut self, name: &str, succeeded: bool, lines: &[String]) {
        let (passed, failed) = lines
            .iter()
            .filter_map(|line| counts(line))
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let failed = if succeeded { failed } else { failed.max(1) };
        self.add(name, passed, failed);
    }

    fn add(&mut self, name: &str, passed: u64, failed: u64) {
        self.passed += passed;
        self.failed += failed;
        if failed > 0 {
            self.failures.push(name.to_owned());
        }
    }

    /// Prints the figures; whether nothing failed.
    pub(crate) fn close(&self) -> bool {
        for name in &self.failures {
            say::error(&format!("failed: {name}"));
        }
        say::text(&format!("{} passed, {} failed\n", self.passed, self.failed));
        self.failed == 0
    }
}

/// Passed and failed tests of a runner's summary line.
fn counts(line: &str) -> Option<(u64, u64)> {
    let line = line.trim_start();
    let is_cargo_test = line.starts_with("test result:");
    let is_nextest = line.starts_with("Summary [");
    // `Tests  1 failed | 11 passed (12)`; the line `Test Files` counts files.
    let is_vitest = line.starts_with("Tests ");
    (is_cargo_test || is_nextest || is_vitest).then(|| {
        let failed = number_before(line, "failed")
            + number_before(line, "timed out")
            + number_before(line, "exec failed");
        (number_before(line, "passed"), failed)
    })
}

/// The number that stands right before `word`: `45 passed`.
fn number_before(line: &str, word: &str) -> u64 {
    let words: Vec<&str> = line
        .split([' ', ',', ';', '|', ':'])
        .filter(|word| !word.is_empty())
        .collect();
    let wanted: Vec<&str> = word.split(' ').collect();
    let windows = words.windows(wanted.len() + 1);
    windows
        .filter(|window| window.get(1..) == Some(&wanted))
        .find_map(|window| window.first()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_all_runners_are_read() {
        let cases: [(&str, Option<(u64, u64)>); 7] = [
            (
                "     Summary [  12.345s] 45 tests run: 45 passed, 2 skipped",
                Some((45, 0)),
            ),
            (
                "     Summary [   1.0s] 9 tests run: 6 passed (1 slow), 2 failed, 1 timed out, 0 skipped",
                Some((6, 3)),
            ),
            (
                "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
                Some((3, 0)),
            ),
            ("test result: FAILED. 3 passed; 2 failed; 0 ignored", Some((3, 2))),
            ("      Tests  12 passed (12)", Some((12, 0))),
            ("      Tests  1 failed | 11 passed (12)", Some((11, 1))),
            (" Test Files  3 passed (3)", None),
        ];
        for (line, expected) in cases {
            assert_eq!(counts(line), expected, "{line}");
        }
    }

    #[test]
    fn a_runner_that_does_not_build_is_a_failure() {
        let mut tally = Tally::default();
        tally.runner("tests", false, &["error: could not compile".to_owned()]);
        assert_eq!((tally.passed, tally.failed), (0, 1));
    }
}
