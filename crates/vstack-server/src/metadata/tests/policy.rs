//! The policy on a real cluster: what it converts by itself, what it says of it, and what the reports add up to.

use vstack_api::policy::{DurabilityQuery, PolicyQuery, SpeedSource};
use vstack_api::redundancy::RedundancyChoice;
use vstack_core::id::{ChunkId, VideoId};
use vstack_core::placement::Scheme;
use vstack_core::redundancy::Why;

use super::cluster::{Cluster, code, until};
use crate::metadata::RedundancySettings;

/// A few views are many, tiny videos are large, and nobody waits.
fn quick() -> RedundancySettings {
    let mut settings = RedundancySettings::default();
    settings.policy.hot_above = 3.0;
    settings.policy.small_video_bytes = 0;
    settings.policy.cool_after_ms = 0;
    settings.policy.conversion_period_ms = 0;
    settings
}

async fn until_mode(cluster: &Cluster, video: VideoId, mode: &str) {
    until("the policy has converted the video", async || {
        cluster.catalogue.redundancy(video).await.unwrap().mode == mode
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_watched_is_replicated_what_is_not_becomes_shards_and_the_report_adds_up() {
    let cluster = Cluster::start_with(5, quick()).await;
    let (hot, cold) = (cluster.create("hot").await, cluster.create("cold").await);
    for _ in 0..5 {
        cluster.catalogue.record_view(hot).await.unwrap();
    }
    for video in [hot, cold] {
        cluster.fill(video, 2).await;
    }
    until_mode(&cluster, cold, "erasure").await;
    let explained = cluster.catalogue.explain_policy(hot).await.unwrap();
    assert_eq!((explained.mode.as_str(), explained.why), ("replicated", Why::Hot));
    assert_eq!(explained.views, 5);
    assert!(explained.forecast.cold_at.is_some(), "{explained:?}");
    let explained = cluster.catalogue.explain_policy(cold).await.unwrap();
    assert_eq!(
        (explained.why, explained.choice),
        (Why::Cold, RedundancyChoice::Auto)
    );

    let asked = PolicyQuery {
        hot_above: Some(50.0),
    };
    let report = cluster.catalogue.policy(asked).await.unwrap();
    assert_eq!((report.now.replicated_videos, report.now.erasure_videos), (1, 1));
    assert_eq!(
        report.now.stored_bytes + report.now.saved_bytes,
        report.now.three_copies_bytes
    );
    assert!(
        report.now.saved_bytes > 0 && report.settled.changes.is_empty(),
        "{report:?}"
    );
    let changes = report.asked.unwrap().changes;
    assert_eq!(
        changes.iter().map(|change| change.video_id).collect::<Vec<_>>(),
        [hot]
    );
    assert!(changes[0].stored_bytes_change < 0);
    let read: f64 = report
        .node_loads
        .iter()
        .map(|node| node.load.read_bytes_per_second)
        .sum();
    assert!(
        (read / report.now.read_bytes_per_second - 1.0).abs() < 1e-6,
        "{read}"
    );
    assert_eq!(report.repair.speed_source, SpeedSource::Conversions);

    // A cold video that is watched again is replicated again.
    for _ in 0..5 {
        cluster.catalogue.record_view(cold).await.unwrap();
    }
    until_mode(&cluster, cold, "replicated").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durability_is_of_the_cluster_as_it_is() {
    let mut cluster = Cluster::start_with(5, quick()).await;
    let nothing = cluster
        .catalogue
        .durability(DurabilityQuery::default())
        .await
        .unwrap();
    assert_eq!(nothing.assessment.library, None);
    assert_eq!(nothing.repair.speed_source, SpeedSource::Assumed);
    let video = cluster.active_video("clip", 3).await;
    until_mode(&cluster, video, "erasure").await;
    let whole = cluster
        .catalogue
        .durability(DurabilityQuery::default())
        .await
        .unwrap();
    // Init segment and catalogue objects stay replicated.
    let of_mode = |scheme| {
        whole
            .assessment
            .modes
            .iter()
            .find(|mode| mode.scheme == scheme)
            .unwrap()
    };
    assert_eq!(of_mode(Scheme::Erasure).chunks, 3);
    assert!(of_mode(Scheme::Replicated).chunks >= 1);
    assert!(
        !of_mode(Scheme::Erasure).heals_itself,
        "five shards on five nodes"
    );
    assert!(whole.lost_read_bytes > 0 && whole.assessment.degraded_chunks == 0);
    let worse = DurabilityQuery {
        annual_failure_rate: Some(0.2),
        operator_hours: Some(100.0),
    };
    let worse = cluster.catalogue.durability(worse).await.unwrap();
    assert!(worse.assessment.nines_a_year < whole.assessment.nines_a_year);
    cluster.nodes.remove(0).stop().await;
    for _ in 0..2 {
        cluster.clock.advance(28_000);
        cluster.until_healthy(4).await;
    }
    let degraded = cluster
        .catalogue
        .durability(DurabilityQuery::default())
        .await
        .unwrap();
    assert!(degraded.assessment.degraded_chunks >= 3, "{degraded:?}");
    assert!(degraded.assessment.nines_a_year < whole.assessment.nines_a_year);
    cluster.stop().await;
}

#[tokio::test]
async fn figures_that_are_none_are_refused() {
    let cluster = Cluster::start(1).await;
    for path in [
        "/policy?hot_above=0",
        "/policy?hot_above=NaN",
        "/policy?hot_above=many",
        "/policy?threshold=5",
        "/durability?annual_failure_rate=1",
        "/durability?annual_failure_rate=-0.1",
        "/durability?operator_hours=inf",
    ] {
        let answer = cluster.http.get(cluster.at(path)).send().await.unwrap();
        assert_eq!(code(answer).await.as_str(), "bad_request", "{path}");
    }
    let unknown = cluster.at(&format!(
        "/video/{}/policy",
        ChunkId::media(VideoId(uuid::Uuid::nil()), 0).video()
    ));
    let answer = cluster.http.get(unknown).send().await.unwrap();
    assert_eq!(code(answer).await.as_str(), "video_not_found");
    cluster.stop().await;
}
