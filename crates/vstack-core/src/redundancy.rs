//! Full copies or shards: which mode a video should have.
//!
//! One pure rule from popularity, age, size, the cluster's state and the operator's settings to a mode and the reason
//! for it. Popular videos are replicated, since any of three nodes then serves them without decoding; the others take
//! 5/3 of their size instead of 3 times. Between "hot" and "cold" lies a band in which nothing changes, and a video is
//! converted at most once a day, so that nothing flaps.

use serde::{Deserialize, Serialize};

use crate::limits::{CONVERSION_PERIOD_MS, COOL_AFTER_MS, HOT_ABOVE_VIEWS, REPLICA_COUNT, SMALL_VIDEO_BYTES};
use crate::placement::Scheme;
use crate::time::UnixMillis;

/// What an operator may set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Decayed views above which a video is replicated.
    pub hot_above: f64,
    /// Share of `hot_above` below which a video is made cold, 0 to 1.
    pub cold_below_share: f64,
    /// Shortest time between two conversions of a video.
    pub conversion_period_ms: u64,
    /// A new video stays replicated for so long.
    pub cool_after_ms: u64,
    /// Videos below this stay replicated.
    pub small_video_bytes: u64,
    /// Share of the disks in use from which room counts more than speed, 0 to 1.
    pub tight_from: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hot_above: HOT_ABOVE_VIEWS,
            cold_below_share: 0.5,
            conversion_period_ms: CONVERSION_PERIOD_MS,
            cool_after_ms: COOL_AFTER_MS,
            small_video_bytes: SMALL_VIDEO_BYTES,
            tight_from: 0.85,
        }
    }
}

impl Settings {
    /// The same for someone who asks where things end up: nobody waits to cool down or for the next conversion.
    #[must_use]
    pub const fn without_waits(self) -> Self {
        Self {
            conversion_period_ms: 0,
            cool_after_ms: 0,
            ..self
        }
    }
}

/// A video, as far as the rule looks at it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VideoFacts {
    /// Views, decayed to now.
    pub popularity: f64,
    pub created_at: UnixMillis,
    pub size_bytes: u64,
    pub mode: Scheme,
    pub last_conversion: Option<UnixMillis>,
    /// What the operator fixed.
    pub pin: Option<Scheme>,
}

/// The cluster, as far as the rule looks at it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClusterFacts {
    /// Nodes that take new parts.
    pub nodes: usize,
    /// Share of all their room that is in use, 0 to 1.
    pub used_share: f64,
}

/// Why a mode is right. The words are part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The operator fixed it.
    Pinned,
    /// The cluster has fewer nodes than the other mode needs.
    TooFewNodes,
    /// Above the threshold.
    Hot,
    /// Below half the threshold.
    Cold,
    /// Between the two: it stays as it is.
    Lukewarm,
    /// New uploads stay replicated for a day.
    Young,
    /// Too small for the saving to matter.
    Small,
    /// It was converted less than a day ago.
    RecentlyConverted,
    /// Hot, but the disks are too full for three copies.
    NoRoomForCopies,
}

impl Why {
    /// For people.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Pinned => "an operator fixed the mode",
            Self::TooFewNodes => "the cluster has too few nodes for the other mode",
            Self::Hot => "its views are above the threshold",
            Self::Cold => "its views are below half the threshold",
            Self::Lukewarm => {
                "its views are between half the threshold and the threshold, so it stays as it is"
            }
            Self::Young => "it is new, and new videos stay replicated at first",
            Self::Small => "it is too small for the saving to matter",
            Self::RecentlyConverted => "it was converted less than a day ago",
            Self::NoRoomForCopies => "it is popular, but the disks are too full for three copies",
        }
    }
}

/// The mode that a video should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub mode: Scheme,
    pub why: Why,
}

