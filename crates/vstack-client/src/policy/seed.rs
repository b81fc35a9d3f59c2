//! The base policy: whole chunks, best-scored replica first, at most four at once.
//!
//! Invariants: a chunk is fetched by at most one attempt at a time; no more attempts run than `max_downloads`; a chunk
//! that is wanted or in the window is running, held, or has a wake-up set for it; nothing is given up for ever.
//!
//! A *round* asks every replica of a chunk once, best first. After a round without success the chunk rests, twice as
//! long each time; a replica that answers without having it rests as long while the others are backed off. Left out on
//! purpose, because the base policy has it so: splitting a chunk, hedging, and giving up on a slow but living node.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::any::Handover;
use super::measure::backoff;
use super::rank::{Candidate, Choice, rank};
use super::{
    Action, AttemptId, CancelReason, ChunkSpec, DropReason, Fact, Failure, Micros, Need, NodeIndex,
    NodeRecords, Piece, Shape, Start,
};

/// Rounds over all replicas before those who wait are told that the chunk cannot be had (base policy: three tries).
pub const ROUNDS_BEFORE_ERROR: u32 = 3;

/// The longest rest of a chunk between two rounds (base policy: 1, 2 and 4 s).
const ROUND_REST_MAX: Micros = Micros::from_ms(4_000);

/// A manifest is not read again more often than this. Guess: a placement changes seconds after the failure it follows.
pub(super) const MANIFEST_READ_PERIOD: Micros = Micros::from_ms(2_000);

/// The figures of the base policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SeedConfig {
    pub choice: Choice,
    pub max_downloads: usize,
    /// Filling stops when this much lies ahead of the playhead.
    pub target: Micros,
    /// Filling starts again when less than this lies ahead.
    pub low_water: Micros,
    /// Chunks in the window, and in the buffer.
    pub max_chunks: usize,
    /// What was played stays this long, so that a small step back costs nothing.
    pub back_buffer: Micros,
}

