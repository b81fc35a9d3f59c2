//! How urgent a request for a chunk is: what clients tell with [`SLACK_HEADER`], and what a node makes of it.
//!
//! [`SLACK_HEADER`]: crate::wire::SLACK_HEADER

/// One request's weight is this many times what another one's is. Kept from a sweep in the simulator (crowds in
/// `docs/evaluation/client.md`, reasons in `docs/decisions/0132-slack-weights.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// For a player that starts, or has less than `urgent_below_ms` left.
    pub urgent: u32,
    /// For one with less than `relaxed_above_ms` left, and for one that does not say.
    pub soon: u32,
    pub relaxed: u32,
    pub urgent_below_ms: u64,
    pub relaxed_above_ms: u64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            urgent: 8,
            soon: 2,
            relaxed: 1,
            urgent_below_ms: 6_000,
            relaxed_above_ms: 12_000,
        }
    }
}

impl Weights {
    /// The weight of a request whose bytes are needed after so long; `None` where the client does not say.
    #[must_use]
    pub const fn of(&self, slack_ms: Option<u64>) -> u32 {
        match slack_ms {
            Some(slack_ms) if slack_ms < self.urgent_below_ms => self.urgent,
            Some(slack_ms) if slack_ms >= self.relaxed_above_ms => self.relaxed,
            _ => self.soon,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slack_decides_the_weight() {
        let weights = Weights::default();
        let of = |slack| weights.of(slack);
        assert_eq!(
            [
                of(Some(0)),
                of(Some(5_999)),
                of(Some(6_000)),
                of(Some(12_000)),
                of(None)
            ],
            [8, 8, 2, 1, 2]
        );
    }
}
