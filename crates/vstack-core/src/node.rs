//! A storage node as the catalogue sees it: judged by its silence and its steadiness, and told what to do by its
//! operator.
//!
//! A node that comes and goes all the time would be chosen, lost and chosen again. So its gaps are counted: the first
//! few are forgiven at once, each further one puts it on probation, where it counts as suspect however well it behaves.

use serde::{Deserialize, Serialize};

use crate::limits::{NODE_DEGRADED_AFTER_MS, NODE_DOWN_AFTER_MS};
use crate::time::UnixMillis;

/// What the catalogue thinks of a node. Order: best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeHealth {
    Healthy,
    /// Suspect: silent for two heartbeats and a half, or on probation. It gets no new chunks while healthy nodes
    /// suffice.
    Degraded,
    Down,
}

impl NodeHealth {
    /// Health of a node whose last heartbeat arrived at `last_seen`.
    #[must_use]
    pub const fn of_silence(last_seen: UnixMillis, now: UnixMillis) -> Self {
        match now.since(last_seen) {
            silent if silent >= NODE_DOWN_AFTER_MS => Self::Down,
            silent if silent >= NODE_DEGRADED_AFTER_MS => Self::Degraded,
            _ => Self::Healthy,
        }
    }

    /// The word of the API and of the column `storage_nodes.status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// Gaps that are forgiven at once: a restart, a slow disk, a cable pulled twice.
const GAPS_FORGIVEN: u32 = 5;
/// No more are counted, so that a node that is mended is trusted again within an hour.
const GAPS_COUNTED: u32 = 10;
/// One gap is forgotten for each time this long without one.
const GAP_FORGOTTEN_MS: u64 = 10 * 60_000;
/// Probation after the first gap too many; twice as long after each further one...
const PROBATION_MS: u64 = 30_000;
/// ...up to this.
const PROBATION_MAX_MS: u64 = 5 * 60_000;

/// How often a node went silent and came back lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Steadiness {
    pub gaps: u32,
    /// When the last gap ended.
    pub last_gap: UnixMillis,
}

impl Steadiness {
    /// After a heartbeat at `now`, when the one before came at `last_seen`.
    #[must_use]
    pub fn after_heartbeat(self, last_seen: UnixMillis, now: UnixMillis) -> Self {
        if NodeHealth::of_silence(last_seen, now) == NodeHealth::Healthy {
            return self;
        }
        let forgotten = now.since(self.last_gap) / GAP_FORGOTTEN_MS;
        let remembered = self
            .gaps
            .saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX));
        Self {
            gaps: (remembered + 1).min(GAPS_COUNTED),
            last_gap: now,
        }
    }

    /// Whether a node that answers is still suspect.
    #[must_use]
    pub const fn on_probation(self, now: UnixMillis) -> bool {
        match self.gaps.checked_sub(GAPS_FORGIVEN + 1) {
            None => false,
            Some(too_many) => now.since(self.last_gap) < probation_ms(too_many),
        }
    }

    /// The node's health, by its silence and by this.
    #[must_use]
    pub const fn health(self, last_seen: UnixMillis, now: UnixMillis) -> NodeHealth {
        match NodeHealth::of_silence(last_seen, now) {
            NodeHealth::Healthy if self.on_probation(now) => NodeHealth::Degraded,
            health => health,
        }
    }
}

const fn probation_ms(too_many: u32) -> u64 {
    let wanted = PROBATION_MS << too_many;
    if wanted < PROBATION_MAX_MS {
        wanted
    } else {
        PROBATION_MAX_MS
    }
}

/// What the operator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    #[default]
    Active,
    /// It will be away for a while and come back with its data: no new parts, and nobody hurries to replace old ones.
    Maintenance,
    /// It is to be emptied: no new parts.
    Draining,
    /// It does not belong to the cluster any more. Its heartbeats are refused.
    Removed,
}

