//! What redundancy costs: bytes stored and saved, reads to be expected, and what other settings would change.
//!
//! Reads are computed from popularity. A decayed count that stands still at `s` views belongs to `s ln 2 / half-life` views
//! a second, and a view is counted as the whole video: what is skipped or cached makes the real load smaller. Both modes
//! read the same bytes; a coded chunk takes three requests instead of one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, VideoId};
use crate::placement::Scheme;
use crate::redundancy::{ClusterFacts, Decision, Settings, VideoFacts, Why, decide};
use crate::time::UnixMillis;

/// A video of the library.
#[derive(Debug, Clone, PartialEq)]
pub struct CostedVideo {
    pub video: VideoId,
    pub title: String,
    pub facts: VideoFacts,
    /// Media chunks.
    pub chunks: u64,
    /// Bytes of those chunks that are erasure-coded now, each counted once.
    pub erasure_bytes: u64,
    pub erasure_chunks: u64,
}

/// What a library costs in one state.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Videos of which most is replicated, and the others.
    pub replicated_videos: u64,
    pub erasure_videos: u64,
    /// Media bytes, each counted once.
    pub size_bytes: u64,
    /// All parts of them.
    pub stored_bytes: u64,
    /// What three copies of everything would take, and how much less this is.
    pub three_copies_bytes: u64,
    pub saved_bytes: u64,
    /// Of the three copies, 0 to 1.
    pub saved_share: f64,
    /// Bytes stored for each byte of video.
    pub stored_per_byte: f64,
    /// Of all viewers together.
    pub read_bytes_per_second: f64,
    pub read_requests_per_second: f64,
}

/// A video that other settings would convert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub video_id: VideoId,
    pub title: String,
    pub from: String,
    pub to: String,
    pub why: Why,
    /// Views, decayed to now.
    pub popularity: f64,
    pub size_bytes: u64,
    /// More is positive.
    pub stored_bytes_change: i64,
}

/// The library as settings would leave it, and what they would convert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub hot_above: f64,
    pub cost: Cost,
    pub changes: Vec<Change>,
}

/// Views a second behind a decayed count that stands still.
#[must_use]
pub fn views_per_second(popularity: f64, half_life_ms: u64) -> f64 {
    popularity * std::f64::consts::LN_2 * 1000.0 / half_life_ms.max(1) as f64
}

/// The library as it is stored now.
#[must_use]
pub fn cost_now(videos: &[CostedVideo], half_life_ms: u64) -> Cost {
    let parts = videos.iter().map(|video| {
        let coded = (video.erasure_bytes, video.erasure_chunks);
        (video, video.facts.mode, coded)
    });
    sum(parts, half_life_ms)
}

/// The library once every video has the mode that these settings give it in the long run: nobody waits to cool down, and
/// nobody because of a recent conversion.
#[must_use]
pub fn outcome(
    videos: &[CostedVideo],
    cluster: &ClusterFacts,
    settings: &Settings,
    now: UnixMillis,
    half_life_ms: u64,
) -> Outcome {
    let decided: Vec<(&CostedVideo, Decision)> = videos
        .iter()
        .map(|video| {
            (
                video,
                decide(&video.facts, cluster, &settings.without_waits(), now),
            )
        })
        .collect();
    let parts = decided.iter().map(|(video, decision)| {
        let coded = match decision.mode {
            Scheme::Erasure => (video.facts.size_bytes, video.chunks),
            Scheme::Replicated => (0, 0),
        };
        (*video, decision.mode, coded)
    });
    let mut changes: Vec<Change> = decided
        .iter()
        .filter(|(video, decision)| decision.mode != video.facts.mode)
        .map(|(video, decision)| change(video, *decision))
        .collect();
    changes.sort_by(|a, b| {
        b.popularity
            .total_cmp(&a.popularity)
            .then(a.video_id.cmp(&b.video_id))
    });
    Outcome {
        hot_above: settings.hot_above,
        cost: sum(parts, half_life_ms),
        changes,
    }
}

fn change(video: &CostedVideo, decision: Decision) -> Change {
    let VideoFacts {
        size_bytes,
        mode,
        popularity,
        ..
    } = video.facts;
    let stored = |scheme: Scheme| i64::try_from(scheme.stored_bytes(size_bytes)).unwrap_or(i64::MAX);
    Change {
        video_id: video.video,
        title: video.title.clone(),
        from: mode.mode().to_owned(),
        to: decision.mode.mode().to_owned(),
        why: decision.why,
        popularity,
        size_bytes,
        stored_bytes_change: stored(decision.mode) - stored(mode),
    }
}

