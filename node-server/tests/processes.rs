//! `vstack status` names the processes of a cluster wherever its data is, while they run and while they hang.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::process::{runs, signal};
use common::{Dev, alone, ask, until, vstack};
use rustix::process::Signal;
use serde_json::Value;
use vstack_server::dev::ServeReady;

/// Process numbers by role and node.
type Processes = BTreeMap<(String, String), u32>;

fn started(cluster: &Dev) -> Processes {
    let key = |child: &ServeReady| (child.role.clone(), child.name.clone().unwrap_or_default());
    let children = cluster.ready.children.iter();
    children.map(|child| (key(child), child.pid)).collect()
}

/// What is told to somebody who knows the address alone.
fn told(metadata_url: &str) -> Processes {
    let status = ask(metadata_url, &["status"]).succeeded();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let children = status["children"].as_array().unwrap().iter();
    let process = |child: &Value| {
        let pid = u32::try_from(child["pid"].as_u64().unwrap()).unwrap();
        ((text(&child["role"]), text(&child["name"])), pid)
    };
    children.map(process).collect()
}

#[test]
fn the_processes_of_a_cluster_are_named_to_who_knows_its_address_alone() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let cluster = Dev::start_with(data.path(), &["--nodes", "3"]);
    let mut expected = started(&cluster);
    assert_eq!(expected.len(), 6, "{expected:?}");
    assert_eq!(told(cluster.url()), expected);

    let pid = |name: &str| expected[&("storage".to_owned(), name.to_owned())];
    let (hangs, dies) = (pid("node-1"), pid("node-2"));
    signal(hangs, Signal::STOP);
    signal(dies, Signal::KILL);
    until("it is gone", Duration::from_secs(10), || !runs(dies));
    expected.retain(|_, pid| *pid != dies);
    assert_eq!(
        told(cluster.url()),
        expected,
        "a node that hangs can be let go on"
    );
    signal(hangs, Signal::CONT);

    let mut table = vstack();
    table.args(["status", "--metadata-url", cluster.url()]);
    let output = table.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("node-1 ")).unwrap();
    assert!(line.contains(&format!(" {hangs} ")), "{text}");
    assert_eq!(cluster.stop(), Some(0));
}
