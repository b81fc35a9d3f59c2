//! The page of the result.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::compare::{CONTESTANTS, Comparison, Errors};
use crate::machine;

/// One line of progress.
pub(super) fn sentence(comparison: &Comparison) -> String {
    let of = |errors: &Errors| {
        format!(
            "{:.0}/{:.0}/{:.1}",
            errors.median_ms, errors.p90_ms, errors.pinball_ms
        )
    };
    let all: Vec<String> = CONTESTANTS
        .iter()
        .zip(&comparison.errors)
        .map(|(name, errors)| format!("{name} {}", of(errors)))
        .collect();
    format!(
        "{} ({}): {}",
        comparison.scenario,
        comparison.transfers,
        all.join(", ")
    )
}

pub(super) fn write(file: &Path, comparisons: &[Comparison]) -> Result<()> {
    std::fs::write(file, markdown(comparisons)).with_context(|| format!("cannot write {}", file.display()))
}

fn markdown(comparisons: &[Comparison]) -> String {
    let mut page = String::from(
        "# How long will a transfer take: two moving averages, or learning\n\n\
         Each request of the pooled policy is predicted when it goes out, by the pool's own estimate (two moving averages of each\n\
         node's rate) and by two predictors that learn online from size, node, hour and load: one alone, one that corrects the\n\
         averages. Errors of the time from the request to its last byte, median / 90th percentile / mean pinball loss at the\n\
         median, all in milliseconds, and in brackets the median factor off, in percent. Requests that were given up are in no\n\
         column. Sessions of a scenario follow each other; what was learned is kept.\n\n",
    );
    if let Ok(command) = std::env::var("VSTACK_BENCH_COMMAND") {
        let _ = writeln!(page, "`{command}`, load {}.\n", machine::load_average());
    }
    for source in ["simulated", "sockets"] {
        let rows: Vec<&Comparison> = comparisons.iter().filter(|row| row.source == source).collect();
        if !rows.is_empty() {
            table(&mut page, source, &rows);
        }
    }
    page
}

fn table(page: &mut String, source: &str, rows: &[&Comparison]) {
    let _ = writeln!(page, "## {source}\n");
    let _ = writeln!(
        page,
        "| scenario | transfers | given up | {} |",
        CONTESTANTS.join(" | ")
    );
    page.push_str("|---|---|---|---|---|---|\n");
    for row in rows {
        let cells: Vec<String> = row.errors.iter().map(cell).collect();
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            row.scenario,
            row.transfers,
            row.given_up,
            cells.join(" | ")
        );
    }
    let wins: Vec<String> = CONTESTANTS
        .iter()
        .enumerate()
        .map(|(place, name)| format!("{name} {}", best(rows, place)))
        .collect();
    let _ = writeln!(
        page,
        "\nLeast pinball loss in so many of {} scenarios: {}.\n",
        rows.len(),
        wins.join(", ")
    );
}

fn cell(errors: &Errors) -> String {
    format!(
        "{:.0} / {:.0} / {:.1} ({:.0} %)",
        errors.median_ms, errors.p90_ms, errors.pinball_ms, errors.median_percent
    )
}

/// Scenarios in which nobody was less off.
fn best(rows: &[&Comparison], place: usize) -> usize {
    let is_best = |row: &&&Comparison| {
        let own = row.errors[place].pinball_ms;
        row.errors.iter().all(|errors| own <= errors.pinball_ms)
    };
    rows.iter().filter(is_best).count()
}
