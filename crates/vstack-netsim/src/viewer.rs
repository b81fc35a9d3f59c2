//! One client: a policy, a buffer, a playhead, and what is measured of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use vstack_client::policy::trace::{Head, Recorder, TRACE_VERSION};
use vstack_client::policy::{
    Action, AttemptId, BLOCK_BYTES, BlockRange, ChunkSpec, Fact, Micros, NodeRecords, Policy, PolicyConfig,
};

use vstack_core::id::VideoId;
use vstack_core::time::UnixMillis;

use crate::net::Sharing;
use crate::scenario::Scenario;

/// How a run is set up beside its scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    pub name: String,
    pub policy: PolicyConfig,
    pub sharing: Sharing,
    /// The client takes everything for right that it is sent. Only to see that wrong bytes are counted when they get through.
    pub trusts: bool,
}

/// What one client went through.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// `None`: playback never began.
    pub startup_sec: Option<f64>,
    pub stalls: u32,
    pub stall_sec: f64,
    pub avg_buffer_sec: f64,
    pub p5_buffer_sec: f64,
    pub min_buffer_sec: f64,
    /// When every chunk was there; `None`: not before the limit.
    pub done_sec: Option<f64>,
    pub received_bytes: f64,
    pub wasted_bytes: f64,
    pub hedged_bytes: u64,
    pub requests: u64,
    pub chunks: u32,
    pub wrong_pieces_refused: u32,
    /// Chunks, or beginnings of them, that were handed out although a byte of them was wrong. Must be 0.
    pub wrong_chunks_delivered: u32,
    /// From the fault to the first thing that the policy did about the node.
    pub detect_sec: Option<f64>,
    pub seek_sec: Vec<f64>,
    pub bytes_by_node: Vec<f64>,
}

/// An attempt as the viewer sees it.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) seq: u32,
    pub(crate) range: Option<BlockRange>,
    pub(crate) started_at: Micros,
    /// Flow and node of each, still under way.
    pub(crate) flows: Vec<(u64, usize)>,
    /// Nodes that were asked for it (whole shards: several).
    pub(crate) asked: BTreeSet<usize>,
    pub(crate) whole_parts: u8,
    /// Whether the bytes of those parts are what they should be; the client does not see this.
    pub(crate) is_right: bool,
    pub(crate) done_bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Viewer {
    pub(crate) policy: Policy,
    config: PolicyConfig,
    recorder: Option<Recorder>,
    pub(crate) records: NodeRecords,
    pub(crate) specs: Vec<ChunkSpec>,
    pub(crate) attempts: BTreeMap<AttemptId, Attempt>,
    pub(crate) arrives_at: Micros,
    pub(crate) wake_at: Option<Micros>,
    pub(crate) seeks: Vec<(f64, u32)>,
    pub(crate) is_over: bool,
    /// When playback is looked at next by its own clock.
    pub(crate) look_at: Micros,
    bulk: bool,
    end: Micros,
    playing: bool,
    played_until: Micros,
    played_at: Micros,
    seek_at: Option<Micros>,
    stalled_at: Option<Micros>,
    held: BTreeSet<u32>,
    /// Per unfinished chunk and node: its verified blocks.
    stored: BTreeMap<(u32, u32), BTreeSet<usize>>,
    /// Of blocks that came: who sent them right. The client does not see this.
    truly: BTreeMap<(u32, u32), BTreeSet<usize>>,
    /// Chunks of which something wrong was handed out.
    wrong: BTreeSet<u32>,
    ever_held: BTreeSet<u32>,
    buffer_samples: Vec<f64>,
    pub(crate) outcome: Outcome,
}

/// Bytes of the chunk in one row of its blocks.
fn row_bytes(spec: &ChunkSpec) -> u64 {
    BLOCK_BYTES * u64::from(spec.shape.needed)
}

/// Samples before this much playback say how it starts and not how it goes.
const SETTLED: Micros = Micros(15_000_000);

impl Viewer {
    pub(crate) fn new(
        scenario: &Scenario,
        setup: &Setup,
        seed: u64,
        client: usize,
        arrives_at: Micros,
    ) -> Self {
        let specs = scenario.chunk_specs(seed, client);
        Self {
            policy: Policy::new(setup.policy, specs.clone()),
            config: setup.policy,
            recorder: None,
            records: NodeRecords::default(),
            end: specs.last().map_or(Micros(0), |spec| spec.end),
            specs,
            attempts: BTreeMap::new(),
            arrives_at,
            wake_at: None,
            seeks: scenario.seeks.clone(),
            is_over: false,
            look_at: Micros(0),
            bulk: scenario.bulk,
            playing: false,
            played_until: Micros(0),
            played_at: Micros(0),
            seek_at: None,
            stalled_at: None,
            held: BTreeSet::new(),
            stored: BTreeMap::new(),
            truly: BTreeMap::new(),
            wrong: BTreeSet::new(),
            ever_held: BTreeSet::new(),
            buffer_samples: Vec::new(),
            outcome: Outcome {
                startup_sec: None,
                stalls: 0,
                stall_sec: 0.0,
                avg_buffer_sec: 0.0,
                p5_buffer_sec: 0.0,
                min_buffer_sec: 0.0,
                done_sec: None,
                received_bytes: 0.0,
                wasted_bytes: 0.0,
                hedged_bytes: 0,
                requests: 0,
                chunks: 0,
                wrong_pieces_refused: 0,
                wrong_chunks_delivered: 0,
                detect_sec: None,
                seek_sec: Vec::new(),
                bytes_by_node: vec![0.0; scenario.nodes.len()],
            },
        }
    }

