//! Ranges over real sockets, from a node that does what a test says.

use std::sync::Mutex;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures::stream;
use tokio::net::TcpListener;
use uuid::Uuid;
use vstack_core::digest::{ChunkDigest, ChunkHasher};
use vstack_core::id::VideoId;
use vstack_erasure::{Layout, encode};

use super::*;
use crate::policy::NodeIndex;
use crate::source::{Source, SourcePart};

const BLOCK: usize = vstack_core::digest::LEAF_BYTES;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Behaviour {
    Serve,
    /// One byte of this block is flipped.
    Flip(usize),
    OtherRange,
    Everything,
    OtherLeaves,
    NoLeaves,
    SilentOnLeaves,
    Cut,
    Endless,
}

#[derive(Debug)]
struct Node {
    bytes: Bytes,
    behaviour: Behaviour,
    leaf_requests: AtomicU64,
    slack: Mutex<Option<String>>,
}

async fn start(bytes: Bytes, behaviour: Behaviour) -> (StorageClient, Arc<Node>) {
    let node = Arc::new(Node {
        bytes,
        behaviour,
        leaf_requests: AtomicU64::new(0),
        slack: Mutex::default(),
    });
    let app = Router::new()
        .route("/chunk/{id}", get(chunk))
        .route("/chunk/{id}/leaves", get(leaves))
        .with_state(Arc::clone(&node));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (StorageClient::new(&url), node)
}

async fn chunk(State(node): State<Arc<Node>>, headers: HeaderMap) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    *node.slack.lock().unwrap() = text("x-vstack-slack-ms").map(str::to_owned);
    let range = text("range")
        .and_then(|range| range.strip_prefix("bytes="))
        .unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let mut bytes = node.bytes.to_vec();
    if let Behaviour::Flip(block) = node.behaviour {
        bytes[block * BLOCK + 5] ^= 1;
    }
    let body = bytes[first..=last].to_vec();
    let total = bytes.len();
    let head = |first: usize| [(header::CONTENT_RANGE, format!("bytes {first}-{last}/{total}"))];
    match node.behaviour {
        Behaviour::OtherRange => (StatusCode::PARTIAL_CONTENT, head(first + 1), body).into_response(),
        Behaviour::Everything => bytes.into_response(),
        Behaviour::Cut => {
            let half = Bytes::from(body[..BLOCK + BLOCK / 2].to_vec());
            // The server sends what it has when the body makes it wait.
            let broken = stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("cut"))
            });
            let cut = stream::iter([Ok(half)]).chain(broken);
            (StatusCode::PARTIAL_CONTENT, head(first), Body::from_stream(cut)).into_response()
        }
        Behaviour::Endless => {
            let more = stream::repeat_with(move || Ok::<_, std::io::Error>(Bytes::from(body.clone())));
            (StatusCode::PARTIAL_CONTENT, head(first), Body::from_stream(more)).into_response()
        }
        _ => (StatusCode::PARTIAL_CONTENT, head(first), body).into_response(),
    }
}

async fn leaves(State(node): State<Arc<Node>>) -> Response {
    node.leaf_requests.fetch_add(1, Ordering::Relaxed);
    let mut leaves = leaves_of(&node.bytes);
    match node.behaviour {
        Behaviour::NoLeaves => return StatusCode::NOT_FOUND.into_response(),
        Behaviour::SilentOnLeaves => std::future::pending().await,
        Behaviour::OtherLeaves => leaves.swap(0, 1),
        _ => {}
    }
    axum::Json(serde_json::json!({ "leaf_bytes": BLOCK, "leaves": leaves })).into_response()
}

fn leaves_of(bytes: &[u8]) -> Vec<Sha256Digest> {
    let mut hasher = ChunkHasher::new();
    hasher.update(bytes);
    hasher.finish().1
}

fn pattern(length: usize) -> Bytes {
    (0..length)
        .map(|index| u8::try_from((index / 7 + index / BLOCK) % 251).unwrap())
        .collect()
}

/// What an attempt at blocks 1 to 3 of four and a half came to.
#[derive(Debug, PartialEq)]
struct Outcome {
    good: Vec<u32>,
    bad: Vec<u32>,
    result: Result<(), Failure>,
}

async fn attempt(client: &StorageClient, bytes: &Bytes, book: &Arc<LeafBook>) -> Outcome {
    attempt_at(0, client, bytes, book, Micros::from_ms(1_500)).await
}

