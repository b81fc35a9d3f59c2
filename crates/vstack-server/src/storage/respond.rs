//! Sending a chunk: in pieces, each read from the disk and verified before it leaves.
//!
//! The first piece is read before the headers go, so that a damaged chunk is answered with 500. If a later piece fails,
//! the connection is cut: the reader is short of the announced length and cannot take what it has for the whole.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::stream;
use vstack_api::{ErrorCode, Problem};
use vstack_core::ballot::Ballot;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::ChunkId;
use vstack_store::ObjectReader;

use super::conditions::{Wanted, is_known, wanted};
use super::load::InFlight;
use super::refusals::from_store;
use super::state::Node;
use crate::http::{Answer, Refusal, refuse};

/// Bytes of one piece: eight leaves. Large enough that the switch to the blocking pool costs little, small enough that
/// a hundred readers need 50 MiB.
const PIECE_BYTES: u64 = 512 * 1024;

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
    let in_flight = node.load.enter();
    let ReadRequest { chunk, ballot, .. } = request;
    let reader = node
        .on_disk(move |node| node.store.open_object(chunk, ballot).map_err(from_store))
        .await?;
    let (etag, size) = (etag(&reader.digest().sha256), reader.size_bytes());
    if is_known(&request.headers, &etag) {
        return Ok(not_modified(&etag));
    }
    let (range, part) = match wanted(&request.headers, &etag, size)? {
        Wanted::Whole => (0..size, false),
        Wanted::Part(range) => (range, true),
        Wanted::Nothing(code) => return Ok(unsatisfiable(code, size)),
    };
    let body = send(Sending {
        node,
        reader: Arc::new(reader),
        rest: range.clone(),
        in_flight,
    })
    .await?;
    let mut response = whole_head(&etag, range.end - range.start, body);
    if part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let value = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        insert(&mut response, header::CONTENT_RANGE, &value);
    }
    Ok(response)
}

/// A body whose first piece is in memory already.
async fn send(mut sending: Sending) -> Answer<Body> {
    let first = sending.next_piece().await?;
    if sending.rest.is_empty() {
        return Ok(Body::from(first));
    }
    let pieces = stream::try_unfold((Some(first), sending), |(ready, mut sending)| async move {
        let piece = match ready {
            Some(piece) => piece,
            None if sending.rest.is_empty() => return Ok(None),
            None => sending.next_piece().await.map_err(broken_off)?,
        };
        Ok::<_, io::Error>(Some((piece, (None, sending))))
    });
    Ok(Body::from_stream(pieces))
}

/// What makes the server cut the connection.
fn broken_off(refusal: Refusal) -> io::Error {
    io::Error::other(refusal.0.detail)
}

impl Sending {
    /// Reads and verifies the next piece, up to a boundary of the pieces.
    async fn next_piece(&mut self) -> Answer<Bytes> {
        let start = self.rest.start;
        let end = (start / PIECE_BYTES + 1)
            .saturating_mul(PIECE_BYTES)
            .min(self.rest.end);
        let reader = Arc::clone(&self.reader);
        let piece = self
            .node
            .on_disk(move |_| read_piece(&reader, start..end))
            .await?;
        self.rest.start = end;
        self.in_flight.sent(piece.len());
        Ok(piece)
    }
}

fn read_piece(reader: &ObjectReader, range: Range<u64>) -> Answer<Bytes> {
    let length = |range: &Range<u64>| usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let cover = reader.cover(range.clone());
    let mut buffer = BytesMut::zeroed(length(&cover));
    reader
        .read_leaves(cover.clone(), &mut buffer)
        .map_err(from_store)?;
    let skip = length(&(cover.start..range.start));
    Ok(buffer.freeze().slice(skip..skip + length(&range)))
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
