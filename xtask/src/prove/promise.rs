//! `cargo xtask prove promise`: every pair of five nodes, broken in every way, while a library is watched.
//!
//! The run itself is `node-server/tests/promise.rs`, built with optimisation; each fault leaves its figures in a file,
//! and here they become docs/evaluation/promise.md.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::cluster_run;
use crate::project::Project;
use crate::{say, step};

/// A fault, as the run names its file, and what it is.
const FAULTS: [(&str, &str); 4] = [
    ("Killed", "SIGKILL, and later started again"),
    ("Stopped", "SIGSTOP, and later SIGCONT"),
    (
        "Lying",
        "every answer with data has wrong bytes in it, and later none has",
    ),
    ("Emptied", "SIGKILL, its folder deleted, started again empty"),
];

/// Whether the promise was kept. With `--page` the page is written again from the figures that the last run left.
pub(super) fn run(project: &Project, words: &[&str]) -> Result<bool> {
    let folder = project.target.join("promise");
    if words.contains(&"--page") {
        return write_page(project, &folder).map(|()| true);
    }
    let mut command = cluster_run::test(project, "promise", &folder)?;
    command
        .args(["--test-threads", "2"])
        .env("VSTACK_PROMISE_DIR", &folder);
    say::step("ten pairs of five nodes, four faults, about half an hour");
    let kept = step::succeeds(command)?;
    write_page(project, &folder)?;
    Ok(kept)
}

fn write_page(project: &Project, folder: &Path) -> Result<()> {
    cluster_run::write_page(project, "promise", &page(folder)?)
}

fn page(folder: &Path) -> Result<String> {
    let mut text = HEAD.to_owned();
    let mut details = String::new();
    for (fault, what) in FAULTS {
        let rows = cluster_run::rows(&folder.join(format!("{fault}.json")))?;
        text.push_str(&summary(what, &rows));
        details.push_str(&format!("\n### {what}\n\n{DETAILS_HEAD}"));
        rows.iter().for_each(|row| details.push_str(&detail(row)));
    }
    let says = cluster_run::rows(&folder.join("Killed.json"))?;
    let says = says.first().and_then(|row| row["says"].as_str()).unwrap_or("-");
    text.push_str(&format!(
        "\nWith two nodes away, what cannot be mended is said: \"{says}\".\n\n## Every pair\n{details}"
    ));
    Ok(text)
}

fn summary(what: &str, rows: &[Value]) -> String {
    let span = |name: &str| {
        let mut ms: Vec<u64> = rows.iter().filter_map(|row| row[name].as_u64()).collect();
        ms.sort_unstable();
        match (ms.get(ms.len() / 2), ms.last()) {
            (Some(middle), Some(last)) => format!("{} / {}", seconds(*middle), seconds(*last)),
            _ => "-".to_owned(),
        }
    };
    let sum = |name: &str| rows.iter().filter_map(|row| row[name].as_u64()).sum::<u64>();
    format!(
        "| {what} | {} of 10 | {} | {} | {} | {} | {} | {} | {} |\n",
        rows.len(),
        span("noticed_ms"),
        span("protected_ms"),
        span("whole_ms"),
        sum("stalls"),
        sum("failovers"),
        sum("bad_answers_refused"),
        sum("wrong_bytes"),
    )
}

fn detail(row: &Value) -> String {
    let time = |name: &str| row[name].as_u64().map_or_else(|| "-".to_owned(), seconds);
    format!(
        "| {} and {} | {} | {} | {} | {} | {} | {} | {} |\n",
        row["pair"][0],
        row["pair"][1],
        time("noticed_ms"),
        time("protected_ms"),
        time("whole_ms"),
        row["stalls"],
        row["failovers"],
        row["bad_answers_refused"],
        row["wrong_bytes"],
    )
}

fn seconds(ms: u64) -> String {
    format!("{:.1}", ms as f64 / 1000.0)
}

const DETAILS_HEAD: &str = "\
| nodes | noticed (s) | protected (s) | whole again (s) | stalls | failovers | bad answers refused | wrong chunks |
|---|---|---|---|---|---|---|---|
";

const HEAD: &str = "\
# Any two of five nodes may go

`cargo xtask prove promise` (a fast form of it, one pair of each fault, is `node-server/tests/promise.rs` and runs with all tests).

Five storage nodes, a metadata role, an uploader and a gateway, each a process of its own; two videos as three copies and two as 3+2
shards. Every pair of nodes in turn is broken in four ways while four players watch, one a video, at four times its speed. Each pair is
mended before the next one breaks. The grace is 1 s here instead of 10 minutes and the quarantine of a node that lies 45 s, so that a run
does not wait for them; a node counts as *down* after 30 s without a heartbeat, as always.

- **noticed**: the cluster's own view shows a node or a part that is not well.
- **protected**: everything that the nodes left can hold is there again: every replicated chunk has three good copies on them, every
  erasure-coded one its three shards, and `vstack status` says \"degraded, add a node\" for exactly those. For emptied nodes, which are
  there again at once: every chunk has all its parts.
- **whole again**: from the end of the fault until every part of every chunk is good and nothing is left to do. For emptied nodes: until
  those that are no more are struck off. For nodes that lied, what is left of the quarantine is in it.
- **wrong chunks**: what a plain reader gets from the gateway, hashed by `sha256sum` and compared with the manifest before the fault,
  once while the nodes are broken and once afterwards. Beside that every video is played to its end three times for each pair.

Times are the middle one and the longest of the pairs, in seconds.

| fault | pairs | noticed | protected | whole again | stalls | failovers | bad answers refused | wrong chunks |
|---|---|---|---|---|---|---|---|---|
";
