//! The least time that physics allow: a fluid that knows the future.
//!
//! Every line is full from the end of its first round trip on, nothing is fetched twice, and no byte is asked of a line
//! that stands still, is gone or lies. Copies come from the lines that have them, whichever lines they are: by Hall's
//! theorem everything can be here when no set of lines alone has more chunks than it could have brought. TCP's slow start
//! is left out: an emulated path is loopback, and a shaped one has no delay. So nothing can be faster, and 1.00 cannot be
//! reached.

use serde::Serialize;
use vstack_client::policy::PoolConfig;

use super::CHUNK_MS;
use super::scenario::Scenario;

/// The steps in which it is summed up.
const STEP_S: f64 = 0.001;
/// Nothing here takes longer.
const HORIZON_S: f64 = 2_000.0;

/// When so much can be there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Bound {
    /// What the pool starts playing from, if enough flows for that; else it waits for the whole chunk.
    pub(super) prefix_s: f64,
    pub(super) first_chunk_s: f64,
    pub(super) whole_s: f64,
}

impl Bound {
    pub(super) fn of(scenario: &Scenario, prefix_bytes: u64, chunk_bytes: u64, chunks: u32) -> Self {
        let enough = PoolConfig::default().prefix_rate * chunk_bytes as f64 * 1e3 / CHUNK_MS as f64;
        let mut bound = Self {
            prefix_s: HORIZON_S,
            first_chunk_s: HORIZON_S,
            whole_s: HORIZON_S,
        };
        let captive = captive_bytes(scenario, chunk_bytes, chunks);
        let first_holders = scenario.holders(0);
        let mut sums = vec![0.0; scenario.lines.len()];
        let mut time_s = 0.0;
        while time_s < HORIZON_S {
            for (line, sum) in sums.iter_mut().enumerate() {
                *sum += bytes_per_s(scenario, line, time_s) * STEP_S;
            }
            time_s += STEP_S;
            let of_first: Vec<f64> = first_holders.iter().map(|line| sums[*line]).collect();
            let first = flowed(scenario, &of_first);
            let flow: f64 = (0..sums.len())
                .map(|line| bytes_per_s(scenario, line, time_s))
                .sum();
            let start = if flow >= enough { prefix_bytes } else { chunk_bytes };
            note(&mut bound.prefix_s, time_s, first >= start as f64);
            note(&mut bound.first_chunk_s, time_s, first >= chunk_bytes as f64);
            let is_whole = if scenario.is_coded() {
                flowed(scenario, &sums) >= (chunk_bytes * u64::from(chunks)) as f64
            } else {
                captive
                    .iter()
                    .all(|(lines, bytes)| sum_of(*lines, &sums) >= *bytes)
            };
            if is_whole {
                bound.whole_s = time_s;
                break;
            }
        }
        bound
    }
}

/// For each set of lines, a bit a line, the bytes that lie on no other line; sets without any are left out.
fn captive_bytes(scenario: &Scenario, chunk_bytes: u64, chunks: u32) -> Vec<(u32, f64)> {
    let holders = |seq| {
        let lines = scenario.holders(seq);
        lines.into_iter().fold(0_u32, |set, line| set | 1 << line)
    };
    let holders: Vec<u32> = (0..chunks).map(holders).collect();
    let bytes_of = |set: u32| {
        let captive = holders.iter().filter(|lines| **lines & !set == 0);
        captive.count() as f64 * chunk_bytes as f64
    };
    let sets = (1..1_u32 << scenario.lines.len()).map(|set| (set, bytes_of(set)));
    sets.filter(|(_, bytes)| *bytes > 0.0).collect()
}

fn sum_of(set: u32, sums: &[f64]) -> f64 {
    let inside = sums.iter().enumerate().filter(|(line, _)| set & 1 << line != 0);
    inside.map(|(_, sum)| sum).sum()
}

/// The first time at which something holds.
fn note(first_s: &mut f64, now_s: f64, holds: bool) {
    if holds {
        *first_s = first_s.min(now_s);
    }
}

fn bytes_per_s(scenario: &Scenario, line: usize, time_s: f64) -> f64 {
    let state = scenario.state(line, time_s);
    match scenario.lines.get(line) {
        Some(of) if state.fault.is_none() && time_s * 1e3 >= of.rtt_ms as f64 => {
            of.mbps * state.share * 125_000.0
        }
        _ => 0.0,
    }
}

/// What can have been made of these bytes: of shards, of which `needed` make a chunk, no line counts for more than its part.
fn flowed(scenario: &Scenario, sums: &[f64]) -> f64 {
    if !scenario.is_coded() {
        return sums.iter().sum();
    }
    let needed = f64::from(scenario.needed);
    let (mut low, mut high) = (0.0, sums.iter().sum::<f64>());
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        let had: f64 = sums.iter().map(|sum| sum.min(middle / needed)).sum();
        if had >= middle {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::super::scenario::emulated;
    use super::*;

    const CHUNK_BYTES: u64 = 2_000_000;

    fn bound(id: &str, chunks: u32) -> Bound {
        let scenario = emulated().into_iter().find(|scenario| scenario.id == id).unwrap();
        Bound::of(&scenario, 524_288, CHUNK_BYTES, chunks)
    }

    fn check(is_s: f64, expected_s: f64) {
        assert!(
            (is_s - expected_s).abs() < 0.02,
            "{is_s} s instead of {expected_s}"
        );
    }

    /// By hand, from the formulas of the limits: sum of b_i (T - tau_i) = S.
    #[test]
    fn bounds_are_those_of_the_formulas() {
        check(bound("B1", 1).first_chunk_s, 0.559);
        check(bound("B1", 12).whole_s, 6.429);
        check(bound("B3", 12).whole_s, 6.43);
        // 20 Mbit/s until 2 s, then 10 are left.
        check(bound("B6", 12).whole_s, 15.288);
        check(bound("B5a", 1).whole_s, 1.648);
        // Rows of 3 from 20/8/8/4/2: 33 Mbit/s.
        check(bound("B13", 30).whole_s, 14.6);
    }

    #[test]
    fn a_chunk_comes_from_the_lines_that_have_it_alone() {
        let five = emulated()
            .into_iter()
            .find(|scenario| scenario.id == "B2")
            .unwrap();
        let of = |round, chunks| Bound::of(&five.in_round(round), 524_288, CHUNK_BYTES, chunks);
        // 8/8/4 Mbit/s have the only chunk: after 30, 40 and 60 ms.
        check(of(3, 1).whole_s, 0.84);
        // Many chunks come from all five, however they lie.
        for round in 0..5 {
            check(of(round, 30).whole_s, 11.46);
            let little = of(round, 2);
            assert!(little.prefix_s < little.first_chunk_s, "{little:?}");
            assert!(little.first_chunk_s <= little.whole_s, "{little:?}");
        }
    }

    #[test]
    fn where_hardly_more_flows_than_is_played_the_first_chunk_is_waited_for() {
        let tight = bound("B10", 2);
        assert_eq!(tight.prefix_s, tight.first_chunk_s);
        check(tight.first_chunk_s, 8.04);
    }

    #[test]
    fn no_trouble_makes_a_bound_smaller() {
        // Noise also quickens.
        for scenario in emulated().iter().filter(|scenario| scenario.id != "B11") {
            let mut calm = scenario.clone();
            calm.events.clear();
            let of = |scenario| Bound::of(scenario, 524_288, CHUNK_BYTES, 3).whole_s;
            assert!(of(scenario) >= of(&calm), "{}", scenario.name);
        }
    }
}
