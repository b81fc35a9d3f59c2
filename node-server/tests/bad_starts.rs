//! What cannot start says so with the right exit code and the next step, and what cannot be reached does too.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::net::TcpListener;

use common::process::{Answer, finish};
use common::{Dev, alone, ask, text, vstack};
use serde_json::Value;

fn run(arguments: &[&str]) -> Answer {
    let mut command = vstack();
    command.args(arguments).arg("--json");
    finish(command)
}

fn detail(problem: &Value) -> String {
    problem["detail"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_second_cluster_on_the_same_folder_names_the_first_ones_process() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let cluster = Dev::start_with(data.path(), &["--nodes", "1"]);
    let refused = run(&["dev", "--port-base", "0", "--data", text(data.path())]);
    let said = detail(refused.failed(3));
    assert!(said.contains(&cluster.pid().to_string()), "{said}");
    assert_eq!(cluster.stop(), Some(0));
}

#[test]
fn a_role_on_a_folder_in_use_names_the_process_that_uses_it() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let cluster = Dev::start_with(data.path(), &["--nodes", "1"]);
    let node = cluster
        .ready
        .children
        .iter()
        .find(|child| child.role == "storage")
        .unwrap();
    let (folder, key) = (data.path().join("node-1"), data.path().join("cluster.key"));
    let refused = run(&[
        "serve",
        "--role",
        "storage",
        "--listen",
        "127.0.0.1:0",
        "--data",
        text(&folder),
        "--cluster-key-file",
        text(&key),
        "--metadata-url",
        cluster.url(),
    ]);
    let said = detail(refused.failed(3));
    assert!(said.contains(&node.pid.to_string()), "{said}");
    assert_eq!(cluster.stop(), Some(0));
}

#[test]
fn a_taken_port_names_who_holds_it() {
    let data = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let key = data.path().join("key");
    std::fs::write(&key, [7; 32]).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = run(&[
        "serve",
        "--role",
        "metadata",
        "--listen",
        &address,
        "--data",
        text(data.path()),
        "--cluster-key-file",
        text(&key),
    ]);
    let said = detail(refused.failed(3));
    assert!(
        said.contains(&address) && said.contains(&format!("process {}", std::process::id())),
        "{said}"
    );
}

#[test]
fn a_taken_port_ends_the_whole_cluster_with_the_same_words() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = run(&[
        "dev",
        "--nodes",
        "1",
        "--port-base",
        &port.to_string(),
        "--data",
        text(data.path()),
    ]);
    let said = detail(refused.failed(3));
    assert!(
        said.contains("metadata did not start") && said.contains(&format!("process {}", std::process::id())),
        "{said}"
    );
}

#[test]
fn without_a_key_nothing_is_served_and_all_complaints_come_at_once() {
    let data = tempfile::tempdir().unwrap();
    let refused = run(&[
        "serve",
        "--role",
        "storage",
        "--listen",
        "0.0.0.0:0",
        "--data",
        text(data.path()),
    ]);
    let said = detail(refused.failed(2));
    for complaint in ["--cluster-key-file", "--metadata-url", "loopback"] {
        assert!(said.contains(complaint), "{complaint} is not in: {said}");
    }
}

#[test]
fn a_file_that_is_no_key_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let key = data.path().join("key");
    std::fs::write(&key, b"password").unwrap();
    let refused = run(&[
        "serve",
        "--role",
        "metadata",
        "--listen",
        "127.0.0.1:0",
        "--data",
        text(data.path()),
        "--cluster-key-file",
        text(&key),
    ]);
    assert!(detail(refused.failed(2)).contains("32 random bytes"));
}

#[test]
fn open_access_is_refused_on_an_address_that_others_can_reach() {
    let data = tempfile::tempdir().unwrap();
    let key = data.path().join("key");
    std::fs::write(&key, [7; 32]).unwrap();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let refused = run(&[
            "serve",
            "--role",
            "metadata",
            "--listen",
            address,
            "--data",
            text(data.path()),
            "--cluster-key-file",
            text(&key),
        ]);
        assert!(detail(refused.failed(2)).contains("loopback"), "{address}");
    }
}

#[test]
fn a_cluster_that_is_not_there_is_told_with_the_next_step() {
    let nobody = common::lab::closed_address();
    let url = format!("http://{nobody}");
    for arguments in [
        &["status"][..],
        &["video", "list"],
        &["play", "something"],
        &["upload", "Cargo.toml"],
    ] {
        let answer = ask(&url, arguments);
        let said = detail(answer.failed(1));
        assert!(
            said.contains(&nobody.to_string()) && said.contains("vstack dev"),
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn wrong_arguments_end_with_two() {
    for arguments in [
        &["fly"][..],
        &["dev", "--nodes", "0"],
        &["serve", "--role", "gardener", "--data", "x"],
        &["upload"],
    ] {
        let mut command = vstack();
        let output = command.args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
