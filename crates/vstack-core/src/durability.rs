//! How long data lasts, computed: mean time to data loss, and what each mode costs.
//!
//! `MTTDL(n, m) ~ m! mu^m / (lambda^(m+1) n (n-1) ... (n-m))` for n parts of which m may be lost, with lambda the failure
//! rate of a disk and mu the repair rate. It holds for disks that fail independently of each other and repairs that are
//! fast against failures. What fails together (a fire, a thief, a bad firmware) needs a copy elsewhere.

use serde::Serialize;

use crate::placement::Scheme;

/// Mean length of a year.
const HOURS_A_YEAR: f64 = 8766.0;

/// What the figure rests on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Assumptions {
    /// Share of the disks that fail within a year, 0 to 1.
    pub annual_failure_rate: f64,
    /// From the loss of a part until it is there again.
    pub repair_hours: f64,
}

/// How long a chunk of one mode lasts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Durability {
    pub mttdl_years: f64,
    /// Minus the decimal logarithm of the probability to lose a given chunk within a year.
    pub nines_a_year: f64,
}

/// Mean time to the loss of a chunk, in years.
#[must_use]
pub fn mttdl(scheme: Scheme, assumptions: Assumptions) -> Durability {
    let lambda = -(-assumptions.annual_failure_rate).ln_1p() / HOURS_A_YEAR;
    let mu = 1.0 / assumptions.repair_hours;
    let parts = scheme.part_count();
    let may_be_lost = parts - scheme.parts_to_read();
    let orderings: f64 = (parts - may_be_lost..=parts).map(|count| count as f64).product();
    let factorial: f64 = (1..=may_be_lost).map(|count| count as f64).product();
    let lost = i32::try_from(may_be_lost).unwrap_or(i32::MAX);
    let hours = factorial * mu.powi(lost) / (lambda.powi(lost + 1) * orderings);
    let years = hours / HOURS_A_YEAR;
    // 1 - exp(-1/years), exact for very long times too.
    let lost_within_a_year = -(-1.0 / years).exp_m1();
    Durability {
        mttdl_years: years,
        nines_a_year: -lost_within_a_year.log10(),
    }
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

impl Scheme {
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
}
