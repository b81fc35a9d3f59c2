//! How popular a video is: every view counts one, and counts half after each half-life.
//!
//! What is stored is a score and the time it was taken at; nothing has to be rewritten as time goes by.

use crate::manifest::seconds_to_ms;
use crate::time::UnixMillis;

/// A decayed count of views as it was at a time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Popularity {
    pub score: f64,
    pub at: UnixMillis,
}

impl Popularity {
    /// The score at `now`. A clock that went back lets nothing decay and nothing grow.
    #[must_use]
    pub fn decayed(self, now: UnixMillis, half_life_ms: u64) -> f64 {
        let half_lives = now.since(self.at) as f64 / half_life_ms.max(1) as f64;
        self.score * (-half_lives).exp2()
    }

    /// One view more at `now`.
    #[must_use]
    pub fn viewed(self, now: UnixMillis, half_life_ms: u64) -> Self {
        Self {
            score: self.decayed(now, half_life_ms) + 1.0,
            at: self.at.max(now),
        }
    }
}

/// Milliseconds until a count that is `popularity` now falls below `line` if no view is added; `None` when it is below.
#[must_use]
pub fn until_below(popularity: f64, line: f64, half_life_ms: u64) -> Option<u64> {
    if popularity < line {
        return None;
    }
    let half_lives = (popularity / line.max(f64::MIN_POSITIVE)).log2();
    Some(seconds_to_ms(half_lives * half_life_ms as f64 / 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::VIEW_HALF_LIFE_MS as HALF_LIFE;
    use proptest::prelude::*;

    const T0: UnixMillis = UnixMillis(1_700_000_000_000);

    fn after(views: &[u64]) -> Popularity {
        let mut now = T0;
        let mut popularity = Popularity::default();
        for pause in views {
            now = now + *pause;
            popularity = popularity.viewed(now, HALF_LIFE);
        }
        popularity
    }

    #[test]
    fn a_view_counts_half_after_a_half_life() {
        let one = Popularity::default().viewed(T0, HALF_LIFE);
        for (half_lives, expected) in [(0, 1.0), (1, 0.5), (2, 0.25), (10, 1.0 / 1024.0)] {
            assert!((one.decayed(T0 + half_lives * HALF_LIFE, HALF_LIFE) - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn a_clock_that_goes_back_and_a_half_life_of_nothing_do_no_harm() {
        let one = Popularity::default().viewed(T0, HALF_LIFE);
        assert_eq!(one.decayed(UnixMillis(0), HALF_LIFE), 1.0);
        assert_eq!(
            one.viewed(UnixMillis(0), HALF_LIFE),
            Popularity { score: 2.0, at: T0 }
        );
        assert_eq!(one.decayed(T0 + u64::MAX, 0), 0.0);
    }

    proptest! {
        #[test]
        fn it_never_exceeds_the_count_and_only_falls_between_views(
            views in prop::collection::vec(0..3 * HALF_LIFE, 1..50),
            first in 0..10 * HALF_LIFE,
            second in 0..10 * HALF_LIFE,
        ) {
            let popularity = after(&views);
            prop_assert!(popularity.score >= 1.0 && popularity.score <= views.len() as f64 + 1e-9);
            let (sooner, later) = (first.min(second), first.max(second));
            let at = |ms| popularity.decayed(popularity.at + ms, HALF_LIFE);
            prop_assert!(at(later) <= at(sooner));
        }

        #[test]
        fn reading_it_in_between_changes_nothing(
            views in prop::collection::vec(0..HALF_LIFE, 1..20),
            first in 0..4 * HALF_LIFE,
            second in 0..4 * HALF_LIFE,
        ) {
            let popularity = after(&views);
            let middle = popularity.at + first;
            let taken = Popularity { score: popularity.decayed(middle, HALF_LIFE), at: middle };
            let (whole, stepwise) = (
                popularity.decayed(middle + second, HALF_LIFE),
                taken.decayed(middle + second, HALF_LIFE),
            );
            prop_assert!((whole - stepwise).abs() <= 1e-9 * whole.max(1.0));
        }

        #[test]
        fn of_two_videos_the_order_stays_while_nobody_watches(
            a in prop::collection::vec(0..HALF_LIFE, 1..20),
            b in prop::collection::vec(0..HALF_LIFE, 1..20),
            wait in 0..20 * HALF_LIFE,
        ) {
            let (a, b) = (after(&a), after(&b));
            let now = a.at.max(b.at);
            let margin = a.decayed(now, HALF_LIFE) - b.decayed(now, HALF_LIFE);
            prop_assume!(margin > 1e-6);
            prop_assert!(a.decayed(now + wait, HALF_LIFE) > b.decayed(now + wait, HALF_LIFE));
        }
    }
}
