//! Clients that know the contract's table and nothing else: PUT to three nodes, commit, finalize, manifest, GET.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::process::Command;
use vstack_api::ErrorCode;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::{ChunkId, VideoId};

use super::cluster::{Cluster, code, until};

impl Cluster {
    async fn plain_put(&self, number: usize, chunk: ChunkId, bytes: &[u8]) -> StatusCode {
        let url = format!("{}/chunk/{chunk}", self.nodes[number].url);
        self.http
            .put(url)
            .body(bytes.to_vec())
            .send()
            .await
            .unwrap()
            .status()
    }

    async fn plain_commit(&self, chunk: ChunkId, urls: &[&str], checksum: &str) -> reqwest::Response {
        let body = json!({ "node_urls": urls, "checksum": checksum });
        self.http
            .post(self.at(&format!("/chunk/{chunk}/commit")))
            .json(&body)
            .send()
            .await
            .unwrap()
    }

    fn urls(&self) -> Vec<&str> {
        self.nodes.iter().map(|node| node.url.as_str()).collect()
    }

    /// PUT to the first three nodes and commit.
    async fn plain_store(&self, chunk: ChunkId, bytes: &[u8]) {
        for number in 0..3 {
            assert_eq!(self.plain_put(number, chunk, bytes).await, StatusCode::CREATED);
        }
        let checksum = Sha256Digest::of(bytes).prefixed();
        let answer = self.plain_commit(chunk, &self.urls()[..3], &checksum).await;
        assert_eq!(
            answer.status(),
            StatusCode::OK,
            "{}",
            answer.text().await.unwrap()
        );
    }