    /// Writes down what its policy hears and answers from now on; `zero_at` is the time of day that the run begins at.
    pub(crate) fn record(&mut self, zero_at: UnixMillis, sink: impl FnMut(String) + Send + 'static) {
        let head = Head {
            version: TRACE_VERSION,
            written_by: "vstack-netsim".to_owned(),
            video_id: VideoId(Default::default()),
            zero_at,
            nodes: Vec::new(),
            node_names: Vec::new(),
            policy: self.config,
            chunks: self.specs.clone(),
        };
        self.recorder = Some(Recorder::new(&head, sink));
    }

    pub(crate) fn apply(&mut self, now: Micros, fact: Fact) -> Vec<Action> {
        self.wake_at = None;
        let actions = match &mut self.recorder {
            None => self.policy.apply(now, &mut self.records, fact),
            Some(recorder) => recorder.apply(&mut self.policy, now, &mut self.records, fact),
        };
        for action in &actions {
            match action {
                Action::WakeAt(at) => self.wake_at = Some(*at),
                Action::Keep { seq, .. } => self.keep(now, *seq),
                Action::PrefixReady { seq, bytes } => {
                    let row = row_bytes(&self.specs[*seq as usize]);
                    self.check_blocks(*seq, 0..u32::try_from(bytes.div_ceil(row)).unwrap_or(u32::MAX));
                }
                Action::Drop { seq, .. } => {
                    self.held.remove(seq);
                    self.stored.retain(|(stored, _), _| stored != seq);
                }
                _ => {}
            }
        }
        actions
    }

    /// What the client is not told: whether a block that came is what it should be.
    pub(crate) fn arrived(&mut self, seq: u32, block: u32, node: usize, is_right: bool) {
        let truly = self.truly.entry((seq, block)).or_default();
        if is_right {
            truly.insert(node);
        } else {
            truly.remove(&node);
        }
    }

    /// All its blocks are handed out.
    pub(crate) fn finish(&mut self, now: Micros, seq: u32) {
        self.check_blocks(seq, 0..self.specs[seq as usize].shape.blocks());
        self.keep(now, seq);
        self.truly.retain(|(other, _), _| *other != seq);
    }

    /// These rows are handed out: each of them must be made of enough stored blocks, all of them right.
    fn check_blocks(&mut self, seq: u32, rows: std::ops::Range<u32>) {
        let needed = usize::from(self.specs[seq as usize].shape.needed);
        let none = BTreeSet::new();
        let is_right = |row| {
            let stored = self.stored.get(&(seq, row)).unwrap_or(&none);
            let truly = self.truly.get(&(seq, row)).unwrap_or(&none);
            stored.len() >= needed && stored.is_subset(truly)
        };
        if !{ rows }.all(is_right) {
            self.delivered_wrong(seq);
        }
    }

    /// Something of this chunk was handed out that is not the video's.
    pub(crate) fn delivered_wrong(&mut self, seq: u32) {
        if self.wrong.insert(seq) {
            self.outcome.wrong_chunks_delivered += 1;
        }
    }

    /// Every block of it is verified, or all of it was.
    pub(crate) fn keep(&mut self, now: Micros, seq: u32) {
        assert!(self.held.insert(seq), "chunk {seq} was delivered twice");
        self.stored.retain(|(stored, _), _| *stored != seq);
        let spec = &self.specs[seq as usize];
        if self.ever_held.insert(seq) {
            self.outcome.chunks += 1;
        }
        // Each chunk's own bytes are useful once; what else was received is waste.
        self.outcome.wasted_bytes -= (spec.shape.part_bytes * u64::from(spec.shape.needed)) as f64;
        if self.ever_held.len() == self.specs.len() && self.outcome.done_sec.is_none() {
            self.outcome.done_sec = Some(self.since_arrival(now));
        }
    }

    /// What a fact says of stored blocks and ended attempts.
    pub(crate) fn note(&mut self, fact: &Fact) {
        match fact {
            Fact::Verified { attempt, blocks } => {
                let Some(attempt) = self.attempts.get(attempt) else {
                    return;
                };
                let (seq, node) = (attempt.seq, attempt.asked.first().copied().unwrap_or(0));
                if self.held.contains(&seq) {
                    return;
                }
                for block in blocks.first..blocks.end {
                    let fresh = self.stored.entry((seq, block)).or_default().insert(node);
                    assert!(fresh, "block {block} of chunk {seq} came twice from node {node}");
                }
            }
            Fact::Done { attempt, .. } | Fact::Failed { attempt, .. } => {
                self.attempts.remove(attempt);
            }
            _ => {}
        }
    }

