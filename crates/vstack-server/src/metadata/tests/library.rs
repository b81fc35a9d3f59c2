//! The library's calls, views and uploaders.

use std::time::Duration;

use vstack_api::ErrorCode;
use vstack_api::wire::{CreateVideo, Service, ServiceHeartbeat, VideoQuery, VideoSort, ViewedBy};
use vstack_core::id::ChunkId;
use vstack_core::keys::ClusterKey;
use vstack_core::limits::{ABANDONED_AFTER_MS, CREATION_KEPT_MS, VIEW_HALF_LIFE_MS};
use vstack_core::manifest::VideoStatus;

use super::cluster::{Cluster, key, until};
use crate::metadata::MetadataConfig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn videos_are_listed_searched_renamed_and_counted() {
    let cluster = Cluster::start(3).await;
    let old = cluster.active_video("Ärger im Zoo", 1).await;
    cluster.clock.advance(1_000);
    let new = cluster.create("'; DROP TABLE videos").await;
    let all = cluster.catalogue.videos(&VideoQuery::default()).await.unwrap();
    assert_eq!(
        all.videos.iter().map(|video| video.video_id).collect::<Vec<_>>(),
        [new, old]
    );
    assert_eq!(all.videos[1].status, VideoStatus::Active);
    let query = VideoQuery {
        search: Some("ÄRGER".into()),
        sort: VideoSort::Title,
        ..VideoQuery::default()
    };
    assert_eq!(cluster.catalogue.videos(&query).await.unwrap().total, 1);

    cluster.catalogue.record_view(old).await.unwrap();
    assert_eq!(cluster.catalogue.video(old).await.unwrap().views, 1);
    let renamed = cluster.catalogue.rename_video(old, "🎬").await.unwrap();
    assert_eq!((renamed.title.as_str(), renamed.views), ("🎬", 1));
    assert!(
        (0.99..=1.0).contains(&renamed.views_recent),
        "{}",
        renamed.views_recent
    );
    assert_eq!(cluster.catalogue.manifest(old).await.unwrap().title, "🎬");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_address_is_given_while_an_uploader_lives() {
    let cluster = Cluster::start(0).await;
    assert_eq!(
        cluster.catalogue.create_video("a", 0.0).await.unwrap().upload_url,
        None
    );
    let url = "http://127.0.0.1:4321";
    let signed = ServiceHeartbeat::signed(&key().grant_key(), Service::Uploader, url.into());
    let beat =
        async |beat: &ServiceHeartbeat| cluster.catalogue.service_heartbeat(Service::Uploader, beat).await;
    beat(&signed).await.unwrap();
    let made = cluster.catalogue.create_video("b", 0.0).await.unwrap();
    assert_eq!(made.upload_url, Some(format!("{url}/upload/{}", made.video_id)));
    cluster.clock.advance(30_000);
    assert_eq!(cluster.catalogue.uploader_url().await.unwrap(), None);

    let foreign = ClusterKey::from_bytes(&[8; 32]).unwrap();
    for forged in [
        ServiceHeartbeat::signed(&foreign.grant_key(), Service::Uploader, url.into()),
        // A gateway is no uploader.
        ServiceHeartbeat::signed(&key().grant_key(), Service::Gateway, url.into()),
    ] {
        let refused = beat(&forged).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::BadSignature);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_video_is_made_once_for_a_key_and_another_one_under_it_is_refused() {
    let cluster = Cluster::start(0).await;
    let body = |title: &str| CreateVideo {
        title: title.to_owned(),
        duration_sec: 0.0,
    };
    let make = async |key: &str, title: &str| {
        let made = cluster.catalogue.create_video_once(key, &body(title)).await;
        made.map(|made| made.video_id).map_err(|error| error.code())
    };
    let first = make("k-1", "a").await.unwrap();
    cluster.catalogue.rename_video(first, "renamed").await.unwrap();
    assert_eq!(make("k-1", "a").await, Ok(first), "the same request again");
    assert_eq!(
        make("\"k-1\"", "a").await,
        Ok(first),
        "as a structured field's string"
    );
    assert_ne!(make("k-2", "a").await, Ok(first), "another key");
    assert_eq!(make("k-1", "b").await, Err(ErrorCode::IdempotencyConflict));
    for bad in ["", "a b", "ä", &"x".repeat(65)] {
        assert_eq!(make(bad, "a").await, Err(ErrorCode::BadRequest), "{bad:?}");
    }
    let all = cluster.catalogue.videos(&VideoQuery::default()).await.unwrap();
    assert_eq!(all.total, 2);
    // An upload that was aborted leaves nothing, its key neither.
    cluster.catalogue.abort_video(first).await.unwrap();
    assert_ne!(make("k-1", "b").await, Ok(first));
    cluster.clock.advance(CREATION_KEPT_MS + 1);
    assert!(make("k-1", "c").await.is_ok(), "the key is forgotten");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_nobody_finishes_is_given_up_after_a_week() {
    let cluster = Cluster::start_configured(3, |config| MetadataConfig {
        abandoned_every: Duration::from_millis(50),
        ..config
    })
    .await;
    let done = cluster.active_video("done", 1).await;
    let abandoned = cluster.create("abandoned").await;
    cluster.store(ChunkId::media(abandoned, 0), b"a").await;
    let going_on = cluster.create("going on").await;
    cluster.clock.advance(ABANDONED_AFTER_MS - 60_000);
    cluster.until_healthy(3).await;
    cluster.store(ChunkId::media(going_on, 0), b"b").await;
    cluster.clock.advance(120_000);
    until("the abandoned upload is gone", async || {
        let found = cluster.catalogue.video(abandoned).await;
        found.is_err_and(|error| error.code() == ErrorCode::VideoNotFound)
    })
    .await;
    for video in [done, going_on] {
        assert!(cluster.catalogue.video(video).await.is_ok());
    }
    cluster.let_graces_pass().await;
    cluster.until_gone(ChunkId::media(abandoned, 0)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_counts_once_and_old_views_count_less() {
    let cluster = Cluster::start(0).await;
    let (first, second) = (cluster.create("a").await, cluster.create("b").await);
    let by = |session: &str| ViewedBy {
        session_id: session.to_owned(),
    };
    for session in ["s1", "s1", "s2", "s3"] {
        cluster
            .catalogue
            .record_view_of(first, &by(session))
            .await
            .unwrap();
    }
    let other = cluster.catalogue.record_view_of(second, &by("s1")).await;
    assert_eq!(other.unwrap_err().code(), ErrorCode::IdempotencyConflict);
    cluster.clock.advance(3 * VIEW_HALF_LIFE_MS);
    // Without a session every call counts.
    let plain = cluster.http.post(cluster.at(&format!("/video/{second}/view")));
    assert_eq!(plain.send().await.unwrap().status(), 204);
    let query = VideoQuery {
        sort: VideoSort::Views,
        ..VideoQuery::default()
    };
    let page = cluster.catalogue.videos(&query).await.unwrap();
    let seen: Vec<_> = page
        .videos
        .iter()
        .map(|video| (video.video_id, video.views))
        .collect();
    assert_eq!(seen, [(second, 1), (first, 3)]);
    cluster.stop().await;
}