/// Each video with its mode and what of it is coded.
fn sum<'a>(parts: impl Iterator<Item = (&'a CostedVideo, Scheme, (u64, u64))>, half_life_ms: u64) -> Cost {
    let mut cost = Cost::default();
    for (video, mode, (coded_bytes, coded_chunks)) in parts {
        let size = video.facts.size_bytes;
        match mode {
            Scheme::Replicated => cost.replicated_videos += 1,
            Scheme::Erasure => cost.erasure_videos += 1,
        }
        cost.size_bytes += size;
        cost.stored_bytes += Scheme::Erasure.stored_bytes(coded_bytes);
        cost.stored_bytes += Scheme::Replicated.stored_bytes(size.saturating_sub(coded_bytes));
        cost.three_copies_bytes += Scheme::Replicated.stored_bytes(size);
        let views = views_per_second(video.facts.popularity, half_life_ms);
        let requests = video.chunks.saturating_sub(coded_chunks)
            + coded_chunks.saturating_mul(Scheme::Erasure.parts_to_read() as u64);
        cost.read_bytes_per_second += views * size as f64;
        cost.read_requests_per_second += views * requests as f64;
    }
    cost.saved_bytes = cost.three_copies_bytes.saturating_sub(cost.stored_bytes);
    cost.saved_share = share(cost.saved_bytes, cost.three_copies_bytes);
    cost.stored_per_byte = share(cost.stored_bytes, cost.size_bytes);
    cost
}

fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

/// Thresholds around the present one: what moving it would change. Ends are where nothing and everything is hot.
#[must_use]
pub fn thresholds_around(hot_above: f64) -> Vec<f64> {
    const STEPS: [f64; 9] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];
    STEPS.iter().map(|step| hot_above * step).collect()
}

/// Chunks of one video that lie on the same nodes in the same mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedChunks {
    pub video: VideoId,
    pub is_media: bool,
    pub scheme: Scheme,
    /// Holders of good parts.
    pub nodes: Vec<NodeId>,
    pub chunks: u64,
    /// Each chunk counted once.
    pub size_bytes: u64,
}

/// What lies on a node, and what viewers are expected to read from it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NodeLoad {
    pub node_id: NodeId,
    pub copies_bytes: u64,
    pub shards_bytes: u64,
    pub read_bytes_per_second: f64,
    pub read_requests_per_second: f64,
}

impl NodeLoad {
    /// Bytes to read to make the node's parts again: three for each byte of a shard.
    #[must_use]
    pub const fn repair_read_bytes(&self) -> u64 {
        let factor = Scheme::Erasure.parts_to_read() as u64;
        self.copies_bytes
            .saturating_add(self.shards_bytes.saturating_mul(factor))
    }
}