    fn since_arrival(&self, now: Micros) -> f64 {
        (now - self.arrives_at).0 as f64 / 1e6
    }

    /// Where the playhead is.
    pub(crate) fn position(&self, now: Micros) -> Micros {
        if self.playing {
            (self.played_until + (now - self.played_at)).min(self.end)
        } else {
            self.played_until
        }
    }

    /// Whether there is anything to do: playback waits, or its own clock says so.
    pub(crate) fn may_look(&self, now: Micros) -> bool {
        !self.playing || now >= self.look_at
    }

    /// Lets playback begin, go on or stop. What the policy is to be told, and when to look again.
    pub(crate) fn play(&mut self, now: Micros) -> (Vec<Fact>, Option<Micros>) {
        let mut facts = Vec::new();
        let mut position = self.position(now);
        if self.bulk {
            return (self.take(now), None);
        }
        let ready = self.policy.position() + self.policy.level();
        if self.playing && position >= ready && position < self.end {
            position = position.min(ready).max(self.played_until);
            self.playing = false;
            self.stalled_at = Some(now);
            self.outcome.stalls += 1;
            facts.push(Fact::Starved(true));
        }
        if !self.playing && ready > position && position < self.end {
            self.begin(now);
            facts.push(Fact::Starved(false));
        }
        (self.played_until, self.played_at) = (position, now);
        if position >= self.end {
            self.is_over = true;
        }
        if !self.is_over && self.playing {
            facts.push(Fact::Position(position));
            self.sample(position, ready);
        }
        let next = self.playing.then(|| {
            let left = if ready >= self.end {
                self.end - position
            } else {
                ready - position
            };
            now + left.clamp(Micros(1_000), Micros(250_000))
        });
        (facts, next)
    }

    /// Everything is taken as soon as it is there, and the next chunk is waited for.
    fn take(&mut self, now: Micros) -> Vec<Fact> {
        self.is_over = self.outcome.done_sec.is_some();
        let (position, level) = (self.policy.position(), self.policy.level());
        if level == Micros(0) || self.is_over {
            return Vec::new();
        }
        if self.outcome.startup_sec.is_none() {
            self.outcome.startup_sec = Some(self.since_arrival(now));
        }
        let chunk_at = |at: Micros| {
            let seq = self.specs.partition_point(|spec| spec.end <= at);
            u32::try_from(seq).unwrap_or(u32::MAX)
        };
        let ready = position + level;
        vec![
            Fact::Unwanted {
                seq: chunk_at(position),
            },
            Fact::Starved(false),
            Fact::Position(ready),
            Fact::Wanted { seq: chunk_at(ready) },
        ]
    }

    fn begin(&mut self, now: Micros) {
        self.playing = true;
        if let Some(stalled_at) = self.stalled_at.take() {
            self.outcome.stall_sec += (now - stalled_at).0 as f64 / 1e6;
        } else if let Some(seek_at) = self.seek_at.take() {
            self.outcome.seek_sec.push((now - seek_at).0 as f64 / 1e6);
        } else if self.outcome.startup_sec.is_none() {
            self.outcome.startup_sec = Some(self.since_arrival(now));
        }
    }

    fn sample(&mut self, position: Micros, ready: Micros) {
        if position > SETTLED && !self.policy.reaches_end() {
            self.buffer_samples.push((ready - position).0 as f64 / 1e6);
        }
    }

    /// The viewer jumps, if it is time to.
    pub(crate) fn jump(&mut self, now: Micros) -> Option<Fact> {
        let startup = self.outcome.startup_sec?;
        let (at, seq) = self.seeks.first().copied()?;
        if self.since_arrival(now) < startup + at {
            return None;
        }
        self.seeks.remove(0);
        let target = self.specs.get(seq as usize)?.start;
        (self.played_until, self.played_at) = (target, now);
        self.playing = false;
        self.stalled_at = None;
        self.seek_at = Some(now);
        Some(Fact::Seek(target))
    }

    /// The figures, at the end.
    pub(crate) fn conclude(mut self, now: Micros) -> Outcome {
        if let Some(stalled_at) = self.stalled_at {
            self.outcome.stall_sec += (now - stalled_at).0 as f64 / 1e6;
        }
        self.outcome.wasted_bytes += self.outcome.received_bytes;
        let useful_rest: u64 = self
            .stored
            .iter()
            .map(|((seq, block), nodes)| {
                let shape = &self.specs[*seq as usize].shape;
                let range = BlockRange {
                    first: *block,
                    end: block + 1,
                };
                shape.bytes_of(range) * nodes.len().min(usize::from(shape.needed)) as u64
            })
            .sum();
        self.outcome.wasted_bytes = (self.outcome.wasted_bytes - useful_rest as f64).max(0.0);
        self.buffer_samples.sort_by(f64::total_cmp);
        let samples = &self.buffer_samples;
        if !samples.is_empty() {
            self.outcome.avg_buffer_sec = samples.iter().sum::<f64>() / samples.len() as f64;
            self.outcome.p5_buffer_sec = samples[samples.len() / 20];
            self.outcome.min_buffer_sec = samples[0];
        }
        self.outcome
    }
}
