//! What a client knows about each node: the windows, the score, and the back-off after failures.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::trace::exact;
use super::{Failure, Micros, NodeIndex};

/// Pings that the latency is averaged over (base policy).
pub const LATENCY_WINDOW: usize = 10;
/// Downloads that the bandwidth is averaged over (base policy).
pub const BANDWIDTH_WINDOW: usize = 10;
/// Requests, pings and downloads, that the success rate is counted over (base policy).
pub const SUCCESS_WINDOW: usize = 20;
/// Bandwidth of a node that has delivered nothing yet (base policy).
pub const UNKNOWN_BANDWIDTH_MBPS: f64 = 50.0;
/// How much one millisecond of latency weighs in the score (base policy).
const LATENCY_WEIGHT_PER_MS: f64 = 0.1;
/// The first back-off after a failure (base policy); it doubles with every further failure in a row.
pub const BACKOFF_FIRST: Micros = Micros::from_ms(1_000);
/// A node is tried again at the latest after this time: as long as a player's breaker may stay open.
pub const BACKOFF_MAX: Micros = Micros::from_ms(10_000);

/// A node that sends so many chunks wrong, one after another, is left alone; before that only those chunks are. The same
/// number within ten minutes makes the catalogue quarantine it.
pub const WRONG_CHUNKS_BEFORE_REST: u32 = 3;

/// When every replica of a chunk is backed off, the one that failed longest ago is asked again after this time: an
/// outage of the client's own network must not cost more than that once it is over.
pub const LAST_RESORT_AFTER: Micros = Micros::from_ms(2_000);

/// The back-off after the `count`th failure in a row, counted from 1: from 1 s, doubling, up to `max`.
#[must_use]
pub fn backoff(count: u32, max: Micros) -> Micros {
    let doublings = count.saturating_sub(1).min(16);
    Micros(BACKOFF_FIRST.0 << doublings).min(max)
}

/// An answer that takes so long, and so many times as long as usual, is that of a node that hung.
const HUNG_FOR: Micros = Micros::from_ms(700);
const UNUSUAL_FACTOR: f64 = 4.0;

/// How long a transfer rate remembered from an earlier session keeps half its weight (R5 of the pool).
const PRIOR_HALF_LIFE_SEC: f64 = 600.0;

/// What a node says of itself in the answer to a ping.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeLoad {
    pub requests_in_flight: u32,
    pub egress_bits_per_sec: u64,
}

/// How a node served this client before: kept between sessions, and in a file between runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Prior {
    #[serde(with = "exact")]
    pub bytes_per_sec: f64,
    /// From the request to the first byte.
    pub first_byte: Micros,
    /// Since it was measured.
    pub age: Micros,
}

impl Prior {
    /// 1 for what was measured now, 0.5 after ten minutes, and so on.
    #[must_use]
    pub fn weight(&self) -> f64 {
        0.5_f64.powf(self.age.0 as f64 / 1e6 / PRIOR_HALF_LIFE_SEC)
    }
}

/// One node's measurements.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    #[serde(with = "exact::list")]
    latencies_ms: VecDeque<f64>,
    #[serde(with = "exact::list")]
    bandwidths_mbps: VecDeque<f64>,
    successes: VecDeque<bool>,
    failures_in_row: u32,
    /// Chunks that it sent wrong since it last delivered one.
    #[serde(default)]
    wrong_in_row: u32,
    backed_off_until: Micros,
    failed_at: Micros,
    unanswered: bool,
    /// The last answer to a ping that came after none, or after the node had hung.
    #[serde(default)]
    back_at: Option<Micros>,
    last_updated: Option<Micros>,
    load: Option<NodeLoad>,
    prior: Option<(Micros, Prior)>,
}

impl NodeRecord {
    pub fn ping_answered(&mut self, now: Micros, latency: Micros) {
        let latency_ms = latency.0 as f64 / 1_000.0;
        let is_usual = self
            .latency_ms()
            .is_none_or(|mean| latency_ms < UNUSUAL_FACTOR * mean);
        // A ping that waited so long found a node that hung, and no longer does.
        let hung = latency >= HUNG_FOR && !is_usual;
        push(&mut self.latencies_ms, LATENCY_WINDOW, latency_ms);
        push(&mut self.successes, SUCCESS_WINDOW, true);
        if std::mem::take(&mut self.unanswered) || hung {
            self.back_at = Some(now);
        }
        self.last_updated = Some(now);
    }

    pub fn ping_unanswered(&mut self, now: Micros) {
        push(&mut self.successes, SUCCESS_WINDOW, false);
        self.unanswered = true;
        self.last_updated = Some(now);
    }

    /// The answer to a ping said so.
    pub const fn loaded(&mut self, load: NodeLoad) {
        self.load = Some(load);
    }

    /// As the last ping found it; `None` for a node that does not say.
    #[must_use]
    pub const fn load(&self) -> Option<NodeLoad> {
        self.load
    }

    /// How the node serves, as a session measured it or as a file remembers it.
    pub const fn remember(&mut self, now: Micros, prior: Prior) {
        self.prior = Some((now, prior));
    }

