//! How urgent a request for a chunk is: what clients tell with [`SLACK_HEADER`], and what a node makes of it.
//!
//! [`SLACK_HEADER`]: crate::wire::SLACK_HEADER

/// One request's weight is this many times what another one's is. Kept from a sweep in the simulator (crowds in
/// `docs/evaluation/client.md`, reasons in `docs/decisions/0215-who-is-served-first.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// For a player that waits, or will within [`Self::waiting_below_ms`].
    pub waiting: u32,
    /// For one that has less than `urgent_below_ms` left.
    pub urgent: u32,
    /// For one with less than `relaxed_above_ms` left, and for one that does not say.
    pub soon: u32,
    pub relaxed: u32,
    pub waiting_below_ms: u64,
    pub urgent_below_ms: u64,
    pub relaxed_above_ms: u64,
    /// How many times its weight an answer gains until its last byte, in proportion to what has been sent of it, or of its
    /// last [`Self::begun_bytes`]: what is begun is finished first.
    pub begun: u32,
    pub begun_bytes: u64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            waiting: 24,
            urgent: 8,
            soon: 2,
            relaxed: 1,
            waiting_below_ms: 2_500,
            urgent_below_ms: 6_000,
            relaxed_above_ms: 12_000,
            begun: 64,
            begun_bytes: 512 * 1024,
        }
    }
}

impl Weights {
    /// The weight of a request whose bytes are needed after so long; `None` where the client does not say.
    #[must_use]
    pub const fn of(&self, slack_ms: Option<u64>) -> u32 {
        match slack_ms {
            Some(slack_ms) if slack_ms < self.waiting_below_ms => self.waiting,
            Some(slack_ms) if slack_ms < self.urgent_below_ms => self.urgent,
            Some(slack_ms) if slack_ms >= self.relaxed_above_ms => self.relaxed,
            _ => self.soon,
        }
    }

    /// How many times its weight an answer of so many bytes counts when so many of them are left; 1 at its beginning.
    #[must_use]
    pub fn factor(&self, total_bytes: u64, left_bytes: u64) -> f64 {
        let counted = total_bytes.min(self.begun_bytes).max(1) as f64;
        let come = 1.0 - (left_bytes as f64 / counted).min(1.0);
        1.0 + f64::from(self.begun) * come
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slack_decides_the_weight() {
        let weights = Weights::default();
        let of = |slack| weights.of(slack);
        let told = [0, 2_499, 2_500, 5_999, 6_000, 12_000].map(|slack_ms| of(Some(slack_ms)));
        assert_eq!(told, [24, 24, 8, 8, 2, 1]);
        assert_eq!(of(None), 2);
    }

    #[test]
    fn an_answer_counts_more_the_nearer_its_end_is_and_a_long_one_only_in_its_last_part() {
        let weights = Weights::default();
        let factor = |total, left| weights.factor(total, left);
        assert_eq!(
            [factor(1_000, 1_000), factor(1_000, 500), factor(1_000, 0)],
            [1.0, 33.0, 65.0]
        );
        let long = 100 * weights.begun_bytes;
        assert_eq!(factor(long, long / 2), 1.0);
        assert_eq!(factor(long, weights.begun_bytes / 2), 33.0);
        assert_eq!(factor(0, 0), 65.0);
    }
}
