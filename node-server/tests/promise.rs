//! The promise: any two of five nodes may die, hang, lie or lose everything, and nobody who watches notices.
//!
//! One pair of each fault here; `cargo xtask prove promise` runs all ten pairs of each and writes
//! docs/evaluation/promise.md. It sets `VSTACK_PROMISE_DIR`, where each fault leaves what it measured.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::path::PathBuf;

use common::alone;
use common::pairs::{Fault, Five};
use serde_json::Value;

const ALL_PAIRS: [[usize; 2]; 10] = [
    [0, 1],
    [0, 2],
    [0, 3],
    [0, 4],
    [1, 2],
    [1, 3],
    [1, 4],
    [2, 3],
    [2, 4],
    [3, 4],
];

fn check(fault: Fault, one_pair: [usize; 2]) {
    let folder = std::env::var_os("VSTACK_PROMISE_DIR").map(PathBuf::from);
    // A whole run waits most of the time, so that its four clusters may stand side by side.
    let _alone = folder.is_none().then(alone);
    let pairs = match &folder {
        Some(_) => ALL_PAIRS.to_vec(),
        None => vec![one_pair],
    };
    let mut five = Five::start();
    let mut rows: Vec<Value> = Vec::new();
    for pair in pairs {
        let row = five.survive(fault, pair);
        assert_eq!(row["stalls"], 0, "{row}");
        rows.push(row);
        if let Some(folder) = &folder {
            let text = serde_json::to_string_pretty(&rows).unwrap();
            std::fs::write(folder.join(format!("{fault:?}.json")), text).unwrap();
        }
    }
}

#[test]
fn any_two_of_five_nodes_may_die() {
    check(Fault::Killed, [0, 3]);
}

#[test]
fn any_two_of_five_nodes_may_hang() {
    check(Fault::Stopped, [1, 2]);
}

#[test]
fn any_two_of_five_nodes_may_lie() {
    check(Fault::Lying, [2, 4]);
}

#[test]
fn any_two_of_five_nodes_may_lose_everything() {
    check(Fault::Emptied, [1, 4]);
}
