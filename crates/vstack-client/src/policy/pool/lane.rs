//! A lane: what one session knows of one node, and what it has asked from it.
//!
//! The rate is bytes per *busy* time (an answer flows, or should), so that a lane that is given little does not look
//! slow and one that hangs does. Two averages, fast and slow, of which the lower counts: quick to believe bad news, slow
//! to believe good news. The first windows take the maximum instead, since slow start makes them too low.

use crate::policy::{AttemptId, Micros, NodeIndex, NodeRecord, Prior};

/// A window of the rate (R5), and the shorter one of a lane that is not known yet.
const WINDOW: Micros = Micros::from_ms(250);
const FIRST_WINDOW: Micros = Micros::from_ms(80);
/// Windows that count as warming up.
const WARM_UP_WINDOWS: u32 = 3;
/// Half-lives of the two averages.
const FAST_SEC: f64 = 1.0;
const SLOW_SEC: f64 = 6.0;
/// What a node that nothing is known of is assumed to send: two segments' worth a round trip, at most 10 Mbit/s.
const COLD_BYTES_PER_ROUND_TRIP: f64 = 131_072.0;
const COLD_MAX_BYTES_PER_SEC: f64 = 1_250_000.0;
/// Never assumed slower, so that a plan is always finite.
const FLOOR_BYTES_PER_SEC: f64 = 2_000.0;
/// Before the first ping was answered.
const UNKNOWN_DELAY_SEC: f64 = 0.05;
/// The first back-off of a lane is twice this (R6: 0.5 s x 2^failures), and the longest.
const REST_UNIT: Micros = Micros::from_ms(500);
const REST_MAX: Micros = Micros::from_ms(20_000);
/// Bytes of a range double with each one that came, up to this many blocks (R2).
const RAMP_MAX_BLOCKS: u32 = 64;
/// A prior of this weight or more makes the first range this long.
const TRUSTED_PRIOR: f64 = 0.25;
const TRUSTED_RAMP_BLOCKS: u32 = 4;

#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) node: NodeIndex,
    /// Under way, oldest first.
    pub(super) flights: Vec<AttemptId>,
    /// Blocks that a range may have.
    pub(super) ramp: u32,
    pub(super) failures: u32,
    pub(super) rest_until: Micros,
    pub(super) failed_at: Micros,
    /// The last time the node was back that this lane knows of; and whether its rest ends with the next.
    back_at: Option<Micros>,
    rests_until_back: bool,
    pub(super) last_byte_at: Micros,
    /// When the last range ended, well or not.
    pub(super) last_end_at: Micros,
    fast: f64,
    slow: f64,
    /// The rate of the last full window.
    recent: f64,
    windows: u32,
    window_bytes: u64,
    window_busy: Micros,
    advanced_at: Micros,
    first_byte_sec: Option<f64>,
    /// What an earlier session measured of that, and how much it counts.
    remembered_first_byte: Option<(f64, f64)>,
    ping_sec: Option<f64>,
    cold: f64,
}

impl Lane {
    pub(super) fn new(now: Micros, node: NodeIndex, record: Option<&NodeRecord>) -> Self {
        let mut lane = Self {
            node,
            flights: Vec::new(),
            ramp: 1,
            failures: 0,
            rest_until: Micros(0),
            failed_at: Micros(0),
            back_at: record.and_then(NodeRecord::back_at),
            rests_until_back: false,
            last_byte_at: Micros(0),
            last_end_at: Micros(0),
            fast: 0.0,
            slow: 0.0,
            recent: 0.0,
            windows: 0,
            window_bytes: 0,
            window_busy: Micros(0),
            advanced_at: now,
            first_byte_sec: None,
            remembered_first_byte: None,
            ping_sec: None,
            cold: 0.0,
        };
        lane.learn(record);
        if let Some(prior) = record.and_then(|record| record.prior(now)) {
            let weight = prior.weight();
            lane.cold = lane.cold * (1.0 - weight) + prior.bytes_per_sec * weight;
            lane.remembered_first_byte = Some((prior.first_byte.0 as f64 / 1e6, weight));
            if weight >= TRUSTED_PRIOR {
                lane.ramp = TRUSTED_RAMP_BLOCKS;
            }
        }
        lane
    }

