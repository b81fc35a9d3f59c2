//! What session tests play: videos of noise on nodes that answer as storage nodes do, each behind an emulated path, and
//! a catalogue of two pages. Real sockets; whole clusters are the business of the binary's tests.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, head};
use bytes::Bytes;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::Instant;
use uuid::Uuid;
use vstack_core::digest::{ChunkDigest, ChunkHasher, LEAF_BYTES};
use vstack_core::id::{ChunkId, VideoId};
use vstack_core::manifest::Redundancy;
use vstack_emulator::{Emulated, Emulator, Profile};

/// Bytes of one chunk: 1 Mbit/s in chunks of 4 s.
pub const CHUNK_BYTES: usize = 500_000;
pub const CHUNK_SEC: f64 = 4.0;

/// A GET of a chunk, or of some of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub at: Instant,
    pub id: String,
}

#[derive(Debug, Default)]
struct Shelf {
    objects: Mutex<BTreeMap<String, Bytes>>,
    requests: Mutex<Vec<Request>>,
}

/// A running cluster.
pub struct Stage {
    pub metadata_url: String,
    pub paths: Vec<Emulated>,
    pub videos: Vec<VideoId>,
    shelf: Arc<Shelf>,
}

/// Bytes that differ from chunk to chunk and from block to block.
pub fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let words = (0..length.div_ceil(8)).flat_map(|_| next());
    words.take(length).collect()
}

impl Stage {
    /// `videos` of so many chunks each, every chunk on every one of the nodes behind these paths.
    pub async fn start(profiles: &[Profile], videos: &[u32]) -> Self {
        let shelf = Arc::new(Shelf::default());
        let mut paths = Vec::new();
        for profile in profiles {
            let node = serve(node(Arc::clone(&shelf))).await;
            paths.push(Emulator::start(node, *profile).await.expect("a path"));
        }
        let ids: Vec<Uuid> = paths.iter().map(|_| Uuid::new_v4()).collect();
        let (mut manifests, mut names) = (BTreeMap::new(), Vec::new());
        for (number, chunks) in (1..).zip(videos) {
            let video = VideoId(Uuid::from_u128(number));
            let manifest = manifest(video, *chunks, &paths, &ids, &shelf);
            manifests.insert(video.to_string(), manifest);
            names.push(video);
        }
        let nodes: Vec<_> = (1..)
            .zip(paths.iter().zip(&ids))
            .map(|(number, (path, id))| entry(number, &path.url(), *id))
            .collect();
        let catalogue = serve(catalogue(json!(nodes), manifests)).await;
        Self {
            metadata_url: format!("http://{catalogue}"),
            paths,
            videos: names,
            shelf,
        }
    }

    /// Requests for chunks so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shelf.requests.lock().unwrap().clone()
    }

    /// Of this chunk.
    pub fn requests_for(&self, video: VideoId, seq: u32) -> Vec<Request> {
        let id = ChunkId::media(video, seq).to_string();
        let mut requests = self.requests();
        requests.retain(|request| request.id == id);
        requests
    }
}

