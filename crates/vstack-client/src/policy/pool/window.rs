//! The window: how far ahead of the playhead is fetched, and what becomes of what lies outside it.
//!
//! It is as long as it takes to play, so it is wider for who plays faster; who takes everything as it comes is nobody who
//! watches.

use super::{Pool, seconds};
use crate::policy::{Action, CancelReason, DropReason, Micros};

/// The speed of playback is taken over this time; what is below this many times real time is real time.
const SPEED_OVER: Micros = Micros::from_ms(1_000);
const SPEED_STEPS: f64 = 1.25;
/// The window grows no further than for this.
const SPEED_MAX: f64 = 16.0;
/// Players offer twice real time, some four times. Who is faster than this in so many measurements, one after another,
/// only fetches, until the speed is real time again or playback waits.
const WATCHED_SPEED_MAX: f64 = 6.0;
const RUSHES_OF_BULK: u32 = 2;
/// A position so far back is another place, although nobody said that the viewer jumped.
const STEP_BACK: Micros = Micros::from_ms(1_000);

impl Pool {
    /// The end of the window, in time ahead of the playhead.
    #[must_use]
    pub fn ahead(&self) -> Micros {
        self.config.target.max(self.reach - self.position)
    }

    pub(super) fn window(&self) -> std::ops::Range<usize> {
        let first = self.first();
        let limit = self.position + self.ahead();
        let end = self.chunks.partition_point(|chunk| chunk.spec.start < limit);
        first..end.max(first)
    }

    /// Times are judged by when the playhead will be there, which is sooner when a video is played faster.
    pub(super) fn moved(&mut self, now: Micros, position: Micros) {
        let jumped = position + STEP_BACK < self.position || position > self.position + self.ahead();
        self.position = position;
        if jumped {
            self.elsewhere();
        }
        if self.starved {
            return;
        }
        let (at, from) = *self.moved_from.get_or_insert((now, position));
        let passed = (now - at).0 as f64;
        if now - at >= SPEED_OVER {
            let ratio = (position - from).0 as f64 / passed;
            // A player tells its position in steps.
            self.speed = if ratio > SPEED_STEPS {
                ratio.min(SPEED_MAX)
            } else {
                1.0
            };
            self.rushes = if ratio > WATCHED_SPEED_MAX {
                self.rushes.saturating_add(1)
            } else if ratio > SPEED_STEPS && self.is_bulk() {
                self.rushes
            } else {
                0
            };
            self.moved_from = Some((now, position));
        }
        self.extend_reach();
    }

    /// The window begins anew at the playhead.
    fn elsewhere(&mut self) {
        self.reach = self.position;
        self.moved_from = None;
        self.rushes = 0;
        self.extend_reach();
    }

    /// As much lies in the window as is played in its time, and beyond the ordinary one no more than may be kept. What is in
    /// it stays: a pause takes nothing back.
    fn extend_reach(&mut self) {
        let most = seconds(self.config.target.0 as f64 / 1e6 * self.speed);
        let (ordinary, limit) = (self.position + self.config.target, self.position + most);
        let mut bytes = 0;
        let ahead = self.chunks[self.first()..].iter().take_while(|chunk| {
            if chunk.spec.start >= ordinary {
                bytes += chunk.spec.shape.chunk_bytes;
            }
            chunk.spec.start < limit && bytes <= self.config.keep_bytes
        });
        let end = ahead.last().map_or(self.position, |chunk| chunk.spec.end);
        self.reach = self.reach.max(end.min(limit));
    }

    pub(super) fn seek(&mut self, position: Micros) {
        self.position = position;
        self.elsewhere();
        self.filling = true;
        self.ready = None;
    }

    /// Everything is taken as it comes: nobody watches that fast.
    pub(super) const fn is_bulk(&self) -> bool {
        self.rushes >= RUSHES_OF_BULK
    }

    /// Playback waits, or soon will. Who takes everything as it comes would always count as about to wait.
    pub(super) fn panics(&self) -> bool {
        self.starved || !self.is_bulk() && self.reserve() < self.config.panic
    }

    pub(super) fn turn_refill(&mut self, actions: &mut Vec<Action>) {
        let level = self.level();
        let wide = self.ahead();
        let mark = if self.filling {
            wide
        } else {
            // The same part of a wider window.
            let part = self.config.low_water.0 as f64 / self.config.target.0.max(1) as f64;
            seconds(part * wide.0 as f64 / 1e6)
        };
        let on = level < mark && !self.reaches_end();
        if on != self.filling {
            self.filling = on;
            actions.push(Action::Refill { on, level });
        }
    }

    /// Cancels what is neither in the window nor waited for; what it has brought stays.
    pub(super) fn cancel_outside_window(&mut self, actions: &mut Vec<Action>) {
        let window = self.window();
        let outside = self.attempts_at(|flight| {
            !window.contains(&(flight.seq as usize)) && !self.wanted.contains(&flight.seq)
        });
        for attempt in outside {
            self.cancel(attempt, CancelReason::OutsideWindow, actions);
        }
    }

