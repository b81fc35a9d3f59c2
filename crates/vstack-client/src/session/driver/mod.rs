//! The task of a session: it waits for one thing to happen, tells the policy, and does what the policy says.
//!
//! All decisions are made in one place and one after another; downloads run beside it and only report. `attempts` starts
//! and ends them, `whole` takes in whole chunks, `ranges` blocks and what is made of them, `placements` newer manifests,
//! `ahead` what is fetched before anybody asks.

mod ahead;
mod attempts;
mod placements;
mod ranges;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;
use vstack_api::ApiError;
use vstack_core::id::VideoId;
use vstack_core::manifest::Manifest;

use super::Command;
use super::scheduler::Scheduler;
use super::shared::Shared;
use crate::cluster;
use crate::config::PolicyName;
use crate::error::ClientError;
use crate::event::EventKind;
use crate::fetch::Attempt;
use crate::policy::{Action, AttemptId, Fact, Micros, NodeIndex};
use crate::ranges::{Blocks, LeafBook, Report};
use crate::source::Source;
use ahead::Ahead;
use attempts::Flight;
use ranges::Joined;

/// A policy that is to leave may bring the chunks that it has begun to their end as long as blocks of them come at least
/// this often. Guess: the slowest lane that is worth waiting for brings 64 KiB in that time.
const LEAVES_WITHIN: Micros = Micros::from_ms(5_000);

/// How often an open video's manifest is read again, so that copies on nodes that have joined are used before the old ones
/// are gone. Guess: a rebalance lasts minutes, and reading a kept manifest costs the catalogue next to nothing.
const MANIFEST_PERIOD: Duration = Duration::from_secs(60);

pub(super) struct Driver {
    cluster: Arc<cluster::Shared>,
    shared: Arc<Shared>,
    video: VideoId,
    scheduler: Scheduler,
    sources: Vec<Source>,
    flights: BTreeMap<AttemptId, Flight>,
    /// Whole chunks that are being fetched.
    downloads: JoinSet<(AttemptId, Attempt)>,
    /// Ranges that are being fetched; they tell what happens through `reports`.
    ranges: JoinSet<()>,
    reports: mpsc::UnboundedSender<(AttemptId, Report)>,
    reported: mpsc::UnboundedReceiver<(AttemptId, Report)>,
    leaves: Arc<LeafBook>,
    blocks: Blocks,
    /// Chunks whose blocks are all here, being joined and hashed.
    joining: JoinSet<Joined>,
    /// Those of them that are still wanted.
    to_join: BTreeSet<u32>,
    /// Playback waits for data.
    starved: bool,
    manifests: JoinSet<Result<Manifest, ApiError>>,
    wake_at: Option<Micros>,
    /// The policy that is to take over when nothing verified is lost by it.
    wished: Option<PolicyName>,
    /// The one that decides was told so then.
    leaving_since: Option<Micros>,
    /// A verified block came last.
    last_block_at: Micros,
    ahead: Ahead,
}

impl Driver {
    pub(super) fn new(
        cluster: Arc<cluster::Shared>,
        shared: Arc<Shared>,
        video: VideoId,
        sources: Vec<Source>,
        scheduler: Scheduler,
    ) -> Self {
        let (reports, reported) = mpsc::unbounded_channel();
        let ahead = Ahead::new(&cluster);
        Self {
            cluster,
            shared,
            video,
            scheduler,
            sources,
            flights: BTreeMap::new(),
            downloads: JoinSet::new(),
            ranges: JoinSet::new(),
            reports,
            reported,
            leaves: Arc::default(),
            blocks: Blocks::default(),
            joining: JoinSet::new(),
            to_join: BTreeSet::new(),
            starved: true,
            manifests: JoinSet::new(),
            wake_at: None,
            wished: None,
            leaving_since: None,
            last_block_at: Micros(0),
            ahead,
        }
    }

