//! The state of one path: its two lines, its delay, and what is wrong with it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::conditions::{Conditions, Fault, Profile};
use crate::gate::Doors;

/// What leaves an idle line at once takes so long in turn: a timer may wake so late, and what the line could have sent
/// meanwhile is not lost.
const BURST_S: f64 = 0.005;
/// Bytes arrive in packets of what the line sends in this time. At a slow line's rate a large packet would hide for long
/// that most of it is here: 16 KiB take 0.2 s at 0.6 Mbit/s.
const PACKET_S: f64 = 0.005;
/// As a packet on a network, and as much as is read at once.
const PACKET_MIN_BYTES: f64 = 1_460.0;
const PACKET_MAX_BYTES: f64 = 16.0 * 1024.0;
/// The body that a stale answer repeats is at most so long.
const OLD_BYTES: usize = 1 << 20;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    Up,
    Down,
}

/// One direction's limit, shared by all connections: bytes leave one after another, at the line's rate.
#[derive(Debug)]
pub(crate) struct LineState {
    limit: Mutex<Limit>,
    passed_bytes: AtomicU64,
}

#[derive(Debug)]
struct Limit {
    bytes_per_s: Option<f64>,
    /// When the line has sent all that was given to it.
    free_at: Instant,
}

impl LineState {
    fn new(mbps: Option<f64>) -> Self {
        let limit = Limit {
            bytes_per_s: rate(mbps),
            free_at: Instant::now(),
        };
        Self {
            limit: Mutex::new(limit),
            passed_bytes: AtomicU64::new(0),
        }
    }

    /// Takes `bytes` onto the line; they have left it at the returned time.
    pub(crate) fn send(&self, bytes: usize, now: Instant) -> Instant {
        let mut limit = lock(&self.limit);
        let Some(bytes_per_s) = limit.bytes_per_s else {
            return now;
        };
        // An idle line saves up one burst and no more.
        let earliest = now.checked_sub(Duration::from_secs_f64(BURST_S)).unwrap_or(now);
        limit.free_at = limit.free_at.max(earliest) + Duration::from_secs_f64(bytes as f64 / bytes_per_s);
        limit.free_at.max(now)
    }

    /// The most that the line sends in one piece.
    pub(crate) fn packet_bytes(&self) -> usize {
        let bytes_per_s = lock(&self.limit).bytes_per_s.unwrap_or(f64::INFINITY);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped in the line itself"
        )]
        let bytes = (bytes_per_s * PACKET_S).clamp(PACKET_MIN_BYTES, PACKET_MAX_BYTES) as usize;
        bytes
    }

    pub(crate) fn count(&self, bytes: usize) {
        self.passed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn passed_bytes(&self) -> u64 {
        self.passed_bytes.load(Ordering::Relaxed)
    }

    /// What waits on the old line leaves at the new rate from now on: a line that was slow for long is not slow for ever.
    fn set_mbps(&self, mbps: Option<f64>) {
        let mut limit = lock(&self.limit);
        limit.bytes_per_s = rate(mbps);
        limit.free_at = limit.free_at.min(Instant::now());
    }
}

/// At least one byte a second, so that a time can be computed; a line that stands still is what a stall is for.
fn rate(mbps: Option<f64>) -> Option<f64> {
    mbps.map(|mbps| (mbps * 1e6 / 8.0).max(1.0))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) up: LineState,
    pub(crate) down: LineState,
    pub(crate) doors: watch::Sender<Doors>,
    conditions: watch::Sender<Arc<Conditions>>,
    /// The beginning of the first body that went by, for stale answers.
    old: Mutex<Option<Bytes>>,
    pub(crate) connections: AtomicU32,
}

impl Path {
    pub(crate) fn new(conditions: Conditions) -> Self {
        Self {
            up: LineState::new(conditions.profile.up_mbps),
            down: LineState::new(conditions.profile.down_mbps),
            doors: watch::Sender::new(Doors::under(&conditions.faults)),
            conditions: watch::Sender::new(Arc::new(conditions)),
            old: Mutex::new(None),
            connections: AtomicU32::new(0),
        }
    }

