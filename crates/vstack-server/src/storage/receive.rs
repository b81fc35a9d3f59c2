//! Receiving a body: bounded, hashed while it arrives, checked before anything is appended.
//!
//! It is gathered in pieces that are used again and again, each counted against what all bodies together may take, as it
//! is needed: a connection that sends nothing holds nothing, and one that sends slowly is given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::info;
use vstack_api::ErrorCode;
use vstack_core::digest::{ChunkDigest, LEAF_BYTES, Sha256Digest, WholeHasher, leaf_hash};
use vstack_core::limits::MAX_CHUNK_BYTES;

use super::buffers::{Buffer, Buffers, PIECE_BYTES};
use crate::http::{Answer, Refusal, refuse};
use crate::platform::Threads;

/// What all bodies that are being received may take together: three of the largest chunks.
const BUDGET_PIECES: usize = 1536;
/// Pieces are hashed leaf by leaf.
const _: () = assert!(PIECE_BYTES.is_multiple_of(LEAF_BYTES));
const _: () = assert!(BUDGET_PIECES as u64 * PIECE_BYTES as u64 == 3 * MAX_CHUNK_BYTES);
/// How long a body waits for memory before its writer is told to come again.
const BUDGET_PATIENCE: Duration = Duration::from_secs(10);
/// A body that is slower than this on the whole is given up: 128 kbit/s, below any line that a node is written over.
const SLOWEST_BYTES_PER_SEC: u64 = 16 * 1024;

/// A body that has arrived whole.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) data: Vec<Bytes>,
    pub(super) digest: ChunkDigest,
    /// To be held until the bytes are on the disk.
    pub(super) budget: Budget,
}

/// A body's part of the memory for bodies.
#[derive(Debug, Default)]
pub(super) struct Budget {
    pieces: Option<OwnedSemaphorePermit>,
    turn: Option<OwnedSemaphorePermit>,
}

/// Where bodies are received.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) buffers: Buffers,
    budget: Arc<Semaphore>,
    /// When the budget is used up, one body at a time goes on without it, to its end. Bodies that each hold a part and
    /// need more would wait for each other otherwise.
    turn: Arc<Semaphore>,
    /// Between two pieces of a body.
    patience: Duration,
    /// Bodies that are arriving.
    open: AtomicUsize,
    /// That may hash; none where everything happens on one thread.
    cores: usize,
}

impl Receiver {
    pub(super) fn new(buffers: Buffers, patience: Duration, threads: Threads) -> Self {
        let cores = match threads {
            Threads::Pool => std::thread::available_parallelism().map_or(1, usize::from),
            Threads::Caller => 0,
        };
        Self {
            buffers,
            budget: Arc::new(Semaphore::new(BUDGET_PIECES)),
            turn: Arc::new(Semaphore::new(1)),
            patience,
            open: AtomicUsize::new(0),
            cores,
        }
    }

    /// Memory for one more piece of the body that has `budget`.
    async fn piece(&self, budget: &mut Budget) -> Answer<Buffer> {
        if budget.turn.is_none() {
            let more = async {
                tokio::select! {
                    biased;
                    Ok(piece) = Arc::clone(&self.budget).acquire_owned() => match &mut budget.pieces {
                        Some(pieces) => pieces.merge(piece),
                        none => *none = Some(piece),
                    },
                    Ok(turn) = Arc::clone(&self.turn).acquire_owned() => budget.turn = Some(turn),
                }
            };
            let in_time = tokio::time::timeout(BUDGET_PATIENCE, more).await;
            in_time.map_err(|_| refuse(ErrorCode::Unavailable, "too many bodies arrive at the same time"))?;
        }
        Ok(self.buffers.take())
    }
}

/// A body as far as it has arrived.
struct Gathering<'a> {
    receiver: &'a Receiver,
    full: Vec<Bytes>,
    /// The piece that is being filled, and how far it is.
    filling: Option<(Buffer, usize)>,
    /// The hashes of each full piece's leaves.
    leaves: Vec<Leaves>,
    budget: Budget,
}

/// Hashes of a piece's leaves. A chunk is hashed twice, as a whole and by leaves, and neither can be divided: on a core
/// that has nothing else to do the leaves are hashed at the same time as the whole.
enum Leaves {
    Hashed(Vec<Sha256Digest>),
    Elsewhere(JoinHandle<Vec<Sha256Digest>>),
}