impl Scheme {
    /// The mode's name in the API and on the command line.
    #[must_use]
    pub const fn mode(self) -> &'static str {
        match self {
            Self::Replicated => "replicated",
            Self::Erasure => "erasure",
        }
    }

    /// Bytes stored for a chunk or video of `size_bytes`, when all its parts are there.
    #[must_use]
    pub const fn stored_bytes(self, size_bytes: u64) -> u64 {
        match self {
            Self::Replicated => size_bytes.saturating_mul(REPLICA_COUNT as u64),
            Self::Erasure => size_bytes.div_ceil(3).saturating_mul(5),
        }
    }
}

/// The rule.
#[must_use]
pub fn decide(video: &VideoFacts, cluster: &ClusterFacts, settings: &Settings, now: UnixMillis) -> Decision {
    let stay = |why| Decision {
        mode: video.mode,
        why,
    };
    let wanted = match video.pin {
        Some(mode) => Decision {
            mode,
            why: Why::Pinned,
        },
        None => by_views(video, cluster, settings, now),
    };
    if wanted.mode == video.mode {
        return wanted;
    }
    if cluster.nodes < wanted.mode.part_count() {
        return stay(Why::TooFewNodes);
    }
    // An operator's word is carried out at once.
    let recent = video
        .last_conversion
        .is_some_and(|last| now.since(last) < settings.conversion_period_ms);
    if recent && video.pin.is_none() {
        return stay(Why::RecentlyConverted);
    }
    wanted
}

