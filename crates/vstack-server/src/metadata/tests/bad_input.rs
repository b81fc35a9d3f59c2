//! Every line of bad input that concerns the catalogue: the code says what is wrong, and nothing changes.

use reqwest::{Method, RequestBuilder};
use serde_json::json;
use uuid::Uuid;
use vstack_api::ErrorCode;
use vstack_core::id::{ChunkId, VideoId};

use super::cluster::{Cluster, code};

const ID: &str = "3b241101-e2bb-4255-8caf-4136c566a962";

fn json_body(
    cluster: &Cluster,
    method: Method,
    path: &str,
    body: impl Into<reqwest::Body>,
) -> RequestBuilder {
    cluster
        .http
        .request(method, cluster.at(path))
        .header("content-type", "application/json")
        .body(body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_ids_are_bad_requests_and_unknown_ones_are_not_found() {
    let cluster = Cluster::start(0).await;
    let upper = ID.to_uppercase();
    for (method, path, expected) in [
        (Method::GET, "/video/none".to_owned(), ErrorCode::BadVideoId),
        (Method::GET, format!("/video/{upper}"), ErrorCode::BadVideoId),
        (Method::GET, "/video/%ff%fe".to_owned(), ErrorCode::BadVideoId),
        (Method::GET, format!("/video/{ID}"), ErrorCode::VideoNotFound),
        (Method::DELETE, format!("/video/{ID}"), ErrorCode::VideoNotFound),
        (
            Method::DELETE,
            "/video/..%2f..%2fetc".to_owned(),
            ErrorCode::BadVideoId,
        ),
        (Method::GET, format!("/manifest/{ID}"), ErrorCode::VideoNotFound),
        (Method::GET, "/manifest/x".to_owned(), ErrorCode::BadVideoId),
        (
            Method::POST,
            format!("/video/{ID}/view"),
            ErrorCode::VideoNotFound,
        ),
        (
            Method::POST,
            format!("/video/{ID}/abort"),
            ErrorCode::VideoNotFound,
        ),
        (
            Method::POST,
            format!("/video/{ID}/finalize"),
            ErrorCode::VideoNotFound,
        ),
        (Method::GET, "/nothing".to_owned(), ErrorCode::NotFound),
        (Method::PUT, "/video".to_owned(), ErrorCode::MethodNotAllowed),
        (
            Method::GET,
            "/video?limit=1000000000".to_owned(),
            ErrorCode::BadRequest,
        ),
        (Method::GET, "/video?limit=0".to_owned(), ErrorCode::BadRequest),
        (Method::GET, "/video?offset=-1".to_owned(), ErrorCode::BadRequest),
        (Method::GET, "/video?sort=size".to_owned(), ErrorCode::BadRequest),
        (Method::GET, "/video?serch=x".to_owned(), ErrorCode::BadRequest),
    ] {
        let answer = cluster
            .http
            .request(method.clone(), cluster.at(&path))
            .send()
            .await
            .unwrap();
        assert_eq!(code(answer).await, expected, "{method} {path}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_no_json_or_has_wrong_fields_is_refused_and_makes_no_video() {
    let cluster = Cluster::start(0).await;
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let long = json!({ "title": "x".repeat(201) }).to_string();
    let huge = json!({ "title": "x".repeat(1 << 20) }).to_string();
    let bodies: Vec<(&[u8], ErrorCode)> = vec![
        (b"", ErrorCode::BadRequest),
        (br#"{"title":"a""#, ErrorCode::BadRequest),
        (br#"{"title":"a"} x"#, ErrorCode::BadRequest),
        (b"\xef\xbb\xbf{\"title\":\"a\"}", ErrorCode::BadRequest),
        (b"{\"title\":\"\xe4\"}", ErrorCode::BadRequest),
        (deep.as_bytes(), ErrorCode::BadRequest),
        (br#"{"title":"a","title":"b"}"#, ErrorCode::BadRequest),
        (br#"{"title":"a","duration_sec":1e999}"#, ErrorCode::InvalidField),
        (br#"{"title":"a","tittle":"b"}"#, ErrorCode::InvalidField),
        (br#"{"title":"a","duration_sec":-1}"#, ErrorCode::InvalidField),
        (br#"{"title":"a","duration_sec":"1"}"#, ErrorCode::InvalidField),
        (br#"{"title":"a","duration_sec":1e300}"#, ErrorCode::InvalidField),
        (br#"{"title":" \t "}"#, ErrorCode::InvalidField),
        (br#"{"title":"a\u0000b"}"#, ErrorCode::InvalidField),
        (br#"{"title":null}"#, ErrorCode::InvalidField),
        (long.as_bytes(), ErrorCode::InvalidField),
        (huge.as_bytes(), ErrorCode::TooLarge),
    ];
    for (body, expected) in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = json_body(&cluster, Method::POST, "/video", body.to_vec())
            .send()
            .await
            .unwrap();
        assert_eq!(code(answer).await, expected, "{shown}");
    }
    let bomb =
        json_body(&cluster, Method::POST, "/video", &b"\x1f\x8b"[..]).header("content-encoding", "gzip");
    assert_eq!(
        code(bomb.send().await.unwrap()).await,
        ErrorCode::UnsupportedMediaType
    );
    let plain = cluster
        .http
        .post(cluster.at("/video"))
        .body(r#"{"title":"a"}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(code(plain).await, ErrorCode::UnsupportedMediaType);
    assert_eq!(
        cluster
            .catalogue
            .videos(&vstack_api::wire::VideoQuery::default())
            .await
            .unwrap()
            .total,
        0
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_that_are_none_are_refused_by_name_and_views_by_nobody() {
    let cluster = Cluster::start(3).await;
    let video = cluster.create("clip").await;
    let finalize = |total: &str| {
        format!(r#"{{"total_chunks":{total},"duration_ms":1,"container":"fmp4","codecs":"","tracks":[]}}"#)
    };
    for total in ["1e999", "-1", "18446744073709551616", "1.5"] {
        let path = format!("/video/{video}/finalize");
        let answer = json_body(&cluster, Method::POST, &path, finalize(total));
        let answer = answer.send().await.unwrap();
        let problem: vstack_api::Problem = answer.json().await.unwrap();
        assert_eq!(problem.code, ErrorCode::InvalidField, "{total}");
        assert!(
            problem.detail.contains("total_chunks"),
            "{total}: {}",
            problem.detail
        );
    }
    for body in [
        r#"{"session_id":""}"#,
        r#"{"session_id":"a b"}"#,
        r#"{"session_id":1}"#,
        r#"{"session_id":"a","video":"b"}"#,
    ] {
        let path = format!("/video/{video}/view");
        let answer = json_body(&cluster, Method::POST, &path, body)
            .send()
            .await
            .unwrap();
        assert_eq!(code(answer).await, ErrorCode::InvalidField, "{body}");
    }
    assert_eq!(cluster.catalogue.video(video).await.unwrap().views, 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn titles_are_text_and_kept_as_they_are() {
    let cluster = Cluster::start(0).await;
    for title in [
        "'; DROP TABLE videos; --",
        "\u{202e}gnol",
        "🎬 <script>alert(1)</script>",
    ] {
        let video = cluster.create(title).await;
        assert_eq!(cluster.catalogue.video(video).await.unwrap().title, title);
    }
    assert_eq!(
        cluster
            .catalogue
            .videos(&vstack_api::wire::VideoQuery::default())
            .await
            .unwrap()
            .total,
        3
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senseless_batches_and_commits_are_refused() {
    let cluster = Cluster::start(3).await;
    let video = cluster.create("clip").await;
    let chunk = ChunkId::media(video, 0);
    let many: Vec<_> = (0..257)
        .map(|seq| json!({"chunk_id": ChunkId::media(video, seq), "kind": "upload", "owner": "a"}))
        .collect();
    let hex = "0".repeat(64);
    for (path, body, expected) in [
        (
            "/consensus/open",
            json!({ "requests": [] }),
            ErrorCode::InvalidField,
        ),
        (
            "/consensus/open",
            json!({ "requests": many }),
            ErrorCode::InvalidField,
        ),
        (
            "/consensus/commit",
            json!({ "commits": [] }),
            ErrorCode::InvalidField,
        ),
        (
            &format!("/chunk/{chunk}.s0/commit"),
            json!({ "node_urls": ["http://a:1"], "checksum": hex }),
            ErrorCode::BadChunkId,
        ),
        (
            "/chunk/x/commit",
            json!({ "node_urls": ["http://a:1"], "checksum": hex }),
            ErrorCode::BadChunkId,
        ),
        (
            &format!("/chunk/{chunk}/commit"),
            json!({ "node_urls": [], "checksum": hex }),
            ErrorCode::InvalidField,
        ),
        (
            &format!("/chunk/{chunk}/commit"),
            json!({ "node_urls": ["http://a:1"], "checksum": "12" }),
            ErrorCode::InvalidField,
        ),
        (
            &format!("/chunk/{chunk}/commit"),
            json!({ "node_urls": ["http://a:1"], "checksum": hex }),
            ErrorCode::NotEnoughReplicas,
        ),
        (
            &format!("/video/{video}/finalize"),
            json!({ "total_chunks": 1 }),
            ErrorCode::InvalidField,
        ),
        ("/nodes/x/heartbeat", json!({}), ErrorCode::BadRequest),
        (
            &format!("/nodes/{ID}/heartbeat"),
            json!({}),
            ErrorCode::InvalidField,
        ),
    ] {
        let answer = json_body(&cluster, Method::POST, path, body.to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(code(answer).await, expected, "{path} {body}");
    }
    let empty = cluster
        .http
        .post(cluster.at(&format!("/video/{video}/finalize")))
        .send()
        .await
        .unwrap();
    assert_eq!(code(empty).await, ErrorCode::ChunksMissing);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_of_a_batch_are_refused_one_by_one() {
    let cluster = Cluster::start(3).await;
    let video = cluster.create("clip").await;
    let unknown = VideoId(Uuid::from_u128(9));
    let item = |chunk: ChunkId, kind: &str, owner: &str, min_ack: u8| json!({ "chunk_id": chunk, "kind": kind, "owner": owner, "min_ack": min_ack });
    let good = ChunkId::media(video, 0);
    let requests = [
        item(good, "upload", "a", 3),
        item(ChunkId::media(unknown, 0), "upload", "a", 3),
        item(good, "delete", "a", 3),
        item(good, "upload", "", 3),
        item(good, "upload", "a", 1),
        item(good.with_shard(1).unwrap(), "upload", "a", 3),
    ];
    let body = json!({ "requests": requests }).to_string();
    let answer = json_body(&cluster, Method::POST, "/consensus/open", body)
        .send()
        .await
        .unwrap();
    let answer: serde_json::Value = answer.error_for_status().unwrap().json().await.unwrap();
    let codes: Vec<_> = answer["grants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["problem"]["code"].as_str())
        .collect();
    let invalid = Some("invalid_field");
    assert_eq!(
        codes,
        [None, Some("video_not_found"), invalid, invalid, invalid, invalid]
    );
    assert!(answer["grants"][0]["ok"]["grant"]["mac"].is_string());
    cluster.stop().await;
}
