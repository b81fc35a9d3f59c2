//! The one thread that owns the pipeline: commands and messages in, status and events out.
//!
//! Everything that happens comes through one inbox, so nothing here is locked and no order is left to chance. Each load
//! and seek takes a new number; messages with an older one are dropped. The worker also looks at the clock: it stops
//! the picture when the feed runs dry (otherwise the clock runs on and the picture jumps), starts it again when bytes
//! come, and restarts a pipeline that failed or froze at the position where it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::bus::{BusEvent, FailureKind, PipelineFailure};
use super::feed::Feed;
use super::pipeline::Pipeline;
use super::{PlayerCommand, PlayerError, PlayerEvent, PlayerPhase, PlayerStatus};

/// How often the worker looks at the position while a video is open. 10 Hz is what the page draws.
const TICK: Duration = Duration::from_millis(100);
/// The picture is stopped when this much is left and no byte comes: two ticks and a frame.
const DRY_MARGIN_MS: u64 = 250;
/// A picture that should move and does not for this long is frozen: far above the longest decode of a frame.
const FROZEN_AFTER: Duration = Duration::from_secs(5);
/// A seek or load that shows nothing for this long is told to the user as buffering.
const TELL_WAIT_AFTER: Duration = Duration::from_millis(300);
/// Restarts within [`RESTART_WINDOW`] after which the video is given up.
const MAX_RESTARTS: usize = 3;
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// All that reaches the worker.
#[derive(Debug)]
pub(super) enum Input {
    Command(PlayerCommand),
    Bus { number: u64, event: BusEvent },
}

pub(super) struct Worker {
    pub(super) pipeline: Pipeline,
    pub(super) inbox: Receiver<Input>,
    /// Number of the last load or seek; the bus stamps its messages with it.
    pub(super) number: Arc<AtomicU64>,
    pub(super) status: watch::Sender<PlayerStatus>,
    pub(super) events: Box<dyn Fn(PlayerEvent) + Send>,
    pub(super) open: Option<Open>,
}

/// The loaded video.
pub(super) struct Open {
    id: String,
    feed: Arc<Feed>,
    /// Which file is loaded, of a video that is stored as files.
    file: usize,
    /// Presentation time at which the pipeline's own time starts.
    base_ms: u64,
    /// The loaded file was sent to the wanted moment.
    placed: bool,
    /// What the user wants; what the pipeline does may differ while bytes are missing.
    wants_play: bool,
    /// When it was opened, until its first picture.
    starting: Option<Instant>,
    /// A load or seek whose picture is not there yet.
    pending: Option<Pending>,
    stalled: bool,
    ended: bool,
    /// Position and when it last changed.
    moved: (u64, Instant),
    restarts: Vec<Instant>,
}

#[derive(Clone, Copy)]
struct Pending {
    target_ms: u64,
    since: Instant,
    kind: PendingKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PendingKind {
    /// The user waits for a picture.
    Wish,
    /// The next file of the same video.
    NextFile,
}

impl Pending {
    fn wish(target_ms: u64) -> Self {
        Self {
            target_ms,
            since: Instant::now(),
            kind: PendingKind::Wish,
        }
    }
}

impl Worker {
    /// Runs until [`PlayerCommand::Shutdown`], or until nobody can send commands any more.
    pub(super) fn run(mut self) {
        self.pipeline.warm_up();
        self.pipeline.find_sound();
        loop {
            let input = if self.open.is_some() {
                self.inbox.recv_timeout(TICK)
            } else {
                self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match input {
                Ok(Input::Command(PlayerCommand::Shutdown)) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Input::Command(command)) => self.obey(command),
                Ok(Input::Bus { number, event }) if number == self.number.load(Ordering::SeqCst) => {
                    self.hear(event)
                }
                Ok(Input::Bus { .. }) => {}
                Err(RecvTimeoutError::Timeout) => self.tick(),
            }
            self.publish();
        }
        self.close();
    }

