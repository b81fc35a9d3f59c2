//! How long a transfer will take, learned while transfers end: from its size, its node, the hour and the load.
//!
//! Per node, the logarithm of the time is a weighted sum of a few things that are known when a request goes out; the
//! weights follow by recursive least squares with slow forgetting, and what is left over drifts with the last few
//! transfers (a node that has just become slow is believed to stay so). Two forms: one knows only these things, the other
//! also what the pool's two moving averages expect, and learns to correct them.
//!
//! Pure and deterministic; no lot is drawn; a few hundred bytes a node, some hundred multiplications a transfer. Whether it is worth having
//! is measured in `docs/evaluation/predictor.md`. Left out: transfers that were given up, whose time nobody knows.

use std::collections::BTreeMap;

use vstack_client::policy::{Micros, NodeIndex};

const FEATURES: usize = 6;

/// Weights forget what is so many transfers old to a third. Guess: some sessions, so that hours can be told apart.
const MEMORY_TRANSFERS: f64 = 1_000.0;
/// How much of what was left over of the last transfer is believed of the next.
const DRIFT_SHARE: f64 = 0.3;
/// What is left over is half forgotten after this time.
const DRIFT_HALF_LIFE_SEC: f64 = 60.0;
/// How uncertain the first weights are.
const FIRST_VARIANCE: f64 = 1.0;
/// A transfer without other knowledge: 1 MB/s. (cold lanes of the pool begin at about this rate)
const UNKNOWN_BYTES_PER_SEC: f64 = 1e6;
/// No single transfer moves the weights as if it had missed by more than this factor.
const WORST_MISS: f64 = 8.0;

/// What is known when a request goes out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outlook {
    pub(super) node: NodeIndex,
    /// Of the request, and of those before it at the node.
    pub(super) bytes: u64,
    /// 0 to 24, of the day.
    pub(super) hour: f64,
    /// Requests that the node is answering, as far as is known.
    pub(super) load: u32,
    /// What the pool's moving averages expect.
    pub(super) averages: Option<Micros>,
}

/// From what a predictor predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// From size, node, hour and load alone.
    Alone,
    /// By correcting what the moving averages expect.
    Correcting,
}

/// All nodes.
#[derive(Debug, Clone)]
pub(super) struct Predictor {
    form: Form,
    nodes: BTreeMap<NodeIndex, Weights>,
}

#[derive(Debug, Clone)]
struct Weights {
    weights: [f64; FEATURES],
    variance: [[f64; FEATURES]; FEATURES],
    drift: f64,
    drift_at: Micros,
}

impl Predictor {
    pub(super) const fn new(form: Form) -> Self {
        Self {
            form,
            nodes: BTreeMap::new(),
        }
    }

    /// How long it will take, from the request to its last byte; seconds.
    pub(super) fn expected_sec(&self, now: Micros, outlook: &Outlook) -> f64 {
        let features = self.features(outlook);
        let known = self.nodes.get(&outlook.node);
        let log = known.map_or_else(
            || dot(&self.first_weights(outlook), &features),
            |node| dot(&node.weights, &features) + node.drift_at(now),
        );
        log.clamp(-9.0, 9.0).exp()
    }

    /// It has taken `took_sec`.
    pub(super) fn learn(&mut self, now: Micros, outlook: &Outlook, took_sec: f64) {
        let features = self.features(outlook);
        let first = self.first_weights(outlook);
        let node = self
            .nodes
            .entry(outlook.node)
            .or_insert_with(|| Weights::new(first));
        let worst = WORST_MISS.ln();
        let missed = took_sec.max(1e-6).ln() - dot(&node.weights, &features);
        node.update(&features, missed.clamp(-worst, worst));
        let left = missed.clamp(-worst, worst);
        node.drift = (1.0 - DRIFT_SHARE) * node.drift_at(now) + DRIFT_SHARE * left;
        node.drift_at = now;
    }

    fn features(&self, outlook: &Outlook) -> [f64; FEATURES] {
        let turn = outlook.hour / 24.0 * std::f64::consts::TAU;
        let averages = match self.form {
            Form::Alone => 0.0,
            Form::Correcting => outlook.averages.map_or(0.0, |time| log_sec(time.0 as f64 / 1e6)),
        };
        // Sizes about 0, or the weights of size and node would lean on each other.
        let size = (outlook.bytes.max(1) as f64 / 262_144.0).ln();
        [
            1.0,
            size,
            f64::from(outlook.load).ln_1p(),
            turn.sin(),
            turn.cos(),
            averages,
        ]
    }

