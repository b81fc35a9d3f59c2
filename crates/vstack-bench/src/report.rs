//! From measured cells to a table with ratios, JSON lines and a page for `docs/evaluation`.
//!
//! A cell is one server doing one thing once. Rounds repeat the cells in turn; a figure is the median of its rounds, and
//! a ratio is the median of the ratios within each round, so that what slowed a round down slowed both sides of it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::load::{Outcome, percentile};
use crate::machine::{Machine, load_average};
use crate::process::Usage;

/// One server doing one thing once.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cell {
    /// `GET 2 MiB, hot`
    pub(crate) task: String,
    pub(crate) server: &'static str,
    pub(crate) connections: usize,
    pub(crate) round: usize,
    pub(crate) requests: usize,
    pub(crate) mb_per_sec: f64,
    pub(crate) per_sec: f64,
    pub(crate) cpu_sec_per_gb: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) first_byte_p99_ms: f64,
    pub(crate) rss_mib: f64,
    pub(crate) anon_mib: f64,
    pub(crate) load_average: String,
}

impl Cell {
    pub(crate) fn new(
        (task, server): (&str, &'static str),
        (connections, round): (usize, usize),
        outcome: &Outcome,
        (before, after): (Usage, Usage),
    ) -> Self {
        Self {
            task: task.to_owned(),
            server,
            connections,
            round,
            requests: outcome.requests(),
            mb_per_sec: outcome.mb_per_sec(),
            per_sec: outcome.per_sec(),
            cpu_sec_per_gb: (after.cpu_sec - before.cpu_sec) / (outcome.bytes as f64 / 1e9),
            p50_ms: percentile(&outcome.whole_ms, 0.5),
            p99_ms: percentile(&outcome.whole_ms, 0.99),
            first_byte_p99_ms: percentile(&outcome.first_byte_ms, 0.99),
            rss_mib: after.rss_mib,
            anon_mib: after.anon_bytes as f64 / 1_048_576.0,
            load_average: load_average(),
        }
    }
}

/// Everything that a bench found out.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) title: &'static str,
    pub(crate) command: String,
    pub(crate) machine: Machine,
    pub(crate) load_at_start: String,
    /// Sentences on how it was measured.
    pub(crate) notes: Vec<String>,
    pub(crate) cells: Vec<Cell>,
    /// Further tables, in Markdown, each with its heading.
    pub(crate) tables: Vec<String>,
}

impl Report {
    pub(crate) fn new(title: &'static str, work: &Path) -> Self {
        let words: Vec<String> = std::env::args().skip(1).collect();
        Self {
            title,
            command: std::env::var("VSTACK_BENCH_COMMAND").unwrap_or_else(|_| words.join(" ")),
            machine: Machine::here(work),
            load_at_start: load_average(),
            notes: Vec::new(),
            cells: Vec::new(),
            tables: Vec::new(),
        }
    }

    /// The page.
    pub(crate) fn markdown(&self, ours: &str) -> String {
        let Machine {
            processor,
            cores,
            memory_mib,
            kernel,
            file_system,
            date,
            commit,
        } = &self.machine;
        let mut page = format!(
            "# {}\n\n`{}`, commit {commit}, {date}.\n\nMachine: {processor}, {cores} cores, {memory_mib} MiB of \
             memory, Linux {kernel}, {file_system}. Load average {} at the start, {} at the end.\nClient and servers \
             share its cores; read ratios before figures.\n\n",
            self.title,
            self.command,
            self.load_at_start,
            load_average()
        );
        for note in &self.notes {
            let _ = writeln!(page, "- {note}");
        }
        if !self.cells.is_empty() {
            let _ = write!(page, "\n{}", self.comparison(ours));
        }
        for table in &self.tables {
            let _ = write!(page, "\n{table}");
        }
        page
    }