fn by_views(video: &VideoFacts, cluster: &ClusterFacts, settings: &Settings, now: UnixMillis) -> Decision {
    let (keep, cold) = (Scheme::Replicated, Scheme::Erasure);
    let tight = cluster.used_share >= settings.tight_from;
    let decision = |mode, why| Decision { mode, why };
    if video.size_bytes < settings.small_video_bytes {
        return decision(keep, Why::Small);
    }
    if video.popularity > settings.hot_above {
        return match tight && video.mode == cold {
            true => decision(cold, Why::NoRoomForCopies),
            false => decision(keep, Why::Hot),
        };
    }
    if video.popularity >= settings.hot_above * settings.cold_below_share {
        return decision(video.mode, Why::Lukewarm);
    }
    // When room is short, nobody waits for a new video to cool down.
    if video.mode == keep && !tight && now.since(video.created_at) < settings.cool_after_ms {
        return decision(keep, Why::Young);
    }
    decision(cold, Why::Cold)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::VIEW_HALF_LIFE_MS;
    use crate::popularity::Popularity;
    use proptest::prelude::*;

    const DAY_MS: u64 = 24 * 3_600_000;
    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
    const ROOMY: ClusterFacts = ClusterFacts {
        nodes: 5,
        used_share: 0.3,
    };

    fn video(popularity: f64, mode: Scheme) -> VideoFacts {
        VideoFacts {
            popularity,
            created_at: UnixMillis(0),
            size_bytes: 1 << 30,
            mode,
            last_conversion: None,
            pin: None,
        }
    }

    fn check(video: VideoFacts, cluster: ClusterFacts, mode: Scheme, why: Why) {
        let decision = decide(&video, &cluster, &Settings::default(), NOW);
        assert_eq!(decision, Decision { mode, why }, "{video:?} {cluster:?}");
    }

    #[test]
    fn more_than_a_thousand_views_make_a_video_hot_and_fewer_than_half_make_it_cold() {
        use Scheme::{Erasure, Replicated};
        check(video(1000.1, Erasure), ROOMY, Replicated, Why::Hot);
        check(video(1000.0, Erasure), ROOMY, Erasure, Why::Lukewarm);
        check(video(1000.0, Replicated), ROOMY, Replicated, Why::Lukewarm);
        check(video(500.0, Replicated), ROOMY, Replicated, Why::Lukewarm);
        check(video(499.9, Replicated), ROOMY, Erasure, Why::Cold);
    }

    #[test]
    fn new_and_small_videos_stay_replicated() {
        let young = VideoFacts {
            created_at: NOW,
            ..video(0.0, Scheme::Replicated)
        };
        check(young, ROOMY, Scheme::Replicated, Why::Young);
        let small = VideoFacts {
            size_bytes: 1000,
            ..video(0.0, Scheme::Replicated)
        };
        check(small, ROOMY, Scheme::Replicated, Why::Small);
    }

    #[test]
    fn full_disks_keep_hot_videos_coded_and_cool_new_ones_at_once() {
        let tight = ClusterFacts {
            used_share: 0.9,
            ..ROOMY
        };
        check(
            video(5e3, Scheme::Erasure),
            tight,
            Scheme::Erasure,
            Why::NoRoomForCopies,
        );
        let young = VideoFacts {
            created_at: NOW,
            ..video(0.0, Scheme::Replicated)
        };
        check(young, tight, Scheme::Erasure, Why::Cold);
    }

    #[test]
    fn a_pin_is_obeyed_at_once_but_never_on_too_few_nodes() {
        let pinned = VideoFacts {
            pin: Some(Scheme::Erasure),
            last_conversion: Some(NOW),
            ..video(9e9, Scheme::Replicated)
        };
        check(pinned, ROOMY, Scheme::Erasure, Why::Pinned);
        let four = ClusterFacts { nodes: 4, ..ROOMY };
        check(pinned, four, Scheme::Replicated, Why::TooFewNodes);
    }

    /// Carries the rule through a history of views a day, and gives the times of conversions.
    fn conversions(views_a_day: &[u32]) -> Vec<UnixMillis> {
        let mut popularity = Popularity::default();
        let mut facts = video(0.0, Scheme::Replicated);
        let (mut now, mut done) = (NOW, Vec::new());
        for views in views_a_day {
            for _ in 0..*views {
                popularity = popularity.viewed(now, VIEW_HALF_LIFE_MS);
            }
            for _ in 0..24 {
                now = now + DAY_MS / 24;
                facts.popularity = popularity.decayed(now, VIEW_HALF_LIFE_MS);
                let decision = decide(&facts, &ROOMY, &Settings::default(), now);
                if decision.mode != facts.mode {
                    (facts.mode, facts.last_conversion) = (decision.mode, Some(now));
                    done.push(now);
                }
            }
        }
        done
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn however_it_is_watched_a_video_is_converted_at_most_once_a_day(
            views in prop::collection::vec(0u32..2_000, 1..40),
        ) {
            for pair in conversions(&views).windows(2) {
                prop_assert!(pair[1].since(pair[0]) >= DAY_MS);
            }
        }

        #[test]
        fn views_that_waver_around_the_threshold_convert_nothing_back(waver in prop::collection::vec(60u32..110, 30..60)) {
            // 95 views a day settle near 1000; the band reaches down to 500, which 60 a day stay above.
            let history: Vec<u32> = std::iter::repeat_n(150, 30).chain(waver).collect();
            prop_assert!(conversions(&history).len() <= 2);
        }

        #[test]
        fn what_was_decided_stays_decided_while_nothing_changes(
            popularity in 0.0f64..3_000.0,
            size in 0u64..1 << 32,
            age in 0u64..3 * DAY_MS,
            erasure in any::<bool>(),
            nodes in 3usize..8,
            used_share in 0.0f64..1.0,
        ) {
            let mut facts = VideoFacts {
                created_at: UnixMillis(NOW.0 - age),
                size_bytes: size,
                ..video(popularity, if erasure { Scheme::Erasure } else { Scheme::Replicated })
            };
            let cluster = ClusterFacts { nodes, used_share };
            let first = decide(&facts, &cluster, &Settings::default(), NOW);
            facts.mode = first.mode;
            let again = decide(&facts, &cluster, &Settings::default(), NOW);
            prop_assert_eq!(again.mode, first.mode);
            prop_assert!(first.mode != Scheme::Erasure || erasure || nodes >= 5);
        }
    }
}
