//! Predictors over the same transfers: how far each was off.

use std::collections::BTreeMap;

use super::learned::{Form, Outlook, Predictor};
use super::transfers::{Moment, Transfers};

/// Who predicts.
pub(super) const CONTESTANTS: [&str; 3] = ["two averages", "learned alone", "learned correction"];

/// How far one contestant was off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Errors {
    /// Of the absolute errors, milliseconds.
    pub(super) median_ms: f64,
    pub(super) p90_ms: f64,
    /// Median of the factor by which it was off, as a percentage: 0 is exact.
    pub(super) median_percent: f64,
    /// Mean of the pinball loss at the median, milliseconds: half the mean absolute error.
    pub(super) pinball_ms: f64,
}

/// One scenario, all contestants.
#[derive(Debug, Clone)]
pub(super) struct Comparison {
    pub(super) source: &'static str,
    pub(super) scenario: String,
    pub(super) transfers: usize,
    pub(super) given_up: usize,
    pub(super) errors: [Errors; 3],
}

/// Predicted and real seconds.
type Pairs = Vec<(f64, f64)>;

/// Sessions one after another: what is learned in one is known in the next, as a file would keep it.
pub(super) fn over(source: &'static str, scenario: String, sessions: &[Transfers]) -> Comparison {
    let mut predictors = [Predictor::new(Form::Alone), Predictor::new(Form::Correcting)];
    let mut pairs: [Pairs; 3] = Default::default();
    for session in sessions {
        play(session, &mut predictors, &mut pairs);
    }
    Comparison {
        source,
        scenario,
        transfers: pairs[0].len(),
        given_up: sessions.iter().map(|session| session.given_up).sum(),
        errors: pairs.map(|pairs| Errors::of(&pairs)),
    }
}

fn play(session: &Transfers, predictors: &mut [Predictor; 2], pairs: &mut [Pairs; 3]) {
    let mut asked: BTreeMap<usize, (Outlook, [f64; 3])> = BTreeMap::new();
    for (now, moment) in &session.moments {
        match moment {
            Moment::Asked { transfer, outlook } => {
                let Some(averages) = outlook.averages else {
                    continue;
                };
                let [alone, correcting] = &*predictors;
                let expected = [
                    averages.0 as f64 / 1e6,
                    alone.expected_sec(*now, outlook),
                    correcting.expected_sec(*now, outlook),
                ];
                asked.insert(*transfer, (*outlook, expected));
            }
            Moment::Came { transfer, took_sec } => {
                let Some((outlook, expected)) = asked.remove(transfer) else {
                    continue;
                };
                for (pairs, expected) in pairs.iter_mut().zip(expected) {
                    pairs.push((expected, *took_sec));
                }
                for predictor in &mut *predictors {
                    predictor.learn(*now, &outlook, *took_sec);
                }
            }
        }
    }
}

impl Errors {
    fn of(pairs: &[(f64, f64)]) -> Self {
        let error_ms = |(expected, real): &(f64, f64)| (expected - real).abs() * 1e3;
        let factor = |(expected, real): &(f64, f64)| {
            let log = (expected.max(1e-6) / real.max(1e-6)).ln().abs();
            (log.exp() - 1.0) * 100.0
        };
        let errors: Vec<f64> = pairs.iter().map(error_ms).collect();
        let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
        Self {
            median_ms: quantile(errors.clone(), 0.5),
            p90_ms: quantile(errors, 0.9),
            median_percent: quantile(pairs.iter().map(factor).collect(), 0.5),
            pinball_ms: mean / 2.0,
        }
    }
}

fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let place = share * last as f64;
    let found = (0..).zip(&values).find(|(index, _)| f64::from(*index) >= place);
    found.map_or(0.0, |(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_hand() {
        let errors = Errors::of(&[(1.0, 2.0), (1.0, 1.0), (4.0, 2.0)]);
        assert_eq!((errors.median_ms, errors.p90_ms), (1_000.0, 2_000.0));
        assert!((errors.median_percent - 100.0).abs() < 1e-9);
        assert!((errors.pinball_ms - 500.0).abs() < 1e-9);
        assert_eq!(Errors::of(&[]).median_ms, 0.0);
    }
}
