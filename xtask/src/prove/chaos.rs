//! `cargo xtask prove chaos`: real nodes are killed, stopped, cut off and made to lie at random while people watch.
//!
//! The run itself is `node-server/tests/chaos.rs`, built with optimisation, many rounds of it, each with the next seed;
//! what each left becomes docs/evaluation/chaos.md here.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::{cluster_run, number};
use crate::project::Project;
use crate::{say, step};

const ROUNDS: u64 = 10;

/// Whether every round went well. The page is written only by as many rounds as are published.
pub(super) fn run(project: &Project, words: &[&str]) -> Result<bool> {
    let (seed, count) = (
        number(words, "--seed")?.unwrap_or(1),
        number(words, "--count")?.unwrap_or(ROUNDS),
    );
    let folder = project.target.join("chaos");
    let mut command = cluster_run::test(project, "chaos", &folder)?;
    command
        .args(["--nocapture", "--test-threads", "1"])
        .env("VSTACK_CHAOS_SEED", seed.to_string())
        .env("VSTACK_CHAOS_ROUNDS", count.to_string())
        .env("VSTACK_CHAOS_DIR", &folder);
    say::step(&format!("{count} rounds of 75 s, from seed {seed} on"));
    let passed = step::succeeds(command)?;
    let rounds = cluster_run::rows(&folder.join("rounds.json"))?;
    if count >= ROUNDS {
        cluster_run::write_page(project, "chaos", &page(&rounds)?)?;
    }
    Ok(passed && rounds.len() as u64 == count)
}

/// The columns, as the rounds name them.
const COLUMNS: [(&str, &str); 11] = [
    ("seed", "seed"),
    ("killed", "SIGKILL"),
    ("stopped", "SIGSTOP"),
    ("cut_off", "cut off"),
    ("lying", "lying"),
    ("chunks_checked", "chunks compared"),
    ("stalls", "stalls"),
    ("startup_ms", "slowest start ms"),
    ("least_buffer_s", "least buffer s"),
    ("faults_met", "faults met"),
    ("bad_blocks_refused", "bad blocks refused"),
];

fn page(rounds: &[Value]) -> Result<String> {
    let mut text = HEAD.to_owned();
    let sum = |name: &str| {
        rounds
            .iter()
            .filter_map(|round| round[name].as_u64())
            .sum::<u64>()
    };
    let failed = rounds
        .iter()
        .filter(|round| !complaints(round).is_empty())
        .count();
    let struck: u64 = ["killed", "stopped", "cut_off", "lying"].map(sum).iter().sum();
    writeln!(
        text,
        "{} rounds: {struck} times a node was struck, {} chunks compared, {} stalls, {} bad blocks refused, {failed} rounds with a complaint.\n",
        rounds.len(),
        sum("chunks_checked"),
        sum("stalls"),
        sum("bad_blocks_refused"),
    )?;
    let heads: Vec<&str> = COLUMNS.iter().map(|(_, head)| *head).collect();
    writeln!(text, "| {} | complaints |", heads.join(" | "))?;
    writeln!(text, "|{}", "---|".repeat(COLUMNS.len() + 1))?;
    for round in rounds {
        let cells: Vec<String> = COLUMNS.iter().map(|(name, _)| cell(&round[*name])).collect();
        let complaints = complaints(round);
        let complaints = if complaints.is_empty() {
            "none".to_owned()
        } else {
            complaints.join("; ")
        };
        writeln!(text, "| {} | {complaints} |", cells.join(" | "))?;
    }
    Ok(text)
}

fn complaints(round: &Value) -> Vec<&str> {
    let all = round["complaints"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().filter_map(Value::as_str).collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => format!("{:.1}", number.as_f64().unwrap_or_default()),
        Value::Null => "-".to_owned(),
        value => value.to_string(),
    }
}

const HEAD: &str = "\
# Chaos: two of five nodes in trouble at any time

`cargo xtask prove chaos` (one round of it is `node-server/tests/chaos.rs` and runs with all tests). A round again:
`cargo xtask prove chaos --seed N --count 1`.

Five storage nodes, a metadata role and an uploader, each a process of its own, each node behind a path of 8 Mbit/s. A video of 150 s is
watched twice at double speed while every 5 to 10 s something happens, decided by the seed: a node is killed and later started again,
stopped and continued, cut off or flapping, or it lies (wrong, old, endless, short and 95 %-then-silent answers, 404 for what it has),
never more than two at a time. The clock runs six times as fast as the promise, which is one event in 30 to 60 s. Every chunk that a
player was handed is compared with what lay on the nodes before, read by `curl`.

";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_round_with_a_complaint_is_told_with_its_seed() {
        let well = json!({"seed": 1, "killed": 2, "lying": 1, "chunks_checked": 76, "stalls": 0, "least_buffer_s": 7.25, "complaints": []});
        let ill = json!({"seed": 2, "stalls": 1, "complaints": ["1 stalls, 300 ms"]});
        let page = page(&[well, ill]).unwrap();
        assert!(
            page.contains("2 rounds: 3 times a node was struck, 76 chunks compared, 1 stalls"),
            "{page}"
        );
        assert!(page.contains("1 rounds with a complaint"), "{page}");
        assert!(
            page.contains("| 1 | 2 | - | - | 1 | 76 | 0 | - | 7.2 |"),
            "{page}"
        );
        assert!(page.contains("| 1 stalls, 300 ms |"), "{page}");
    }
}
