//! The stories are told as they were: a change of the core that changes one shows here.
//!
//! `VSTACK_BLESS=1 cargo nextest run -p vstack-sim --test stories` writes the texts anew.

use std::path::PathBuf;

use vstack_core::paxos::trace::Trace;
use vstack_sim::stories::{self, WIDTH};

fn check_story(name: &str) -> Trace {
    let story = stories::find(name).expect("the story is told");
    let text = stories::draw(&story);
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
    if std::env::var_os("VSTACK_BLESS").is_some() {
        std::fs::write(&file, &text).expect("the folder is writable");
    }
    let golden = std::fs::read_to_string(&file).expect("the golden text is there");
    assert_eq!(
        text,
        golden,
        "{name} is told in another way; see {}",
        file.display()
    );
    assert!(
        text.lines().all(|line| line.chars().count() <= WIDTH),
        "{name} is too wide"
    );
    let json = serde_json::to_string(&story).expect("plain structs");
    assert_eq!(serde_json::from_str::<Trace>(&json).expect("its own JSON"), story);
    story
}

fn check_that_it_holds(name: &str, decided: &str, refused: &str) {
    let story = check_story(name);
    assert_eq!(story.violated, None);
    let has = |text: &str| story.steps.iter().any(|step| step.effect.contains(text));
    assert!(has(decided), "{name} never says {decided:?}");
    assert!(has(refused), "{name} never says {refused:?}");
}

#[test]
fn a_duel_has_one_winner() {
    check_that_it_holds("duel", "decided: epoch 1.2", "refused: uploader 1 is working");
}

#[test]
fn lost_messages_are_sent_again() {
    check_that_it_holds("lost-messages", "decided before", "the receipt again");
}

#[test]
fn a_crashed_uploader_is_resumed_without_sending_bytes_again() {
    check_that_it_holds("crashed-uploader", "are named 1.2 too", "refused: ballot 1.2");
}

#[test]
fn disjoint_node_sets_are_kept_apart_by_the_catalogue() {
    check_that_it_holds("disjoint-sets", "decided: epoch 1.2", "refused: ballot 1.2");
}

#[test]
fn a_quorum_alone_is_seen_breaking() {
    let violated = check_story("quorum-alone").violated;
    assert!(violated.is_some_and(|violated| violated.starts_with("I2")));
}

#[test]
fn a_repair_cannot_bring_a_deleted_chunk_back() {
    check_that_it_holds("delete-against-repair", "tombstone", "refused: ballot");
}

#[test]
fn a_repair_keeps_what_is_there() {
    check_that_it_holds("repair", "on nodes 1, 2, 4", "a new incarnation begins");
}

#[test]
fn a_restore_closes_what_was_open() {
    check_that_it_holds("restore", "is closed", "refused: ballot");
    let violated = check_story("restore-unsafe").violated;
    assert!(violated.is_some_and(|violated| violated.starts_with("I1")));
}