/// Who asks for the leaf hashes is settled when this is called.
fn attempt_at(
    node: u16,
    client: &StorageClient,
    bytes: &Bytes,
    book: &Arc<LeafBook>,
    slack: Micros,
) -> impl Future<Output = Outcome> + use<> {
    let request = RangeRequest {
        attempt: AttemptId(7),
        node: NodeIndex(node),
        client: client.clone(),
        id: ChunkId::media(VideoId(Uuid::nil()), 0),
        ballot: Ballot::from_number(1 << 40),
        part_bytes: bytes.len() as u64,
        leaf_root: ChunkDigest::of(bytes).leaf_root,
        range: BlockRange { first: 1, end: 4 },
        slack,
    };
    let (reports, reported) = mpsc::unbounded_channel();
    let received = Arc::new(AtomicU64::new(0));
    let fetching = fetch_range(request, book, reports, received);
    let bytes = bytes.clone();
    async move {
        fetching.await;
        told(&bytes, reported).await
    }
}

async fn told(bytes: &Bytes, mut reported: mpsc::UnboundedReceiver<(AttemptId, Report)>) -> Outcome {
    let (mut good, mut bad, mut result, mut begun) = (Vec::new(), Vec::new(), None, false);
    while let Some((attempt, report)) = reported.recv().await {
        assert_eq!(
            (attempt, result.is_none()),
            (AttemptId(7), true),
            "nothing follows the end"
        );
        match report {
            Report::FirstByte => begun = true,
            Report::Progress(bytes) => assert!(begun && bytes > 0),
            Report::Block { block, bytes: own } => {
                let start = block as usize * BLOCK;
                assert_eq!(own, bytes[start..start + BLOCK]);
                good.push(block);
            }
            Report::BadBlock { block } => bad.push(block),
            Report::Ended(end) => result = Some(end.result),
        }
    }
    let result = result.expect("every attempt tells its end");
    Outcome { good, bad, result }
}

async fn outcome(behaviour: Behaviour) -> Outcome {
    let bytes = pattern(4 * BLOCK + BLOCK / 2);
    let (client, _) = start(bytes.clone(), behaviour).await;
    attempt(&client, &bytes, &Arc::default()).await
}

#[tokio::test]
async fn right_blocks_are_told_one_by_one_and_the_leaves_are_fetched_once() {
    let bytes = pattern(4 * BLOCK + BLOCK / 2);
    let (client, node) = start(bytes.clone(), Behaviour::Serve).await;
    let book = Arc::default();
    for _ in 0..2 {
        let outcome = attempt(&client, &bytes, &book).await;
        let expected = Outcome {
            good: vec![1, 2, 3],
            bad: vec![],
            result: Ok(()),
        };
        assert_eq!(outcome, expected);
    }
    assert_eq!(node.leaf_requests.load(Ordering::Relaxed), 1);
    assert_eq!(node.slack.lock().unwrap().as_deref(), Some("1500"));
}

#[tokio::test]
async fn a_wrong_block_is_told_and_the_others_count() {
    let outcome = outcome(Behaviour::Flip(2)).await;
    assert_eq!(
        (outcome.good, outcome.bad, outcome.result),
        (vec![1, 3], vec![2], Ok(()))
    );
}

#[tokio::test]
async fn another_range_than_asked_is_not_understood() {
    for behaviour in [Behaviour::OtherRange, Behaviour::Everything] {
        let outcome = outcome(behaviour).await;
        assert!(
            matches!(outcome.result, Err(Failure::NotUnderstood { .. })),
            "{behaviour:?}: {outcome:?}"
        );
        assert_eq!((outcome.good, outcome.bad), (vec![], vec![]));
    }
}

#[tokio::test]
async fn leaves_that_do_not_match_the_root_blame_who_sent_them() {
    let outcome = outcome(Behaviour::OtherLeaves).await;
    assert_eq!((outcome.good, outcome.result), (vec![], Err(Failure::WrongBytes)));
}

#[tokio::test]
async fn a_node_without_leaves_is_not_read_from_unless_they_are_known() {
    let bytes = pattern(4 * BLOCK + BLOCK / 2);
    let (with, _) = start(bytes.clone(), Behaviour::Serve).await;
    let (without, _) = start(bytes.clone(), Behaviour::NoLeaves).await;
    let book = Arc::default();
    assert!(attempt(&without, &bytes, &book).await.result.is_err());
    assert_eq!(attempt(&with, &bytes, &book).await.result, Ok(()));
    assert_eq!(attempt(&without, &bytes, &book).await.good, [1, 2, 3]);
}