impl Leaves {
    fn of(piece: &Bytes, spare_core: bool) -> Self {
        let hash = |piece: &Bytes| piece.chunks(LEAF_BYTES).map(leaf_hash).collect();
        if spare_core {
            let piece = piece.clone();
            Self::Elsewhere(tokio::task::spawn_blocking(move || hash(&piece)))
        } else {
            Self::Hashed(hash(piece))
        }
    }
}

impl<'a> Gathering<'a> {
    fn new(receiver: &'a Receiver) -> Self {
        receiver.open.fetch_add(1, Ordering::Relaxed);
        Self {
            receiver,
            full: Vec::new(),
            filling: None,
            leaves: Vec::new(),
            budget: Budget::default(),
        }
    }

    async fn add(&mut self, mut bytes: &[u8]) -> Answer<()> {
        while !bytes.is_empty() {
            let (mut buffer, filled) = match self.filling.take() {
                Some(filling) => filling,
                None => (self.receiver.piece(&mut self.budget).await?, 0),
            };
            let memory = &mut buffer.memory()[filled..];
            let (now, later) = bytes.split_at(bytes.len().min(memory.len()));
            memory[..now.len()].copy_from_slice(now);
            bytes = later;
            let filled = filled + now.len();
            if filled == PIECE_BYTES {
                self.close(buffer.freeze(0..filled));
            } else {
                self.filling = Some((buffer, filled));
            }
        }
        Ok(())
    }

    fn close(&mut self, piece: Bytes) {
        let bodies = self.receiver.open.load(Ordering::Relaxed);
        self.leaves.push(Leaves::of(&piece, bodies < self.receiver.cores));
        self.full.push(piece);
    }

    /// The pieces and the leaves' hashes; nothing if nothing arrived.
    async fn finish(mut self) -> Answer<Option<(Vec<Bytes>, Vec<Sha256Digest>, Budget)>> {
        if let Some((buffer, filled)) = self.filling.take() {
            self.close(buffer.freeze(0..filled));
        }
        let mut leaves = Vec::new();
        for piece in std::mem::take(&mut self.leaves) {
            leaves.extend(match piece {
                Leaves::Hashed(hashes) => hashes,
                Leaves::Elsewhere(hashes) => hashes
                    .await
                    .map_err(|panic| refuse(ErrorCode::Internal, format!("hashing failed: {panic}")))?,
            });
        }
        let (full, budget) = (std::mem::take(&mut self.full), std::mem::take(&mut self.budget));
        Ok((!full.is_empty()).then_some((full, leaves, budget)))
    }
}

impl Drop for Gathering<'_> {
    fn drop(&mut self) {
        self.receiver.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a PUT announces about its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Announced {
    /// Absent for a chunked body.
    pub(super) length: Option<u64>,
    pub(super) sha256: Option<Sha256Digest>,
}

impl Announced {
    /// Reads the headers, and refuses what they alone rule out, before a byte of the body is read.
    ///
    /// # Errors
    /// No length, none that a chunk can have, or a digest that is none.
    pub(super) fn read(headers: &HeaderMap) -> Answer<Self> {
        let length = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        if length.is_none() && !headers.contains_key(header::TRANSFER_ENCODING) {
            return Err(refuse(
                ErrorCode::LengthRequired,
                "send Content-Length, or a chunked body",
            ));
        }
        if length.is_some_and(|length| length > MAX_CHUNK_BYTES) {
            return Err(too_large());
        }
        if length == Some(0) {
            return Err(empty());
        }
        Ok(Self {
            length,
            sha256: content_digest(headers)?,
        })
    }

    /// The most that may arrive.
    pub(super) fn limit(self) -> u64 {
        self.length.unwrap_or(MAX_CHUNK_BYTES)
    }

    /// Receives the body.
    ///
    /// # Errors
    /// It breaks off, stops arriving, is too slow, too long, empty, or not what was announced; or there is no memory.
    pub(super) async fn receive(self, receiver: &Receiver, body: Body) -> Answer<Received> {
        let mut pieces = body.into_data_stream();
        let (mut hasher, mut gathering) = (WholeHasher::default(), Gathering::new(receiver));
        let (mut received, started) = (0, Instant::now());
        while let Some(piece) = next(&mut pieces, receiver.patience).await? {
            received += piece.len() as u64;
            if received > self.limit() {
                return Err(too_large());
            }
            hasher.update(&piece);
            gathering.add(&piece).await?;
            let allowed = receiver.patience + Duration::from_secs(received / SLOWEST_BYTES_PER_SEC);
            if started.elapsed() > allowed {
                return Err(given_up("the body arrives too slowly"));
            }
        }
        let (data, leaves, budget) = gathering.finish().await?.ok_or_else(empty)?;
        let digest = hasher.finish(received, &leaves);
        self.check(&digest)?;
        Ok(Received { data, digest, budget })
    }

    fn check(self, digest: &ChunkDigest) -> Answer<()> {
        if self.length.is_some_and(|length| length != digest.size_bytes) {
            return Err(refuse(
                ErrorCode::LengthMismatch,
                "the body is not as long as Content-Length says",
            ));
        }
        match self.sha256 {
            Some(announced) if announced != digest.sha256 => Err(refuse(
                ErrorCode::HashMismatch,
                format!("the body's SHA-256 is {}, not {announced}", digest.sha256),
            )),
            _ => Ok(()),
        }
    }
}

async fn next(pieces: &mut axum::body::BodyDataStream, patience: Duration) -> Answer<Option<Bytes>> {
    match tokio::time::timeout(patience, pieces.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(piece))) => Ok(Some(piece)),
        Ok(Some(Err(error))) => {
            info!(%error, "a body broke off, nothing of it is kept");
            Err(refuse(ErrorCode::BadRequest, "the body broke off"))
        }
        Err(_) => {
            let detail = format!("nothing of the body arrived for {} s", patience.as_secs_f32());
            Err(given_up(&detail))
        }
    }
}