    fn obey(&mut self, command: PlayerCommand) {
        match command {
            PlayerCommand::Open {
                id,
                feed,
                start_ms,
                play,
            } => self.load(id, feed, start_ms, play),
            PlayerCommand::Close => {
                self.close();
                self.pipeline.find_sound();
            }
            PlayerCommand::Play => self.play(),
            PlayerCommand::Pause => self.pause(),
            PlayerCommand::Seek { position_ms } => self.seek(position_ms),
            PlayerCommand::SetVolume { volume, muted } => {
                self.pipeline.set_volume(volume, muted);
                self.status
                    .send_modify(|status| (status.volume, status.muted) = (volume, muted));
            }
            PlayerCommand::Shutdown => {}
        }
    }

    fn hear(&mut self, event: BusEvent) {
        match event {
            BusEvent::Prerolled => self.prerolled(),
            BusEvent::EndOfStream => self.ended(),
            BusEvent::ClockLost => self.renew_clock(),
            BusEvent::LatencyChanged => self.pipeline.redistribute_latency(),
            BusEvent::Failed(failure) => self.failed(&failure),
        }
    }

    fn next_number(&self) {
        self.number.fetch_add(1, Ordering::SeqCst);
    }

    fn load(&mut self, id: String, feed: Arc<Feed>, start_ms: u64, play: bool) {
        self.close();
        let now = Instant::now();
        self.open = Some(Open {
            id,
            feed,
            file: 0,
            base_ms: 0,
            placed: false,
            wants_play: play,
            starting: Some(now),
            pending: Some(Pending::wish(start_ms)),
            stalled: false,
            ended: false,
            moved: (start_ms, now),
            restarts: Vec::new(),
        });
        self.status.send_modify(|status| {
            let (volume, muted) = (status.volume, status.muted);
            *status = PlayerStatus {
                opened: status.opened + 1,
                volume,
                muted,
                ..PlayerStatus::default()
            };
        });
        self.start(start_ms);
    }

    /// Loads the open video into the pipeline at `start_ms`.
    fn start(&mut self, start_ms: u64) {
        self.pipeline.stop();
        // What the old pipeline said counts no more, and all that the new one says does.
        self.next_number();
        let Some(open) = &mut self.open else { return };
        open.feed.chunks.seek(start_ms);
        open.file = open.feed.timeline.file_at(start_ms);
        open.base_ms = open.feed.timeline.file_start_ms(open.file);
        open.placed = false;
        let loaded = self.pipeline.load(&open.id, &open.feed, open.file, start_ms);
        // A file shows its beginning first, which is not always what is wanted.
        let play_now = open.wants_play && !open.feed.timeline.whole_files;
        let started = loaded.and_then(|()| if play_now { self.pipeline.play() } else { Ok(()) });
        if let Err(error) = started {
            // The pipeline usually says why on the bus; where it does not, this is all there is.
            tracing::warn!(%error, "the pipeline refused to start");
        }
    }

    fn close(&mut self) {
        self.pipeline.stop();
        self.next_number();
        if let Some(open) = self.open.take() {
            end_stall(&open);
            open.feed.chunks.note_playing(false);
        }
    }

    fn play(&mut self) {
        let Some(open) = &mut self.open else { return };
        open.wants_play = true;
        if open.ended {
            self.seek(0);
            return;
        }
        open.moved.1 = Instant::now();
        if !open.stalled && open.pending.is_none() {
            open.feed.chunks.note_playing(true);
            report(self.pipeline.play());
        }
    }

    fn pause(&mut self) {
        let Some(open) = &mut self.open else { return };
        open.wants_play = false;
        open.feed.chunks.note_playing(false);
        report(self.pipeline.pause());
    }

    fn seek(&mut self, position_ms: u64) {
        let Some(open) = &mut self.open else { return };
        let target_ms = position_ms.min(last_moment(&open.feed));
        open.feed.chunks.seek(target_ms);
        if std::mem::take(&mut open.stalled) {
            open.feed.chunks.note_stall(false);
        }
        // A pipeline without a picture yet has nobody to answer a seek, and another file is loaded anew: it starts at
        // the target instead.
        let must_load = open.starting.is_some()
            || open
                .pending
                .is_some_and(|pending| pending.kind == PendingKind::NextFile)
            || open.feed.timeline.file_at(target_ms) != open.file;
        open.pending = Some(Pending::wish(target_ms));
        open.moved = (target_ms, Instant::now());
        open.ended = false;
        let (wants_play, in_file_ms) = (open.wants_play, target_ms.saturating_sub(open.base_ms));
        self.next_number();
        if must_load || self.pipeline.seek(in_file_ms).is_err() {
            self.start(target_ms);
        } else if wants_play {
            // After a stall or the end the pipeline stands still although the user wants it to play.
            report(self.pipeline.play());
        }
    }

