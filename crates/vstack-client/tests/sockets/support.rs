//! A small cluster on loopback sockets whose nodes misbehave on command.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, head};
use base64::Engine as _;
use futures::stream::{self, StreamExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use uuid::Uuid;
use vstack_api::wire::{EGRESS_HEADER, IN_FLIGHT_HEADER, LeavesAnswer, NODE_ID_HEADER, NodeEntry};
use vstack_api::{ErrorCode, Problem};
use vstack_client::policy::NodeLoad;
use vstack_client::{ClientConfig, Cluster, EventKind, PolicyName, SessionEvent};
use vstack_core::ballot::Ballot;
use vstack_core::digest::{ChunkDigest, ChunkHasher, LEAF_BYTES};
use vstack_core::id::{ChunkId, ChunkKind, Incarnation, NodeId, VideoId};
use vstack_core::manifest::{
    Container, FragmentSpan, InitSegment, Manifest, ManifestChunk, ManifestPart, ManifestPlacement,
    Redundancy, VideoStatus,
};
use vstack_core::node::NodeHealth;
use vstack_emulator::{Emulated, Emulator, Profile};

/// Nothing in these tests takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// The ballot of all placements here.
const BALLOT: u64 = (1 << 40) + 7;
pub(crate) const CHUNK_MS: u64 = 4_000;

/// What a node does with a GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Serve,
    /// Half of the body, then nothing.
    Hang,
    /// No headers.
    Mute,
    /// Half of the body, then the connection breaks.
    Truncate,
    /// One byte is another.
    Corrupt,
    /// A byte more than the manifest says, and announced so.
    TooLong,
    NotFound,
    Fail,
}

#[derive(Debug)]
pub(crate) struct TestNode {
    pub(crate) id: NodeId,
    url: String,
    /// What stands before it, in a throttled cluster.
    pub(crate) path: Option<Emulated>,
    pub(crate) shared: Arc<NodeState>,
    server: Server,
}

impl TestNode {
    pub(crate) fn set(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().expect("no test panicked with it") = behaviour;
    }

    pub(crate) fn asked(&self) -> Vec<ChunkId> {
        self.shared
            .asked
            .lock()
            .expect("no test panicked with it")
            .clone()
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The node holds this object, and does with it what its behaviour for this one object says.
    pub(crate) fn hold(&self, id: ChunkId, bytes: Bytes, behaviour: Behaviour) {
        let lock = "no test panicked with it";
        self.shared.chunks.lock().expect(lock).insert(id, bytes);
        self.shared.faults.lock().expect(lock).insert(id, behaviour);
    }

    /// The process is gone: connections break, new ones are refused.
    pub(crate) fn kill(&self) {
        self.server.stop();
    }
}

#[derive(Debug)]
pub(crate) struct NodeState {
    id: NodeId,
    behaviour: Mutex<Behaviour>,
    /// For single objects.
    faults: Mutex<BTreeMap<ChunkId, Behaviour>>,
    chunks: Mutex<BTreeMap<ChunkId, Bytes>>,
    asked: Mutex<Vec<ChunkId>>,
    /// Bodies that hang now.
    pub(crate) hanging: AtomicUsize,
}

/// What the video is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Footage {
    pub(crate) chunks: u32,
    /// Of the first chunk; each later one has a thousand more, so that no two are alike.
    pub(crate) chunk_bytes: usize,
    /// That the manifest names of each chunk, of equal length.
    pub(crate) fragments: u32,
}

impl Footage {
    /// Chunks of three blocks that are taken whole.
    pub(crate) const fn small(chunks: u32) -> Self {
        Self {
            chunks,
            chunk_bytes: 150_000,
            fragments: 0,
        }
    }
}

impl NodeState {
    fn behaviour_for(&self, id: ChunkId) -> Behaviour {
        let of_object = self
            .faults
            .lock()
            .expect("no test panicked with it")
            .get(&id)
            .copied();
        of_object.unwrap_or(*self.behaviour.lock().expect("no test panicked with it"))
    }
}

