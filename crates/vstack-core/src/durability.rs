//! How long data lasts, computed: mean time to data loss, and what each mode costs.
//!
//! `MTTDL(n, m) ~ m! mu^m / (lambda^(m+1) n (n-1) ... (n-m))` for n parts of which m may be lost, with lambda the failure
//! rate of a disk and mu the repair rate: the mean time to failure of a k-out-of-n system whose parts are all repaired at
//! once (J. E. Angus, "On computing MTBF for a k-out-of-n:G repairable system", IEEE Transactions on Reliability 37(3),
//! 1988; with one part to lose it is the formula of the RAID paper of 1988). It holds for disks that fail independently of
//! each other and repairs that are fast against failures. What fails together (a fire, a thief, a bad firmware) needs a
//! copy elsewhere.
//!
//! A library is lost in part when any set of nodes that holds a chunk loses too many of its parts. Chunks on the same nodes
//! go together, so [`assess`] counts sets of nodes and not chunks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::placement::Scheme;

/// Mean length of a year.
const HOURS_A_YEAR: f64 = 8766.0;

/// What the figure rests on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Assumptions {
    /// Share of the disks that fail within a year, 0 to 1.
    pub annual_failure_rate: f64,
    /// From the loss of a part until it is there again.
    pub repair_hours: f64,
}

/// How long a chunk of one mode lasts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Durability {
    pub mttdl_years: f64,
    /// Minus the decimal logarithm of the probability to lose a given chunk within a year.
    pub nines_a_year: f64,
}

/// Mean time to the loss of a chunk, in years.
#[must_use]
pub fn mttdl(scheme: Scheme, assumptions: Assumptions) -> Durability {
    let (lambda, mu) = assumptions.rates();
    let (parts, may_be_lost) = (scheme.part_count(), scheme.may_be_lost());
    let orderings: f64 = (parts - may_be_lost..=parts).map(|count| count as f64).product();
    let factorial: f64 = (1..=may_be_lost).map(|count| count as f64).product();
    let lost = i32::try_from(may_be_lost).unwrap_or(i32::MAX);
    let hours = factorial * mu.powi(lost) / (lambda.powi(lost + 1) * orderings);
    Durability::of_rate(HOURS_A_YEAR / hours)
}

impl Assumptions {
    /// Failures of a disk and repairs of a part, each in an hour.
    fn rates(self) -> (f64, f64) {
        let lambda = -(-self.annual_failure_rate).ln_1p() / HOURS_A_YEAR;
        (lambda, 1.0 / self.repair_hours)
    }
}

impl Durability {
    /// Of something that is lost so many times a year.
    fn of_rate(losses_a_year: f64) -> Self {
        Self {
            mttdl_years: 1.0 / losses_a_year,
            // 1 - exp(-rate), exact for very small rates too.
            nines_a_year: nines(-(-losses_a_year).exp_m1()),
        }
    }
}

/// How much was read for work of one kind so far, and how long that took.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measured {
    pub read_bytes: u64,
    pub seconds: f64,
}

/// Older measurements fade: beyond this much time of work the sum is halved.
const REMEMBERED_SECONDS: f64 = 3_600.0;

impl Measured {
    pub fn add(&mut self, read_bytes: u64, took: Duration) {
        self.read_bytes += read_bytes;
        self.seconds += took.as_secs_f64();
        if self.seconds > REMEMBERED_SECONDS {
            self.read_bytes /= 2;
            self.seconds /= 2.0;
        }
    }

    /// `None` before anything was measured.
    #[must_use]
    pub fn bytes_per_second(self) -> Option<f64> {
        (self.read_bytes > 0 && self.seconds > 0.0).then(|| self.read_bytes as f64 / self.seconds)
    }
}

fn nines(probability: f64) -> f64 {
    -probability.log10()
}

/// The probability that a chunk which lacks `lost` parts now is gone before all of them are made again.
///
/// A walk between "whole" and "gone": from `j` lost parts the next loss comes at the rate `(n - j) lambda`, the next
/// repaired part at `j mu`.
#[must_use]
pub fn gone_before_repaired(scheme: Scheme, lost: usize, assumptions: Assumptions) -> f64 {
    let (lambda, mu) = assumptions.rates();
    let mut product = 1.0;
    let (mut reached, mut all) = (0.0, 0.0);
    for step in 0..=scheme.may_be_lost() {
        if step > 0 {
            product *= (step as f64 * mu) / ((scheme.part_count() - step) as f64 * lambda);
        }
        all += product;
        reached += if step < lost { product } else { 0.0 };
    }
    reached / all
}