/// A path of this many Mbit/s.
pub const fn mbps(down: f64) -> Profile {
    Profile {
        down_mbps: Some(down),
        up_mbps: None,
        delay_ms: 5,
        jitter_ms: 0,
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// It does not within 20 s.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn node(shelf: Arc<Shelf>) -> Router {
    Router::new()
        .route("/ping", head(|| async { StatusCode::OK }))
        .route("/chunk/{id}", get(chunk))
        .route("/chunk/{id}/leaves", get(leaves))
        .with_state(shelf)
}

fn catalogue(nodes: serde_json::Value, manifests: BTreeMap<String, serde_json::Value>) -> Router {
    let manifest = |State(manifests): State<Arc<BTreeMap<String, serde_json::Value>>>,
                    Path(id): Path<String>| async move {
        manifests.get(&id).map_or_else(
            || StatusCode::NOT_FOUND.into_response(),
            |page| axum::Json(page.clone()).into_response(),
        )
    };
    Router::new()
        .route("/nodes", get(move || async move { axum::Json(nodes) }))
        .route("/manifest/{id}", get(manifest))
        .with_state(Arc::new(manifests))
}

async fn chunk(State(shelf): State<Arc<Shelf>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let request = Request {
        at: Instant::now(),
        id: id.clone(),
    };
    shelf.requests.lock().unwrap().push(request);
    let Some(bytes) = shelf.objects.lock().unwrap().get(&id).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Some(range) = headers.get(header::RANGE) else {
        return bytes.into_response();
    };
    let range = range.to_str().unwrap().strip_prefix("bytes=").unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let content_range = format!("bytes {first}-{last}/{}", bytes.len());
    let head = [(header::CONTENT_RANGE, content_range)];
    (StatusCode::PARTIAL_CONTENT, head, bytes.slice(first..=last)).into_response()
}

async fn leaves(State(shelf): State<Arc<Shelf>>, Path(id): Path<String>) -> Response {
    let Some(bytes) = shelf.objects.lock().unwrap().get(&id).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut hasher = ChunkHasher::new();
    hasher.update(&bytes);
    let (_, leaves) = hasher.finish();
    axum::Json(json!({ "leaf_bytes": LEAF_BYTES, "leaves": leaves })).into_response()
}

fn manifest(
    video: VideoId,
    chunks: u32,
    paths: &[Emulated],
    ids: &[Uuid],
    shelf: &Shelf,
) -> serde_json::Value {
    let chunk = |seq: u32| {
        let id = ChunkId::media(video, seq);
        let seed = video.0.as_u128() as u64 * 1_000 + u64::from(seq);
        let bytes = noise(seed, CHUNK_BYTES);
        let digest = ChunkDigest::of(&bytes);
        shelf.objects.lock().unwrap().insert(id.to_string(), bytes);
        let part = |(path, node): (&Emulated, &Uuid)| {
            json!({
                "node_id": node, "node_url": path.url(), "ballot": "0", "shard": null,
                "checksum": digest.sha256, "leaf_root": digest.leaf_root,
            })
        };
        json!({
            "chunk_id": id, "sequence_num": seq, "size_bytes": digest.size_bytes,
            "checksum": digest.sha256, "leaf_root": digest.leaf_root,
            "replicas": paths.iter().map(Emulated::url).collect::<Vec<_>>(),
            "redundancy": Redundancy::Replicated,
            "placement": { "epoch": "0", "parts": paths.iter().zip(ids).map(part).collect::<Vec<_>>() },
            "start_sec": f64::from(seq) * CHUNK_SEC, "duration_sec": CHUNK_SEC,
            "keyframes_ms": [], "fragments": [],
        })
    };
    json!({
        "video_id": video, "title": "Noise", "duration_sec": f64::from(chunks) * CHUNK_SEC,
        "total_chunks": chunks, "chunk_duration_sec": CHUNK_SEC, "chunk_size_bytes": CHUNK_BYTES,
        "created_at": "2025-01-01T00:00:00Z", "status": "active", "container": "mp4-segments",
        "codecs": "", "tracks": [], "init": null, "chunks": (0..chunks).map(chunk).collect::<Vec<_>>(),
        "poster": null, "storyboard": [], "subtitles": [],
    })
}

fn entry(number: u64, url: &str, id: Uuid) -> serde_json::Value {
    json!({
        "node_url": url, "node_id": id, "name": format!("node-{number}"), "disk_usage": 1.0, "last_seen": "2025-01-01T00:00:00Z", "silent_ms": 0,
        "chunk_count": 0, "status": "healthy", "state": "active", "read_only": false,
        "incarnation": Uuid::nil(), "boot_epoch": 1, "version": "", "capacity_bytes": 0,
        "quarantined": false, "rack": null,
    })
}
