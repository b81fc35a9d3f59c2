//! The pooled policy: several nodes bring ranges of the same chunk, and no node's trouble is waited for.
//!
//! Nothing is assigned in advance: a lane (one a node) that is free takes the first run of blocks that nobody was asked for of
//! the chunk that is played first. A range is as long as the lane delivers in half a second. A lane that would finish
//! later than the others could leaves urgent blocks to them; one that falls silent or far behind its plan loses the rest of
//! its range; and where only the tail of a chunk is missing, an idle lane asks for the second half of the slowest range
//! once more, within a budget.
//!
//! Of an erasure-coded chunk, lanes bring blocks of different shards, and a row is done when three have come.
//!
//! Invariants: those that [`crate::policy`] promises. The rule that keeps the policy from hanging: what is known
//! of a node only delays it or moves it back, and among the nodes that have a missing block, the best one is never made to
//! wait for the others (`schedule`, the guard's `max`).
//!
//! `lane` measures, `board` keeps a chunk's blocks, `schedule` chooses ranges, `watch` takes them back, `gate` says from where
//! playback may begin. Left out: choosing
//! nodes by what they say of their load, which was not better in any scenario than measuring them.

mod board;
mod facts;
mod gate;
mod hedge;
mod lane;
mod schedule;
mod watch;
mod window;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use board::Board;
use lane::{Lane, seconds};

use super::any::Handover;
use super::trace::exact;
use super::{
    Action, AttemptId, BlockRange, CancelReason, ChunkSpec, DropReason, Fact, Failure, Micros, Need,
    NodeIndex, NodeRecords,
};

/// The figures of the pooled policy. The defaults were chosen by the simulator: `docs/evaluation/client.md`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolConfig {
    /// Filling stops when this much lies ahead of the playhead.
    pub target: Micros,
    /// Filling starts again when less than this lies ahead.
    pub low_water: Micros,
    /// Below this, slow ranges are taken back early.
    pub urgent: Micros,
    /// Below this, the hedging budget does not count, and the tail of the next chunk comes before later ones.
    pub panic: Micros,
    /// Nodes asked at the same time, for copies and for shards.
    pub max_lanes: usize,
    /// Requests under way at one node, once it has delivered, while they last no longer than `span`.
    pub depth: usize,
    /// A range lasts this long.
    pub span: Micros,
    pub max_range_blocks: u32,
    /// What may be asked for twice: this share of all bytes, and this much at once, but no more than is played in
    /// `hedge_at_once`: of a small video the bytes would be half a minute.
    #[serde(with = "exact")]
    pub hedge_share: f64,
    pub hedge_bytes: u64,
    pub hedge_at_once: Micros,
    /// Take back ranges that are silent or overdue.
    pub reclaim: bool,
    /// Above `pace_above` of buffer, bytes are asked for at this multiple of the bitrate.
    #[serde(with = "exact")]
    pub pace: f64,
    pub pace_above: Micros,
    /// Playback may start from this much of a chunk, if what flows is this multiple of its bitrate.
    pub prefix_bytes: u64,
    #[serde(with = "exact")]
    pub prefix_rate: f64,
    /// Playback may go on into a chunk that is not whole when it begins in less than this time.
    pub prefix_ahead: Micros,
    /// Chunks, whole or not, that may be kept outside the window; and how far the window may reach beyond `target` for who
    /// plays faster than real time.
    pub keep_bytes: u64,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            target: Micros::from_ms(30_000),
            low_water: Micros::from_ms(20_000),
            urgent: Micros::from_ms(15_000),
            panic: Micros::from_ms(5_000),
            max_lanes: 5,
            depth: 2,
            span: Micros::from_ms(500),
            max_range_blocks: 16,
            hedge_share: 0.05,
            hedge_bytes: 512 * 1024,
            hedge_at_once: Micros::from_ms(3_000),
            reclaim: true,
            pace: 2.0,
            pace_above: Micros::from_ms(10_000),
            prefix_bytes: 512 * 1024,
            prefix_rate: 1.5,
            prefix_ahead: Micros::from_ms(2_000),
            keep_bytes: 64 * 1024 * 1024,
        }
    }
}

#[derive(Debug, Clone)]
enum State {
    /// Nothing of it is asked for or here.
    Missing,
    Partial(Board),
    /// All blocks are here; the chunk's own hash is being checked.
    Finishing,
    Held,
}