/// Hours until the parts of a lost node are there again.
///
/// `lost_bytes` are the bytes of the parts to make; an erasure-coded one is made from three, so that its repair reads
/// three times as much over the same links.
#[must_use]
pub fn repair_hours(scheme: Scheme, lost_bytes: u64, bytes_a_second: f64) -> f64 {
    let read = lost_bytes as f64 * scheme.parts_to_read() as f64;
    read / bytes_a_second.max(1.0) / 3600.0
}

/// How a cluster makes lost parts again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RepairFacts {
    /// Share of the disks that fail within a year, 0 to 1.
    pub annual_failure_rate: f64,
    /// Bytes a second that are read to make parts again.
    pub bytes_per_second: f64,
    /// From the loss of a node until its parts are begun to be made again.
    pub wait_hours: f64,
    /// Nodes that take new parts.
    pub nodes: usize,
    /// Until an operator has added a node, where the cluster has none left that could take a lost part.
    pub operator_hours: f64,
}

/// Nodes that hold chunks together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeSet {
    pub scheme: Scheme,
    /// Parts that are good now.
    pub good: usize,
    pub chunks: u64,
}

/// One mode of an assessed library.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ModeFigures {
    pub scheme: Scheme,
    pub chunks: u64,
    /// Different sets of nodes that they lie on.
    pub node_sets: u64,
    /// From the loss of a node until its parts are all there again.
    pub repair_hours: f64,
    /// Whether a lost part can be made again without a new node.
    pub heals_itself: bool,
    /// Bytes to read for a byte made again.
    pub reads_per_byte: usize,
    /// Of one chunk that is whole.
    pub chunk: Durability,
}

/// A library as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    pub modes: Vec<ModeFigures>,
    /// Until any chunk at all is lost, with every chunk whole. `None` while nothing is stored.
    pub library: Option<Durability>,
    /// Chunks that lack parts now, and the probability that one of them is gone before it is whole.
    pub degraded_chunks: u64,
    pub degraded_risk: f64,
    /// Chunks of which too few parts are good.
    pub unreadable_chunks: u64,
    /// Minus the decimal logarithm of the probability to lose anything within a year, what is degraded now included.
    pub nines_a_year: Option<f64>,
}

/// How long a library lasts that lies on these sets of nodes. `lost_read_bytes` is what has to be read to make the parts
/// of a lost node again.
#[must_use]
pub fn assess(sets: &[NodeSet], lost_read_bytes: u64, repair: RepairFacts) -> Assessment {
    let modes: Vec<ModeFigures> = [Scheme::Replicated, Scheme::Erasure]
        .into_iter()
        .filter(|scheme| sets.iter().any(|set| set.scheme == *scheme))
        .map(|scheme| mode_figures(scheme, sets, lost_read_bytes, repair))
        .collect();
    let rate: f64 = modes
        .iter()
        .map(|mode| mode.node_sets as f64 / mode.chunk.mttdl_years)
        .sum();
    let mut assessment = Assessment {
        library: (!modes.is_empty()).then(|| Durability::of_rate(rate)),
        modes,
        degraded_chunks: 0,
        degraded_risk: 0.0,
        unreadable_chunks: 0,
        nines_a_year: None,
    };
    let mut survives = (-rate).exp();
    let mut risk_free = 1.0;
    for set in sets {
        let lost = set.scheme.part_count().saturating_sub(set.good);
        let mode = assessment.modes.iter().find(|mode| mode.scheme == set.scheme);
        match mode {
            _ if lost == 0 => {}
            Some(mode) if lost <= set.scheme.may_be_lost() => {
                assessment.degraded_chunks += set.chunks;
                risk_free *=
                    1.0 - gone_before_repaired(set.scheme, lost, repair.assumptions(mode.repair_hours));
            }
            _ => assessment.unreadable_chunks += set.chunks,
        }
    }
    assessment.degraded_risk = 1.0 - risk_free;
    survives *= risk_free;
    // Of what is lost within a year the small terms count, so that they are not taken from 1 and back.
    let lost = if survives < 0.999 {
        1.0 - survives
    } else {
        -(-rate).exp_m1() + assessment.degraded_risk
    };
    assessment.nines_a_year = assessment.library.map(|_| nines(lost.min(1.0)));
    assessment
}

/// Hours until a lost node's `lost_bytes` of one mode are there again, and how long a chunk lasts then.
#[must_use]
pub fn mode_durability(scheme: Scheme, lost_bytes: u64, repair: RepairFacts) -> (f64, Durability) {
    let read = lost_bytes.saturating_mul(scheme.parts_to_read() as u64);
    let hours = repair.hours(scheme, read);
    (hours, mttdl(scheme, repair.assumptions(hours)))
}