    /// Outside the window, what lies farthest from the playhead goes first.
    pub(super) fn drop_surplus(&mut self, actions: &mut Vec<Action>) {
        let window = self.window();
        let first = window.start;
        let outside = |index: &usize| !window.contains(index) && !self.is_wanted(*index);
        let mut kept: Vec<(usize, u64)> = (0..self.chunks.len())
            .filter(outside)
            .map(|index| (index, self.chunks[index].stored_bytes()))
            .filter(|(_, bytes)| *bytes > 0)
            .collect();
        let mut total: u64 = kept.iter().map(|(_, bytes)| bytes).sum();
        kept.sort_by_key(|(index, _)| std::cmp::Reverse(index.abs_diff(first)));
        for (index, bytes) in kept {
            if total <= self.config.keep_bytes {
                return;
            }
            total -= bytes;
            let why = if index < first {
                DropReason::Played
            } else {
                DropReason::TooMany
            };
            self.release(index, why, actions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{ChunkSpec, Fact, Failure, NodeIndex, NodeRecords, PoolConfig, Shape};

    const CHUNK_BYTES: u64 = 1_000_000;

    struct Playing {
        pool: Pool,
        records: NodeRecords,
        now: Micros,
        position: Micros,
        slack: Option<Micros>,
    }

    /// A hundred chunks of 1 s, of which 8 s are fetched ahead and 20 chunks may be kept.
    fn playing() -> Playing {
        let spec = |seq: u64| ChunkSpec {
            start: Micros::from_ms(seq * 1_000),
            end: Micros::from_ms((seq + 1) * 1_000),
            shape: Shape::copies(CHUNK_BYTES, [NodeIndex(0)]),
        };
        let config = PoolConfig {
            target: Micros::from_ms(8_000),
            keep_bytes: 20 * CHUNK_BYTES,
            ..PoolConfig::default()
        };
        let mut playing = Playing {
            pool: Pool::new(config, (0..100).map(spec).collect()),
            records: NodeRecords::default(),
            now: Micros(1),
            position: Micros(0),
            slack: None,
        };
        playing.tell(Fact::Tick);
        playing.tell(Fact::Starved(false));
        playing
    }

    impl Playing {
        fn tell(&mut self, fact: Fact) {
            for action in self.pool.apply(self.now, &mut self.records, fact) {
                if let Action::Start(start) = action {
                    self.slack = Some(start.slack);
                }
            }
        }

        /// Two seconds pass, at so many times real time; whole chunks ahead that are in the window then.
        fn go_on(&mut self, speed: f64) -> u64 {
            for _ in 0..20 {
                self.now = self.now + Micros::from_ms(100);
                self.position = self.position + seconds(0.1 * speed);
                // Who has not waited says so again and again.
                self.tell(Fact::Starved(false));
                self.tell(Fact::Position(self.position));
            }
            self.ahead()
        }

        fn ahead(&self) -> u64 {
            self.pool.window().end as u64 - self.position.as_ms() / 1_000
        }
    }

    #[test]
    fn what_is_played_faster_is_fetched_further_ahead_and_a_pause_takes_nothing_back() {
        let mut playing = playing();
        assert_eq!(playing.go_on(1.0), 8);
        assert_eq!(playing.go_on(2.0), 16);
        assert_eq!(playing.go_on(0.0), 16);
        assert_eq!(playing.go_on(1.0), 14, "what is there is used up first");
        playing.tell(Fact::Seek(playing.position));
        assert_eq!(playing.ahead(), 8);
    }

    #[test]
    fn a_playhead_that_is_elsewhere_has_a_window_of_its_own() {
        for (from_ms, to_ms) in [(60_000, 0), (0, 60_000)] {
            let mut playing = playing();
            playing.position = Micros::from_ms(from_ms);
            playing.tell(Fact::Seek(playing.position));
            assert_eq!(playing.go_on(2.0), 16);
            playing.position = Micros::from_ms(to_ms);
            playing.tell(Fact::Position(playing.position));
            assert!(playing.ahead() <= 16, "{}", playing.ahead());
        }
    }

    #[test]
    fn who_only_fetches_keeps_as_much_as_allowed_hurries_nobody_and_does_not_panic() {
        let mut playing = playing();
        assert!(playing.pool.panics(), "nothing is there");
        assert_eq!(playing.go_on(4.0), 28, "8 s, and 20 chunks that may be kept");
        assert!(
            playing.pool.panics(),
            "somebody may watch at four times the speed"
        );
        playing.go_on(10.0);
        playing.go_on(10.0);
        assert!(!playing.pool.panics());
        playing.go_on(2.0);
        assert!(!playing.pool.panics(), "nodes that are busy make nobody a viewer");
        let bulk = playing.pool.clone();
        playing.tell(Fact::Starved(true));
        assert!(playing.pool.panics());
        playing.pool = bulk;
        let attempt = playing.pool.attempts_at(|_| true)[0];
        playing.slack = None;
        playing.tell(Fact::Failed {
            attempt,
            failure: Failure::Connect,
        });
        playing.now = playing.now + Micros::from_ms(60_000);
        playing.tell(Fact::Tick);
        assert_eq!(playing.slack, Some(Micros::from_ms(8_000)));
    }
}