#[derive(Debug, Clone)]
struct Chunk {
    spec: ChunkSpec,
    state: State,
    /// Bans that outlive the blocks.
    bans: BTreeSet<(NodeIndex, u32)>,
    /// Nodes that sent something of it wrong.
    spoilt: BTreeSet<NodeIndex>,
    /// Nodes that failed since the last block came.
    tried: BTreeSet<NodeIndex>,
    /// Times that all of them failed.
    rounds: u32,
    last: Option<(NodeIndex, Failure)>,
}

impl Chunk {
    fn board(&self) -> Option<&Board> {
        match &self.state {
            State::Partial(board) => Some(board),
            State::Missing | State::Finishing | State::Held => None,
        }
    }

    fn board_mut(&mut self) -> Option<&mut Board> {
        match &mut self.state {
            State::Partial(board) => Some(board),
            State::Missing | State::Finishing | State::Held => None,
        }
    }

    /// Whether blocks of it are missing.
    const fn is_unfinished(&self) -> bool {
        matches!(self.state, State::Missing | State::Partial(_))
    }

    /// Bytes per second of playback.
    fn byte_rate(&self) -> f64 {
        let duration = self.spec.end - self.spec.start;
        self.spec.shape.chunk_bytes as f64 / (duration.0.max(1_000) as f64 / 1e6)
    }

    fn stored_bytes(&self) -> u64 {
        match &self.state {
            State::Missing => 0,
            State::Partial(board) if board.is_untouched() => 0,
            State::Partial(_) | State::Finishing | State::Held => self.spec.shape.chunk_bytes,
        }
    }
}

/// An attempt under way.
#[derive(Debug, Clone, Copy)]
struct Flight {
    lane: usize,
    seq: u32,
    slot: u16,
    range: BlockRange,
    range_bytes: u64,
    sent_at: Micros,
    first_at: Option<Micros>,
    bytes: u64,
    /// How long the bytes should take once they flow.
    plan: Micros,
}

impl Flight {
    /// The block that is arriving.
    fn block(&self) -> u32 {
        let come = u32::try_from(self.bytes / super::BLOCK_BYTES).unwrap_or(u32::MAX);
        self.range.first.saturating_add(come).min(self.range.end)
    }

    const fn remaining_bytes(&self) -> u64 {
        self.range_bytes.saturating_sub(self.bytes)
    }
}

/// The state of one session's downloads.
#[derive(Debug, Clone)]
pub struct Pool {
    config: PoolConfig,
    chunks: Vec<Chunk>,
    lanes: Vec<Lane>,
    flights: BTreeMap<AttemptId, Flight>,
    position: Micros,
    /// How fast the playhead moves, in times real time; never below 1.
    speed: f64,
    /// Measurements in a row of a speed that nobody watches.
    rushes: u32,
    /// The window ends here: it follows the playhead, and is wider when a video is played faster.
    reach: Micros,
    /// The playhead was there then, and has moved evenly since.
    moved_from: Option<(Micros, Micros)>,
    starved: bool,
    filling: bool,
    /// Another policy is to take over.
    leaving: bool,
    wanted: BTreeSet<u32>,
    next_attempt: u64,
    manifest_read_at: Option<Micros>,
    reading_manifest: bool,
    /// The last prefix that was said to be ready.
    ready: Option<(u32, u64)>,
    received_bytes: u64,
    hedged_bytes: u64,
    /// Bytes that pacing allows, as of a time.
    credit: f64,
    credit_at: Micros,
    /// The last tick, at which all lanes were looked at.
    looked_at: Micros,
    wake_at: Option<Micros>,
}

impl Pool {
    /// A session at the start of a video that has these chunks, in order. Nothing starts before the first fact.
    #[must_use]
    pub fn new(config: PoolConfig, chunks: Vec<ChunkSpec>) -> Self {
        let chunk = |spec| Chunk {
            spec,
            state: State::Missing,
            bans: BTreeSet::new(),
            spoilt: BTreeSet::new(),
            tried: BTreeSet::new(),
            rounds: 0,
            last: None,
        };
        Self {
            config,
            chunks: chunks.into_iter().map(chunk).collect(),
            lanes: Vec::new(),
            flights: BTreeMap::new(),
            position: Micros(0),
            speed: 1.0,
            rushes: 0,
            reach: Micros(0),
            moved_from: None,
            starved: true,
            filling: true,
            leaving: false,
            wanted: BTreeSet::new(),
            next_attempt: 0,
            manifest_read_at: None,
            reading_manifest: false,
            ready: None,
            received_bytes: 0,
            hedged_bytes: 0,
            credit: 0.0,
            credit_at: Micros(0),
            looked_at: Micros(0),
            wake_at: None,
        }
    }