    fn prerolled(&mut self) {
        if self.must_seek_in_file() {
            return;
        }
        let Some(open) = &mut self.open else { return };
        let Some(pending) = open.pending.take() else {
            return;
        };
        open.moved = (pending.target_ms, Instant::now());
        if let Some(opened) = open.starting.take() {
            open.feed.chunks.note_first_frame();
            let startup_ms = whole_ms(opened.elapsed());
            self.status
                .send_modify(|status| status.startup_ms = Some(startup_ms));
            (self.events)(PlayerEvent::FirstFrame { startup_ms });
        } else if pending.kind == PendingKind::Wish {
            let took_ms = whole_ms(pending.since.elapsed());
            (self.events)(PlayerEvent::Sought {
                position_ms: pending.target_ms,
                took_ms,
            });
        }
        if open.wants_play {
            open.feed.chunks.note_playing(true);
            report(self.pipeline.play());
        }
    }

    /// A file that has just been loaded shows its beginning: seeks once to the target where that is another moment.
    fn must_seek_in_file(&mut self) -> bool {
        let Some(open) = self.open.as_mut().filter(|open| open.feed.timeline.whole_files) else {
            return false;
        };
        let Some(pending) = open.pending else { return false };
        let in_file_ms = pending.target_ms.saturating_sub(open.base_ms);
        if std::mem::replace(&mut open.placed, true) || in_file_ms == 0 {
            return false;
        }
        self.next_number();
        self.pipeline.seek(in_file_ms).is_ok()
    }

    fn ended(&mut self) {
        let Some(open) = &mut self.open else { return };
        if let Some(next) = open.feed.timeline.next_file(open.file) {
            let start_ms = open.feed.timeline.file_start_ms(next);
            open.pending = Some(Pending {
                kind: PendingKind::NextFile,
                ..Pending::wish(start_ms)
            });
            self.start(start_ms);
            return;
        }
        open.ended = true;
        open.pending = None;
        open.wants_play = false;
        open.feed.chunks.note_playing(false);
        (self.events)(PlayerEvent::Ended);
    }

    fn renew_clock(&mut self) {
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.wants_play && !open.stalled)
        {
            report(self.pipeline.pause());
            report(self.pipeline.play());
        }
    }

    fn failed(&mut self, failure: &PipelineFailure) {
        let Some(open) = &mut self.open else { return };
        let feed_failure = open.feed.take_failure();
        tracing::warn!(message = failure.message, debug = failure.debug, kind = ?failure.kind, "playback failed");
        let error = match (feed_failure, failure.kind) {
            (Some(error), _) => Some(PlayerError::Feed {
                message: error.message,
            }),
            (None, FailureKind::MissingPlugin) => Some(PlayerError::MissingDecoder {
                detail: failure.message.clone(),
            }),
            _ => None,
        };
        // What a second try cannot help is told at once.
        match error {
            Some(error) => self.give_up(error),
            None => self.restart(&failure.message),
        }
    }

    /// The watchdog: the same video again, at the position where it was.
    fn restart(&mut self, reason: &str) {
        let Some(open) = &mut self.open else { return };
        let now = Instant::now();
        open.restarts
            .retain(|&at| now.duration_since(at) < RESTART_WINDOW);
        if open.restarts.len() >= MAX_RESTARTS {
            let detail = reason.to_owned();
            self.give_up(PlayerError::Broken { detail });
            return;
        }
        open.restarts.push(now);
        let position_ms = open.pending.map_or(open.moved.0, |pending| pending.target_ms);
        open.pending = Some(Pending::wish(position_ms));
        open.moved = (position_ms, now);
        tracing::warn!(reason, position_ms, "restarting the pipeline");
        (self.events)(PlayerEvent::Restarted {
            reason: reason.to_owned(),
            position_ms,
        });
        self.start(position_ms);
    }