fn mode_figures(scheme: Scheme, sets: &[NodeSet], lost_read_bytes: u64, repair: RepairFacts) -> ModeFigures {
    let of_mode = || sets.iter().filter(|set| set.scheme == scheme);
    let repair_hours = repair.hours(scheme, lost_read_bytes);
    ModeFigures {
        scheme,
        chunks: of_mode().map(|set| set.chunks).sum(),
        node_sets: of_mode().count() as u64,
        repair_hours,
        heals_itself: repair.heals_itself(scheme),
        reads_per_byte: scheme.parts_to_read(),
        chunk: mttdl(scheme, repair.assumptions(repair_hours)),
    }
}

impl RepairFacts {
    const fn assumptions(self, repair_hours: f64) -> Assumptions {
        Assumptions {
            annual_failure_rate: self.annual_failure_rate,
            repair_hours,
        }
    }

    /// Whether a node is left for a lost part: three copies need a fourth node, five shards a sixth.
    #[must_use]
    pub const fn heals_itself(self, scheme: Scheme) -> bool {
        self.nodes > scheme.part_count()
    }

    /// From the loss of a node until its parts are there again.
    #[must_use]
    pub fn hours(self, scheme: Scheme, read_bytes: u64) -> f64 {
        let help = if self.heals_itself(scheme) {
            0.0
        } else {
            self.operator_hours
        };
        self.wait_hours + help + read_bytes as f64 / self.bytes_per_second.max(1.0) / 3600.0
    }
}

impl Scheme {
    /// Parts that may be lost.
    #[must_use]
    pub const fn may_be_lost(self) -> usize {
        self.part_count() - self.parts_to_read()
    }

