//! The library's calls, views and uploaders.

use vstack_api::ErrorCode;
use vstack_api::wire::{UploaderHeartbeat, VideoQuery, VideoSort, ViewedBy};
use vstack_core::keys::ClusterKey;
use vstack_core::limits::VIEW_HALF_LIFE_MS;
use vstack_core::manifest::VideoStatus;

use super::cluster::{Cluster, key};

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
    let signed = UploaderHeartbeat::signed(&key().grant_key(), url.into());
    cluster.catalogue.uploader_heartbeat(&signed).await.unwrap();
    let made = cluster.catalogue.create_video("b", 0.0).await.unwrap();
    assert_eq!(made.upload_url, Some(format!("{url}/upload/{}", made.video_id)));
    cluster.clock.advance(30_000);
    assert_eq!(cluster.catalogue.uploader_url().await.unwrap(), None);

    let foreign = ClusterKey::from_bytes(&[8; 32]).unwrap();
    let forged = UploaderHeartbeat::signed(&foreign.grant_key(), url.into());
    let refused = cluster.catalogue.uploader_heartbeat(&forged).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::BadSignature);
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
