//! The page of the crowds, and which gates were missed.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use vstack_client::PolicyName;

use super::sessions::shown;
use super::{Cell, Figures};
use crate::client::gates::CROWD_STARTUP_SEC;
use crate::machine::{Machine, load_average};

/// Of a session's processor time among the most, to one among ten: more than the noise of short runs.
const FLAT: f64 = 1.5;

#[derive(Debug, Serialize)]
struct Line<'a> {
    cell: &'a str,
    policy: PolicyName,
    #[serde(flatten)]
    figures: &'a Figures,
}

/// Writes page and JSON lines; the gates that were missed.
pub(super) fn write(page: &Path, work: &Path, rows: &[(Cell, PolicyName, Figures)]) -> Result<Vec<String>> {
    let missed: Vec<String> = rows.iter().filter_map(missed).chain(growth(rows)).collect();
    let mut lines = String::new();
    for (cell, policy, figures) in rows {
        let line = Line {
            cell: &cell.name,
            policy: *policy,
            figures,
        };
        writeln!(lines, "{}", serde_json::to_string(&line)?)?;
    }
    if let Some(folder) = page.parent() {
        std::fs::create_dir_all(folder).context("cannot make the page's folder")?;
    }
    std::fs::write(page.with_extension("jsonl"), lines).context("cannot write the figures")?;
    std::fs::write(page, markdown(work, rows, &missed)?).context("cannot write the page")?;
    Ok(missed)
}

fn markdown(work: &Path, rows: &[(Cell, PolicyName, Figures)], missed: &[String]) -> Result<String> {
    let machine = Machine::here(work);
    let command =
        std::env::var("VSTACK_BENCH_COMMAND").unwrap_or_else(|_| "cargo xtask bench crowd".to_owned());
    let mut page = String::from("# Crowds of real sessions\n\n");
    writeln!(
        page,
        "`{command}`, {}, commit {}, {} cores ({}), load {} at the end. Three nodes, each a `vstack serve` process; \
         sessions in one process, played in real time, of chunks of 4 s and 125 kB (0.25 Mbit/s), or of 10 s and 2 MB where the crowd says 1.6 Mbit/s; each has its own \
         connections and measurements. All on one machine: processor time of sessions, nodes and whatever else ran is \
         shared.\n",
        machine.date,
        machine.commit,
        machine.cores,
        machine.processor,
        load_average()
    )?;
    page.push_str("| crowd | policy | failed | stalls | start-up p50 / p95 ms | waste % | requests a chunk | CPU ms a session | KiB a session | CPU s of nodes |\n|---|---|---|---|---|---|---|---|---|---|\n");
    for (cell, policy, figures) in rows {
        let nodes = figures
            .nodes_cpu_sec
            .map_or_else(|| "-".to_owned(), |sec| format!("{sec:.1}"));
        writeln!(
            page,
            "| {} | {policy} | {} of {} | {} ({} ms) | {} / {} | {:.2} | {:.2} | {:.0} | {:.0} | {nodes} |",
            cell.name,
            figures.failed,
            figures.sessions,
            figures.stalls,
            figures.stall_ms,
            shown(figures.startup_p50_ms),
            shown(figures.startup_p95_ms),
            figures.wasted_percent,
            figures.requests_per_chunk,
            figures.cpu_ms_per_session,
            figures.rss_kib_per_session
        )?;
    }
    match missed {
        [] => page.push_str(
            "\nEvery gate holds: no failed session, no stall, p95 start-up under 2 s, flat cost.\n",
        ),
        missed => writeln!(page, "\nMissed: {}.", missed.join("; "))?,
    }
    Ok(page)
}

fn missed((cell, policy, figures): &(Cell, PolicyName, Figures)) -> Option<String> {
    let in_time = |ms: f64| ms <= CROWD_STARTUP_SEC * 1e3;
    let holds = figures.failed == 0 && figures.stalls == 0 && figures.startup_p95_ms.is_some_and(in_time);
    (cell.gated && !holds).then(|| format!("{} ({policy})", cell.name))
}

/// A session among the most costs as much as one among ten.
fn growth(rows: &[(Cell, PolicyName, Figures)]) -> Option<String> {
    let mut costs: Vec<(u32, f64)> = rows
        .iter()
        .filter(|(cell, _, figures)| !cell.gated && figures.sessions >= 10)
        .map(|(_, _, figures)| (figures.sessions, figures.cpu_ms_per_session))
        .collect();
    costs.sort_by_key(|(sessions, _)| *sessions);
    let ((few, cheap), (many, dear)) = (costs.first()?, costs.last()?);
    (*dear > cheap * FLAT)
        .then(|| format!("a session costs {dear:.0} ms among {many} and {cheap:.0} ms among {few}"))
}
