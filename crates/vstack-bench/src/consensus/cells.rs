//! What was measured: one server doing one thing once, and the table of medians.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::OURS;
use super::cluster::Cluster;
use super::etcd::Etcd;
use crate::load::percentile;
use crate::machine::load_average;
use crate::output;
use crate::report::median;

/// How a closed loop went. Latencies are in ms.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) elapsed: Duration,
    pub(super) latencies_ms: Vec<f64>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Task {
    pub(super) clients: usize,
    pub(super) round: usize,
    pub(super) seconds: u16,
}

impl Task {
    pub(super) fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Cell {
    pub(super) task: String,
    pub(super) server: &'static str,
    pub(super) clients: usize,
    pub(super) round: usize,
    pub(super) operations: usize,
    pub(super) per_sec: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Processor time of the servers for one operation.
    pub(super) cpu_us: f64,
    /// Committed chunks before this cell, where that is what is measured.
    pub(super) chunks: Option<u64>,
    pub(super) load_average: String,
}

impl Cell {
    pub(super) fn new(
        (task, server): (&str, &'static str),
        (clients, round): (usize, usize),
        mut sample: Sample,
        cpu_sec: f64,
    ) -> Self {
        sample.latencies_ms.sort_by(f64::total_cmp);
        let operations = sample.latencies_ms.len();
        Self {
            task: task.to_owned(),
            server,
            clients,
            round,
            operations,
            per_sec: operations as f64 / sample.elapsed.as_secs_f64(),
            p50_ms: percentile(&sample.latencies_ms, 0.5),
            p99_ms: percentile(&sample.latencies_ms, 0.99),
            cpu_us: cpu_sec * 1e6 / operations as f64,
            chunks: None,
            load_average: load_average(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Cells(Vec<Cell>);

impl Cells {
    pub(super) fn ours(
        &mut self,
        name: &str,
        task: &Task,
        cluster: &Cluster,
        run: impl FnOnce() -> Result<Sample>,
    ) -> Result<()> {
        let before = cluster.cpu_sec();
        let sample = run()?;
        let cpu_sec = cluster.cpu_sec() - before;
        self.push(Cell::new(
            (name, OURS),
            (task.clients, task.round),
            sample,
            cpu_sec,
        ));
        Ok(())
    }

    pub(super) fn etcd(
        &mut self,
        task: &Task,
        etcd: &Etcd,
        run: impl FnOnce() -> Result<Sample>,
    ) -> Result<()> {
        let before = etcd.cpu_sec();
        let sample = run()?;
        let cpu_sec = etcd.cpu_sec() - before;
        self.push(Cell::new(
            ("put of 256 bytes", etcd.name),
            (task.clients, task.round),
            sample,
            cpu_sec,
        ));
        Ok(())
    }

    pub(super) fn push(&mut self, cell: Cell) {
        output::note(&format!(
            "{}, {}, {} clients: {:.0} a second, p50 {:.2} ms, p99 {:.2} ms, {:.0} us of CPU each (load {})",
            cell.server,
            cell.task,
            cell.clients,
            cell.per_sec,
            cell.p50_ms,
            cell.p99_ms,
            cell.cpu_us,
            cell.load_average
        ));
        self.0.push(cell);
    }

    /// One row for each task, server and number of clients, with what ours is to etcd with three members.
    pub(super) fn table(&self) -> String {
        let mut table = String::from(
            "## Placements and puts\n\n\
             | clients | server | task | a second | beside etcd, 3 members | beside etcd, 1 member | p50 ms | p99 ms | servers' CPU us each |\n\
             |---|---|---|---|---|---|---|---|---|\n",
        );
        let mut rows: Vec<(usize, &str, &str)> = Vec::new();
        for cell in self.0.iter().filter(|cell| cell.chunks.is_none()) {
            let row = (cell.clients, cell.server, cell.task.as_str());
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        rows.sort_unstable();
        for row in rows {
            let figure = |value: fn(&Cell) -> f64| median(self.of(row).map(value).collect());
            let ratio = |peer| match row.1 {
                OURS => format!("{:.1}x", self.ratio(row, peer)),
                _ => String::new(),
            };
            let _ = writeln!(
                table,
                "| {} | {} | {} | {:.0} | {} | {} | {:.2} | {:.2} | {:.0} |",
                row.0,
                row.1,
                row.2,
                figure(|cell| cell.per_sec),
                ratio(super::etcd::THREE),
                ratio(super::etcd::ONE),
                figure(|cell| cell.p50_ms),
                figure(|cell| cell.p99_ms),
                figure(|cell| cell.cpu_us),
            );
        }
        table
    }

    fn of(&self, (clients, server, task): (usize, &str, &str)) -> impl Iterator<Item = &Cell> {
        self.0.iter().filter(move |cell| {
            cell.chunks.is_none()
                && (cell.clients, cell.server, cell.task.as_str()) == (clients, server, task)
        })
    }

    /// Median over the rounds of ours divided by the peer's.
    fn ratio(&self, ours: (usize, &str, &str), peer: &str) -> f64 {
        let pairs = self.of(ours).filter_map(|cell| {
            let other = self
                .0
                .iter()
                .find(|other| (other.round, other.clients, other.server) == (cell.round, ours.0, peer))?;
            Some(cell.per_sec / other.per_sec)
        });
        median(pairs.collect())
    }

    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let mut lines = File::create(file)?;
        for cell in &self.0 {
            writeln!(lines, "{}", serde_json::to_string(cell)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(server: &'static str, round: usize, per_sec: usize) -> Cell {
        let sample = Sample {
            elapsed: Duration::from_secs(1),
            latencies_ms: vec![1.0; per_sec],
        };
        Cell::new(("task", server), (10, round), sample, 0.1)
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        let rounds = [(300, 100), (40, 20), (600, 100)];
        let mut cells = Cells::default();
        for (round, (ours, theirs)) in rounds.into_iter().enumerate() {
            cells.0.push(cell(OURS, round, ours));
            cells.0.push(cell(super::super::etcd::THREE, round, theirs));
        }
        let table = cells.table();
        assert!(
            table.contains("| 10 | V-Stack | task | 300 | 3.0x | NaNx | 1.00 | 1.00 |"),
            "{table}"
        );
    }
}