impl Default for SeedConfig {
    fn default() -> Self {
        Self {
            choice: Choice::Score,
            max_downloads: 4,
            target: Micros::from_ms(30_000),
            low_water: Micros::from_ms(15_000),
            max_chunks: 50,
            back_buffer: Micros::from_ms(10_000),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Missing,
    Fetching { attempt: AttemptId },
    Held,
}

/// The search for one chunk, over all its attempts.
#[derive(Debug, Clone, Default, PartialEq)]
struct Search {
    /// Replicas that failed in this round, and when each may be asked again although it is not over.
    tried: BTreeMap<NodeIndex, Micros>,
    /// Nodes that sent it wrong.
    spoilt: BTreeSet<NodeIndex>,
    /// Rounds without success.
    rounds: u32,
    /// Not before this time.
    ready_at: Micros,
    last: Option<(NodeIndex, Failure)>,
}

#[derive(Debug, Clone, PartialEq)]
struct Chunk {
    spec: ChunkSpec,
    state: State,
    search: Search,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Running {
    seq: u32,
    node: NodeIndex,
}

/// The state of one session's downloads.
#[derive(Debug, Clone)]
pub struct Seed {
    config: SeedConfig,
    chunks: Vec<Chunk>,
    position: Micros,
    filling: bool,
    wanted: BTreeSet<u32>,
    running: BTreeMap<AttemptId, Running>,
    next_attempt: u64,
    manifest_read_at: Option<Micros>,
    reading_manifest: bool,
}

impl Seed {
    /// A session at the start of a video that has these chunks, in order. Nothing starts before the first fact.
    #[must_use]
    pub fn new(config: SeedConfig, chunks: Vec<ChunkSpec>) -> Self {
        let chunk = |spec| Chunk {
            spec,
            state: State::Missing,
            search: Search::default(),
        };
        Self {
            config,
            chunks: chunks.into_iter().map(chunk).collect(),
            position: Micros(0),
            filling: true,
            wanted: BTreeSet::new(),
            running: BTreeMap::new(),
            next_attempt: 0,
            manifest_read_at: None,
            reading_manifest: false,
        }
    }

    /// A session that goes on where another policy left it.
    pub(super) fn resume(config: SeedConfig, handover: Handover) -> Self {
        let mut seed = Self::new(config, handover.chunks);
        for seq in handover.held {
            if let Some(chunk) = seed.chunks.get_mut(seq as usize) {
                chunk.state = State::Held;
            }
        }
        seed.position = handover.position;
        seed.wanted = handover.wanted;
        seed.next_attempt = handover.next_attempt;
        seed.reading_manifest = handover.reading_manifest;
        seed
    }

    pub(super) fn hand_over(&mut self) -> Handover {
        let held = (0..)
            .zip(&self.chunks)
            .filter(|(_, chunk)| chunk.state == State::Held);
        let running = std::mem::take(&mut self.running);
        Handover {
            held: held.map(|(seq, _)| seq).collect(),
            partial: Vec::new(),
            chunks: self.chunks.iter().map(|chunk| chunk.spec.clone()).collect(),
            wanted: std::mem::take(&mut self.wanted),
            position: self.position,
            starved: self.level() == Micros(0),
            running: running
                .into_iter()
                .map(|(attempt, running)| (attempt, running.seq, running.node))
                .collect(),
            next_attempt: self.next_attempt,
            reading_manifest: self.reading_manifest,
        }
    }

    /// Takes one fact in and answers what to do now. `records` learns from transfers.
    pub fn apply(&mut self, now: Micros, records: &mut NodeRecords, fact: Fact) -> Vec<Action> {
        let mut actions = Vec::new();
        match fact {
            // An attempt of this policy is told of when it ends.
            Fact::Tick
            | Fact::Starved(_)
            | Fact::FirstByte { .. }
            | Fact::Progress { .. }
            | Fact::Verified { .. }
            | Fact::BadBlock { .. }
            | Fact::Finished { right: true, .. } => {}
            // Another policy had its blocks when this one took over.
            Fact::Finished { seq, right: false } => self.contradicted(seq),
            Fact::Supplied { seq } => {
                self.supplied(seq, &mut actions);
                // Nothing is decided before the fact that follows; should none follow, then by this.
                actions.push(Action::WakeAt(now));
                return actions;
            }
            Fact::Position(position) => self.position = position,
            Fact::Seek(position) => {
                self.position = position;
                self.filling = true;
            }
            Fact::Wanted { seq } => {
                self.wanted.insert(seq);
            }
            Fact::Unwanted { seq } => {
                self.wanted.remove(&seq);
            }
            Fact::Done {
                attempt,
                bytes,
                elapsed,
            } => self.done(now, records, attempt, bytes, elapsed, &mut actions),
            Fact::Failed { attempt, failure } => self.failed(now, records, attempt, failure, &mut actions),
            Fact::Placed { seq, shape } => self.placed(now, seq, shape),
            Fact::ManifestRead => self.reading_manifest = false,
            // What is under way here is unverified until its end: nothing to wait for.
            Fact::Leaving(_) => {}
        }
        self.cancel_outside_window(&mut actions);
        self.drop_played(&mut actions);
        self.turn_refill(&mut actions);
        self.start_attempts(now, records, &mut actions);
        actions
    }

    fn contradicted(&mut self, seq: u32) {
        if let Some(chunk) = self.chunks.get_mut(seq as usize)
            && chunk.state == State::Held
        {
            chunk.state = State::Missing;
        }
    }

    /// Verified time ahead of the playhead, without a gap.
    #[must_use]
    pub fn level(&self) -> Micros {
        self.held_until() - self.position
    }

    /// Everything up to the end of the video is held.
    #[must_use]
    pub fn reaches_end(&self) -> bool {
        self.chunks
            .last()
            .is_none_or(|last| self.held_until() >= last.spec.end)
    }

    /// The end of the window, in time ahead of the playhead.
    #[must_use]
    pub const fn ahead(&self) -> Micros {
        self.config.target
    }

    #[must_use]
    pub const fn position(&self) -> Micros {
        self.position
    }

    /// Attempts under way.
    #[must_use]
    pub fn running_count(&self) -> usize {
        self.running.len()
    }

    /// The end of the run of held chunks that starts at the playhead.
    fn held_until(&self) -> Micros {
        let held = self.chunks[self.first()..]
            .iter()
            .take_while(|chunk| chunk.state == State::Held);
        held.last()
            .map_or(self.position, |chunk| chunk.spec.end.max(self.position))
    }

    /// The chunk at the playhead; past the end, the number of chunks.
    fn first(&self) -> usize {
        self.chunks
            .partition_point(|chunk| chunk.spec.end <= self.position)
    }

    /// The chunks that playback needs next: from the playhead to the target, at most `max_chunks`.
    fn window(&self) -> std::ops::Range<usize> {
        let first = self.first();
        let limit = self.position + self.ahead();
        let end = self.chunks.partition_point(|chunk| chunk.spec.start < limit);
        first..end.clamp(first, first.saturating_add(self.config.max_chunks))
    }

    fn done(
        &mut self,
        now: Micros,
        records: &mut NodeRecords,
        attempt: AttemptId,
        bytes: u64,
        elapsed: Micros,
        actions: &mut Vec<Action>,
    ) {
        let Some(Running { seq, node }) = self.running.remove(&attempt) else {
            return;
        };
        records.record_mut(node).delivered(now, bytes, elapsed);
        if let Some(chunk) = self.chunks.get_mut(seq as usize) {
            chunk.state = State::Held;
            chunk.search = Search::default();
            actions.push(Action::Keep { attempt, seq });
        }
    }

    fn failed(
        &mut self,
        now: Micros,
        records: &mut NodeRecords,
        attempt: AttemptId,
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        let Some(Running { seq, node }) = self.running.remove(&attempt) else {
            return;
        };
        if failure.doubts_manifest() {
            self.ask_for_manifest(now, actions);
        }
        let Some(chunk) = self.chunks.get_mut(seq as usize) else {
            return;
        };
        // The same chunk, wrong again, is no further fault of the node.
        if !failure.doubts_bytes() || chunk.search.spoilt.insert(node) {
            records.record_mut(node).failed(now, &failure);
        }
        chunk.state = State::Missing;
        // Missing shards are missing whichever node leads: all of them were asked.
        let asked = match failure {
            Failure::TooFewShards { .. } => chunk.spec.shape.nodes().collect(),
            _ => vec![node],
        };
        let again = now + backoff(chunk.search.rounds + 1, ROUND_REST_MAX);
        chunk
            .search
            .tried
            .extend(asked.into_iter().map(|node| (node, again)));
        chunk.search.last = Some((node, failure));
        self.end_round_when_over(now, seq, actions);
    }

    /// A round is over when every replica has failed in it, which is at once for a chunk that has none.
    fn end_round_when_over(&mut self, now: Micros, seq: u32, actions: &mut Vec<Action>) {
        let Some(chunk) = self.chunks.get_mut(seq as usize) else {
            return;
        };
        if !chunk
            .spec
            .shape
            .nodes()
            .all(|node| chunk.search.tried.contains_key(&node))
        {
            return;
        }
        self.end_round(seq, actions);
        let search = &mut self.chunks[seq as usize].search;
        search.ready_at = now + backoff(search.rounds, ROUND_REST_MAX);
    }

    /// All have failed, or one that has is asked again while the others, which fail elsewhere, are left alone.
    fn end_round(&mut self, seq: u32, actions: &mut Vec<Action>) {
        let search = &mut self.chunks[seq as usize].search;
        search.tried.clear();
        search.rounds = search.rounds.saturating_add(1);
        if search.rounds.is_multiple_of(ROUNDS_BEFORE_ERROR) {
            actions.push(Action::Unobtainable { seq });
        }
    }

    fn supplied(&mut self, seq: u32, actions: &mut Vec<Action>) {
        let Some(chunk) = self.chunks.get_mut(seq as usize) else {
            return;
        };
        if let State::Fetching { attempt } = std::mem::replace(&mut chunk.state, State::Held)
            && let Some(Running { seq, node }) = self.running.remove(&attempt)
        {
            let why = CancelReason::Overtaken;
            actions.push(Action::Cancel {
                attempt,
                seq,
                node,
                why,
            });
        }
        chunk.search = Search::default();
    }

    fn placed(&mut self, now: Micros, seq: u32, shape: Shape) {
        let Some(chunk) = self.chunks.get_mut(seq as usize) else {
            return;
        };
        if chunk.spec.shape != shape {
            chunk.spec.shape = shape;
            chunk.search.tried.clear();
            chunk.search.ready_at = now;
        }
    }

    fn ask_for_manifest(&mut self, now: Micros, actions: &mut Vec<Action>) {
        let too_soon = self
            .manifest_read_at
            .is_some_and(|last| now < last + MANIFEST_READ_PERIOD);
        if !self.reading_manifest && !too_soon {
            self.reading_manifest = true;
            self.manifest_read_at = Some(now);
            actions.push(Action::ReadManifest);
        }
    }

    fn cancel_outside_window(&mut self, actions: &mut Vec<Action>) {
        let window = self.window();
        let outside = |seq: u32| !window.contains(&(seq as usize)) && !self.wanted.contains(&seq);
        let doomed: Vec<_> = self
            .running
            .iter()
            .filter(|(_, running)| outside(running.seq))
            .map(|(id, running)| (*id, *running))
            .collect();
        for (attempt, Running { seq, node }) in doomed {
            self.running.remove(&attempt);
            if let Some(chunk) = self.chunks.get_mut(seq as usize) {
                chunk.state = State::Missing;
                chunk.search = Search::default();
            }
            actions.push(Action::Cancel {
                attempt,
                seq,
                node,
                why: CancelReason::OutsideWindow,
            });
        }
    }

    fn drop_played(&mut self, actions: &mut Vec<Action>) {
        let keep_from = self.position - self.config.back_buffer;
        let mut held: Vec<_> = (0..self.chunks.len())
            .filter(|index| self.chunks[*index].state == State::Held)
            .collect();
        held.retain(|index| {
            let keep = self.chunks[*index].spec.end > keep_from || self.is_wanted(*index);
            if !keep {
                self.release(*index, DropReason::Played, actions);
            }
            keep
        });
        let window = self.window();
        let mut surplus = held.len().saturating_sub(self.config.max_chunks);
        for index in held.into_iter().rev() {
            if surplus > 0 && !window.contains(&index) && !self.is_wanted(index) {
                self.release(index, DropReason::TooMany, actions);
                surplus -= 1;
            }
        }
    }

    fn is_wanted(&self, index: usize) -> bool {
        u32::try_from(index).is_ok_and(|seq| self.wanted.contains(&seq))
    }

    fn release(&mut self, index: usize, why: DropReason, actions: &mut Vec<Action>) {
        self.chunks[index].state = State::Missing;
        if let Ok(seq) = u32::try_from(index) {
            actions.push(Action::Drop { seq, why });
        }
    }

    fn turn_refill(&mut self, actions: &mut Vec<Action>) {
        let level = self.level();
        let on = if self.filling {
            level < self.config.target && !self.reaches_end()
        } else {
            level < self.config.low_water && !self.reaches_end()
        };
        if on != self.filling {
            self.filling = on;
            actions.push(Action::Refill { on, level });
        }
    }

    fn start_attempts(&mut self, now: Micros, records: &NodeRecords, actions: &mut Vec<Action>) {
        let mut wake_at: Option<Micros> = None;
        for (seq, need) in self.needed() {
            if self.running.len() >= self.config.max_downloads {
                break; // the end of an attempt is the next fact
            }
            match self.start_or_wait(now, records, seq, need, actions) {
                Ok(start) => actions.push(Action::Start(start)),
                Err(until) => wake_at = Some(wake_at.map_or(until, |earlier| earlier.min(until))),
            }
        }
        actions.extend(wake_at.map(Action::WakeAt));
    }

    /// Missing chunks, the one that is needed first in front.
    fn needed(&self) -> Vec<(u32, Need)> {
        let missing = |seq: &u32| {
            self.chunks
                .get(*seq as usize)
                .is_some_and(|chunk| chunk.state == State::Missing)
        };
        let waiting = self.wanted.iter().copied().map(|seq| (seq, Need::Waiting));
        let window = if self.filling { self.window() } else { 0..0 };
        let ahead = window.filter_map(|index| u32::try_from(index).ok());
        let ahead = ahead
            .filter(|seq| !self.wanted.contains(seq))
            .map(|seq| (seq, Need::Ahead));
        waiting.chain(ahead).filter(|(seq, _)| missing(seq)).collect()
    }

    /// The attempt for `seq` to start now, or when to look again.
    fn start_or_wait(
        &mut self,
        now: Micros,
        records: &NodeRecords,
        seq: u32,
        need: Need,
        actions: &mut Vec<Action>,
    ) -> Result<Start, Micros> {
        let chunk = &self.chunks[seq as usize];
        if now < chunk.search.ready_at {
            return Err(chunk.search.ready_at);
        }
        let candidates = rank(
            self.config.choice,
            seq,
            &chunk.spec.shape.nodes().collect::<Vec<_>>(),
            records,
            &self.running_by_node(),
            &chunk.search.tried,
            now,
        );
        match candidates.first() {
            None => {
                self.ask_for_manifest(now, actions);
                self.end_round_when_over(now, seq, actions);
                Err(self.chunks[seq as usize].search.ready_at)
            }
            // All are backed off, or this one would not be the first.
            Some(Candidate {
                last_resort_at: Some(at),
                ..
            }) if now < *at => Err(*at),
            Some(best) => {
                if best.tried {
                    self.end_round(seq, actions);
                }
                Ok(self.start(seq, need, best))
            }
        }
    }

    fn start(&mut self, seq: u32, need: Need, best: &Candidate) -> Start {
        let attempt = AttemptId(self.next_attempt);
        self.next_attempt += 1;
        self.running.insert(attempt, Running { seq, node: best.node });
        let chunk = &mut self.chunks[seq as usize];
        chunk.state = State::Fetching { attempt };
        let after = chunk.search.last.clone();
        let slack = match need {
            Need::Waiting => Micros(0),
            Need::Ahead => chunk.spec.start - self.position,
        };
        Start {
            attempt,
            seq,
            node: best.node,
            piece: Piece::Chunk,
            need,
            hedges: None,
            slack,
            score: best.score,
            shared: best.is_busy(),
            after,
        }
    }

    fn running_by_node(&self) -> BTreeMap<NodeIndex, usize> {
        let mut counts = BTreeMap::new();
        for running in self.running.values() {
            *counts.entry(running.node).or_insert(0) += 1;
        }
        counts
    }
}
