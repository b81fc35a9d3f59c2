//! How fast parts are made again, measured: durability figures rest on it.
//!
//! What counts is bytes read, since a shard is made from three. Conversions do the same work at half speed; they stand in
//! until the first repair. Before both a speed is assumed, and the reports say so. The catalogue keeps what was measured.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use tracing::debug;
use vstack_api::policy::{RepairBasis, SpeedSource};
use vstack_core::durability::{Measured, RepairFacts};
use vstack_meta::{Cmd, MeasuredWork};

use super::Redundancy;
use super::progress::Kind;
use crate::metadata::state::Metadata;

/// Until something was measured: what a disk with a tenth of a gigabit link to itself does. Low on purpose.
const ASSUMED_BYTES_PER_SECOND: f64 = 1e7;
/// Of both kinds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Speeds {
    repairs: Measured,
    conversions: Measured,
}

impl Redundancy {
    /// So many bytes were read, and what was made of them was placed.
    pub(super) fn measured(&self, kind: Kind, read_bytes: u64, took: Duration) {
        let mut speeds = self.speeds.lock().unwrap_or_else(PoisonError::into_inner);
        match kind {
            Kind::Conversion => speeds.conversions.add(read_bytes, took),
            Kind::Repair => speeds.repairs.add(read_bytes, took),
            // A move reads one part and rests between two: it says little about a repair.
            Kind::Rebalance => {}
        }
    }

    /// What was measured, if this is a kind of which it is kept.
    fn speed(&self, kind: Kind) -> Option<(MeasuredWork, Measured)> {
        let speeds = *self.speeds.lock().unwrap_or_else(PoisonError::into_inner);
        match kind {
            Kind::Conversion => Some((MeasuredWork::Conversions, speeds.conversions)),
            Kind::Repair => Some((MeasuredWork::Repairs, speeds.repairs)),
            Kind::Rebalance => None,
        }
    }

    /// What durability is computed from. `facts` is completed by the speed.
    pub(super) fn repair_basis(&self, facts: RepairFacts) -> RepairBasis {
        self.speeds
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .basis(facts)
    }
}

impl Metadata {
    /// Has the catalogue keep what was measured so far; what it does not keep is measured again.
    pub(super) async fn keep_speed(&self, kind: Kind) {
        let kept = self
            .redundancy
            .speed(kind)
            .map(|(work, measured)| Cmd::Measure { work, measured });
        if let Some(command) = kept
            && let Err(error) = self.store.apply_one(command).await
        {
            debug!(%error, "the speed of work was not kept");
        }
    }
}

impl Speeds {
    pub(super) fn remembering(known: &BTreeMap<MeasuredWork, Measured>) -> Self {
        let of = |work| known.get(&work).copied().unwrap_or_default();
        Self {
            repairs: of(MeasuredWork::Repairs),
            conversions: of(MeasuredWork::Conversions),
        }
    }

    fn basis(self, facts: RepairFacts) -> RepairBasis {
        let known = [
            (SpeedSource::Repairs, self.repairs),
            (SpeedSource::Conversions, self.conversions),
        ];
        let measured = known
            .into_iter()
            .find_map(|(source, work)| Some((source, work, work.bytes_per_second()?)));
        let assumed = (
            SpeedSource::Assumed,
            Measured::default(),
            ASSUMED_BYTES_PER_SECOND,
        );
        let (speed_source, work, bytes_per_second) = measured.unwrap_or(assumed);
        RepairBasis {
            speed_source,
            measured_bytes: work.read_bytes,
            measured_seconds: work.seconds,
            facts: RepairFacts {
                bytes_per_second,
                ..facts
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(speeds: Speeds, source: SpeedSource, bytes_per_second: f64) {
        let facts = RepairFacts {
            annual_failure_rate: 0.05,
            bytes_per_second: 0.0,
            wait_hours: 0.0,
            nodes: 5,
            operator_hours: 24.0,
        };
        let basis = speeds.basis(facts);
        assert_eq!(
            (basis.speed_source, basis.facts.bytes_per_second),
            (source, bytes_per_second)
        );
    }

    #[test]
    fn repairs_lead_over_conversions_and_both_over_what_is_assumed() {
        let mut speeds = Speeds::default();
        check(speeds, SpeedSource::Assumed, ASSUMED_BYTES_PER_SECOND);
        speeds.conversions.add(1_000, Duration::from_secs(2));
        check(speeds, SpeedSource::Conversions, 500.0);
        speeds.repairs.add(4_000, Duration::from_secs(1));
        check(speeds, SpeedSource::Repairs, 4_000.0);
    }
}