    async fn json(&self, path: &str) -> Value {
        self.http
            .get(self.at(path))
            .send()
            .await
            .unwrap()
            .error_for_status()
            .unwrap()
            .json()
            .await
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_needs_a_quorum_that_really_holds_the_bytes() {
    let cluster = Cluster::start(3).await;
    let chunk = ChunkId::media(cluster.create("clip").await, 0);
    let checksum = Sha256Digest::of(b"bytes").to_string();
    let refused =
        async |urls: &[&str], checksum: &str| code(cluster.plain_commit(chunk, urls, checksum).await).await;

    assert_eq!(
        refused(&cluster.urls(), &checksum).await,
        ErrorCode::NotEnoughReplicas,
        "nobody holds it"
    );
    cluster.plain_put(0, chunk, b"bytes").await;
    assert_eq!(
        refused(&cluster.urls(), &checksum).await,
        ErrorCode::NotEnoughReplicas,
        "one holds it"
    );
    cluster.plain_put(1, chunk, b"bytes").await;
    cluster.plain_put(2, chunk, b"other").await;
    let other = Sha256Digest::of(b"third").to_string();
    assert_eq!(
        refused(&cluster.urls(), &other).await,
        ErrorCode::NotEnoughReplicas,
        "nobody holds those bytes"
    );
    let same = cluster.urls()[0];
    assert_eq!(
        refused(&[same, same, same], &checksum).await,
        ErrorCode::NotEnoughReplicas,
        "one node three times"
    );

    let answer = cluster.plain_commit(chunk, &cluster.urls(), &checksum).await;
    let decided: Value = answer.error_for_status().unwrap().json().await.unwrap();
    assert_eq!(decided["value"]["parts"].as_array().unwrap().len(), 2);
    assert_eq!(decided["under_replicated"], true);
    // Twice is the same answer; other bytes are refused.
    let again: Value = cluster
        .plain_commit(chunk, &cluster.urls(), &checksum)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(again, decided);
    assert_eq!(refused(&cluster.urls(), &other).await, ErrorCode::Conflict);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_no_node_counts_not_and_is_never_asked() {
    let cluster = Cluster::start(3).await;
    let chunk = ChunkId::media(cluster.create("clip").await, 0);
    cluster.plain_put(0, chunk, b"bytes").await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let app = axum::Router::new().fallback(async move || {
        counter.fetch_add(1, Ordering::SeqCst);
        StatusCode::OK
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stranger = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(axum::serve(listener, app).into_future());
    let checksum = Sha256Digest::of(b"bytes").to_string();
    let answer = cluster
        .plain_commit(chunk, &[cluster.urls()[0], &stranger, &stranger], &checksum)
        .await;
    assert_eq!(code(answer).await, ErrorCode::NotEnoughReplicas);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    server.abort();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plain_objects_are_collected_and_the_committed_ones_stay() {
    let cluster = Cluster::start(3).await;
    let chunk = ChunkId::media(cluster.create("clip").await, 0);
    cluster.plain_store(chunk, b"bytes").await;
    let plain = format!("{}/chunk/{chunk}?ballot=0", cluster.nodes[0].url);
    assert_eq!(
        cluster.http.get(&plain).send().await.unwrap().status(),
        StatusCode::OK
    );
    cluster.let_graces_pass().await;
    until("ballot 0 is collected", async || {
        cluster.http.get(&plain).send().await.unwrap().status() == StatusCode::NOT_FOUND
    })
    .await;
    let committed = cluster
        .http
        .get(format!("{}/chunk/{chunk}", cluster.nodes[0].url))
        .send()
        .await
        .unwrap();
    assert_eq!(committed.bytes().await.unwrap(), "bytes");
    cluster.stop().await;
}

/// Runs FFmpeg in `folder`, or says that it is missing.
async fn ffmpeg(folder: &Path, arguments: &[&str]) {
    let made = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("FFmpeg is installed: sudo apt-get install -y ffmpeg");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

const CLIP: [&str; 18] = [
    "-f",
    "lavfi",
    "-i",
    "testsrc2=size=320x180:rate=30:duration=9",
    "-f",
    "lavfi",
    "-i",
    "sine=duration=9",
    "-c:v",
    "libx264",
    "-preset",
    "ultrafast",
    "-g",
    "60",
    "-c:a",
    "aac",
    "-shortest",
    "-pix_fmt",
];

async fn make(folder: &Path, more: &[&str]) {
    let arguments: Vec<&str> = CLIP
        .iter()
        .copied()
        .chain(["yuv420p"])
        .chain(more.iter().copied())
        .collect();
    ffmpeg(folder, &arguments).await;
}

/// The manifest's chunks, fetched by URL and laid end to end, as a player without our client does it.
async fn fetch_all(cluster: &Cluster, video: VideoId, folder: &Path) -> (Value, Vec<PathBuf>) {
    let manifest = cluster.json(&format!("/manifest/{video}")).await;
    let mut files = Vec::new();
    for (index, chunk) in manifest["chunks"].as_array().unwrap().iter().enumerate() {
        let url = chunk["replicas"][0].as_str().unwrap();
        let id = chunk["chunk_id"].as_str().unwrap();
        let bytes = cluster
            .http
            .get(format!("{url}/chunk/{id}"))
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        assert_eq!(chunk["checksum"], Sha256Digest::of(&bytes).prefixed());
        let file = folder.join(format!("got-{index}.mp4"));
        tokio::fs::write(&file, &bytes).await.unwrap();
        files.push(file);
    }
    (manifest, files)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_mp4_files_become_a_video_without_init_segment() {
    let cluster = Cluster::start(3).await;
    let folder = tempfile::tempdir().unwrap();
    let segments = [
        "-f",
        "segment",
        "-segment_time",
        "4",
        "-reset_timestamps",
        "1",
        "part-%03d.mp4",
    ];
    make(folder.path(), &segments).await;
    let video = cluster.create("plain").await;
    for seq in 0..3 {
        let bytes = tokio::fs::read(folder.path().join(format!("part-{seq:03}.mp4")))
            .await
            .unwrap();
        cluster.plain_store(ChunkId::media(video, seq), &bytes).await;
    }
    let finalized = cluster
        .http
        .post(cluster.at(&format!("/video/{video}/finalize")))
        .send()
        .await
        .unwrap();
    assert_eq!(
        finalized.status(),
        StatusCode::OK,
        "{}",
        finalized.text().await.unwrap()
    );
    let (manifest, files) = fetch_all(&cluster, video, folder.path()).await;
    assert_eq!(
        (&manifest["container"], &manifest["init"]),
        (&json!("mp4-segments"), &Value::Null)
    );
    assert_eq!(
        (&manifest["status"], &manifest["total_chunks"]),
        (&json!("active"), &json!(3))
    );
    let starts: Vec<f64> = manifest["chunks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chunk| chunk["start_sec"].as_f64().unwrap())
        .collect();
    assert!(
        starts.is_sorted() && starts[0] < 0.1 && (3.5..4.5).contains(&starts[1]),
        "{starts:?}"
    );
    assert!((8.5..9.5).contains(&manifest["duration_sec"].as_f64().unwrap()));
    for file in files {
        ffmpeg(folder.path(), &["-i", file.to_str().unwrap(), "-f", "null", "-"]).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_behind_an_init_segment_become_a_video_with_times_and_codecs() {
    let cluster = Cluster::start(3).await;
    let folder = tempfile::tempdir().unwrap();
    let hls = [
        "-f",
        "hls",
        "-hls_time",
        "4",
        "-hls_segment_type",
        "fmp4",
        "-hls_playlist_type",
        "vod",
        "-hls_segment_filename",
        "part-%03d.m4s",
        "list.m3u8",
    ];
    make(folder.path(), &hls).await;
    let read = async |name: &str| tokio::fs::read(folder.path().join(name)).await.unwrap();
    let video = cluster.create("plain").await;
    let init = read("init.mp4").await;
    cluster.plain_store(ChunkId::init(video), &init).await;
    for seq in 0..3 {
        cluster
            .plain_store(
                ChunkId::media(video, seq),
                &read(&format!("part-{seq:03}.m4s")).await,
            )
            .await;
    }
    let finalize = cluster.at(&format!("/video/{video}/finalize"));
    let finalized = cluster.http.post(&finalize).body("{}").send().await.unwrap();
    assert_eq!(
        finalized.status(),
        StatusCode::OK,
        "{}",
        finalized.text().await.unwrap()
    );
    // Again is no error.
    assert_eq!(
        cluster.http.post(&finalize).send().await.unwrap().status(),
        StatusCode::OK
    );
    let (manifest, files) = fetch_all(&cluster, video, folder.path()).await;
    assert_eq!(manifest["container"], "fmp4");
    assert!(
        manifest["codecs"].as_str().unwrap().starts_with("avc1."),
        "{}",
        manifest["codecs"]
    );
    assert_eq!(manifest["tracks"].as_array().unwrap().len(), 2);
    let mut whole = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        manifest["init"]["data_base64"].as_str().unwrap(),
    )
    .unwrap();
    assert_eq!(whole, init);
    for file in files {
        whole.extend(tokio::fs::read(file).await.unwrap());
    }
    tokio::fs::write(folder.path().join("whole.mp4"), whole)
        .await
        .unwrap();
    ffmpeg(folder.path(), &["-xerror", "-i", "whole.mp4", "-f", "null", "-"]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_not_play_is_not_finalized() {
    let cluster = Cluster::start(3).await;
    let finalize = async |video: VideoId| {
        let answer = cluster
            .http
            .post(cluster.at(&format!("/video/{video}/finalize")))
            .send()
            .await
            .unwrap();
        code(answer).await
    };
    let gap = cluster.create("gap").await;
    cluster.plain_store(ChunkId::media(gap, 1), b"bytes").await;
    assert_eq!(finalize(gap).await, ErrorCode::ChunksMissing);
    let noise = cluster.create("noise").await;
    cluster.plain_store(ChunkId::media(noise, 0), &[7; 5_000]).await;
    assert_eq!(finalize(noise).await, ErrorCode::ManifestInconsistent);
    cluster.stop().await;
}
