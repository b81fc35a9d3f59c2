//! A trace played back: its facts go into the policies of this program, and what comes out is compared with what is
//! written there.
//!
//! Actions are compared as text, which is exact: numbers are printed so that different ones differ. After the first
//! difference nothing is compared any more, since the facts that follow are about attempts that the replay did not make.

use std::collections::VecDeque;

use serde::Serialize;

use super::{Head, Line, TRACE_VERSION, Told, text};
use crate::policy::{Action, Fact, Micros, NodeRecords, Policy, PolicyConfig};

/// Why a trace cannot be played back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    #[error("line {line} is not a line of a trace: {reason}")]
    NotALine { line: u64, reason: String },
    #[error("line {line} comes out of place: {reason}")]
    OutOfPlace { line: u64, reason: &'static str },
    #[error("the trace has version {found}; this program reads version {TRACE_VERSION}")]
    OtherVersion { found: u32 },
    #[error("the trace is empty")]
    Empty,
}

/// Where the replay and the trace part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Parting {
    /// The first line that is not as the replay has it, counted from 1.
    pub line: u64,
    /// The fact or switch that the actions answer.
    pub fact_line: u64,
    pub fact_at_us: Micros,
    pub fact: String,
    /// `None`: the trace has no further action here.
    pub recorded: Option<String>,
    /// `None`: the replay has no further action here.
    pub replayed: Option<String>,
}

/// What a replay came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replay {
    pub lines: u64,
    pub facts: u64,
    pub switches: u64,
    /// Actions that are the same in the trace and in the replay.
    pub actions: u64,
    /// Changes of the nodes' records by others: pings, other sessions.
    pub records: u64,
    /// From the first fact to the last.
    pub span_us: Micros,
    /// The trace has its last line.
    pub complete: bool,
    /// `None`: every action came out as recorded.
    pub parted: Option<Parting>,
}

/// A fact of a replay, and all about it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub at: Micros,
    pub fact: &'a Fact,
    pub actions: &'a [Action],
    /// As the fact left it.
    pub policy: &'a Policy,
    pub records: &'a NodeRecords,
}

/// A replay under way; takes a trace line by line.
#[derive(Debug)]
pub struct Replayer {
    policy: Option<Policy>,
    /// Replays another policy than the trace's; switches are then left out.
    other: Option<PolicyConfig>,
    records: NodeRecords,
    /// Actions that the trace must have next.
    due: VecDeque<String>,
    asked: (u64, Micros, String),
    first_at: Option<Micros>,
    replay: Replay,
}

impl Replayer {
    /// `other` plays the facts to another policy than the one that heard them.
    #[must_use]
    pub fn new(other: Option<PolicyConfig>) -> Self {
        Self {
            policy: None,
            other,
            records: NodeRecords::default(),
            due: VecDeque::new(),
            asked: (0, Micros(0), String::new()),
            first_at: None,
            replay: Replay {
                lines: 0,
                facts: 0,
                switches: 0,
                actions: 0,
                records: 0,
                span_us: Micros(0),
                complete: false,
                parted: None,
            },
        }
    }

    /// Takes the next line. `false`: they have parted, and the rest says no more.
    ///
    /// # Errors
    /// It is not a line of a trace, or not at this place.
    pub fn take(&mut self, line: &str) -> Result<bool, TraceError> {
        self.take_and_see(line, |_| ())
    }