/// Metadata role, nodes, and one video on all of them.
#[derive(Debug)]
pub(crate) struct TestCluster {
    pub(crate) nodes: Vec<TestNode>,
    pub(crate) source: BTreeMap<ChunkId, Bytes>,
    pub(crate) video: VideoId,
    pub(crate) metadata_url: String,
    pub(crate) manifest: Arc<Mutex<Manifest>>,
    listed: Arc<Mutex<Vec<NodeEntry>>>,
    metadata: Server,
}

impl TestCluster {
    /// A video of `chunk_count` chunks whose replicas are on the nodes that `replicas_of` names for each.
    pub(crate) fn start(
        node_count: usize,
        chunk_count: u32,
        replicas_of: impl Fn(u32) -> Vec<usize>,
    ) -> Self {
        let nodes = (0..node_count).map(|_| start_node()).collect();
        Self::with_nodes(nodes, Footage::small(chunk_count), replicas_of)
    }

    /// The same with a path in front of each node, which is then reached through it only.
    pub(crate) async fn start_behind(
        profile: Profile,
        node_count: usize,
        chunk_count: u32,
        replicas_of: impl Fn(u32) -> Vec<usize>,
    ) -> Self {
        Self::behind(profile, node_count, Footage::small(chunk_count), replicas_of).await
    }

    /// The same with another video.
    pub(crate) async fn behind(
        profile: Profile,
        node_count: usize,
        footage: Footage,
        replicas_of: impl Fn(u32) -> Vec<usize>,
    ) -> Self {
        let mut nodes: Vec<_> = (0..node_count).map(|_| start_node()).collect();
        for node in &mut nodes {
            let addr = node
                .url
                .trim_start_matches("http://")
                .parse()
                .expect("an address");
            let path = Emulator::start(addr, profile)
                .await
                .expect("loopback has free ports");
            node.url = path.url();
            node.path = Some(path);
        }
        Self::with_nodes(nodes, footage, replicas_of)
    }

    fn with_nodes(
        mut nodes: Vec<TestNode>,
        footage: Footage,
        replicas_of: impl Fn(u32) -> Vec<usize>,
    ) -> Self {
        let video = VideoId(Uuid::new_v4());
        // The order in which clients name them.
        nodes.sort_by_key(|node| (node.url.len(), node.url.clone()));
        let node_count = nodes.len();
        let mut source = BTreeMap::new();
        let mut place = |id: ChunkId, size: usize, replicas: &[usize]| {
            let bytes = pattern(id, size);
            for &index in replicas {
                nodes[index]
                    .shared
                    .chunks
                    .lock()
                    .expect("no test panicked with it")
                    .insert(id, bytes.clone());
            }
            source.insert(id, bytes.clone());
            let parts = replicas
                .iter()
                .map(|&index| (nodes[index].id, nodes[index].url.clone()))
                .collect();
            manifest_chunk(id, &bytes, parts)
        };
        let all: Vec<usize> = (0..node_count).collect();
        let init = place(ChunkId::init(video), 700, &all);
        let poster = place(ChunkId::poster(video), 9_000, &all);
        let chunks = (0..footage.chunks)
            .map(|seq| {
                let size = footage.chunk_bytes + 1_000 * seq as usize;
                let mut chunk = place(ChunkId::media(video, seq), size, &replicas_of(seq));
                chunk.fragments = fragments(seq, size, footage.fragments);
                chunk
            })
            .collect();
        let init = InitSegment {
            data_base64: base64::engine::general_purpose::STANDARD.encode(&source[&init.chunk_id]),
            chunk: init,
        };
        let manifest = Arc::new(Mutex::new(manifest(video, init, poster, chunks)));
        let listed = Arc::new(Mutex::new(nodes.iter().map(node_entry).collect()));
        let metadata = start_metadata(Arc::clone(&listed), Arc::clone(&manifest));
        Self {
            nodes,
            source,
            video,
            metadata_url: metadata.url.clone(),
            manifest,
            listed,
            metadata,
        }
    }

