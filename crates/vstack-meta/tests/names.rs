//! One name for one node: who gets which, who gives way, and that it stays.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is a test that fails"
)]
#![allow(unreachable_pub, reason = "the support is a module of this test alone")]

mod support;

use std::collections::BTreeSet;

use support::{Catalogue, T0, report};
use vstack_core::limits::NODE_DOWN_AFTER_MS;
use vstack_core::time::UnixMillis;
use vstack_meta::{Cmd, MetaStore as _, NodeChange, NodeReport, Reply};

/// A heartbeat of a node that asks for a name or none: what it is called, and whether it was refused what it asked for.
async fn beat(catalogue: &Catalogue, number: u128, asks: Option<&str>, now: UnixMillis) -> (String, bool) {
    let report = NodeReport {
        name: asks.map(str::to_owned),
        ..report(number)
    };
    let reply = catalogue.apply(Cmd::Heartbeat { report, now }).await.unwrap();
    let Reply::Heartbeat(reply) = reply else {
        panic!("a heartbeat's reply: {reply:?}")
    };
    check_one_name_each(catalogue).await;
    (reply.named.name, reply.named.refused)
}

async fn check_one_name_each(catalogue: &Catalogue) {
    let nodes = catalogue.store.nodes().await.unwrap();
    let names: Vec<String> = nodes.into_iter().filter_map(|node| node.name).collect();
    let different: BTreeSet<&String> = names.iter().collect();
    assert_eq!(different.len(), names.len(), "{names:?}");
}

fn called(name: &str) -> (String, bool) {
    (name.to_owned(), false)
}

fn refused(name: &str) -> (String, bool) {
    (name.to_owned(), true)
}

#[tokio::test]
async fn nodes_that_ask_for_nothing_are_numbered_once() {
    let catalogue = Catalogue::new().await;
    for round in 0..2 {
        for number in 31..34 {
            // Five are there already.
            let expected = format!("node-{}", number - 25);
            let now = T0 + round * 2_000;
            assert_eq!(beat(&catalogue, number, None, now).await, called(&expected));
        }
    }
}

#[tokio::test]
async fn a_node_gets_the_name_that_it_asks_for_and_keeps_it_when_it_asks_no_more() {
    let catalogue = Catalogue::new().await;
    assert_eq!(beat(&catalogue, 31, Some("nas"), T0).await, called("nas"));
    assert_eq!(beat(&catalogue, 31, None, T0 + 1).await, called("nas"));
    assert_eq!(beat(&catalogue, 31, Some("attic"), T0 + 2).await, called("attic"));
    assert_eq!(beat(&catalogue, 32, Some("nas"), T0 + 3).await, called("nas"));
}

#[tokio::test]
async fn a_name_of_a_node_that_lives_is_refused_and_of_one_that_is_down_it_goes_over() {
    let catalogue = Catalogue::new().await;
    beat(&catalogue, 31, Some("node-8"), T0).await;
    let suspect = T0 + (NODE_DOWN_AFTER_MS - 1);
    assert_eq!(
        beat(&catalogue, 32, Some("node-8"), suspect).await,
        refused("node-9")
    );
    let down = T0 + NODE_DOWN_AFTER_MS;
    assert_eq!(beat(&catalogue, 32, Some("node-8"), down).await, called("node-8"));
    assert_eq!(
        beat(&catalogue, 31, Some("node-8"), down + 1).await,
        refused("node-10"),
        "the one that came back is another node now, under a number that nobody had"
    );
}

#[tokio::test]
async fn a_name_that_was_only_numbered_goes_to_who_asks_for_it() {
    let catalogue = Catalogue::new().await;
    assert_eq!(beat(&catalogue, 31, None, T0).await, called("node-6"));
    assert_eq!(beat(&catalogue, 32, Some("node-6"), T0).await, called("node-6"));
    assert_eq!(beat(&catalogue, 31, None, T0 + 1).await, called("node-7"));
}

#[tokio::test]
async fn the_number_of_a_removed_node_is_given_to_nobody_by_itself() {
    let catalogue = Catalogue::new().await;
    beat(&catalogue, 31, None, T0).await;
    beat(&catalogue, 32, None, T0).await;
    let remove = Cmd::ChangeNode {
        node: report(32).node,
        change: NodeChange::Remove { force: false },
        now: T0,
    };
    catalogue.done(remove).await;
    assert_eq!(beat(&catalogue, 33, None, T0 + 1).await, called("node-8"));
    assert_eq!(
        beat(&catalogue, 34, Some("node-7"), T0 + 2).await,
        called("node-7")
    );
}

#[tokio::test]
async fn two_nodes_may_change_their_names_with_each_other() {
    let catalogue = Catalogue::new().await;
    beat(&catalogue, 31, Some("a"), T0).await;
    beat(&catalogue, 32, Some("b"), T0).await;
    // Both were started anew with the other one's name: the first waits until the second has asked too.
    let later = T0 + 1;
    assert_eq!(beat(&catalogue, 31, Some("b"), later).await, refused("a"));
    assert_eq!(beat(&catalogue, 32, Some("a"), later).await, called("a"));
    assert_eq!(beat(&catalogue, 31, Some("b"), later).await, called("b"));
}