    /// A session that goes on where another policy left it.
    pub(super) fn resume(config: PoolConfig, handover: Handover) -> Self {
        let mut pool = Self::new(config, handover.chunks);
        for seq in handover.held {
            if let Some(chunk) = pool.chunks.get_mut(seq as usize) {
                chunk.state = State::Held;
            }
        }
        pool.position = handover.position;
        pool.starved = handover.starved;
        pool.wanted = handover.wanted;
        pool.next_attempt = handover.next_attempt;
        pool.reading_manifest = handover.reading_manifest;
        pool
    }

    pub(super) fn hand_over(&mut self) -> Handover {
        let (mut held, mut partial) = (Vec::new(), Vec::new());
        for (seq, chunk) in (0..).zip(&self.chunks) {
            match &chunk.state {
                State::Held | State::Finishing => held.push(seq),
                State::Partial(board) if !board.is_untouched() => partial.push(seq),
                State::Partial(_) | State::Missing => {}
            }
        }
        let node = |flight: &Flight| self.lanes[flight.lane].node;
        let running = self
            .flights
            .iter()
            .map(|(attempt, flight)| (*attempt, flight.seq, node(flight)));
        Handover {
            held,
            partial,
            running: running.collect(),
            chunks: self.chunks.iter().map(|chunk| chunk.spec.clone()).collect(),
            wanted: std::mem::take(&mut self.wanted),
            position: self.position,
            starved: self.starved,
            next_attempt: self.next_attempt,
            reading_manifest: self.reading_manifest,
        }
    }

    /// Takes one fact in and answers what to do now. `records` learns from transfers.
    pub fn apply(&mut self, now: Micros, records: &mut NodeRecords, fact: Fact) -> Vec<Action> {
        let mut actions = Vec::new();
        self.forgive_own_sleep(now);
        let decides = self.take_in(now, records, fact, &mut actions);
        if decides {
            self.watch_lanes(now, records, &mut actions);
            self.cancel_outside_window(&mut actions);
            self.drop_surplus(&mut actions);
            self.turn_refill(&mut actions);
            self.tell_prefix(&mut actions);
            self.assign(now, records, &mut actions);
            self.wake_at = self.next_look(now);
        }
        actions.extend(self.wake_at.map(Action::WakeAt));
        actions
    }

    /// Verified time ahead of the playhead that may be played: whole chunks, and the prefix that was said to be ready.
    #[must_use]
    pub fn level(&self) -> Micros {
        let (seq, end) = self.whole_until();
        let part = self
            .ready
            .filter(|(ready, _)| *ready as usize == seq)
            .map_or(Micros(0), |(_, bytes)| self.time_of(seq, bytes));
        end.max(part) - self.position
    }

    /// How long playback can go on with all that is verified, released or not.
    fn reserve(&self) -> Micros {
        let (seq, end) = self.whole_until();
        let part = self
            .chunks
            .get(seq)
            .and_then(Chunk::board)
            .map_or(Micros(0), |board| {
                self.time_of(seq, board.shape.prefix_bytes(board.prefix()))
            });
        self.until_played(end.max(part))
    }

    /// Until the playhead is there.
    fn until_played(&self, at: Micros) -> Micros {
        let ahead = at - self.position;
        if self.speed > 1.0 {
            seconds(ahead.0 as f64 / 1e6 / self.speed)
        } else {
            ahead
        }
    }

    /// Where on the time line the first `bytes` bytes of a chunk end, as if its bitrate were even.
    fn time_of(&self, seq: usize, bytes: u64) -> Micros {
        let Some(chunk) = self.chunks.get(seq) else {
            return Micros(0);
        };
        let share = bytes as f64 / chunk.spec.shape.chunk_bytes.max(1) as f64;
        chunk.spec.start + seconds((chunk.spec.end - chunk.spec.start).0 as f64 / 1e6 * share)
    }

    /// The first chunk from the playhead on that is not whole, and where those before it end.
    fn whole_until(&self) -> (usize, Micros) {
        let first = self.first();
        let whole = self.chunks[first..]
            .iter()
            .take_while(|chunk| !chunk.is_unfinished())
            .count();
        let end = self.chunks[first..first + whole]
            .last()
            .map_or(self.position, |chunk| chunk.spec.end.max(self.position));
        (first + whole, end)
    }

    /// Everything up to the end of the video is held.
    #[must_use]
    pub fn reaches_end(&self) -> bool {
        self.whole_until().0 >= self.chunks.len()
    }