    /// One more node, which has a copy of every chunk from `from` on; the catalogue knows of both.
    pub(crate) fn join(&mut self, from: u32) {
        let node = start_node();
        let listed = &mut self.listed.lock().expect("no test panicked with it");
        listed.push(node_entry(&node));
        let mut manifest = self.manifest.lock().expect("no test panicked with it");
        for chunk in manifest
            .chunks
            .iter_mut()
            .filter(|chunk| chunk.sequence_num >= from)
        {
            let bytes = self.source[&chunk.chunk_id].clone();
            let mut chunks = node.shared.chunks.lock().expect("no test panicked with it");
            chunks.insert(chunk.chunk_id, bytes);
            let mut part = chunk.placement.parts[0].clone();
            (part.node_id, part.node_url) = (node.id, node.url.clone());
            chunk.replicas.push(node.url.clone());
            chunk.placement.parts.push(part);
        }
        self.nodes.push(node);
    }

    pub(crate) async fn connect(&self, policy: PolicyName) -> Cluster {
        let config = ClientConfig {
            policy,
            ..ClientConfig::new(&self.metadata_url)
        };
        Cluster::connect(config).await.expect("the metadata role answers")
    }

    pub(crate) fn media(&self, seq: u32) -> &Bytes {
        &self.source[&ChunkId::media(self.video, seq)]
    }

    pub(crate) fn stop_metadata(&self) {
        self.metadata.stop();
    }

    /// The manifest says from now on that chunk `seq` is on these nodes, and it is.
    pub(crate) fn move_chunk(&self, seq: u32, to: &[usize]) {
        let id = ChunkId::media(self.video, seq);
        for node in &self.nodes {
            node.shared
                .chunks
                .lock()
                .expect("no test panicked with it")
                .remove(&id);
        }
        for &index in to {
            self.nodes[index]
                .shared
                .chunks
                .lock()
                .expect("no test panicked with it")
                .insert(id, self.source[&id].clone());
        }
        let parts = to
            .iter()
            .map(|&index| (self.nodes[index].id, self.nodes[index].url.clone()))
            .collect();
        let chunk = manifest_chunk(id, &self.source[&id], parts);
        self.manifest.lock().expect("no test panicked with it").chunks[seq as usize] = chunk;
    }
}

fn fragments(seq: u32, size: usize, count: u32) -> Vec<FragmentSpan> {
    let at = |index: u32| u32::try_from(size * index as usize / count as usize).expect("a small chunk");
    (0..count)
        .map(|index| FragmentSpan {
            offset: at(index),
            size: at(index + 1) - at(index),
            start_ms: u64::from(seq) * CHUNK_MS + CHUNK_MS * u64::from(index) / u64::from(count),
        })
        .collect()
}

fn pattern(id: ChunkId, size: usize) -> Bytes {
    let key = id.seq() as usize * 131 + id.kind() as usize * 17;
    (0..size)
        .map(|index| u8::try_from((index * 31 + key) % 251).expect("below 251"))
        .collect()
}

fn start_node() -> TestNode {
    let id = NodeId(Uuid::new_v4());
    let shared = Arc::new(NodeState {
        id,
        behaviour: Mutex::new(Behaviour::Serve),
        faults: Mutex::default(),
        chunks: Mutex::default(),
        asked: Mutex::default(),
        hanging: AtomicUsize::new(0),
    });
    let app = Router::new()
        .route("/ping", head(ping))
        .route("/chunk/{id}", get(chunk))
        .route("/chunk/{id}/leaves", get(leaves))
        .with_state(Arc::clone(&shared));
    let server = Server::start(app);
    TestNode {
        id,
        url: server.url.clone(),
        path: None,
        shared,
        server,
    }
}

fn start_metadata(listed: Arc<Mutex<Vec<NodeEntry>>>, manifest: Arc<Mutex<Manifest>>) -> Server {
    let nodes =
        get(move || async move { axum::Json(listed.lock().expect("no test panicked with it").clone()) });
    let read = get(move |Path(_): Path<VideoId>| async move {
        axum::Json(manifest.lock().expect("no test panicked with it").clone())
    });
    Server::start(Router::new().route("/nodes", nodes).route("/manifest/{id}", read))
}

/// A server with a runtime of its own, so that stopping it breaks every connection as the end of a process does.
#[derive(Debug)]
struct Server {
    url: String,
    runtime: Mutex<Option<Runtime>>,
}

