//! A node has one name: that of its folder under `vstack dev`, in every table, report and chart, whatever its port is and
//! however often the cluster was started.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use common::{Dev, alone, clip, process, text, until, vstack};
use serde_json::Value;
use vstack_client::{ClientConfig, Cluster};
use vstack_core::node_name::NODE_NAME_RULE;

/// Node ids to names.
type Names = BTreeMap<String, String>;

/// By the folders of the cluster, which are what its operator sees.
fn names_of_folders(data: &Path, nodes: u16) -> Names {
    let name = |number: u16| {
        let name = format!("node-{number}");
        let text = std::fs::read(data.join(&name).join("node.json")).unwrap();
        let identity: Value = serde_json::from_slice(&text).unwrap();
        (identity["node_id"].as_str().unwrap().to_owned(), name)
    };
    (1..=nodes).map(name).collect()
}

/// By a list of objects that have both.
fn names_in(list: &Value) -> Names {
    let pair = |node: &Value| {
        let text = |field: &str| node[field].as_str().unwrap_or_default().to_owned();
        (text("node_id"), text("name"))
    };
    list.as_array().unwrap().iter().map(pair).collect()
}

/// What the player's panel, charts and log call them: the client's views, which it shows as they are.
fn names_in_the_player(metadata_url: &str) -> Names {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = runtime
        .block_on(Cluster::connect(ClientConfig::new(metadata_url)))
        .unwrap();
    let nodes = cluster.nodes().into_iter();
    nodes.map(|node| (node.node_id.to_string(), node.name)).collect()
}

fn check_names(cluster: &Dev, video: &str, expected: &Names) {
    let ready = serde_json::to_value(&cluster.ready.children).unwrap();
    let mut started = names_in(&ready);
    started.remove("");
    let status = cluster.ask(&["status"]).succeeded();
    let list = cluster.ask(&["node", "list"]).succeeded();
    let plan = cluster.ask(&["rebalance", "plan"]).succeeded();
    let report = cluster.ask(&["play", video, "--speed", "0"]).succeeded();
    for (place, names) in [
        ("vstack dev", started),
        ("vstack status", names_in(&status["nodes"])),
        ("vstack node list", names_in(&list)),
        ("vstack rebalance plan", names_in(&plan["nodes"])),
        ("vstack play", names_in(&report["nodes"])),
        ("the player", names_in_the_player(cluster.url())),
    ] {
        assert_eq!(&names, expected, "{place}");
    }
    for (id, name) in expected {
        let node = cluster.ask(&["node", "info", name]).succeeded();
        assert_eq!(&node["node_id"], id, "a name names its node");
    }
    check_bytes_by_name(&report, expected);
    check_trace(cluster, video, expected);
}

/// The report's bytes are told by name: of the nodes that requests went to.
fn check_bytes_by_name(report: &Value, expected: &Names) {
    let names: BTreeSet<&String> = expected.values().collect();
    let bytes = report["bytes_by_node"].as_object().unwrap();
    let shares = report["share_percent_by_node"].as_object().unwrap();
    let all: u64 = bytes.values().filter_map(Value::as_u64).sum();
    for (name, bytes) in bytes {
        let percent = bytes.as_u64().unwrap() as f64 * 100.0 / all as f64;
        let told = shares[name].as_f64().unwrap();
        assert!((told - percent).abs() < 1e-6, "{name}: {told} %, {percent} %");
    }
    assert!(
        !bytes.is_empty() && bytes.keys().all(|name| names.contains(name)),
        "{bytes:?}"
    );
}

/// A trace says what its indexes are called.
fn check_trace(cluster: &Dev, video: &str, expected: &Names) {
    let file = Path::new(&cluster.ready.data_dir).join("names.trace");
    cluster
        .ask(&["play", video, "--speed", "0", "--trace", text(&file)])
        .succeeded();
    let trace = std::fs::read_to_string(&file).unwrap();
    let head: Value = serde_json::from_str(trace.lines().next().unwrap()).unwrap();
    let list = |field: &str| head["trace"][field].as_array().unwrap().clone();
    let id_at = |url: &Value| {
        let child = cluster.ready.children.iter().find(|child| child.url == *url);
        child.unwrap().node_id.unwrap().to_string()
    };
    let names = list("nodes")
        .into_iter()
        .map(|url| id_at(&url))
        .zip(list("node_names"));
    let names: Names = names
        .map(|(id, name)| (id, name.as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(&names, expected, "the trace");
}

#[test]
fn a_node_is_called_as_its_folder_is_everywhere_and_for_ever() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let cluster = Dev::start(data.path());
    let expected = names_of_folders(data.path(), 5);
    let video = cluster.upload(&clip(20));
    check_names(&cluster, &video, &expected);
    assert_eq!(cluster.stop(), Some(0));

    let cluster = Dev::start(data.path());
    check_names(&cluster, &video, &expected);
    assert_eq!(cluster.stop(), Some(0));
}

/// What people do when a disk has died: the folder is empty, and what starts there is a new node.
#[test]
fn a_new_node_in_an_old_folder_takes_over_its_name_once_the_old_one_is_removed() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let cluster = Dev::start_with(data.path(), &["--nodes", "3"]);
    let before = names_of_folders(data.path(), 3);
    assert_eq!(cluster.stop(), Some(0));
    std::fs::remove_dir_all(data.path().join("node-2")).unwrap();

    let cluster = Dev::start_with(data.path(), &["--nodes", "3"]);
    let expected = names_of_folders(data.path(), 3);
    let (old, _) = before.iter().find(|(_, name)| *name == "node-2").unwrap();
    assert!(!expected.contains_key(old), "it is another node");
    cluster.ask(&["node", "remove", old, "--force"]).succeeded();
    until("the new one has the name", Duration::from_secs(20), || {
        names_in(&cluster.ask(&["node", "list"]).succeeded()) == expected
    });
    assert_eq!(cluster.stop(), Some(0));
}

#[test]
fn a_name_that_would_be_ambiguous_is_refused_at_once() {
    let data = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        let mut command = vstack();
        command.args([
            "serve",
            "--json",
            "--role",
            "storage",
            "--data",
            text(data.path()),
            "--name",
            name,
        ]);
        process::finish(command)
    };
    for name in [
        "Node-1",
        "a b",
        "http://a:1",
        "7d444840-9dc0-11d1-b245-5ffdce74fad2",
        "",
    ] {
        let answer = start(name);
        let said = format!("{:?} {}", answer.lines, answer.stderr);
        assert_eq!(answer.code, Some(2), "{name:?}: {said}");
        assert!(said.contains(NODE_NAME_RULE), "{name:?}: {said}");
    }
}