    fn first_weights(&self, outlook: &Outlook) -> [f64; FEATURES] {
        match (self.form, outlook.averages) {
            (Form::Correcting, Some(_)) => [0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
            _ => [(262_144.0 / UNKNOWN_BYTES_PER_SEC).ln(), 1.0, 0.0, 0.0, 0.0, 0.0],
        }
    }
}

impl Weights {
    fn new(weights: [f64; FEATURES]) -> Self {
        let mut variance = [[0.0; FEATURES]; FEATURES];
        for (index, row) in variance.iter_mut().enumerate() {
            row[index] = FIRST_VARIANCE;
        }
        Self {
            weights,
            variance,
            drift: 0.0,
            drift_at: Micros(0),
        }
    }

    fn drift_at(&self, now: Micros) -> f64 {
        let age_sec = (now - self.drift_at).0 as f64 / 1e6;
        self.drift * 0.5_f64.powf(age_sec / DRIFT_HALF_LIFE_SEC)
    }

    /// One step of recursive least squares (Haykin, Adaptive Filter Theory, chapter on RLS).
    fn update(&mut self, features: &[f64; FEATURES], missed: f64) {
        // What is never excited is not forgotten either, or its variance would grow for ever.
        let total: f64 = (0..FEATURES).map(|index| self.variance[index][index]).sum();
        let keep = if total < FEATURES as f64 * FIRST_VARIANCE {
            1.0 - 1.0 / MEMORY_TRANSFERS
        } else {
            1.0
        };
        let spread: [f64; FEATURES] = std::array::from_fn(|row| dot(&self.variance[row], features));
        let scale = keep + dot(&spread, features);
        for row in 0..FEATURES {
            self.weights[row] += spread[row] / scale * missed;
            for column in 0..FEATURES {
                let gone = spread[row] * spread[column] / scale;
                self.variance[row][column] = (self.variance[row][column] - gone) / keep;
            }
        }
    }
}

fn log_sec(seconds: f64) -> f64 {
    seconds.max(1e-6).ln()
}

fn dot(a: &[f64; FEATURES], b: &[f64; FEATURES]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    fn outlook(node: u16, bytes: u64, hour: f64) -> Outlook {
        Outlook {
            node: NodeIndex(node),
            bytes,
            hour,
            load: 1,
            averages: None,
        }
    }

    /// 10 ms and 8 Mbit/s; at night, four times as quick.
    fn took(bytes: u64, hour: f64) -> f64 {
        0.01 + bytes as f64 / if hour < 6.0 { 4e6 } else { 1e6 }
    }

    #[test]
    fn sizes_nodes_and_hours_are_told_apart() {
        let mut predictor = Predictor::new(Form::Alone);
        for turn in 0_u32..600 {
            let hour = f64::from(turn % 24);
            let bytes = 65_536 << (turn % 5);
            let now = Micros::from_ms(u64::from(turn) * 3_600_000);
            predictor.learn(now, &outlook(0, bytes, hour), took(bytes, hour));
            predictor.learn(now, &outlook(1, bytes, hour), 10.0 * took(bytes, 12.0));
        }
        let now = Micros::from_ms(700 * 3_600_000);
        for (hour, bytes) in [(3.0, 100_000), (15.0, 900_000)] {
            let expected = predictor.expected_sec(now, &outlook(0, bytes, hour));
            let ratio = expected / took(bytes, hour);
            assert!((0.6..1.6).contains(&ratio), "{hour} h, {bytes} bytes: {ratio}");
        }
        let slow = predictor.expected_sec(now, &outlook(1, 500_000, 15.0)) / took(500_000, 15.0);
        assert!((8.0..12.0).contains(&slow), "{slow}");
    }

    #[test]
    fn the_correcting_form_begins_where_the_averages_are() {
        let predictor = Predictor::new(Form::Correcting);
        let known = Outlook {
            averages: Some(Micros(123_456)),
            ..outlook(0, 1, 0.0)
        };
        assert!((predictor.expected_sec(Micros(0), &known) - 0.123_456).abs() < 1e-9);
    }

    #[test]
    fn whatever_it_learns_an_expectation_is_a_time() {
        let mut random = StdRng::seed_from_u64(1);
        for form in [Form::Alone, Form::Correcting] {
            let mut predictor = Predictor::new(form);
            let mut now = Micros(0);
            for _ in 0..20_000 {
                let averages = Micros(random.random_range(0..1 << 40));
                let outlook = Outlook {
                    node: NodeIndex(random.random_range(0..3)),
                    bytes: random.random_range(0..1 << 40),
                    hour: random.random_range(0.0..24.0),
                    load: random.random_range(0..1_000),
                    averages: Some(averages),
                };
                let expected = predictor.expected_sec(now, &outlook);
                assert!(expected.is_finite() && expected > 0.0);
                predictor.learn(now, &outlook, random.random_range(0.0..1e7));
                now = now + averages;
            }
        }
    }
}
