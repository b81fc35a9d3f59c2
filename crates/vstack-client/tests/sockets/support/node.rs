//! A node that serves what it holds, or does with it what it is told to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, head};
use futures::stream::{self, StreamExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use uuid::Uuid;
use vstack_api::wire::{EGRESS_HEADER, IN_FLIGHT_HEADER, LeavesAnswer, NODE_ID_HEADER, NodeEntry};
use vstack_api::{ErrorCode, Problem};
use vstack_client::policy::NodeLoad;
use vstack_core::digest::{ChunkHasher, LEAF_BYTES};
use vstack_core::id::{ChunkId, Incarnation, NodeId};
use vstack_core::node::NodeHealth;
use vstack_emulator::Emulated;

use super::video::BALLOT;

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
    pub(super) url: String,
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
    pub(super) chunks: Mutex<BTreeMap<ChunkId, Bytes>>,
    asked: Mutex<Vec<ChunkId>>,
    /// Bodies that hang now.
    pub(crate) hanging: AtomicUsize,
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

pub(super) fn start_node() -> TestNode {
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

pub(super) fn node_entry(node: &TestNode, name: String) -> NodeEntry {
    NodeEntry {
        node_id: node.id,
        name: Some(name),
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

/// A server with a runtime of its own, so that stopping it breaks every connection as the end of a process does.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) url: String,
    runtime: Mutex<Option<Runtime>>,
}

impl Server {
    pub(super) fn start(app: Router) -> Self {
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

    pub(super) fn stop(&self) {
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