    /// The same as of `now`.
    #[must_use]
    pub fn prior(&self, now: Micros) -> Option<Prior> {
        let (noted, prior) = self.prior?;
        Some(Prior {
            age: prior.age + (now - noted),
            ..prior
        })
    }

    /// A download of `bytes` bytes, verified, took `elapsed` from the request to the last byte.
    pub fn delivered(&mut self, now: Micros, bytes: u64, elapsed: Micros) {
        let bits_per_micro = bytes as f64 * 8.0 / elapsed.0.max(1) as f64;
        push(&mut self.bandwidths_mbps, BANDWIDTH_WINDOW, bits_per_micro);
        push(&mut self.successes, SUCCESS_WINDOW, true);
        (self.failures_in_row, self.wrong_in_row) = (0, 0);
        self.backed_off_until = Micros(0);
        self.unanswered = false;
        self.last_updated = Some(now);
    }

    /// One wrong chunk says nothing of the others: the node is backed off for that only when several follow each other.
    /// Callers tell of each chunk once.
    pub fn failed(&mut self, now: Micros, failure: &Failure) {
        self.last_updated = Some(now);
        if !failure.blames_node() {
            return;
        }
        push(&mut self.successes, SUCCESS_WINDOW, false);
        if failure.doubts_bytes() {
            self.wrong_in_row = self.wrong_in_row.saturating_add(1);
            if !self.is_distrusted() {
                return;
            }
        }
        self.failed_at = now;
        // Requests that were under way together fail together; that is one failure of the node, not several.
        if !self.is_backed_off(now) {
            self.failures_in_row = self.failures_in_row.saturating_add(1);
            self.backed_off_until = now + backoff(self.failures_in_row, BACKOFF_MAX);
        }
    }

    /// What it sent just now is right, as one of several that an attempt needed.
    pub const fn sent_right(&mut self) {
        self.wrong_in_row = 0;
    }

    /// `bandwidth_mbps x success_rate / (1 + latency_ms x 0.1)`; 0 while no ping was answered.
    #[must_use]
    pub fn score(&self) -> f64 {
        match self.latency_ms() {
            None => 0.0,
            Some(latency_ms) => {
                let bandwidth = self.bandwidth_mbps().unwrap_or(UNKNOWN_BANDWIDTH_MBPS);
                bandwidth * self.success_rate() / (1.0 + latency_ms * LATENCY_WEIGHT_PER_MS)
            }
        }
    }

    /// Mean of the window; `None` before the first answered ping.
    #[must_use]
    pub fn latency_ms(&self) -> Option<f64> {
        mean(&self.latencies_ms)
    }

    /// Mean of the window; `None` before the first download.
    #[must_use]
    pub fn bandwidth_mbps(&self) -> Option<f64> {
        mean(&self.bandwidths_mbps)
    }

    /// 0 to 1; 1 before the first request.
    #[must_use]
    pub fn success_rate(&self) -> f64 {
        if self.successes.is_empty() {
            return 1.0;
        }
        self.successes.iter().filter(|success| **success).count() as f64 / self.successes.len() as f64
    }

    /// It has sent several chunks wrong and none right since.
    #[must_use]
    pub const fn is_distrusted(&self) -> bool {
        self.wrong_in_row >= WRONG_CHUNKS_BEFORE_REST
    }

    #[must_use]
    pub fn is_backed_off(&self, now: Micros) -> bool {
        now < self.backed_off_until
    }

    #[must_use]
    pub const fn backed_off_until(&self) -> Micros {
        self.backed_off_until
    }

    /// When it may be asked although it is backed off, since there is no other.
    #[must_use]
    pub fn last_resort_at(&self) -> Micros {
        self.backed_off_until.min(self.failed_at + LAST_RESORT_AFTER)
    }

    /// The last ping got no answer, and no download since did.
    #[must_use]
    pub const fn is_unanswered(&self) -> bool {
        self.unanswered
    }

    /// When it was last heard of again after it had not answered, or had hung; whether it also serves is to be seen.
    #[must_use]
    pub const fn back_at(&self) -> Option<Micros> {
        self.back_at
    }

    #[must_use]
    pub const fn last_updated(&self) -> Option<Micros> {
        self.last_updated
    }

    /// Oldest first.
    pub fn latencies_ms(&self) -> impl Iterator<Item = f64> + '_ {
        self.latencies_ms.iter().copied()
    }

    /// Oldest first.
    pub fn bandwidths_mbps(&self) -> impl Iterator<Item = f64> + '_ {
        self.bandwidths_mbps.iter().copied()
    }

    /// Oldest first.
    pub fn successes(&self) -> impl Iterator<Item = bool> + '_ {
        self.successes.iter().copied()
    }
}

fn push<T>(window: &mut VecDeque<T>, length: usize, sample: T) {
    if window.len() == length {
        window.pop_front();
    }
    window.push_back(sample);
}

