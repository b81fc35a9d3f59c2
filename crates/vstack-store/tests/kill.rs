//! A real process with real files, killed with SIGKILL again and again: nothing it acknowledged is lost.
//!
//! The page cache survives SIGKILL, so this proves recovery, not syncing; `power_cut.rs` proves that.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_store::{DeleteReason, ErrorKind, PutRequest, Reserve, Store, StoreOptions};

mod common;
use common::{Folder, bytes_of, chunk};

/// Set for the child: the folder it writes to, and the first number it uses.
const FOLDER: &str = "VSTACK_KILL_FOLDER";
const FIRST: &str = "VSTACK_KILL_FIRST";
const CYCLES: u32 = 30;
const WRITERS: u32 = 4;

fn options() -> StoreOptions {
    // Small superblocks, so that kills also hit their creation and sealing.
    StoreOptions {
        superblock_bytes: 512 * 1024,
        reserve: Reserve::Bytes(0),
        ..StoreOptions::default()
    }
}

fn size_of(seq: u32) -> usize {
    [1, 700, 4096, 20_000, 150_000][seq as usize % 5] + seq as usize % 300
}

/// The child: writes for ever and says what was acknowledged. Does nothing when it is run as a test.
#[test]
fn child_that_writes_until_it_is_killed() {
    let (Ok(folder), Ok(first)) = (std::env::var(FOLDER), std::env::var(FIRST)) else {
        return;
    };
    let first: u32 = first.parse().unwrap();
    let (store, _) = Store::open(Path::new(&folder), options()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = &store;
            scope.spawn(move || {
                (first + writer..)
                    .step_by(WRITERS as usize)
                    .for_each(|seq| write_one(store, seq))
            });
        }
    });
}

fn write_one(store: &Store, seq: u32) {
    let say = |text: String| {
        std::io::stdout()
            .write_all(text.as_bytes())
            .expect("the parent reads")
    };
    let data = Bytes::from(bytes_of(seq, size_of(seq)));
    store
        .put_blocking(PutRequest::new(chunk(seq), Ballot::PLAIN, data))
        .expect("the disk is sound");
    say(format!("ACK put {seq}\n"));
    if seq.is_multiple_of(7) {
        say(format!("ACK deleting {seq}\n"));
        store
            .delete_blocking(chunk(seq), Ballot::PLAIN, DeleteReason::Client)
            .expect("the disk is sound");
        say(format!("ACK deleted {seq}\n"));
    }
}

#[derive(Debug, Default)]
struct Acknowledged {
    stored: BTreeSet<u32>,
    /// A delete was begun: it may have happened or not.
    deleting: BTreeSet<u32>,
    deleted: BTreeSet<u32>,
}

impl Acknowledged {
    fn note(&mut self, line: &str) {
        // The test harness writes lines of its own in between; a line cut by the kill has no number.
        let mut words = line.split_whitespace().skip_while(|word| *word != "ACK").skip(1);
        let (Some(what), Some(Ok(seq))) = (words.next(), words.next().map(str::parse)) else {
            return;
        };
        match what {
            "put" => self.stored.insert(seq),
            "deleting" => self.deleting.insert(seq),
            _ => self.deleted.insert(seq),
        };
    }
}

fn start_child(folder: &Path, first: u32) -> Child {
    Command::new(std::env::current_exe().expect("this test's own binary"))
        .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
        .env(FOLDER, folder)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the child starts")
}

/// Runs a child until it has acknowledged `lines` times, kills it, and reads what it had still said.
fn run_and_kill(folder: &Path, first: u32, lines: usize, acknowledged: &mut Acknowledged) {
    let mut child = start_child(folder, first);
    let mut said = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut next = || {
        let mut line = String::new();
        said.read_line(&mut line).expect("the child writes text");
        // A line that the kill cut has no end. One that has is kept, the last one too: a delete that was announced in
        // it may have happened.
        line.ends_with('\n').then_some(line)
    };
    for _ in 0..lines {
        acknowledged.note(&next().expect("the child runs until it is killed"));
    }
    child.kill().expect("SIGKILL");
    while let Some(line) = next() {
        acknowledged.note(&line);
    }
    child.wait().expect("it is gone");
}

fn check(store: &Store, acknowledged: &Acknowledged, what: &str) {
    for seq in &acknowledged.stored {
        let found = store.get(chunk(*seq), None).map_err(|error| error.kind());
        let gone = found == Err(ErrorKind::NotFound);
        if acknowledged.deleted.contains(seq) {
            assert!(gone, "{what}: {seq} was deleted and is back");
        } else if !(gone && acknowledged.deleting.contains(seq)) {
            assert!(
                found.as_ref() == Ok(&bytes_of(*seq, size_of(*seq))),
                "{what}: {seq}: {:?}",
                found.map(|data| data.len())
            );
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_in_thirty_kills() {
    let folder = Folder::new();
    let mut acknowledged = Acknowledged::default();
    let mut torn = BTreeMap::new();
    for cycle in 0..CYCLES {
        run_and_kill(
            &folder.path(),
            cycle * 1_000_000,
            8 + (cycle as usize * 37) % 90,
            &mut acknowledged,
        );
        let (store, report) = Store::open(&folder.path(), options()).unwrap();
        let what = format!("after kill {cycle}");
        assert!(report.is_clean(), "{what}: {report:?}");
        torn.insert(cycle, report.torn.len());
        check(&store, &acknowledged, &what);
    }
    let Acknowledged { stored, deleted, .. } = &acknowledged;
    println!(
        "{CYCLES} kills, {} puts and {} deletes acknowledged, torn tails: {}",
        stored.len(),
        deleted.len(),
        torn.values().sum::<usize>()
    );
    assert!(
        stored.len() > 300,
        "the child wrote too little to prove anything: {}",
        stored.len()
    );
}
