//! The state of one path: its two lines, its delay and its switch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::Profile;

/// Bytes that leave an idle line at once: about one burst of a network card.
const BURST_BYTES: f64 = 16.0 * 1024.0;

/// What the path does with what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Switch {
    Open,
    Frozen,
    Cut,
}

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
        let mut limit = self.limit();
        let Some(bytes_per_s) = limit.bytes_per_s else {
            return now;
        };
        // An idle line saves up one burst and no more.
        let burst = Duration::from_secs_f64(BURST_BYTES / bytes_per_s);
        let earliest = now.checked_sub(burst).unwrap_or(now);
        limit.free_at = limit.free_at.max(earliest) + Duration::from_secs_f64(bytes as f64 / bytes_per_s);
        limit.free_at.max(now)
    }

    pub(crate) fn count(&self, bytes: usize) {
        self.passed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn passed_bytes(&self) -> u64 {
        self.passed_bytes.load(Ordering::Relaxed)
    }

    fn set_mbps(&self, mbps: Option<f64>) {
        self.limit().bytes_per_s = rate(mbps);
    }

    fn limit(&self) -> MutexGuard<'_, Limit> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At least one byte a second, so that a time can be computed; a line that stands still is what `freeze` is for.
fn rate(mbps: Option<f64>) -> Option<f64> {
    mbps.map(|mbps| (mbps * 1e6 / 8.0).max(1.0))
}

#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) up: LineState,
    pub(crate) down: LineState,
    delay_ms: AtomicU64,
}

impl Path {
    pub(crate) fn new(profile: Profile) -> Self {
        Self {
            up: LineState::new(profile.up_mbps),
            down: LineState::new(profile.down_mbps),
            delay_ms: AtomicU64::new(profile.delay_ms),
        }
    }

    pub(crate) const fn line(&self, line: Line) -> &LineState {
        match line {
            Line::Up => &self.up,
            Line::Down => &self.down,
        }
    }

    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn set_profile(&self, profile: Profile) {
        self.up.set_mbps(profile.up_mbps);
        self.down.set_mbps(profile.down_mbps);
        self.delay_ms.store(profile.delay_ms, Ordering::Relaxed);
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
            (seconds - (1.0 - BURST_BYTES / 1e6)).abs() < 1e-3,
            "{seconds} s for a megabyte"
        );
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
}