fn mean(window: &VecDeque<f64>) -> Option<f64> {
    if window.is_empty() {
        None
    } else {
        Some(window.iter().sum::<f64>() / window.len() as f64)
    }
}

/// The records of all nodes that a client has heard of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeRecords {
    records: BTreeMap<NodeIndex, NodeRecord>,
}

impl NodeRecords {
    /// The record of `node`; an empty one for a node that nothing was heard of.
    pub fn record_mut(&mut self, node: NodeIndex) -> &mut NodeRecord {
        self.records.entry(node).or_default()
    }

    #[must_use]
    pub fn record(&self, node: NodeIndex) -> Option<&NodeRecord> {
        self.records.get(&node)
    }

    /// Those that are not as they are in `before`.
    pub fn changed_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (NodeIndex, &'a NodeRecord)> + 'a {
        let changed = self
            .records
            .iter()
            .filter(|(node, record)| before.record(**node) != Some(record));
        changed.map(|(node, record)| (*node, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros(5_000_000);

    fn pinged(latency_ms: u64) -> NodeRecord {
        let mut record = NodeRecord::default();
        record.ping_answered(NOW, Micros::from_ms(latency_ms));
        record
    }

    #[test]
    fn a_node_without_latency_scores_nothing_and_one_without_bandwidth_counts_as_fifty() {
        let mut record = NodeRecord::default();
        record.delivered(NOW, 1_000_000, Micros::from_ms(1_000));
        assert_eq!(record.score(), 0.0);
        assert_eq!(pinged(10).score(), 25.0);
    }

    #[test]
    fn the_score_is_bandwidth_times_success_over_weighted_latency() {
        let mut record = pinged(40);
        record.delivered(NOW, 2_000_000, Micros::from_ms(800)); // 20 Mbit/s
        assert!((record.score() - 20.0 / 5.0).abs() < 1e-9);
        record.ping_unanswered(NOW);
        record.ping_unanswered(NOW); // two of four
        assert!((record.score() - 20.0 * 0.5 / 5.0).abs() < 1e-9);
    }

    #[test]
    fn a_node_is_back_with_the_first_answer_after_none_or_after_a_long_one() {
        let at = |ms| Micros::from_ms(ms);
        let mut record = pinged(10);
        record.ping_answered(at(6_000), at(500));
        assert_eq!(record.back_at(), None);
        record.ping_unanswered(at(9_000));
        record.ping_answered(at(12_000), at(10));
        record.ping_answered(at(15_000), at(10));
        assert_eq!(record.back_at(), Some(at(12_000)));
        record.ping_answered(at(22_000), at(4_000));
        assert_eq!(record.back_at(), Some(at(22_000)));
        record.ping_answered(at(25_000), at(2_000));
        assert_eq!(record.back_at(), Some(at(22_000)), "that is how it answers now");
    }

    #[test]
    fn the_windows_forget_what_is_older_than_ten_and_twenty() {
        let mut record = NodeRecord::default();
        for latency in 0..25 {
            record.ping_answered(NOW, Micros::from_ms(latency));
        }
        assert_eq!(
            record.latencies_ms().collect::<Vec<_>>(),
            (15..25).map(f64::from).collect::<Vec<_>>()
        );
        assert_eq!(record.successes().count(), SUCCESS_WINDOW);
        for megabits in 1..=11 {
            record.delivered(NOW, megabits * 125_000, Micros::from_ms(1_000));
        }
        assert_eq!(record.bandwidth_mbps(), Some(6.5));
    }

    #[test]
    fn the_back_off_doubles_with_failures_in_a_row_and_ends_with_a_delivery() {
        let mut record = pinged(1);
        let mut now = NOW;
        for expected_ms in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
            record.failed(now, &Failure::Connect);
            record.failed(now, &Failure::Connect); // a second request that failed in the same moment
            assert_eq!(record.backed_off_until() - now, Micros::from_ms(expected_ms));
            now = record.backed_off_until();
            assert!(!record.is_backed_off(now));
        }
        record.delivered(now, 1, Micros(1));
        record.failed(now, &Failure::Connect);
        assert_eq!(record.backed_off_until() - now, BACKOFF_FIRST);
    }

    #[test]
    fn a_node_is_left_alone_for_wrong_chunks_only_when_they_follow_each_other() {
        let mut record = pinged(1);
        let wrong = |record: &mut NodeRecord, times: usize| {
            (0..times).for_each(|_| record.failed(NOW, &Failure::WrongBytes));
            record.is_backed_off(NOW)
        };
        assert!(!wrong(&mut record, 2));
        record.delivered(NOW, 1, Micros(1));
        assert!(!wrong(&mut record, 2), "one was right in between");
        assert!(wrong(&mut record, 1));
        assert!(
            record.success_rate() < 0.5,
            "it counts in the score from the first"
        );
    }

    #[test]
    fn a_missing_chunk_is_not_held_against_the_node() {
        let mut record = pinged(1);
        record.failed(NOW, &Failure::NotFound);
        assert!(!record.is_backed_off(NOW));
        assert_eq!(record.success_rate(), 1.0);
    }
}