fn given_up(detail: &str) -> Refusal {
    info!(detail, "a body is given up, nothing of it is kept");
    refuse(ErrorCode::BadRequest, detail)
}

fn too_large() -> Refusal {
    refuse(
        ErrorCode::TooLarge,
        format!("a chunk has at most {MAX_CHUNK_BYTES} bytes"),
    )
}

fn empty() -> Refusal {
    refuse(ErrorCode::EmptyChunk, "the body is empty")
}

/// `Content-Digest: sha-256=:<base64>:` (RFC 9530). Other algorithms in the list are not ours to judge.
fn content_digest(headers: &HeaderMap) -> Answer<Option<Sha256Digest>> {
    let lists = headers
        .get_all("content-digest")
        .iter()
        .filter_map(|list| list.to_str().ok());
    let mut entries = lists
        .flat_map(|list| list.split(','))
        .filter_map(|entry| entry.trim().split_once('='));
    let Some((_, value)) = entries.find(|(algorithm, _)| algorithm.eq_ignore_ascii_case("sha-256")) else {
        return Ok(None);
    };
    let digest = value
        .strip_prefix(':')
        .and_then(|value| value.strip_suffix(':'))
        .and_then(|value| STANDARD.decode(value).ok())
        .and_then(|bytes| bytes.try_into().ok());
    match digest {
        Some(digest) => Ok(Some(Sha256Digest(digest))),
        None => Err(refuse(
            ErrorCode::BadRequest,
            "Content-Digest: sha-256 has no 32 bytes in base64",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(pairs: &[(&'static str, &str)]) -> Result<Announced, ErrorCode> {
        let headers = pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()));
        Announced::read(&headers.collect()).map_err(|refusal| refusal.0.code)
    }

    #[test]
    fn lengths_are_judged_before_the_body() {
        assert_eq!(announced(&[]), Err(ErrorCode::LengthRequired));
        assert_eq!(announced(&[("content-length", "0")]), Err(ErrorCode::EmptyChunk));
        assert_eq!(
            announced(&[("content-length", "67108865")]),
            Err(ErrorCode::TooLarge)
        );
        assert!(announced(&[("content-length", "67108864")]).is_ok());
        assert!(announced(&[("transfer-encoding", "chunked")]).is_ok());
    }

    #[test]
    fn a_content_digest_is_found_among_others() {
        let digest = Sha256Digest::of(b"abc");
        let text = format!("sha-512=:AAAA:, sha-256=:{}:", STANDARD.encode(digest.0));
        let found = announced(&[("content-length", "3"), ("content-digest", &text)]);
        assert_eq!(found.map(|announced| announced.sha256), Ok(Some(digest)));
        for bad in ["sha-256=:AAAA:", "sha-256=abc", "sha-256=:!:"] {
            let found = announced(&[("content-length", "3"), ("content-digest", bad)]);
            assert_eq!(found, Err(ErrorCode::BadRequest), "{bad}");
        }
    }
}
