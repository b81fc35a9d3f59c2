//! What becomes of a video's mode if nothing else happens: for operators who ask why it is as it is.

use serde::{Deserialize, Serialize};

use crate::placement::Scheme;
use crate::popularity::until_below;
use crate::redundancy::{ClusterFacts, Settings, VideoFacts, Why, decide};
use crate::time::UnixMillis;

/// Where a video is heading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// The mode it ends up in if its views stay as they are, and why.
    pub settled: String,
    pub settled_why: Why,
    /// Views that it lacks to be hot; 0 when it is.
    pub views_to_hot: f64,
    /// When its count falls below the cold line if nobody watches it. `None` when it is below.
    pub cold_at: Option<UnixMillis>,
    /// Until then it stays replicated because it is new. `None` when that is over.
    pub young_until: Option<UnixMillis>,
    /// Until then it is not converted again. `None` when it may be.
    pub rests_until: Option<UnixMillis>,
}

/// The forecast at `now`.
#[must_use]
pub fn forecast(
    video: &VideoFacts,
    cluster: &ClusterFacts,
    settings: &Settings,
    now: UnixMillis,
    half_life_ms: u64,
) -> Forecast {
    let settled = decide(video, cluster, &settings.without_waits(), now);
    let later = |time: UnixMillis| (time > now).then_some(time);
    let cold_below = settings.hot_above * settings.cold_below_share;
    Forecast {
        settled: settled.mode.mode().to_owned(),
        settled_why: settled.why,
        views_to_hot: (settings.hot_above - video.popularity).max(0.0),
        cold_at: until_below(video.popularity, cold_below, half_life_ms).map(|ms| now + ms),
        young_until: later(video.created_at + settings.cool_after_ms)
            .filter(|_| video.mode == Scheme::Replicated),
        rests_until: video
            .last_conversion
            .and_then(|last| later(last + settings.conversion_period_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::VIEW_HALF_LIFE_MS;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
    const DAY_MS: u64 = 24 * 3_600_000;
    const ROOMY: ClusterFacts = ClusterFacts {
        nodes: 5,
        used_share: 0.3,
    };

    fn video(popularity: f64) -> VideoFacts {
        VideoFacts {
            popularity,
            created_at: UnixMillis(NOW.0 - 10 * DAY_MS),
            size_bytes: 1 << 30,
            mode: Scheme::Replicated,
            last_conversion: None,
            pin: None,
        }
    }

    fn of(video: VideoFacts) -> Forecast {
        forecast(&video, &ROOMY, &Settings::default(), NOW, VIEW_HALF_LIFE_MS)
    }

    #[test]
    fn a_video_that_nobody_watches_any_more_is_cold_when_its_count_has_halved() {
        let hot = of(video(1_000.0));
        assert_eq!(hot.cold_at, Some(NOW + VIEW_HALF_LIFE_MS));
        assert_eq!((hot.views_to_hot, hot.settled_why), (0.0, Why::Lukewarm));
        let cold = of(video(400.0));
        assert_eq!((cold.cold_at, cold.settled.as_str()), (None, "erasure"));
        assert_eq!(cold.views_to_hot, 600.0);
    }

    #[test]
    fn the_waits_are_told_and_left_out_of_where_it_ends_up() {
        let young = VideoFacts {
            created_at: NOW,
            last_conversion: Some(NOW),
            ..video(0.0)
        };
        let young = of(young);
        assert_eq!(young.young_until, Some(NOW + DAY_MS));
        assert_eq!(young.rests_until, Some(NOW + DAY_MS));
        assert_eq!(young.settled, "erasure");
        let old = of(video(0.0));
        assert_eq!((old.young_until, old.rests_until), (None, None));
    }
}