    /// The same; `see` is shown each fact with what it led to.
    ///
    /// # Errors
    /// As [`Replayer::take`].
    pub fn take_and_see(&mut self, line: &str, see: impl FnOnce(Seen<'_>)) -> Result<bool, TraceError> {
        if self.replay.parted.is_some() {
            return Ok(false);
        }
        self.replay.lines += 1;
        let number = self.replay.lines;
        let parsed: Line = serde_json::from_str(line).map_err(|error| TraceError::NotALine {
            line: number,
            reason: error.to_string(),
        })?;
        let is_action = matches!(parsed, Line::Action(_));
        if is_action {
            self.compare(line);
        } else if self.due.front().is_some() {
            self.part(None);
        }
        if is_action || self.replay.parted.is_some() {
            return Ok(self.replay.parted.is_none());
        }
        self.follow(number, parsed, line, see)?;
        Ok(true)
    }

    /// What it came to.
    ///
    /// # Errors
    /// There was not a single line.
    pub fn finish(self) -> Result<Replay, TraceError> {
        if self.policy.is_none() {
            return Err(TraceError::Empty);
        }
        Ok(self.replay)
    }

    fn follow(
        &mut self,
        number: u64,
        line: Line,
        written: &str,
        see: impl FnOnce(Seen<'_>),
    ) -> Result<(), TraceError> {
        let out_of_place = |reason| TraceError::OutOfPlace { line: number, reason };
        let Some(policy) = &mut self.policy else {
            let Line::Trace(head) = line else {
                return Err(out_of_place("a trace begins with its head"));
            };
            return self.begin(*head);
        };
        if self.replay.complete {
            return Err(out_of_place("the trace has ended"));
        }
        match line {
            Line::Trace(_) => return Err(out_of_place("a trace has one head")),
            Line::Action(_) => {}
            Line::Node { node, record } => {
                *self.records.record_mut(node) = *record;
                self.replay.records += 1;
            }
            Line::Fact { at_us, is } => {
                let actions = policy.apply(at_us, &mut self.records, is.clone());
                see(Seen {
                    at: at_us,
                    fact: &is,
                    actions: &actions,
                    policy,
                    records: &self.records,
                });
                self.replay.facts += 1;
                self.expect(number, at_us, written, &actions);
            }
            Line::Switch { at_us, to } => {
                let actions = if self.other.is_none() {
                    policy.switch(to)
                } else {
                    Vec::new()
                };
                self.replay.switches += 1;
                self.expect(number, at_us, written, &actions);
            }
            Line::End { lines } if lines == number => self.replay.complete = true,
            Line::End { .. } => return Err(out_of_place("lines are missing, or too many")),
        }
        Ok(())
    }

    fn begin(&mut self, head: Head) -> Result<(), TraceError> {
        if head.version != TRACE_VERSION {
            return Err(TraceError::OtherVersion { found: head.version });
        }
        self.policy = Some(Policy::new(self.other.unwrap_or(head.policy), head.chunks));
        Ok(())
    }

    fn expect(&mut self, number: u64, at: Micros, written: &str, actions: &[Action]) {
        let first = *self.first_at.get_or_insert(at);
        self.replay.span_us = at - first;
        self.due
            .extend(actions.iter().map(|action| text(&Told::Action(action))));
        self.asked = (number, at, written.to_owned());
    }

    fn compare(&mut self, recorded: &str) {
        if self.due.front().map(String::as_str) == Some(recorded) {
            self.due.pop_front();
            self.replay.actions += 1;
        } else {
            self.part(Some(recorded));
        }
    }

    fn part(&mut self, recorded: Option<&str>) {
        let (fact_line, fact_at_us, fact) = self.asked.clone();
        self.replay.parted = Some(Parting {
            line: self.replay.lines,
            fact_line,
            fact_at_us,
            fact,
            recorded: recorded.map(str::to_owned),
            replayed: self.due.pop_front(),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use uuid::Uuid;
    use vstack_core::id::VideoId;
    use vstack_core::time::UnixMillis;

    use super::*;
    use crate::policy::trace::Recorder;
    use crate::policy::{AttemptId, ChunkSpec, Failure, NodeIndex, PoolConfig, SeedConfig, Shape};

    /// Of four chunks on three nodes, told for a while.
    fn recorded(config: PolicyConfig) -> Vec<String> {
        let chunk = |seq: u64| ChunkSpec {
            start: Micros::from_ms(seq * 4_000),
            end: Micros::from_ms((seq + 1) * 4_000),
            shape: Shape::copies(1_000_000, (0..3).map(NodeIndex)),
        };
        let head = Head {
            version: TRACE_VERSION,
            written_by: "a test".to_owned(),
            video_id: VideoId(Uuid::nil()),
            zero_at: UnixMillis(0),
            nodes: Vec::new(),
            node_names: Vec::new(),
            policy: config,
            chunks: (0..4).map(chunk).collect(),
        };
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let mut policy = Policy::new(config, head.chunks.clone());
        let mut recorder = Recorder::new(&head, move |line| sink.lock().unwrap().push(line));
        let mut records = NodeRecords::default();
        let at = Micros::from_ms;
        recorder.apply(&mut policy, at(0), &mut records, Fact::Tick);
        for node in 0..3 {
            // A third is no decimal.
            records
                .record_mut(NodeIndex(node))
                .ping_answered(at(10), Micros(10_001 / 3));
        }
        let done = |attempt, elapsed_us| Fact::Done {
            attempt: AttemptId(attempt),
            bytes: 65_536,
            elapsed: Micros(elapsed_us),
        };
        recorder.apply(&mut policy, at(50), &mut records, done(0, 49_999));
        let failed = Fact::Failed {
            attempt: AttemptId(1),
            failure: Failure::Connect,
        };
        recorder.apply(&mut policy, at(70), &mut records, failed);
        let other = PolicyConfig::Pool(PoolConfig::default());
        recorder.switch(&mut policy, at(80), &records, other);
        recorder.apply(&mut policy, at(90), &mut records, Fact::Tick);
        recorder.apply(&mut policy, at(400), &mut records, Fact::Tick);
        drop(recorder);
        lines.lock().unwrap().clone()
    }

    fn seed() -> PolicyConfig {
        PolicyConfig::Seed(SeedConfig::default())
    }

    fn replayed(lines: &[String], other: Option<PolicyConfig>) -> Result<Replay, TraceError> {
        let mut replayer = Replayer::new(other);
        for line in lines {
            replayer.take(line)?;
        }
        replayer.finish()
    }

    #[test]
    fn the_same_facts_lead_to_the_same_actions_bit_for_bit() {
        for config in [seed(), PolicyConfig::Pool(PoolConfig::default())] {
            let lines = recorded(config);
            let replay = replayed(&lines, None).unwrap();
            assert_eq!(replay.parted, None);
            assert!(replay.complete && replay.actions > 5, "{replay:?}");
            assert_eq!(
                (replay.facts, replay.switches, replay.lines),
                (5, 1, lines.len() as u64)
            );
            assert_eq!(replay.span_us, Micros::from_ms(400));
        }
    }

    #[test]
    fn a_changed_fact_is_found_at_the_first_action_that_it_changes() {
        let mut lines = recorded(seed());
        let told = lines.iter().position(|line| line.contains("49999")).unwrap();
        lines[told] = lines[told].replace("49999", "50000");
        let parted = replayed(&lines, None).unwrap().parted.unwrap();
        let (recorded, replayed) = (parted.recorded.unwrap(), parted.replayed.unwrap());
        assert!(parted.line > told as u64 && parted.fact_line > told as u64);
        assert!(
            recorded.contains("\"score\"") && recorded != replayed,
            "{recorded} / {replayed}"
        );
    }

    #[test]
    fn an_action_that_is_missing_or_made_up_is_found_where_it_should_be() {
        let whole = recorded(seed());
        let first = whole
            .iter()
            .position(|line| line.starts_with("{\"action\":{\"start\""))
            .unwrap();
        let mut missing = whole.clone();
        missing.remove(first);
        assert_eq!(
            replayed(&missing, None).unwrap().parted.unwrap().line,
            first as u64 + 1
        );
        let mut more = whole.clone();
        let last = more.len() - 1;
        more.insert(last, "{\"action\":{\"wake_at\":7}}".to_owned());
        let parted = replayed(&more, None).unwrap().parted.unwrap();
        assert_eq!((parted.line, parted.replayed), (last as u64 + 1, None));
    }

    #[test]
    fn another_policy_parts_at_its_first_other_decision() {
        let other = PolicyConfig::Pool(PoolConfig::default());
        let parted = replayed(&recorded(seed()), Some(other)).unwrap().parted.unwrap();
        assert_eq!(parted.fact_at_us, Micros(0));
        assert!(parted.replayed.unwrap().contains("blocks"));
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        assert_eq!(replayed(&[], None), Err(TraceError::Empty));
        let mut lines = recorded(seed());
        lines[2] = "{\"fact\":{\"at_us\":1,\"is\":\"sleep\"}}".to_owned();
        assert!(matches!(
            replayed(&lines, None),
            Err(TraceError::NotALine { line: 3, .. })
        ));
        assert!(matches!(
            replayed(&lines[1..], None),
            Err(TraceError::OutOfPlace { line: 1, .. })
        ));
        let newer = vec![recorded(seed())[0].replacen("\"version\":1", "\"version\":2", 1)];
        assert_eq!(replayed(&newer, None), Err(TraceError::OtherVersion { found: 2 }));
    }

    #[test]
    fn a_trace_that_was_cut_off_is_played_as_far_as_it_goes() {
        let lines = recorded(seed());
        let replay = replayed(&lines[..lines.len() - 3], None).unwrap();
        assert!(!replay.complete && replay.parted.is_none());
    }
}