#[tokio::test]
async fn blocks_of_a_node_that_keeps_its_list_back_are_proved_by_the_list_of_another() {
    let bytes = pattern(4 * BLOCK + BLOCK / 2);
    let (silent, asked_first) = start(bytes.clone(), Behaviour::SilentOnLeaves).await;
    let (well, _) = start(bytes.clone(), Behaviour::Serve).await;
    let book = Arc::default();
    let first = attempt_at(0, &silent, &bytes, &book, Micros(0));
    let second = attempt_at(1, &well, &bytes, &book, Micros(0));
    // The other way round, since tasks run in any order.
    assert_eq!(second.await.good, [1, 2, 3]);
    assert_eq!(first.await.good, [1, 2, 3]);
    assert_eq!(asked_first.leaf_requests.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_came_before_a_cut_stays_and_an_endless_answer_is_cut() {
    let cut = outcome(Behaviour::Cut).await;
    assert_eq!(cut.good, [1]);
    assert!(matches!(cut.result, Err(Failure::Broken { .. })), "{cut:?}");
    let endless = outcome(Behaviour::Endless).await;
    assert!(
        matches!(endless.result, Err(Failure::WrongLength { .. })),
        "{endless:?}"
    );
}

fn source(bytes: &Bytes, shards: impl IntoIterator<Item = Option<u8>>) -> Source {
    let digest = ChunkDigest::of(bytes);
    let part = |(node, shard)| SourcePart {
        node: NodeIndex(node),
        ballot: Ballot::from_number(1),
        shard,
        sha256: digest.sha256,
        leaf_root: digest.leaf_root,
    };
    Source {
        chunk_id: ChunkId::media(VideoId(Uuid::nil()), 0),
        size_bytes: digest.size_bytes,
        sha256: digest.sha256,
        parts: (0..).zip(shards).map(part).collect(),
    }
}

#[test]
fn a_chunk_and_its_beginning_come_out_of_blocks_from_any_nodes() {
    let bytes = pattern(3 * BLOCK + 9);
    let source = source(&bytes, [None, None]);
    let mut blocks = Blocks::default();
    for (block, piece) in (0..).zip(bytes.chunks(BLOCK)) {
        assert_eq!(
            blocks
                .get(0)
                .and_then(|partial| partial.bytes(&source, 0..bytes.len())),
            None
        );
        blocks.put(
            0,
            None,
            block,
            NodeIndex(u16::from(block != 1)),
            bytes.slice_ref(piece),
        );
    }
    let partial = blocks.take(0).unwrap();
    assert_eq!(partial.main_node(), Some(NodeIndex(1)));
    for range in [
        0..bytes.len(),
        5..BLOCK,
        BLOCK - 3..2 * BLOCK + 3,
        3 * BLOCK..3 * BLOCK + 9,
        4..4,
    ] {
        assert_eq!(partial.bytes(&source, range.clone()).unwrap(), bytes[range]);
    }
}

#[test]
fn rows_decode_from_any_three_shards() {
    for length in [1, 100, 3 * BLOCK, 3 * BLOCK + 1, 7 * BLOCK + 77] {
        let bytes = pattern(length);
        let source = source(&bytes, (0..5).map(Some));
        let shards = encode(&bytes).unwrap();
        for missing in [[0, 1], [0, 4], [1, 3], [2, 3], [3, 4]] {
            let mut blocks = Blocks::default();
            for shard in (0..5_usize).filter(|shard| !missing.contains(shard)) {
                for (row, cell) in (0..).zip(shards[shard].chunks(BLOCK)) {
                    let cell = Bytes::copy_from_slice(cell);
                    blocks.put(0, u8::try_from(shard).ok(), row, NodeIndex(0), cell);
                }
            }
            let partial = blocks.get(0).unwrap();
            let middle = length / 3..length;
            assert_eq!(
                partial.bytes(&source, 0..length).unwrap(),
                bytes,
                "without {missing:?}"
            );
            assert_eq!(partial.bytes(&source, middle.clone()).unwrap(), bytes[middle]);
            assert_eq!(Layout::new(length).rows(), shards[0].len().div_ceil(BLOCK));
        }
    }
}