    /// Runs until `stop`; downloads under way end with it.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        stop: CancellationToken,
    ) {
        let mut nodes_changed = self.cluster.nodes_changed.subscribe();
        let mut manifest_is_old = interval_at(Instant::now() + MANIFEST_PERIOD, MANIFEST_PERIOD);
        manifest_is_old.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.supply(Micros(0));
        self.apply(Fact::Tick, None);
        loop {
            let wake = self.cluster.clock.instant(self.wake_at.unwrap_or_default());
            let look = self.cluster.clock.instant(self.ahead.look_at.unwrap_or_default());
            tokio::select! {
                () = stop.cancelled() => break,
                Some(command) = commands.recv() => self.obey(command),
                Some(done) = self.downloads.join_next() => self.ended(done),
                Some((attempt, report)) = self.reported.recv() => self.take_report(attempt, report),
                // Only taken out: a range tells its end by a report.
                Some(_) = self.ranges.join_next() => continue,
                Some(joined) = self.joining.join_next() => self.joined(joined),
                Some(done) = self.manifests.join_next() => self.manifest_read(done),
                Ok(()) = nodes_changed.changed() => self.read_manifest(),
                _ = manifest_is_old.tick() => self.read_manifest(),
                () = sleep_until(wake), if self.wake_at.is_some() => self.tick(),
                ended = self.ahead.ended() => self.ahead_ended(ended),
                () = sleep_until(look), if self.ahead.look_at.is_some() => {}
            }
            self.change_policy();
            self.look_ahead();
            self.shared.wake();
        }
    }

    /// A policy judges rates and silence by what it was told before the clock moved.
    fn tick(&mut self) {
        self.tell_progress();
        self.apply(Fact::Tick, None);
    }

    fn obey(&mut self, command: Command) {
        let fact = match command {
            Command::Position { ms } => {
                self.supply(Micros::from_ms(ms));
                Fact::Position(Micros::from_ms(ms))
            }
            Command::Hint { why, ms } => return self.hint_place(why, ms.map(Micros::from_ms)),
            Command::Next { next } => return self.hint_next(next),
            Command::Seek { ms } => {
                self.supply(Micros::from_ms(ms));
                self.shared
                    .lock()
                    .journal
                    .seek_started(self.cluster.clock.now(), ms);
                self.starved = true;
                Fact::Seek(Micros::from_ms(ms))
            }
            Command::Starved { starved } => {
                self.starved = starved;
                Fact::Starved(starved)
            }
            Command::Policy { policy } => {
                self.wished = Some(policy);
                return;
            }
            Command::Wanted { seq } => Fact::Wanted { seq },
            Command::Unwanted { seq } => Fact::Unwanted { seq },
        };
        self.apply(fact, None);
    }

    /// One fact in, all actions out. `arrived` are the bytes that a [`Fact::Done`] is about.
    fn apply(&mut self, fact: Fact, mut arrived: Option<(NodeIndex, Bytes)>) {
        let now = self.cluster.clock.now();
        let actions = self.scheduler.apply(now, &mut self.cluster.nodes().records, fact);
        self.wake_at = None;
        for action in actions {
            self.perform(now, action, &mut arrived);
        }
        self.note_level(now);
    }

    /// Lets the policy take over that was wished for, once the one before has brought to its end what it has begun.
    fn change_policy(&mut self) {
        let Some(to) = self.wished else { return };
        let from = self.scheduler.name();
        if from != to && !self.may_leave() {
            return;
        }
        self.wished = None;
        let was_leaving = self.leaving_since.take().is_some();
        if from == to {
            if was_leaving {
                self.apply(Fact::Leaving(false), None);
            }
            return;
        }
        let now = self.cluster.clock.now();
        // What is under way is counted before it is cancelled.
        self.tell_progress();
        let config = &self.cluster.config;
        let actions = self
            .scheduler
            .switch(now, &self.cluster.nodes().records, config, to);
        for action in actions {
            self.perform(now, action, &mut None);
        }
        let mut state = self.shared.lock();
        state.policy = to;
        state.journal.policy_changed(now, from, to);
        drop(state);
        self.apply(Fact::Tick, None);
    }

    /// Whether no verified block that playback needs would be given up, or none has come for too long. Never while playback
    /// runs on the beginning of a chunk: it would stop until all of that has come again.
    fn may_leave(&mut self) -> bool {
        if !self.scheduler.has_begun() {
            return true;
        }
        let now = self.cluster.clock.now();
        if self.leaving_since.is_none() {
            self.leaving_since = Some(now);
            self.apply(Fact::Leaving(true), None);
        }
        let since = self.leaving_since.unwrap_or(now).max(self.last_block_at);
        let plays_from_prefix = !self.starved && self.shared.lock().plays_from_prefix();
        !plays_from_prefix && (now - since >= LEAVES_WITHIN || !self.scheduler.has_begun())
    }

    fn note_level(&mut self, now: Micros) {
        let (level, reaches_end) = (self.scheduler.level(), self.scheduler.reaches_end());
        let mut state = self.shared.lock();
        state.position = self.scheduler.position();
        state.level = level;
        state.journal.level(now, level, reaches_end);
        let is_there = level > Micros(0) || reaches_end;
        let sought = is_there && state.journal.seek_ended(now);
        drop(state);
        if sought && std::mem::replace(&mut self.starved, false) {
            self.apply(Fact::Starved(false), None);
        }
    }

    fn perform(&mut self, now: Micros, action: Action, arrived: &mut Option<(NodeIndex, Bytes)>) {
        match action {
            Action::Start(start) => self.start(now, start),
            Action::Cancel { attempt, why, .. } => self.cancel(now, attempt, why),
            Action::Keep { seq, .. } => {
                if let Some((node, bytes)) = arrived.take() {
                    self.shared.lock().keep(seq, node, bytes);
                }
            }
            Action::Drop { seq, why } => {
                let given_up = self.blocks.take(seq);
                self.to_join.remove(&seq);
                let mut state = self.shared.lock();
                state.release(seq);
                state
                    .journal
                    .given_up(given_up.map_or(0, |partial| partial.stored_bytes()));
                state.journal.tell(now, EventKind::Dropped { seq, why });
            }
            Action::WakeAt(at) => self.wake_at = Some(at),
            Action::Finish { seq } => self.join(seq),
            Action::PrefixReady { seq, bytes } => self.release_prefix(now, seq, bytes),
            Action::Blame { node, seq, block } => self.blame(now, node, seq, block),
            Action::ReadManifest => self.ask_for_manifest(),
            Action::Unobtainable { seq } => self.report_unobtainable(now, seq),
            Action::Refill { on, level } => {
                let buffer_ms = level.as_ms();
                let kind = if on {
                    EventKind::RefillStarted { buffer_ms }
                } else {
                    EventKind::RefillStopped { buffer_ms }
                };
                self.shared.lock().journal.tell(now, kind);
            }
        }
    }

    fn report_unobtainable(&self, now: Micros, seq: u32) {
        let Some(source) = self.sources.get(seq as usize) else {
            return;
        };
        let replicas = source.parts.len();
        let mut state = self.shared.lock();
        let last = state.journal.faults.iter().rev().find(|fault| fault.seq == seq);
        let last = last.map_or_else(
            || "none is known".to_owned(),
            |fault| format!("{} {}", fault.node.name, fault.failure),
        );
        state.report_error(
            seq,
            ClientError::Unobtainable {
                chunk_id: source.chunk_id,
                replicas,
                last,
            },
        );
        state.journal.tell(now, EventKind::Unobtainable { seq, replicas });
    }
}

/// However the task ends, even with its runtime: nobody waits for it any more.
impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.lock().close();
        self.shared.wake();
    }
}