    /// Takes over what pings found.
    pub(super) fn learn(&mut self, record: Option<&NodeRecord>) {
        let ping_sec = record.and_then(NodeRecord::latency_ms).map(|ms| ms / 1_000.0);
        if self.ping_sec.is_none() && (ping_sec.is_some() || self.cold == 0.0) {
            let round_trip = ping_sec.unwrap_or(UNKNOWN_DELAY_SEC).max(0.02);
            self.cold = (COLD_BYTES_PER_ROUND_TRIP / round_trip).min(COLD_MAX_BYTES_PER_SEC);
        }
        self.ping_sec = ping_sec.or(self.ping_sec);
        let back_at = record.and_then(NodeRecord::back_at);
        if back_at != self.back_at {
            self.back_at = back_at;
            // The rest ends, but not what is thought of the node: the first range is one block. Who sent wrong bytes is not
            // better for answering.
            if self.rests_until_back && back_at.is_some_and(|at| at > self.failed_at) {
                self.rest_until = self.failed_at;
            }
        }
    }

    /// Bytes per second that a plan may count on.
    pub(super) fn rate(&self) -> f64 {
        let rate = if self.windows == 0 {
            self.cold
        } else {
            self.fast.min(self.slow)
        };
        rate.max(FLOOR_BYTES_PER_SEC)
    }

    /// Bytes per second just now; nothing before the first window.
    pub(super) fn live_rate(&self) -> f64 {
        if self.flights.is_empty() { 0.0 } else { self.recent }
    }

    /// The same for a plan of what is under way.
    pub(super) fn pessimistic_rate(&self) -> f64 {
        if self.recent > 0.0 {
            self.rate().min(self.recent).max(FLOOR_BYTES_PER_SEC)
        } else {
            self.rate()
        }
    }

    /// From a new request to its first byte, seconds: a lane that has brought nothing yet connects first, and a node that
    /// was slow to answer before (its disk, not its path) is expected to be so again.
    pub(super) fn setup_sec(&self) -> f64 {
        if self.windows == 0 && self.first_byte_sec.is_none() {
            self.round_trip_sec() + self.delay_sec().max(self.round_trip_sec())
        } else {
            self.round_trip_sec()
        }
    }

    pub(super) const fn is_measured(&self) -> bool {
        self.windows > 0
    }

    /// From a request to its first byte, seconds.
    pub(super) fn delay_sec(&self) -> f64 {
        self.first_byte_sec.unwrap_or_else(|| {
            let ping_sec = self.ping_sec.unwrap_or(UNKNOWN_DELAY_SEC);
            let (remembered, weight) = self.remembered_first_byte.unwrap_or((0.0, 0.0));
            ping_sec * (1.0 - weight) + remembered * weight
        })
    }

    /// One round trip, seconds: the ping's if there is one.
    pub(super) fn round_trip_sec(&self) -> f64 {
        self.ping_sec.unwrap_or_else(|| self.delay_sec())
    }

    /// Time passes; bytes flow since `busy_from`, or should.
    pub(super) fn advance(&mut self, now: Micros, busy_from: Option<Micros>) {
        if let Some(from) = busy_from {
            self.window_busy = self.window_busy + (now - self.advanced_at.max(from));
        }
        self.advanced_at = now;
        let window = if self.windows < WARM_UP_WINDOWS {
            FIRST_WINDOW
        } else {
            WINDOW
        };
        if self.window_busy >= window {
            self.close_window();
        }
    }