    /// One row for each task, number of connections and server.
    fn comparison(&self, ours: &str) -> String {
        let mut table = format!(
            "| task | connections | server | MB/s | {ours} is | CPU s/GB | p50 ms | p99 ms | {ours}'s p99 is | first byte p99 ms | RSS MiB | anonymous MiB |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|\n"
        );
        let mut rows: Vec<(&str, usize, &str)> = Vec::new();
        for cell in &self.cells {
            let row = (cell.task.as_str(), cell.connections, cell.server);
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        for row @ (task, connections, server) in rows {
            let figure = |value: fn(&Cell) -> f64| median(self.of(row).map(value).collect());
            let ratio = |value: fn(&Cell) -> f64| {
                if server == ours {
                    String::new()
                } else {
                    format!("{:.2}x", self.ratio((task, connections, ours), row, value))
                }
            };
            let _ = writeln!(
                table,
                "| {task} | {connections} | {server} | {:.0} | {} | {:.2} | {:.2} | {:.2} | {} | {:.2} | {:.0} | {:.0} |",
                figure(|cell| cell.mb_per_sec),
                ratio(|cell| cell.mb_per_sec),
                figure(|cell| cell.cpu_sec_per_gb),
                figure(|cell| cell.p50_ms),
                figure(|cell| cell.p99_ms),
                ratio(|cell| cell.p99_ms),
                figure(|cell| cell.first_byte_p99_ms),
                figure(|cell| cell.rss_mib),
                figure(|cell| cell.anon_mib),
            );
        }
        table
    }

    fn of(&self, (task, connections, server): (&str, usize, &str)) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |cell| {
            (cell.task.as_str(), cell.connections, cell.server) == (task, connections, server)
        })
    }

    /// Median over the rounds of ours divided by theirs.
    fn ratio(&self, ours: (&str, usize, &str), theirs: (&str, usize, &str), value: fn(&Cell) -> f64) -> f64 {
        let pairs = self.of(ours).filter_map(|cell| {
            let other = self.of(theirs).find(|other| other.round == cell.round)?;
            Some(value(cell) / value(other))
        });
        median(pairs.collect())
    }

    /// Writes the page to `page` and one JSON line for each cell beside it.
    pub(crate) fn write(&self, page: &Path, ours: &str) -> Result<()> {
        let failed = || format!("cannot write {}", page.display());
        if let Some(folder) = page.parent() {
            fs::create_dir_all(folder).with_context(failed)?;
        }
        fs::write(page, self.markdown(ours)).with_context(failed)?;
        let mut lines = File::create(page.with_extension("jsonl")).with_context(failed)?;
        for cell in &self.cells {
            writeln!(lines, "{}", serde_json::to_string(cell)?)?;
        }
        Ok(())
    }
}

/// The middle one; the mean of the middle two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => f64::NAN,
        (Some(value), 1) => *value,
        (Some(value), _) => f64::midpoint(values[middle - 1], *value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn report(cells: &[(&'static str, usize, f64)]) -> Report {
        let mut report = Report::new("A bench", Path::new("."));
        for (server, round, mb) in cells {
            let outcome = Outcome {
                elapsed: Duration::from_secs(1),
                bytes: 1_000_000_000,
                whole_ms: vec![1.0, 2.0, 3.0],
                first_byte_ms: vec![0.5],
            };
            let usage = Usage {
                cpu_sec: 0.5,
                ..Usage::default()
            };
            let mut cell = Cell::new(("GET", server), (1, *round), &outcome, (Usage::default(), usage));
            cell.mb_per_sec = *mb;
            report.cells.push(cell);
        }
        report
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        // The second round was slow for both; the ratio does not care.
        let report = report(&[
            ("V-Stack", 0, 200.0),
            ("nginx", 0, 100.0),
            ("V-Stack", 1, 20.0),
            ("nginx", 1, 10.0),
            ("V-Stack", 2, 300.0),
            ("nginx", 2, 100.0),
        ]);
        let page = report.markdown("V-Stack");
        assert!(
            page.contains("| GET | 1 | V-Stack | 200 |  | 0.50 | 2.00 |"),
            "{page}"
        );
        assert!(page.contains("| GET | 1 | nginx | 100 | 2.00x |"), "{page}");
    }

    #[test]
    fn the_median_of_nothing_is_no_number() {
        assert!(median(Vec::new()).is_nan());
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0]) - 2.5).abs() < 1e-9);
    }
}