    fn give_up(&mut self, error: PlayerError) {
        (self.events)(PlayerEvent::Failed(error.clone()));
        self.close();
        self.status.send_modify(|status| {
            status.phase = PlayerPhase::Failed;
            status.error = Some(error);
        });
    }

    fn tick(&mut self) {
        let Some(open) = &mut self.open else { return };
        let position_ms = match open.pending {
            Some(pending) => pending.target_ms,
            None if open.ended => open.feed.timeline.duration_ms,
            None => self
                .pipeline
                .position_ms()
                .map_or(open.moved.0, |ms| ms + open.base_ms),
        };
        open.feed.chunks.set_position(position_ms);
        let now = Instant::now();
        if position_ms != open.moved.0 {
            open.moved = (position_ms, now);
        }
        let moves = open.wants_play && !open.ended && open.pending.is_none();
        if !moves {
            return;
        }
        self.watch_supply(position_ms);
        let frozen = self
            .open
            .as_ref()
            .is_some_and(|open| !open.stalled && open.moved.1.elapsed() > FROZEN_AFTER);
        if frozen {
            self.restart("the picture stood still");
        }
    }

    /// Stops the picture shortly before the bytes run out, and starts it again when some have come.
    fn watch_supply(&mut self, position_ms: u64) {
        let Some(open) = &mut self.open else { return };
        let dry_at_ms = open.feed.runs_dry_at_ms();
        match (open.stalled, dry_at_ms) {
            (false, Some(dry_at_ms)) if position_ms + DRY_MARGIN_MS >= dry_at_ms => {
                open.stalled = true;
                open.feed.chunks.note_stall(true);
                self.status.send_modify(|status| status.stalls += 1);
                report(self.pipeline.pause());
                (self.events)(PlayerEvent::StallStarted { position_ms });
            }
            (true, None) => {
                open.stalled = false;
                open.moved.1 = Instant::now();
                open.feed.chunks.note_stall(false);
                report(self.pipeline.play());
                (self.events)(PlayerEvent::StallEnded { position_ms });
            }
            _ => {}
        }
    }

    /// Tells the newest state to whoever watches.
    fn publish(&self) {
        let Some(open) = &self.open else {
            self.status.send_if_modified(|status| {
                let closed = !matches!(status.phase, PlayerPhase::Idle | PlayerPhase::Failed);
                if closed {
                    status.phase = PlayerPhase::Idle;
                }
                closed
            });
            return;
        };
        let position_ms = if open.ended {
            open.feed.timeline.duration_ms
        } else {
            open.moved.0
        };
        let (phase, duration_ms) = (open.phase(), open.feed.timeline.duration_ms);
        self.status.send_if_modified(|status| {
            let changed =
                (status.phase, status.position_ms, status.duration_ms) != (phase, position_ms, duration_ms);
            (status.phase, status.position_ms, status.duration_ms) = (phase, position_ms, duration_ms);
            changed
        });
    }
}

impl Open {
    fn phase(&self) -> PlayerPhase {
        let waits = self
            .pending
            .is_some_and(|pending| pending.since.elapsed() > TELL_WAIT_AFTER);
        if self.starting.is_some() {
            PlayerPhase::Loading
        } else if self.ended {
            PlayerPhase::Ended
        } else if self.stalled || waits {
            PlayerPhase::Buffering
        } else if self.wants_play {
            PlayerPhase::Playing
        } else {
            PlayerPhase::Paused
        }
    }
}

fn end_stall(open: &Open) {
    if open.stalled {
        open.feed.chunks.note_stall(false);
    }
}

/// The last time that still shows a picture: an exact seek to the very end has none.
fn last_moment(feed: &Feed) -> u64 {
    /// A frame at 25 frames a second.
    const FRAME_MS: u64 = 40;
    feed.timeline.duration_ms.saturating_sub(FRAME_MS)
}

fn report(result: Result<(), PlayerError>) {
    if let Err(error) = result {
        // The reason follows on the bus.
        tracing::warn!(%error, "the pipeline refused");
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