    fn close_window(&mut self) {
        let seconds = self.window_busy.0 as f64 / 1e6;
        let rate = self.window_bytes as f64 / seconds;
        self.recent = rate;
        if self.windows < WARM_UP_WINDOWS {
            self.fast = self.fast.max(rate);
            self.slow = self.fast;
            self.windows += 1;
        } else {
            self.fast += (1.0 - 0.5_f64.powf(seconds / FAST_SEC)) * (rate - self.fast);
            self.slow += (1.0 - 0.5_f64.powf(seconds / SLOW_SEC)) * (rate - self.slow);
        }
        self.window_bytes = 0;
        self.window_busy = Micros(0);
    }

    pub(super) fn received(&mut self, now: Micros, bytes: u64) {
        self.window_bytes += bytes;
        self.last_byte_at = now;
    }

    /// An answer began so long after its request. The first of all had to connect before, which takes a round trip.
    pub(super) fn first_byte(&mut self, delay: Micros) {
        let delay = delay.0 as f64 / 1e6;
        let sample = match self.ping_sec {
            Some(ping_sec) if self.first_byte_sec.is_none() => (delay - ping_sec).max(ping_sec.min(delay)),
            _ => delay,
        };
        self.first_byte_sec = Some(match self.first_byte_sec {
            None => sample,
            Some(mean) => 0.7 * mean + 0.3 * sample,
        });
    }

    /// A range came whole.
    pub(super) fn delivered(&mut self, now: Micros) {
        self.failures = 0;
        self.rest_until = Micros(0);
        self.ramp = (self.ramp * 2).min(RAMP_MAX_BLOCKS);
        self.last_end_at = now;
    }

    /// It failed, by so many steps of the back-off (R6: one; R9, wrong bytes: three).
    pub(super) fn failed(&mut self, now: Micros, steps: u32) {
        self.failed_at = now;
        self.last_end_at = now;
        self.ramp = 1;
        // Ranges that were under way together fail together.
        if self.rest_until <= now {
            self.failures = (self.failures + steps).min(16);
            self.rests_until_back = steps == 1;
            self.rest_until = now + Micros(REST_UNIT.0 << self.failures.min(6)).min(REST_MAX);
        }
    }

    /// It sent a chunk wrong: another one is asked for with care.
    pub(super) const fn doubted(&mut self, now: Micros) {
        self.last_end_at = now;
        self.ramp = 1;
    }

    /// Too slow for its plan (R7): what it did last is believed at once, and it starts small again.
    pub(super) fn overdue(&mut self, now: Micros, live: f64) {
        self.fast = self.fast.min(live);
        self.slow = self.slow.min(1.5 * live);
        self.ramp = 1;
        self.last_end_at = now;
        self.rest_until = self.rest_until.max(now + Micros::from_ms(100));
    }

    /// For the next session.
    pub(super) fn prior(&self) -> Option<Prior> {
        (self.windows >= WARM_UP_WINDOWS).then(|| Prior {
            bytes_per_sec: self.rate(),
            first_byte: seconds(self.delay_sec()),
            age: Micros(0),
        })
    }
}