    pub(crate) const fn line(&self, line: Line) -> &LineState {
        match line {
            Line::Up => &self.up,
            Line::Down => &self.down,
        }
    }

    pub(crate) fn conditions(&self) -> Arc<Conditions> {
        Arc::clone(&self.conditions.borrow())
    }

    pub(crate) fn set(&self, conditions: Conditions) {
        self.doors.send_replace(Doors::under(&conditions.faults));
        let Profile {
            up_mbps, down_mbps, ..
        } = conditions.profile;
        let before = self.conditions.send_replace(Arc::new(conditions)).profile;
        if before.up_mbps != up_mbps {
            self.up.set_mbps(up_mbps);
        }
        if before.down_mbps != down_mbps {
            self.down.set_mbps(down_mbps);
        }
    }

    /// The delay of one piece.
    pub(crate) fn delay(&self, random: &mut StdRng) -> Duration {
        let Profile {
            delay_ms, jitter_ms, ..
        } = self.conditions.borrow().profile;
        if jitter_ms == 0 {
            return Duration::from_millis(delay_ms);
        }
        let least_us = delay_ms.saturating_sub(jitter_ms) * 1000;
        let most_us = (delay_ms + jitter_ms) * 1000;
        Duration::from_micros(random.random_range(least_us..=most_us))
    }

    /// Waits until no fault fits any more.
    pub(crate) async fn until_gone(&self, fits: impl Fn(&Fault) -> bool) {
        let mut conditions = self.conditions.subscribe();
        // The sender lives in this path.
        let _ = conditions
            .wait_for(|conditions| !conditions.faults.iter().any(&fits))
            .await;
    }

    pub(crate) fn old_body(&self) -> Option<Bytes> {
        lock(&self.old).clone()
    }

    pub(crate) fn remember(&self, body: &Bytes) {
        let mut old = lock(&self.old);
        if old.is_none() && !body.is_empty() {
            *old = Some(body.slice(..body.len().min(OLD_BYTES)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_sends_at_its_rate_after_one_burst() {
        let line = LineState::new(Some(8.0)); // 1 MB/s
        let start = Instant::now() + Duration::from_secs(10);
        let last = (0..100).map(|_| line.send(10_000, start)).last().unwrap();
        let seconds = (last - start).as_secs_f64();
        assert!(
            (seconds - (1.0 - BURST_S)).abs() < 1e-3,
            "{seconds} s for a megabyte"
        );
    }

    #[test]
    fn a_slow_line_sends_small_packets_and_a_fast_one_large_ones() {
        let packet_at = |mbps| LineState::new(mbps).packet_bytes();
        assert_eq!(packet_at(Some(0.6)), 1_460);
        assert_eq!(packet_at(Some(8.0)), 5_000);
        assert_eq!(packet_at(Some(100.0)), 16 * 1024);
        assert_eq!(packet_at(None), 16 * 1024);
    }

    #[test]
    fn two_connections_share_the_line() {
        let line = LineState::new(Some(8.0));
        let start = Instant::now() + Duration::from_secs(10);
        line.send(500_000, start);
        assert!(line.send(500_000, start) - start > Duration::from_millis(950));
    }

    #[test]
    fn an_unlimited_line_takes_no_time() {
        let now = Instant::now();
        assert_eq!(LineState::new(None).send(usize::MAX, now), now);
    }

    #[test]
    fn a_line_that_was_slow_is_free_when_it_is_set_anew() {
        let line = LineState::new(Some(0.001));
        line.send(1_000_000, Instant::now());
        line.set_mbps(Some(8.0));
        assert!(line.send(1000, Instant::now()) - Instant::now() < Duration::from_millis(10));
    }
}
