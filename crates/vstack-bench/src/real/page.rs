//! The page of a layer: a row a scenario and contestant, as medians over the rounds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Row;
use crate::machine::{Machine, load_average};
use crate::report::median;

pub(super) fn write(page: &Path, work: &Path, rows: &[Row]) -> Result<()> {
    let mut lines = String::new();
    for row in rows {
        writeln!(lines, "{}", serde_json::to_string(row)?)?;
    }
    std::fs::write(page.with_extension("jsonl"), lines).context("cannot write the figures")?;
    std::fs::write(page, markdown(work, rows)?).with_context(|| format!("cannot write {}", page.display()))
}

fn markdown(work: &Path, rows: &[Row]) -> Result<String> {
    let machine = Machine::here(work);
    let command =
        std::env::var("VSTACK_BENCH_COMMAND").unwrap_or_else(|_| "cargo xtask bench client".to_owned());
    let layer = rows.first().map_or("", |row| row.layer);
    let mut page = format!("# The client on real sockets: {layer}\n\n");
    writeln!(
        page,
        "`{command}`, {}, commit {}, {} cores ({}), load {} at the end. A video of 2 MB chunks, on every node, fetched \
         whole as fast as it comes. The bound is a fluid that knows the future: every line full after one round trip, \
         nothing twice. Ratios are medians over rounds; the machine was shared with whatever else ran.\n",
        machine.date,
        machine.commit,
        machine.cores,
        machine.processor,
        load_average()
    )?;
    page.push_str("| scenario | bound s | contestant | whole s | of the bound | first chunk s (bound) | waste % | requests a chunk | bad chunks refused | slowest detection ms | bytes |\n|---|---|---|---|---|---|---|---|---|---|---|\n");
    let mut groups: BTreeMap<(usize, &str), Vec<&Row>> = BTreeMap::new();
    let mut order: Vec<&str> = Vec::new();
    for row in rows {
        let place = order
            .iter()
            .position(|name| *name == row.scenario)
            .unwrap_or_else(|| {
                order.push(&row.scenario);
                order.len() - 1
            });
        groups
            .entry((place, row.contestant.as_str()))
            .or_default()
            .push(row);
    }
    for group in groups.values() {
        writeln!(page, "{}", line(group))?;
    }
    Ok(page)
}

fn line(rows: &[&Row]) -> String {
    let middle = |of: &dyn Fn(&Row) -> Option<f64>| {
        let values: Vec<f64> = rows.iter().filter_map(|row| of(row)).collect();
        (!values.is_empty()).then(|| median(values))
    };
    let shown = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let given_up = rows.iter().filter(|row| row.took_s.is_none()).count();
    let Some(first) = rows.first() else {
        return String::new();
    };
    let is_right = rows.iter().all(|row| row.right);
    let bytes = match (given_up, is_right) {
        (0, true) => "right".to_owned(),
        (0, false) => "WRONG".to_owned(),
        (given_up, _) => format!("given up {given_up} of {}", rows.len()),
    };
    let detect = rows.iter().filter_map(|row| row.detect_ms).max();
    format!(
        "| {} | {:.2} | {} | {} | {} | {} ({:.2}) | {} | {} | {} | {} | {bytes} |",
        first.scenario,
        first.bound_s,
        first.contestant,
        shown(middle(&|row| row.took_s), 1),
        shown(middle(&Row::ratio), 2),
        shown(middle(&|row| row.startup_s), 2),
        first.startup_bound_s,
        shown(middle(&|row| Some(row.wasted_percent)), 1),
        shown(middle(&|row| Some(row.requests_per_chunk)), 1),
        rows.iter().map(|row| row.hash_failures).sum::<u64>(),
        detect.map_or_else(|| "-".to_owned(), |ms| ms.to_string()),
    )
}
