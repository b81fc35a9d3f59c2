//! Sending a chunk: in pieces, each read and verified before it leaves.
//!
//! A piece that is in memory already is read and checked where the connection is served: it takes less time than to ask
//! another thread. One that has to come from the disk is read on the blocking pool. The first piece is read before the
//! headers go, so that a damaged chunk is answered with 500. If a later piece fails, the connection is cut: the reader is
//! short of the announced length and cannot take what it has for the whole. Where the node's line is limited, bytes
//! leave when it is their turn (`egress`).

use std::fmt;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use hyper::body::{Frame, SizeHint};
use vstack_api::wire::{BEHIND_HEADER, SLACK_HEADER};
use vstack_api::{ErrorCode, Problem};
use vstack_core::ballot::Ballot;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::ChunkId;
use vstack_store::{ObjectReader, StoreError};

use super::buffers::PIECE_BYTES;
use super::conditions::{Wanted, is_known, wanted};
use super::egress::Turns;
use super::load::{InFlight, Load};
use super::refusals::from_store;
use super::state::Node;
use crate::http::{Answer, Refusal, refuse};

/// A GET or HEAD of an object.
#[derive(Debug)]
pub(super) struct ReadRequest {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) chunk: ChunkId,
    pub(super) ballot: Option<Ballot>,
}

/// What is left to send.
struct Sending {
    node: Arc<Node>,
    reader: Arc<ObjectReader>,
    rest: Range<u64>,
    in_flight: InFlight,
    /// Where the node's line is limited.
    turns: Option<Turns>,
}

/// An answer's body.
struct ChunkBody {
    /// What is left of the piece that was read last.
    ready: Bytes,
    sending: Sending,
    /// The piece that is being read from the disk, and where the one after it begins.
    waiting: Option<BoxFuture<'static, Answer<Piece>>>,
}

/// Verified bytes, and where the next ones begin.
struct Piece {
    bytes: Bytes,
    end: u64,
}

pub(super) async fn read(node: Arc<Node>, request: ReadRequest) -> Answer<Response> {
    if request.method == Method::HEAD {
        let stat = node
            .on_disk(move |node| node.store.stat(request.chunk, request.ballot).map_err(from_store))
            .await?;
        let etag = etag(&stat.digest.sha256);
        if is_known(&request.headers, &etag) {
            return Ok(not_modified(&etag));
        }
        return Ok(whole_head(&etag, stat.digest.size_bytes, Body::empty()));
    }
    let behind = request.headers.contains_key(BEHIND_HEADER);
    let in_flight = match behind {
        true => node.load.enter_behind(),
        false => node.load.enter(),
    };
    if behind {
        node.load.behind_viewers().await;
    }
    let (chunk, ballot) = (request.chunk, request.ballot);
    let reader = match node.store.open_cached(chunk, ballot).map_err(from_store)? {
        Some(reader) => reader,
        None => {
            node.on_disk(move |node| node.store.open_object(chunk, ballot).map_err(from_store))
                .await?
        }
    };
    let (etag, size) = (etag(&reader.digest().sha256), reader.size_bytes());
    if is_known(&request.headers, &etag) {
        return Ok(not_modified(&etag));
    }
    let (range, part) = match wanted(&request.headers, &etag, size)? {
        Wanted::Whole => (0..size, false),
        Wanted::Part(range) => (range, true),
        Wanted::Nothing(code) => return Ok(unsatisfiable(code, size)),
    };
    let load = node.load.clone();
    let slack_ms = match behind {
        true => Some(u64::MAX),
        false => slack_ms(&request.headers),
    };
    let turns = node.egress.enter(slack_ms, range.end - range.start);
    let body = send(Sending {
        node,
        reader: Arc::new(reader),
        rest: range.clone(),
        in_flight,
        turns,
    })
    .await?;
    let body = match behind {
        true => waiting(body, load),
        false => body,
    };
    let mut response = whole_head(&etag, range.end - range.start, body);
    if part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let value = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        insert(&mut response, header::CONTENT_RANGE, &value);
    }
    Ok(response)
}

/// The same body, each piece of it behind the viewers.
fn waiting(body: Body, load: Load) -> Body {
    Body::from_stream(body.into_data_stream().then(move |piece| {
        let load = load.clone();
        async move {
            load.behind_viewers().await;
            piece
        }
    }))
}

/// A body whose first piece is in memory already.
async fn send(mut sending: Sending) -> Answer<Body> {
    let piece = match sending.cached()? {
        Some(piece) => piece,
        None => sending.read().await?,
    };
    let ready = sending.take(piece);
    if sending.rest.is_empty() && sending.turns.is_none() {
        sending.in_flight.sent(ready.len());
        return Ok(Body::from(ready));
    }
    Ok(Body::new(ChunkBody {
        ready,
        sending,
        waiting: None,
    }))
}

/// How long its client can wait, if it says so in a way that can be read.
fn slack_ms(headers: &HeaderMap) -> Option<u64> {
    headers.get(SLACK_HEADER)?.to_str().ok()?.trim().parse().ok()
}

