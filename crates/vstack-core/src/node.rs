//! The health of a storage node, judged by how long it has been silent.

use serde::{Deserialize, Serialize};

use crate::limits::{NODE_DEGRADED_AFTER_MS, NODE_DOWN_AFTER_MS};
use crate::time::UnixMillis;

/// What the catalogue thinks of a node. Order: best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeHealth {
    Healthy,
    /// Suspect: silent for two heartbeats and a half. It gets no new chunks while healthy nodes suffice.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
