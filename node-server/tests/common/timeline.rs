//! A playback as `vstack play --json` tells it, event by event: and what each node has delivered.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::follow;
use super::process::{Lines, Process};

/// Longest silence of a playback that still runs: the position moves, requests are made.
const SILENCE: Duration = Duration::from_secs(60);

/// A running `vstack play`.
pub struct Playback {
    process: Process,
    lines: Lines,
    pub events: Vec<Value>,
    bytes: BTreeMap<String, u64>,
}

impl Playback {
    pub fn start(metadata_url: &str, video: &str, speed: &str) -> Self {
        let (process, lines) = follow(metadata_url, &["play", video, "--sink", "null", "--speed", speed]);
        Self {
            process,
            lines,
            events: Vec::new(),
            bytes: BTreeMap::new(),
        }
    }

    /// The next event; `None` after the last line.
    pub fn next(&mut self) -> Option<Value> {
        let event = self.lines.next(SILENCE)?;
        if event["event"] == "delivered"
            && let Some(node) = node_of(&event)
        {
            *self.bytes.entry(node.to_owned()).or_default() += event["bytes"].as_u64().unwrap_or(0);
        }
        self.events.push(event.clone());
        Some(event)
    }

    /// The node that has delivered most so far.
    pub fn serves_most(&self) -> Option<&str> {
        self.bytes
            .iter()
            .max_by_key(|(_, bytes)| **bytes)
            .map(|(node, _)| node.as_str())
    }

    /// Chunks that are whole.
    pub fn delivered(&self) -> usize {
        let whole = |event: &&Value| {
            let is_chunk = event["event"] == "delivered" && event["blocks"].is_null();
            is_chunk || event["event"] == "completed"
        };
        self.events.iter().filter(whole).count()
    }

    pub fn count(&self, kind: &str) -> usize {
        self.events.iter().filter(|event| event["event"] == kind).count()
    }

    /// The highest chunk asked for so far.
    pub fn latest_request(&self) -> u64 {
        let requested = self.events.iter().filter(|event| event["event"] == "requested");
        requested
            .filter_map(|event| event["seq"].as_u64())
            .max()
            .unwrap_or(0)
    }

    /// Plays to the end: the exit code and the session report.
    pub fn finish(mut self) -> (Option<i32>, Value, Vec<Value>) {
        while self.next().is_some() {}
        let code = self.process.wait(Duration::from_secs(10));
        let report = self.events.last().cloned().unwrap_or_default();
        (code, report, self.events)
    }
}

/// The id of the node that an event is about.
pub fn node_of(event: &Value) -> Option<&str> {
    event["node"]["node_id"].as_str()
}