impl Server {
    fn start(app: Router) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        listener.set_nonblocking(true).expect("sockets can be");
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread can be started");
        runtime.spawn(async move { axum::serve(TcpListener::from_std(listener)?, app).await });
        Self {
            url,
            runtime: Mutex::new(Some(runtime)),
        }
    }

    fn stop(&self) {
        if let Some(runtime) = self.runtime.lock().expect("no test panicked with it").take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The load that every node here says it has.
pub(crate) const LOAD: NodeLoad = NodeLoad {
    requests_in_flight: 3,
    egress_bits_per_sec: 4_000_000,
};

async fn ping(State(node): State<Arc<NodeState>>) -> Response {
    let headers = [
        (NODE_ID_HEADER, node.id.to_string()),
        (IN_FLIGHT_HEADER, LOAD.requests_in_flight.to_string()),
        (EGRESS_HEADER, LOAD.egress_bits_per_sec.to_string()),
    ];
    (headers, StatusCode::OK).into_response()
}

async fn chunk(
    State(node): State<Arc<NodeState>>,
    Path(id): Path<ChunkId>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    node.asked.lock().expect("no test panicked with it").push(id);
    let bytes = node
        .chunks
        .lock()
        .expect("no test panicked with it")
        .get(&id)
        .cloned();
    let behaviour = node.behaviour_for(id);
    let Some(bytes) = bytes.filter(|_| query.get("ballot") == Some(&BALLOT.to_string())) else {
        return problem(ErrorCode::ChunkNotFound);
    };
    let bytes = if behaviour == Behaviour::Corrupt {
        corrupted(&bytes)
    } else {
        bytes
    };
    let Some((first, last)) = asked_range(&headers) else {
        return misbehave(node, behaviour, &bytes).await;
    };
    let part = bytes.slice(first..=last.min(bytes.len() - 1));
    let mut answer = misbehave(node, behaviour, &part).await;
    if answer.status() == StatusCode::OK {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {first}-{last}/{}", bytes.len());
        let range = range.parse().expect("a header's value");
        answer.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    answer
}

fn asked_range(headers: &HeaderMap) -> Option<(usize, usize)> {
    let text = headers.get(header::RANGE)?.to_str().ok()?;
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn corrupted(bytes: &Bytes) -> Bytes {
    let mut wrong = bytes.to_vec();
    wrong[bytes.len() / 2] ^= 1;
    wrong.into()
}

async fn leaves(State(node): State<Arc<NodeState>>, Path(id): Path<ChunkId>) -> Response {
    let held = node
        .chunks
        .lock()
        .expect("no test panicked with it")
        .get(&id)
        .cloned();
    match held {
        None => problem(ErrorCode::ChunkNotFound),
        Some(bytes) => {
            let mut hasher = ChunkHasher::new();
            hasher.update(&bytes);
            let leaves = hasher.finish().1;
            let leaf_bytes = LEAF_BYTES as u64;
            axum::Json(LeavesAnswer { leaf_bytes, leaves }).into_response()
        }
    }
}

/// The answer with these bytes.
async fn misbehave(node: Arc<NodeState>, behaviour: Behaviour, bytes: &Bytes) -> Response {
    match behaviour {
        Behaviour::Serve | Behaviour::Corrupt => bytes.clone().into_response(),
        Behaviour::Mute => std::future::pending().await,
        Behaviour::NotFound => problem(ErrorCode::ChunkNotFound),
        Behaviour::Fail => problem(ErrorCode::ChunkCorrupt),
        Behaviour::Hang => {
            let hanging = Hanging::new(node);
            let never = stream::pending().map(move |piece: Result<Bytes, Infallible>| {
                let _ = &hanging;
                piece
            });
            halved(bytes, never)
        }
        Behaviour::Truncate => {
            // The server sends what it has when the body makes it wait.
            let broken = stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("cut off"))
            });
            halved(bytes, broken)
        }
        Behaviour::TooLong => [&bytes[..], &[0]].concat().into_response(),
    }
}

/// Counts a body that hangs, until the connection is given up.
struct Hanging(Arc<NodeState>);