/// The load of each node, where every part of a chunk is as likely to be read as another. `popularity` is decayed to now;
/// a video that it lacks is read by nobody.
#[must_use]
pub fn node_loads(
    placed: &[PlacedChunks],
    popularity: &BTreeMap<VideoId, f64>,
    half_life_ms: u64,
) -> Vec<NodeLoad> {
    let mut loads: BTreeMap<NodeId, NodeLoad> = BTreeMap::new();
    for group in placed {
        let watched = popularity.get(&group.video).filter(|_| group.is_media);
        let views = views_per_second(watched.copied().unwrap_or(0.0), half_life_ms);
        let holders = group.nodes.len().max(1) as f64;
        let part_bytes = match group.scheme {
            Scheme::Replicated => group.size_bytes,
            Scheme::Erasure => group.size_bytes.div_ceil(group.scheme.parts_to_read() as u64),
        };
        for node in &group.nodes {
            let load = loads.entry(*node).or_insert(NodeLoad {
                node_id: *node,
                copies_bytes: 0,
                shards_bytes: 0,
                read_bytes_per_second: 0.0,
                read_requests_per_second: 0.0,
            });
            match group.scheme {
                Scheme::Replicated => load.copies_bytes += part_bytes,
                Scheme::Erasure => load.shards_bytes += part_bytes,
            }
            load.read_bytes_per_second += views * group.size_bytes as f64 / holders;
            let requests = group.chunks as f64 * group.scheme.parts_to_read() as f64 / holders;
            load.read_requests_per_second += views * requests;
        }
    }
    loads.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
    const WEEK_MS: u64 = 7 * 24 * 3_600_000;
    const ROOMY: ClusterFacts = ClusterFacts {
        nodes: 5,
        used_share: 0.3,
    };

    fn video(number: u128, popularity: f64, size_bytes: u64, mode: Scheme) -> CostedVideo {
        let coded = mode == Scheme::Erasure;
        CostedVideo {
            video: VideoId(Uuid::from_u128(number)),
            title: format!("video {number}"),
            facts: VideoFacts {
                popularity,
                created_at: NOW,
                size_bytes,
                mode,
                last_conversion: Some(NOW),
                pin: None,
            },
            chunks: 10,
            erasure_bytes: if coded { size_bytes } else { 0 },
            erasure_chunks: if coded { 10 } else { 0 },
        }
    }

    #[test]
    fn a_cold_library_takes_five_thirds_and_saves_four_ninths_of_three_copies() {
        let videos = [video(1, 0.0, 3_000_000, Scheme::Erasure)];
        let cost = cost_now(&videos, WEEK_MS);
        assert_eq!(
            (cost.stored_bytes, cost.three_copies_bytes),
            (5_000_000, 9_000_000)
        );
        assert_eq!((cost.saved_bytes, cost.erasure_videos), (4_000_000, 1));
        assert!((cost.saved_share - 4.0 / 9.0).abs() < 1e-12);
    }

    #[test]
    fn reads_follow_from_views_and_shards_take_three_requests() {
        // A count that stands at 7 / ln 2 with a half-life of a week is one view a day.
        let steady = 7.0 / std::f64::consts::LN_2;
        assert!((views_per_second(steady, WEEK_MS) * 86_400.0 - 1.0).abs() < 1e-12);
        let cost = |mode| cost_now(&[video(1, steady, 8_640_000, mode)], WEEK_MS);
        let (copies, shards) = (cost(Scheme::Replicated), cost(Scheme::Erasure));
        assert!((copies.read_bytes_per_second - 100.0).abs() < 1e-9);
        assert_eq!(copies.read_bytes_per_second, shards.read_bytes_per_second);
        assert!((shards.read_requests_per_second / copies.read_requests_per_second - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_lower_threshold_makes_more_videos_hot_and_stores_more() {
        let videos = [
            video(1, 2_000.0, 3_000_000, Scheme::Erasure),
            video(2, 800.0, 3_000_000, Scheme::Erasure),
            video(3, 1.0, 3_000_000, Scheme::Replicated),
        ];
        let at = |hot_above| {
            let settings = Settings {
                hot_above,
                ..Settings::default()
            };
            outcome(&videos, &ROOMY, &settings, NOW, WEEK_MS)
        };
        let (now, lower) = (at(1_000.0), at(500.0));
        assert_eq!((now.cost.replicated_videos, lower.cost.replicated_videos), (1, 2));
        let names = |outcome: &Outcome| {
            let names = outcome.changes.iter().map(|change| change.title.clone());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(&now), ["video 1", "video 3"]);
        assert_eq!(names(&lower), ["video 1", "video 2", "video 3"]);
        assert_eq!(now.changes[0].stored_bytes_change, 4_000_000);
        assert_eq!(lower.cost.stored_bytes - now.cost.stored_bytes, 4_000_000);
    }

    #[test]
    fn the_load_of_nodes_adds_up_to_the_load_of_the_library() {
        let nodes: Vec<NodeId> = (1..=5).map(|number| NodeId(Uuid::from_u128(number))).collect();
        let videos = [
            video(1, 500.0, 3_000_000, Scheme::Erasure),
            video(2, 900.0, 6_000_000, Scheme::Replicated),
        ];
        let placed: Vec<PlacedChunks> = videos
            .iter()
            .map(|video| PlacedChunks {
                video: video.video,
                is_media: true,
                scheme: video.facts.mode,
                nodes: nodes[..video.facts.mode.part_count()].to_vec(),
                chunks: video.chunks,
                size_bytes: video.facts.size_bytes,
            })
            .collect();
        let popularity = videos
            .iter()
            .map(|video| (video.video, video.facts.popularity))
            .collect();
        let loads = node_loads(&placed, &popularity, WEEK_MS);
        let cost = cost_now(&videos, WEEK_MS);
        let bytes: f64 = loads.iter().map(|load| load.read_bytes_per_second).sum();
        let requests: f64 = loads.iter().map(|load| load.read_requests_per_second).sum();
        let stored: u64 = loads
            .iter()
            .map(|load| load.copies_bytes + load.shards_bytes)
            .sum();
        assert!((bytes / cost.read_bytes_per_second - 1.0).abs() < 1e-9);
        assert!((requests / cost.read_requests_per_second - 1.0).abs() < 1e-9);
        assert_eq!(stored, cost.stored_bytes);
        assert_eq!(loads[0].repair_read_bytes(), 6_000_000 + 3 * 1_000_000);
    }

    proptest! {
        #[test]
        fn a_higher_threshold_never_stores_more(
            library in prop::collection::vec((0.0f64..5_000.0, 1u64..1 << 32), 1..40),
            low in 1.0f64..2_000.0,
            factor in 1.0f64..10.0,
        ) {
            // All coded, so that the band between cold and hot leaves them as they are.
            let videos: Vec<CostedVideo> = (0..).zip(&library)
                .map(|(number, (popularity, size))| video(number, *popularity, *size, Scheme::Erasure))
                .collect();
            let at = |hot_above| {
                let settings = Settings { hot_above, ..Settings::default() };
                outcome(&videos, &ROOMY, &settings, NOW, WEEK_MS).cost
            };
            let (lower, higher) = (at(low), at(low * factor));
            prop_assert!(higher.stored_bytes <= lower.stored_bytes);
            prop_assert!(lower.stored_bytes <= lower.three_copies_bytes);
            prop_assert_eq!(lower.three_copies_bytes - lower.saved_bytes, lower.stored_bytes);
        }
    }
}