    /// Parts that give back the chunk.
    #[must_use]
    pub const fn parts_to_read(self) -> usize {
        match self {
            Self::Replicated => 1,
            Self::Erasure => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scheme: Scheme, repair_hours: f64, nines: f64) {
        let found = mttdl(
            scheme,
            Assumptions {
                annual_failure_rate: 0.05,
                repair_hours,
            },
        );
        assert!(
            (found.nines_a_year - nines).abs() < 0.05,
            "{scheme:?}, repaired in {repair_hours} h: {found:?} instead of {nines} nines"
        );
    }

    #[test]
    fn the_documented_table_comes_out() {
        check(Scheme::Replicated, 1.0, 11.3);
        check(Scheme::Erasure, 1.0, 10.3);
        check(Scheme::Replicated, 24.0, 8.5);
        check(Scheme::Erasure, 24.0, 7.5);
    }

    #[test]
    fn coded_data_lasts_a_tenth_at_equal_repair_time_and_a_ninetieth_at_equal_bandwidth() {
        let years = |scheme, hours| {
            let assumptions = Assumptions {
                annual_failure_rate: 0.05,
                repair_hours: hours,
            };
            mttdl(scheme, assumptions).mttdl_years
        };
        let equal_time = years(Scheme::Replicated, 1.0) / years(Scheme::Erasure, 1.0);
        assert!((equal_time - 10.0).abs() < 1e-6, "{equal_time}");
        let hours = |scheme| repair_hours(scheme, 1 << 40, 1e8);
        let equal_bandwidth = years(Scheme::Replicated, hours(Scheme::Replicated))
            / years(Scheme::Erasure, hours(Scheme::Erasure));
        assert!((equal_bandwidth - 90.0).abs() < 1e-6, "{equal_bandwidth}");
    }

    /// The same system solved step by step: from `lost` parts lost the next loss takes `T` hours on average, with
    /// `T(lost) = (1 + lost mu T(lost - 1)) / ((n - lost) lambda)`.
    fn exact_years(scheme: Scheme, assumptions: Assumptions) -> f64 {
        let (lambda, mu) = assumptions.rates();
        let (mut step, mut hours) = (0.0, 0.0);
        for lost in 0..=scheme.may_be_lost() {
            step = (1.0 + lost as f64 * mu * step) / ((scheme.part_count() - lost) as f64 * lambda);
            hours += step;
        }
        hours / HOURS_A_YEAR
    }

    #[test]
    fn the_formula_is_close_to_the_exact_solution_while_repairs_are_fast() {
        for scheme in [Scheme::Replicated, Scheme::Erasure] {
            for repair_hours in [0.1, 1.0, 24.0, 72.0] {
                let assumptions = Assumptions {
                    annual_failure_rate: 0.05,
                    repair_hours,
                };
                let ratio = mttdl(scheme, assumptions).mttdl_years / exact_years(scheme, assumptions);
                assert!(
                    (0.99..1.01).contains(&ratio),
                    "{scheme:?} {repair_hours} h: {ratio}"
                );
            }
        }
    }

    const REPAIR: RepairFacts = RepairFacts {
        annual_failure_rate: 0.05,
        bytes_per_second: 1e8,
        wait_hours: 0.175,
        nodes: 8,
        operator_hours: 24.0,
    };

    fn set(scheme: Scheme, good: usize) -> NodeSet {
        NodeSet {
            scheme,
            good,
            chunks: 100,
        }
    }

    #[test]
    fn a_library_lasts_shorter_the_more_sets_of_nodes_it_lies_on() {
        let one = assess(&[set(Scheme::Replicated, 3)], 1 << 40, REPAIR);
        let ten = assess(&vec![set(Scheme::Replicated, 3); 10], 1 << 40, REPAIR);
        let years = |assessment: &Assessment| assessment.library.unwrap().mttdl_years;
        assert!((years(&one) / years(&ten) - 10.0).abs() < 1e-6);
        assert_eq!(years(&one), one.modes[0].chunk.mttdl_years);
        assert_eq!((ten.degraded_chunks, ten.degraded_risk), (0, 0.0));
        assert!((one.nines_a_year.unwrap() - one.library.unwrap().nines_a_year).abs() < 1e-6);
    }

    #[test]
    fn every_lost_part_costs_nines_until_too_few_are_left() {
        for scheme in [Scheme::Replicated, Scheme::Erasure] {
            let nines = |lost: usize| {
                let sets = [
                    set(scheme, scheme.part_count()),
                    set(scheme, scheme.part_count() - lost),
                ];
                assess(&sets, 1 << 40, REPAIR)
            };
            let whole = nines(0).nines_a_year.unwrap();
            let (one, two) = (nines(1), nines(2));
            assert!(whole > one.nines_a_year.unwrap() && one.nines_a_year > two.nines_a_year);
            assert_eq!((one.degraded_chunks, two.degraded_chunks), (100, 100));
            assert_eq!(nines(3).unreadable_chunks, 100);
        }
    }

    #[test]
    fn without_a_spare_node_the_operator_is_part_of_the_repair() {
        let five = RepairFacts { nodes: 5, ..REPAIR };
        assert!(five.heals_itself(Scheme::Replicated) && !five.heals_itself(Scheme::Erasure));
        let hours = |scheme| five.hours(scheme, 360_000_000_000);
        assert!((hours(Scheme::Replicated) - 1.175).abs() < 1e-9);
        assert!((hours(Scheme::Erasure) - 25.175).abs() < 1e-9);
    }

    #[test]
    fn an_empty_library_has_no_figure() {
        let nothing = assess(&[], 0, REPAIR);
        assert_eq!((nothing.library, nothing.nines_a_year), (None, None));
    }

    /// The walk against a simulation of it that decides step by step; the seed is fixed, the tolerance three deviations.
    #[test]
    fn what_is_gone_before_it_is_repaired_agrees_with_a_simulation() {
        let assumptions = Assumptions {
            annual_failure_rate: 0.9,
            repair_hours: 2_000.0,
        };
        let (lambda, mu) = assumptions.rates();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        const RUNS: usize = 20_000;
        for (scheme, start) in [
            (Scheme::Replicated, 1),
            (Scheme::Erasure, 1),
            (Scheme::Erasure, 2),
        ] {
            let mut gone = 0;
            for _ in 0..RUNS {
                let mut lost = start;
                while lost > 0 && lost <= scheme.may_be_lost() {
                    let (up, down) = ((scheme.part_count() - lost) as f64 * lambda, lost as f64 * mu);
                    lost = if random() < up / (up + down) {
                        lost + 1
                    } else {
                        lost - 1
                    };
                }
                gone += usize::from(lost > 0);
            }
            let expected = gone_before_repaired(scheme, start, assumptions);
            let deviation = (expected * (1.0 - expected) / RUNS as f64).sqrt();
            let found = gone as f64 / RUNS as f64;
            assert!(
                (found - expected).abs() < 3.0 * deviation,
                "{scheme:?} {start}: {found} {expected}"
            );
        }
    }

    #[test]
    fn what_was_measured_long_ago_fades() {
        let mut work = Measured::default();
        for _ in 0..100 {
            work.add(1_000_000, Duration::from_secs(1_000));
        }
        for _ in 0..20 {
            work.add(4_000_000, Duration::from_secs(1_000));
        }
        let speed = work.bytes_per_second().unwrap();
        assert!((speed - 4_000.0).abs() < 10.0, "{speed}");
    }
}