impl Hanging {
    fn new(node: Arc<NodeState>) -> Self {
        node.hanging.fetch_add(1, Ordering::SeqCst);
        Self(node)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.hanging.fetch_sub(1, Ordering::SeqCst);
    }
}

fn halved<E>(bytes: &Bytes, then: impl futures::Stream<Item = Result<Bytes, E>> + Send + 'static) -> Response
where
    E: Into<axum::BoxError> + Send + 'static,
{
    let half = stream::iter([Ok(bytes.slice(..bytes.len() / 2))]);
    (
        [(header::CONTENT_LENGTH, bytes.len())],
        Body::from_stream(half.chain(then)),
    )
        .into_response()
}

fn problem(code: ErrorCode) -> Response {
    let status = StatusCode::from_u16(code.status()).expect("codes have valid statuses");
    (status, axum::Json(Problem::new(code, "on purpose"))).into_response()
}

fn manifest_chunk(id: ChunkId, bytes: &Bytes, parts: Vec<(NodeId, String)>) -> ManifestChunk {
    let digest = ChunkDigest::of(bytes);
    let media = id.kind() == ChunkKind::Media;
    let part = |(node_id, node_url): (NodeId, String)| ManifestPart {
        node_id,
        node_url,
        ballot: Ballot::from_number(BALLOT),
        shard: None,
        checksum: digest.sha256,
        leaf_root: digest.leaf_root,
    };
    ManifestChunk {
        chunk_id: id,
        sequence_num: id.seq(),
        size_bytes: digest.size_bytes,
        checksum: digest.sha256,
        leaf_root: digest.leaf_root,
        replicas: parts.iter().map(|(_, url)| url.clone()).collect(),
        redundancy: Redundancy::Replicated,
        placement: ManifestPlacement {
            epoch: Ballot::from_number(BALLOT),
            parts: parts.into_iter().map(part).collect(),
        },
        start_sec: f64::from(id.seq()) * CHUNK_MS as f64 / 1_000.0,
        duration_sec: if media { CHUNK_MS as f64 / 1_000.0 } else { 0.0 },
        keyframes_ms: Vec::new(),
        fragments: Vec::new(),
    }
}

fn manifest(
    video: VideoId,
    init: InitSegment,
    poster: ManifestChunk,
    chunks: Vec<ManifestChunk>,
) -> Manifest {
    Manifest {
        video_id: video,
        title: "Bars".to_owned(),
        duration_sec: chunks.len() as f64 * CHUNK_MS as f64 / 1_000.0,
        total_chunks: u32::try_from(chunks.len()).expect("few"),
        chunk_duration_sec: 10.0,
        chunk_size_bytes: 2 << 20,
        created_at: "2025-01-01T00:00:00Z".to_owned(),
        status: VideoStatus::Active,
        container: Container::Fmp4,
        codecs: String::new(),
        tracks: Vec::new(),
        init: Some(init),
        chunks,
        poster: Some(poster),
        storyboard: Vec::new(),
        subtitles: Vec::new(),
    }
}

fn node_entry(node: &TestNode) -> NodeEntry {
    NodeEntry {
        node_id: node.id,
        node_url: node.url.clone(),
        disk_usage: 1.0,
        last_seen: "2025-01-01T00:00:00Z".to_owned(),
        silent_ms: 0,
        chunk_count: 0,
        status: NodeHealth::Healthy,
        state: vstack_core::node::NodeState::Active,
        read_only: false,
        quarantined: false,
        capacity_bytes: 0,
        rack: None,
        incarnation: Incarnation(Uuid::nil()),
        boot_epoch: 1,
        version: "0".to_owned(),
    }
}

/// Looks again and again until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    until_within(DEADLINE, what, condition).await;
}

/// The same with a deadline of its own.
pub(crate) async fn until_within(limit: Duration, what: &str, condition: impl Fn() -> bool) {
    let looking = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(limit, looking).await.is_ok();
    assert!(in_time, "never: {what}");
}

/// What has been told so far.
pub(crate) fn told(events: &mut tokio::sync::broadcast::Receiver<SessionEvent>) -> Vec<EventKind> {
    std::iter::from_fn(|| events.try_recv().ok())
        .map(|event| event.kind)
        .collect()
}