impl NodeState {
    /// The word of the API and of the column `storage_nodes.state`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Maintenance => "maintenance",
            Self::Draining => "draining",
            Self::Removed => "removed",
        }
    }

    /// Whether new parts go there.
    #[must_use]
    pub const fn takes_parts(self) -> bool {
        matches!(self, Self::Active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HEARTBEAT_MS;
    use proptest::prelude::*;

    const T0: UnixMillis = UnixMillis(1_000_000_000);
    const MINUTE_MS: u64 = 60_000;

    #[test]
    fn silence_makes_a_node_suspect_and_then_down() {
        let seen = UnixMillis(1_000_000);
        let after = |ms| NodeHealth::of_silence(seen, seen + ms);
        assert_eq!(after(4_999), NodeHealth::Healthy);
        assert_eq!(after(5_000), NodeHealth::Degraded);
        assert_eq!(after(29_999), NodeHealth::Degraded);
        assert_eq!(after(30_000), NodeHealth::Down);
    }

    #[test]
    fn a_clock_that_went_back_makes_nobody_down() {
        assert_eq!(
            NodeHealth::of_silence(UnixMillis(9), UnixMillis(1)),
            NodeHealth::Healthy
        );
    }

    /// A node that beats every 2 s for each even span and is silent for each odd one, in milliseconds; and how often it
    /// became healthy in the catalogue's eyes, judged once a second.
    fn returns_to_health(spans: &[u64]) -> (u32, Steadiness, UnixMillis) {
        let (mut now, mut last_seen) = (T0, T0);
        let mut steadiness = Steadiness::default();
        let (mut health, mut returns) = (NodeHealth::Healthy, 0);
        for (index, span) in spans.iter().enumerate() {
            let end = now + *span;
            while now < end {
                now = now + 1_000;
                let due = now.since(last_seen) >= HEARTBEAT_MS;
                if index % 2 == 0 && due {
                    steadiness = steadiness.after_heartbeat(last_seen, now);
                    last_seen = now;
                }
                let judged = steadiness.health(last_seen, now);
                returns += u32::from(judged == NodeHealth::Healthy && health != NodeHealth::Healthy);
                health = judged;
            }
        }
        (returns, steadiness, now)
    }

    #[test]
    fn a_single_gap_is_forgiven_at_once() {
        let (returns, steadiness, now) = returns_to_health(&[60_000, 40_000, 10_000]);
        assert_eq!((returns, steadiness.on_probation(now)), (1, false));
    }

    #[test]
    fn a_node_that_flaps_for_an_hour_is_trusted_a_few_times_and_not_hundreds() {
        // 8 s silent, 8 s alive: without counting, 225 returns an hour.
        let spans: Vec<u64> = std::iter::repeat_n(8_000, 2 * 225).collect();
        let (returns, ..) = returns_to_health(&spans);
        assert!((1..=12).contains(&returns), "{returns} returns");
    }

    #[test]
    fn a_node_that_is_mended_is_trusted_after_the_longest_probation() {
        let spans: Vec<u64> = std::iter::repeat_n(8_000, 101).collect();
        let (_, steadiness, now) = returns_to_health(&spans);
        assert!(steadiness.on_probation(now));
        let later = now + PROBATION_MAX_MS;
        assert_eq!(steadiness.health(later, later), NodeHealth::Healthy);
    }

    proptest! {
        #[test]
        fn however_a_node_flaps_the_catalogue_changes_its_mind_seldom(
            spans in prop::collection::vec(1_000u64..120_000, 2..120),
        ) {
            let (returns, _, end) = returns_to_health(&spans);
            // Those forgiven, those forgotten since, and one for each probation that was served.
            let minutes = end.since(T0) / MINUTE_MS + 1;
            let most = u64::from(GAPS_FORGIVEN) + minutes / 10 + minutes.div_ceil(5) + 5;
            prop_assert!(u64::from(returns) <= most, "{returns} returns in {minutes} minutes");
        }

        #[test]
        fn a_silent_node_is_never_healthy_and_a_steady_one_never_suspect(gaps in 0u32..20, silent in 0u64..100_000) {
            let steadiness = Steadiness { gaps, last_gap: T0 };
            let now = T0 + silent;
            prop_assert!(steadiness.health(T0, now) >= NodeHealth::of_silence(T0, now));
            let much_later = T0 + PROBATION_MAX_MS;
            prop_assert_eq!(steadiness.health(much_later, much_later), NodeHealth::Healthy);
        }
    }
}
