//! One download, verified: the bytes that the manifest names, or the reason why they did not come.
//!
//! A chunk comes from one node as a full copy; an erasure-coded one comes through [`crate::shards`], which makes several
//! downloads.
//!
//! An attempt ends when no byte came for 2 s, however long it has lasted: a slow node is still a node. It never holds
//! more bytes than the manifest announces.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::time::{Instant, timeout};
use vstack_api::transport::Response;
use vstack_api::{ApiError, StorageClient, TransportError};
use vstack_core::ballot::Ballot;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::ChunkId;

use crate::clock::{micros, millis};
use crate::cluster::Shared;
use crate::policy::{Failure, Micros, NodeIndex};
use crate::source::Source;

/// No byte for this long ends an attempt (contracts, section 8). The connection's own limit of 1 s lies within it.
const SILENCE_LIMIT: Duration = Duration::from_secs(2);

/// What an attempt came to.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) result: Result<Bytes, Failure>,
    /// From the request to the last byte or the failure.
    pub(crate) elapsed: Micros,
    /// From the last sign of life to the end; for wrong bytes, the whole attempt.
    pub(crate) detect: Micros,
    /// Nodes that failed on the way, while others made up for them.
    pub(crate) setbacks: Vec<Setback>,
}

/// A part of an attempt that failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setback {
    pub(crate) node: NodeIndex,
    pub(crate) failure: Failure,
    pub(crate) detect: Micros,
    pub(crate) wasted_bytes: u64,
}

/// One object on one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Object {
    pub(crate) id: ChunkId,
    pub(crate) ballot: Ballot,
    pub(crate) size_bytes: u64,
    pub(crate) sha256: Sha256Digest,
}

/// Makes one attempt at a chunk, from `lead` and, for an erasure-coded one, from others as well; `received` counts
/// bytes while they arrive.
pub(crate) async fn fetch(
    cluster: &Shared,
    source: &Source,
    lead: NodeIndex,
    received: Arc<AtomicU64>,
) -> Attempt {
    let client = cluster.nodes().client(lead);
    match (client, source.part_on(lead)) {
        (Some(client), Some(part)) if part.shard.is_none() => {
            let object = Object {
                id: source.chunk_id,
                ballot: part.ballot,
                size_bytes: source.size_bytes,
                sha256: source.sha256,
            };
            fetch_object(&client, object, received).await
        }
        (Some(_), Some(_)) => crate::shards::fetch(cluster, source, lead, received).await,
        // The placement moved between the decision and this attempt.
        _ => Attempt {
            result: Err(Failure::NotFound),
            elapsed: Micros(0),
            detect: Micros(0),
            setbacks: Vec::new(),
        },
    }
}

/// Downloads one object from one node.
pub(crate) async fn fetch_object(
    client: &StorageClient,
    object: Object,
    received: Arc<AtomicU64>,
) -> Attempt {
    let started = Instant::now();
    let mut reader = Reader {
        started,
        last_byte: started,
        expected: object.size_bytes,
        received,
    };
    let result = match client
        .get(object.id, Some(object.ballot), None, SILENCE_LIMIT)
        .await
    {
        Ok(answer) => reader.read(answer, object.sha256).await,
        Err(error) => Err(refusal(error)),
    };
    let last_sign = if result == Err(Failure::WrongBytes) {
        started
    } else {
        reader.last_byte
    };
    Attempt {
        result,
        elapsed: micros(started.elapsed()),
        detect: micros(last_sign.elapsed()),
        setbacks: Vec::new(),
    }
}

struct Reader {
    started: Instant,
    last_byte: Instant,
    expected: u64,
    received: Arc<AtomicU64>,
}

impl Reader {
    async fn read(&mut self, answer: Response, sha256: Sha256Digest) -> Result<Bytes, Failure> {
        self.last_byte = Instant::now();
        self.check_head(&answer)?;
        let bytes = self.read_body(answer).await?;
        tracing::trace!(
            bytes = bytes.len(),
            elapsed_ms = millis(self.started.elapsed()),
            "chunk received"
        );
        verify(bytes, sha256).await
    }

    fn check_head(&self, answer: &Response) -> Result<(), Failure> {
        if answer.status != 200 {
            return Err(Failure::Refused {
                status: answer.status,
                code: None,
            });
        }
        let announced = answer.header("content-length").and_then(|text| text.parse().ok());
        match announced {
            Some(announced) if announced != self.expected => Err(self.wrong_length(announced)),
            _ => Ok(()),
        }
    }

    async fn read_body(&mut self, mut answer: Response) -> Result<Bytes, Failure> {
        let mut bytes = BytesMut::with_capacity(usize::try_from(self.expected).unwrap_or(0));
        loop {
            let length = bytes.len() as u64;
            let Ok(piece) = timeout(SILENCE_LIMIT, answer.body.next()).await else {
                return Err(Failure::Silent {
                    after_ms: millis(SILENCE_LIMIT),
                });
            };
            match piece {
                None if length == self.expected => return Ok(bytes.freeze()),
                None | Some(Err(_)) => {
                    return Err(Failure::Broken {
                        received_bytes: length,
                    });
                }
                Some(Ok(piece)) => {
                    self.last_byte = Instant::now();
                    let length = length + piece.len() as u64;
                    self.received.store(length, Ordering::Relaxed);
                    if length > self.expected {
                        return Err(self.wrong_length(length));
                    }
                    bytes.extend_from_slice(&piece);
                }
            }
        }
    }

    const fn wrong_length(&self, announced_bytes: u64) -> Failure {
        Failure::WrongLength {
            announced_bytes,
            expected_bytes: self.expected,
        }
    }
}

/// Hashing 64 MiB takes 40 ms and more, too long for a thread that serves other tasks.
pub(crate) async fn verify(bytes: Bytes, sha256: Sha256Digest) -> Result<Bytes, Failure> {
    let hashed = tokio::task::spawn_blocking(move || (Sha256Digest::of(&bytes) == sha256, bytes));
    match hashed.await {
        Ok((true, bytes)) => Ok(bytes),
        // A task that was cancelled with its runtime has verified nothing.
        Ok((false, _)) | Err(_) => Err(Failure::WrongBytes),
    }
}

pub(crate) fn refusal(error: ApiError) -> Failure {
    match error {
        ApiError::Refused(problem) if problem.status == 404 => Failure::NotFound,
        ApiError::Refused(problem) => Failure::Refused {
            status: problem.status,
            code: Some(problem.code.as_str().to_owned()),
        },
        ApiError::Transport(TransportError::TimedOut { ms, .. }) => Failure::Silent { after_ms: ms },
        ApiError::Transport(TransportError::Unreachable { .. }) => Failure::Connect,
        ApiError::Transport(_) => Failure::Broken { received_bytes: 0 },
        ApiError::NotUnderstood { reason, .. } => Failure::NotUnderstood { reason },
    }
}