impl HttpBody for ChunkBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left() == 0 {
            return Poll::Ready(None);
        }
        if self.ready.is_empty() {
            match ready!(self.poll_piece(cx)) {
                Ok(piece) => self.ready = self.sending.take(piece),
                Err(refusal) => return Poll::Ready(Some(Err(broken_off(refusal)))),
            }
        }
        let (available, left) = (self.ready.len(), self.left());
        let now = match &mut self.sending.turns {
            Some(turns) => ready!(turns.poll(cx, available, left)),
            None => available,
        };
        self.sending.in_flight.sent(now);
        Poll::Ready(Some(Ok(Frame::data(self.ready.split_to(now)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

impl ChunkBody {
    /// Bytes that are still to be sent.
    fn left(&self) -> u64 {
        self.ready.len() as u64 + self.sending.rest.end - self.sending.rest.start
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Answer<Piece>> {
        if self.waiting.is_none() {
            match self.sending.cached() {
                Ok(Some(piece)) => return Poll::Ready(Ok(piece)),
                Ok(None) => self.waiting = Some(Box::pin(self.sending.read())),
                Err(refusal) => return Poll::Ready(Err(refusal)),
            }
        }
        let Some(waiting) = &mut self.waiting else {
            return Poll::Pending;
        };
        let read = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(read)
    }
}

impl fmt::Debug for ChunkBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkBody")
            .field("rest", &self.sending.rest)
            .finish_non_exhaustive()
    }
}

/// What makes the server cut the connection.
fn broken_off(refusal: Refusal) -> io::Error {
    io::Error::other(refusal.0.detail)
}

impl Sending {
    /// The next piece, up to a boundary of the pieces.
    fn next(&self) -> Range<u64> {
        let start = self.rest.start;
        let end = (start / PIECE + 1).saturating_mul(PIECE).min(self.rest.end);
        start..end
    }

    /// The next piece, if it is in memory.
    fn cached(&self) -> Answer<Option<Piece>> {
        let read = |cover, memory: &mut [u8]| self.reader.read_leaves_cached(cover, memory);
        read_piece(&self.node, &self.reader, self.next(), read)
    }

    /// The next piece, from the disk.
    fn read(&self) -> impl Future<Output = Answer<Piece>> + Send + use<> {
        let (node, reader, range) = (Arc::clone(&self.node), Arc::clone(&self.reader), self.next());
        async move {
            node.on_disk(move |node| {
                let read = |cover, memory: &mut [u8]| reader.read_leaves(cover, memory).map(|()| true);
                let piece = read_piece(node, &reader, range, read)?;
                piece.ok_or_else(|| refuse(ErrorCode::Internal, "a read that waits was put off"))
            })
            .await
        }
    }

    /// A piece that has been read is no longer to be read.
    fn take(&mut self, piece: Piece) -> Bytes {
        self.rest.start = piece.end;
        piece.bytes
    }
}

const PIECE: u64 = PIECE_BYTES as u64;

/// Fills a buffer with the leaves that cover `range`; nothing if `read` did not.
fn read_piece(
    node: &Node,
    reader: &ObjectReader,
    range: Range<u64>,
    read: impl FnOnce(Range<u64>, &mut [u8]) -> Result<bool, StoreError>,
) -> Answer<Option<Piece>> {
    let length = |range: &Range<u64>| usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let cover = reader.cover(range.clone());
    let mut buffer = node.receiver.buffers.take();
    let memory = &mut buffer.memory()[..length(&cover)];
    if !read(cover.clone(), memory).map_err(from_store)? {
        return Ok(None);
    }
    let skip = length(&(cover.start..range.start));
    Ok(Some(Piece {
        bytes: buffer.freeze(skip..skip + length(&range)),
        end: range.end,
    }))
}

/// The ETag of a chunk: its SHA-256, quoted.
pub(super) fn etag(sha256: &Sha256Digest) -> String {
    format!("\"{sha256}\"")
}

fn whole_head(etag: &str, length: u64, body: Body) -> Response {
    let mut response = body.into_response();
    insert(&mut response, header::ETAG, etag);
    insert(&mut response, header::CONTENT_LENGTH, &length.to_string());
    insert(&mut response, header::CONTENT_TYPE, "application/octet-stream");
    insert(&mut response, header::ACCEPT_RANGES, "bytes");
    response
}

fn not_modified(etag: &str) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    insert(&mut response, header::ETAG, etag);
    response
}

fn unsatisfiable(code: ErrorCode, size: u64) -> Response {
    let problem = Problem::new(code, format!("the chunk has {size} bytes"));
    let mut response = refuse_problem(problem);
    insert(&mut response, header::CONTENT_RANGE, &format!("bytes */{size}"));
    response
}

fn refuse_problem(problem: Problem) -> Response {
    refuse(problem.code, problem.detail).into_response()
}

pub(super) fn insert(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