/// As a length of time; nothing below zero, and never longer than an hour.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..3.6e9 in the line itself"
)]
pub(super) fn seconds(seconds: f64) -> Micros {
    Micros((seconds * 1e6).clamp(0.0, 3.6e9) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(rates: &[u64]) -> Lane {
        let mut lane = Lane::new(Micros(0), NodeIndex(0), None);
        let mut now = Micros(0);
        for rate in rates {
            lane.received(now, rate / 4);
            now = now + WINDOW;
            lane.advance(now, Some(Micros(0)));
        }
        lane
    }

    #[test]
    fn bad_news_is_believed_within_seconds_and_good_news_later() {
        let fallen = fed(&[1_000_000, 1_000_000, 1_000_000, 10_000, 10_000, 10_000, 10_000]).rate();
        assert!(fallen < 510_000.0, "{fallen}");
        let risen = fed(&[10_000, 10_000, 10_000, 1_000_000, 1_000_000, 1_000_000, 1_000_000]).rate();
        assert!(risen < 150_000.0, "{risen}");
    }

    #[test]
    fn the_first_windows_count_by_the_best_of_them() {
        assert_eq!(fed(&[100_000, 900_000, 300_000]).rate(), 900_000.0);
    }

    #[test]
    fn time_without_a_request_says_nothing_and_silence_says_a_lot() {
        let mut lane = fed(&[1_000_000; 4]);
        lane.advance(Micros::from_ms(60_000), None);
        assert_eq!(lane.rate(), 1_000_000.0);
        lane.advance(Micros::from_ms(62_000), Some(Micros(0)));
        assert!(lane.rate() < 300_000.0, "{}", lane.rate());
    }

    #[test]
    fn rests_double_up_to_twenty_seconds_and_end_with_a_delivery() {
        let mut lane = fed(&[]);
        let mut now = Micros(1);
        for expected_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000] {
            lane.failed(now, 1);
            lane.failed(now, 1); // the other one that was under way
            assert_eq!(lane.rest_until - now, Micros::from_ms(expected_ms));
            now = lane.rest_until;
        }
        lane.delivered(now);
        assert_eq!((lane.failures, lane.ramp), (0, 2));
    }

    #[test]
    fn a_rest_ends_when_a_node_that_did_not_answer_does_and_begins_anew_when_it_fails_again() {
        let at = |ms| Micros::from_ms(ms);
        let mut lane = fed(&[]);
        let mut record = NodeRecord::default();
        record.ping_answered(at(900), at(10));
        lane.failed(at(1_000), 1);
        lane.learn(Some(&record));
        assert_eq!(lane.rest_until, at(2_000));
        record.ping_unanswered(at(1_200));
        record.ping_answered(at(1_500), at(10));
        lane.learn(Some(&record));
        assert!(lane.rest_until < at(1_500));
        assert_eq!((lane.failures, lane.ramp), (1, 1), "it is tried with care");
        lane.failed(at(1_600), 1);
        lane.learn(Some(&record));
        assert_eq!(lane.rest_until, at(3_600));
        // Wrong bytes are another matter.
        lane.failed(at(4_000), 3);
        record.ping_unanswered(at(4_100));
        record.ping_answered(at(4_200), at(10));
        lane.learn(Some(&record));
        assert_eq!(lane.rest_until, at(20_000));
    }

    #[test]
    fn a_node_that_was_slow_to_answer_before_is_expected_to_be_so_as_long_as_that_is_fresh() {
        let setup_at = |first_byte_ms, age_ms| {
            let mut record = NodeRecord::default();
            record.ping_answered(Micros(0), Micros::from_ms(20));
            let prior = Prior {
                bytes_per_sec: 4_000_000.0,
                first_byte: Micros::from_ms(first_byte_ms),
                age: Micros::from_ms(age_ms),
            };
            record.remember(Micros(0), prior);
            (Lane::new(Micros(0), NodeIndex(0), Some(&record)).setup_sec() * 1_000.0).round()
        };
        assert_eq!(setup_at(400, 0), 420.0);
        assert_eq!(setup_at(400, 600_000), 230.0);
        assert_eq!(setup_at(400, 36_000_000), 40.0);
        // Connecting and asking take a round trip each, whatever is remembered.
        assert_eq!(setup_at(1, 0), 40.0);
    }

    #[test]
    fn what_an_earlier_session_learned_counts_by_its_age() {
        let rate_at = |age_ms| {
            let mut record = NodeRecord::default();
            let prior = Prior {
                bytes_per_sec: 4_000_000.0,
                first_byte: Micros::from_ms(20),
                age: Micros::from_ms(age_ms),
            };
            record.remember(Micros(0), prior);
            Lane::new(Micros(0), NodeIndex(0), Some(&record)).rate()
        };
        assert_eq!(rate_at(0), 4_000_000.0);
        assert_eq!(rate_at(600_000), (4_000_000.0 + COLD_MAX_BYTES_PER_SEC) / 2.0);
        assert!(rate_at(36_000_000) < COLD_MAX_BYTES_PER_SEC * 1.01);
    }
}