    #[must_use]
    pub const fn position(&self) -> Micros {
        self.position
    }

    /// How long an attempt that begins now will take, from its request to its last byte.
    pub(super) fn expected(&self, attempt: AttemptId) -> Option<Micros> {
        let flight = self.flights.get(&attempt)?;
        let lane = &self.lanes[flight.lane];
        Some(seconds(
            lane.delay_sec() + self.outstanding(flight.lane) / lane.rate(),
        ))
    }

    /// Attempts under way.
    #[must_use]
    pub fn running_count(&self) -> usize {
        self.flights.len()
    }

    /// Whether playback needs chunks that have begun to come and are not whole and checked yet.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        let begun = |index: usize| match self.chunks[index].state {
            State::Missing | State::Partial(_) => self.is_begun(index),
            State::Finishing => true,
            State::Held => false,
        };
        self.needed().any(begun)
    }

    /// Blocks of it have come or are under way.
    fn is_begun(&self, index: usize) -> bool {
        let flies = || self.flights.values().any(|flight| flight.seq as usize == index);
        self.chunks[index]
            .board()
            .is_some_and(|board| !board.is_untouched())
            || flies()
    }

    /// Chunks that playback is near or somebody waits for, the one that is needed first in front.
    fn needed(&self) -> impl Iterator<Item = usize> + '_ {
        let wanted = self.wanted.iter().map(|seq| *seq as usize);
        let wanted = wanted.filter(|index| *index < self.chunks.len());
        wanted.chain(self.window().filter(|index| !self.is_wanted(*index)))
    }

    /// Chunks that are whole.
    pub fn held(&self) -> impl Iterator<Item = u32> + '_ {
        (0..)
            .zip(&self.chunks)
            .filter(|(_, chunk)| matches!(chunk.state, State::Held))
            .map(|(seq, _)| seq)
    }

    /// The chunk at the playhead; past the end, the number of chunks.
    fn first(&self) -> usize {
        self.chunks
            .partition_point(|chunk| chunk.spec.end <= self.position)
    }

    fn is_wanted(&self, index: usize) -> bool {
        u32::try_from(index).is_ok_and(|seq| self.wanted.contains(&seq))
    }

    /// Ends an attempt and gives back what it has not brought.
    fn land(&mut self, attempt: AttemptId) -> Option<Flight> {
        let flight = self.flights.remove(&attempt)?;
        self.lanes[flight.lane].flights.retain(|other| *other != attempt);
        if let Some(board) = self
            .chunks
            .get_mut(flight.seq as usize)
            .and_then(Chunk::board_mut)
        {
            board.unask(flight.slot, flight.range);
        }
        Some(flight)
    }

    fn cancel(&mut self, attempt: AttemptId, why: CancelReason, actions: &mut Vec<Action>) {
        if let Some(flight) = self.land(attempt) {
            actions.push(Action::Cancel {
                attempt,
                seq: flight.seq,
                node: self.lanes[flight.lane].node,
                why,
            });
        }
    }

    fn attempts_at(&self, wanted: impl Fn(&Flight) -> bool) -> Vec<AttemptId> {
        let found = self.flights.iter().filter(|(_, flight)| wanted(flight));
        found.map(|(attempt, _)| *attempt).collect()
    }

    /// A finishing chunk is left alone: its answer is under way.
    fn release(&mut self, index: usize, why: DropReason, actions: &mut Vec<Action>) {
        let (Some(chunk), Ok(seq)) = (self.chunks.get_mut(index), u32::try_from(index)) else {
            return;
        };
        match std::mem::replace(&mut chunk.state, State::Missing) {
            State::Finishing => chunk.state = State::Finishing,
            State::Missing => {}
            State::Partial(board) => {
                let stored = !board.is_untouched();
                chunk.bans = board.into_bans();
                actions.extend(stored.then_some(Action::Drop { seq, why }));
            }
            State::Held => actions.push(Action::Drop { seq, why }),
        }
    }

    fn ask_for_manifest(&mut self, now: Micros, actions: &mut Vec<Action>) {
        let too_soon = self
            .manifest_read_at
            .is_some_and(|last| now < last + super::seed::MANIFEST_READ_PERIOD);
        if !self.reading_manifest && !too_soon {
            self.reading_manifest = true;
            self.manifest_read_at = Some(now);
            actions.push(Action::ReadManifest);
        }
    }

    fn need_of(&self, seq: u32) -> Need {
        if self.wanted.contains(&seq) {
            Need::Waiting
        } else {
            Need::Ahead
        }
    }
}
