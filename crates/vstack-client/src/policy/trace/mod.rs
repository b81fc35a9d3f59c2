//! A session's policy, written down: every fact with its time, every action with its reasons, as JSON lines that play
//! back.
//!
//! A policy is a pure function of what it hears, so that a trace needs no bytes and no sockets to be replayed: the same
//! facts at the same times give the same actions, bit for bit. Besides facts a policy reads the nodes' records, which
//! pings and other sessions change as well; what has changed since this policy looked last is written before the fact.
//!
//! Lines, each an object with one key: `trace` (the head, first and once), `node` (a record as others left it), `fact`,
//! `switch` (another policy takes over), `action` (what the fact or switch before it led to, in order), `end`. Numbers that
//! a replay computes with are decimal text (`exact`). Left out: what the session did with the actions.

pub mod exact;
mod replay;

use std::fmt;

use serde::{Deserialize, Serialize};
use vstack_core::id::VideoId;
use vstack_core::time::UnixMillis;

use super::{Action, ChunkSpec, Fact, Micros, NodeIndex, NodeRecord, NodeRecords, Policy, PolicyConfig};

pub use replay::{Parting, Replay, Replayer, Seen, TraceError};

/// The version of the format. A reader takes no other.
pub const TRACE_VERSION: u32 = 1;

/// The first line: all that a session knew before its first fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    pub version: u32,
    /// The version of the client that wrote it.
    pub written_by: String,
    pub video_id: VideoId,
    /// The time of day that the client's clock counts from.
    pub zero_at: UnixMillis,
    /// Addresses of the nodes that were known, by index; for people.
    pub nodes: Vec<String>,
    /// What these nodes were called, by index; for people.
    #[serde(default)]
    pub node_names: Vec<String>,
    pub policy: PolicyConfig,
    pub chunks: Vec<ChunkSpec>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Told<'a> {
    Trace(&'a Head),
    Node { node: NodeIndex, record: &'a NodeRecord },
    Fact { at_us: Micros, is: &'a Fact },
    Switch { at_us: Micros, to: PolicyConfig },
    Action(&'a Action),
    End { lines: u64 },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Trace(Box<Head>),
    Node {
        node: NodeIndex,
        record: Box<NodeRecord>,
    },
    Fact {
        at_us: Micros,
        is: Fact,
    },
    Switch {
        at_us: Micros,
        to: PolicyConfig,
    },
    // Compared as text.
    Action(serde::de::IgnoredAny),
    End {
        lines: u64,
    },
}

fn text(line: &Told<'_>) -> String {
    serde_json::to_string(line).expect("lines have string keys")
}

/// Writes down what a policy hears and answers; its end writes the last line.
pub struct Recorder {
    sink: Box<dyn FnMut(String) + Send>,
    /// The records as this policy saw them last.
    seen: NodeRecords,
    lines: u64,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}

impl Recorder {
    /// `sink` gets every line, without its end; it must not wait.
    pub fn new(head: &Head, sink: impl FnMut(String) + Send + 'static) -> Self {
        let mut recorder = Self {
            sink: Box::new(sink),
            seen: NodeRecords::default(),
            lines: 0,
        };
        recorder.tell(&Told::Trace(head));
        recorder
    }

    /// [`Policy::apply`], written down.
    pub fn apply(
        &mut self,
        policy: &mut Policy,
        now: Micros,
        records: &mut NodeRecords,
        fact: Fact,
    ) -> Vec<Action> {
        self.tell_records(records);
        let line = Told::Fact {
            at_us: now,
            is: &fact,
        };
        self.tell(&line);
        let actions = policy.apply(now, records, fact);
        self.tell_actions(records, &actions);
        actions
    }

    /// [`Policy::switch`], written down.
    pub fn switch(
        &mut self,
        policy: &mut Policy,
        now: Micros,
        records: &NodeRecords,
        to: PolicyConfig,
    ) -> Vec<Action> {
        self.tell_records(records);
        self.tell(&Told::Switch { at_us: now, to });
        let actions = policy.switch(to);
        self.tell_actions(records, &actions);
        actions
    }

    fn tell_records(&mut self, records: &NodeRecords) {
        let changed: Vec<String> = records
            .changed_since(&self.seen)
            .map(|(node, record)| text(&Told::Node { node, record }))
            .collect();
        changed.into_iter().for_each(|line| self.put(line));
    }

    fn tell_actions(&mut self, records: &NodeRecords, actions: &[Action]) {
        for action in actions {
            self.tell(&Told::Action(action));
        }
        self.seen.clone_from(records);
    }

    fn tell(&mut self, line: &Told<'_>) {
        self.put(text(line));
    }

    fn put(&mut self, line: String) {
        self.lines += 1;
        (self.sink)(line);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let lines = self.lines + 1;
        self.tell(&Told::End { lines });
    }
}
