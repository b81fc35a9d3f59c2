//! Ranges of blocks: a request for some blocks of one object, each block checked against its leaf hash the moment it is
//! whole, so that a wrong one is blamed on who sent it and costs 64 KiB, not a chunk.
//!
//! `leaves` holds the leaf hashes that are known, `blocks` the verified blocks of chunks that are not whole yet. Nothing
//! here decides anything, and nothing gives up by itself: silence is for the policy to judge.

mod blocks;
mod leaves;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use vstack_api::transport::Response;
use vstack_api::{StorageClient, TransportError};
use vstack_core::ballot::Ballot;
use vstack_core::digest::{Sha256Digest, leaf_hash};
use vstack_core::id::ChunkId;

use crate::clock::micros;
use crate::fetch::refusal;
use crate::policy::{AttemptId, BLOCK_BYTES, BlockRange, Failure, Micros, NodeIndex};

pub(crate) use blocks::Blocks;
pub(crate) use leaves::{LeafBook, LeafSource, Leaves};

/// The policy gives a silent node up after a second or two; this only bounds what is left over if it should forget.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Progress is told at most this often.
const PROGRESS_PERIOD: Duration = Duration::from_millis(10);

/// What a running attempt tells the session.
#[derive(Debug)]
pub(crate) enum Report {
    /// The body begins.
    FirstByte,
    /// Bytes of the body so far.
    Progress(u64),
    /// A block that matches its leaf.
    Block {
        block: u32,
        bytes: Bytes,
    },
    /// One that does not.
    BadBlock {
        block: u32,
    },
    Ended(RangeEnd),
}

/// How an attempt ended that was not cancelled.
#[derive(Debug)]
pub(crate) struct RangeEnd {
    pub(crate) result: Result<(), Failure>,
    /// From the request to the end.
    pub(crate) elapsed: Micros,
    /// From the last sign of life to the end.
    pub(crate) detect: Micros,
}

/// Blocks of one node's object.
#[derive(Debug, Clone)]
pub(crate) struct RangeRequest {
    pub(crate) attempt: AttemptId,
    pub(crate) node: NodeIndex,
    pub(crate) client: StorageClient,
    pub(crate) id: ChunkId,
    pub(crate) ballot: Ballot,
    /// Of the whole object.
    pub(crate) part_bytes: u64,
    pub(crate) leaf_root: Sha256Digest,
    pub(crate) range: BlockRange,
    pub(crate) slack: Micros,
}

type Reports = mpsc::UnboundedSender<(AttemptId, Report)>;

/// Makes the attempt, telling what happens until its end. `received` counts the body's bytes while they arrive.
///
/// Who is asked for the leaf hashes is settled at once, before the future runs.
pub(crate) fn fetch_range(
    request: RangeRequest,
    book: &Arc<LeafBook>,
    reports: Reports,
    received: Arc<AtomicU64>,
) -> impl Future<Output = ()> + Send + use<> {
    let leaves = book.list(LeafSource {
        node: request.node,
        client: request.client.clone(),
        id: request.id,
        ballot: request.ballot,
        root: request.leaf_root,
        part_bytes: request.part_bytes,
        in_need: request.slack == Micros(0),
    });
    async move { run(&request, leaves, &reports, received).await }
}

async fn run(
    request: &RangeRequest,
    leaves: impl Future<Output = Result<Arc<Leaves>, Failure>>,
    reports: &Reports,
    received: Arc<AtomicU64>,
) {
    let started = Instant::now();
    let mut reader = Reader {
        request,
        reports,
        received,
        last_sign: started,
        told_at: None,
        arriving: BytesMut::new(),
        unchecked: Vec::new(),
        next_block: request.range.first,
    };
    let result = reader.run(leaves).await;
    let end = RangeEnd {
        result,
        elapsed: micros(started.elapsed()),
        detect: micros(reader.last_sign.elapsed()),
    };
    // Nobody listens once the session is over.
    let _ = reports.send((request.attempt, Report::Ended(end)));
}

struct Reader<'a> {
    request: &'a RangeRequest,
    reports: &'a Reports,
    received: Arc<AtomicU64>,
    last_sign: Instant,
    told_at: Option<Instant>,
    /// The beginning of the next block.
    arriving: BytesMut,
    /// Whole blocks that wait for the leaf hashes.
    unchecked: Vec<(u32, Bytes)>,
    next_block: u32,
}

impl Reader<'_> {
    /// The body and the leaf hashes are asked for at the same time.
    async fn run(
        &mut self,
        leaves: impl Future<Output = Result<Arc<Leaves>, Failure>>,
    ) -> Result<(), Failure> {
        let mut leaves = std::pin::pin!(leaves);
        let mut known: Option<Arc<Leaves>> = None;
        let span = self.request.range.byte_span(self.request.part_bytes);
        let slack_ms = self.request.slack.as_ms();
        let asked =
            self.request
                .client
                .get_range(self.request.id, self.request.ballot, span, slack_ms, ANSWER_LIMIT);
        let mut asked = std::pin::pin!(asked);
        let mut answer = loop {
            tokio::select! {
                answer = &mut asked => break answer.map_err(refusal)?,
                list = &mut leaves, if known.is_none() => known = Some(list?),
            }
        };
        self.last_sign = Instant::now();
        check_head(&answer, span, self.request.part_bytes)?;
        loop {
            tokio::select! {
                piece = answer.body.next() => match piece {
                    None => break,
                    Some(piece) => self.take(piece, known.as_deref())?,
                },
                list = &mut leaves, if known.is_none() => {
                    let list = list?;
                    self.check_waiting(&list);
                    known = Some(list);
                }
            }
        }
        self.check_length()?;
        if known.is_none() {
            self.check_waiting(&leaves.await?);
        }
        Ok(())
    }

    fn take(&mut self, piece: Result<Bytes, TransportError>, known: Option<&Leaves>) -> Result<(), Failure> {
        let so_far = self.received.load(Ordering::Relaxed);
        let piece = piece.map_err(|_| Failure::Broken {
            received_bytes: so_far,
        })?;
        self.last_sign = Instant::now();
        if so_far == 0 {
            self.tell(Report::FirstByte);
        }
        let length = so_far + piece.len() as u64;
        self.received.store(length, Ordering::Relaxed);
        if length > self.expected_bytes() {
            return Err(Failure::WrongLength {
                announced_bytes: length,
                expected_bytes: self.expected_bytes(),
            });
        }
        if self.told_at.is_none_or(|at| at.elapsed() >= PROGRESS_PERIOD) {
            self.told_at = Some(self.last_sign);
            self.tell(Report::Progress(length));
        }
        self.arriving.extend_from_slice(&piece);
        while let Some(block) = self.whole_block() {
            match known {
                Some(leaves) => self.judge(block, leaves),
                None => self.unchecked.push(block),
            }
        }
        Ok(())
    }

    /// The next block, when all of it is here.
    fn whole_block(&mut self) -> Option<(u32, Bytes)> {
        let block = self.next_block;
        let own = BlockRange {
            first: block,
            end: block + 1,
        };
        if block >= self.request.range.end {
            return None;
        }
        let (first, last) = own.byte_span(self.request.part_bytes);
        let length = usize::try_from(last - first + 1).unwrap_or(usize::MAX);
        if self.arriving.len() < length {
            return None;
        }
        self.next_block += 1;
        Some((block, self.arriving.split_to(length).freeze()))
    }

    fn check_waiting(&mut self, leaves: &Leaves) {
        for block in std::mem::take(&mut self.unchecked) {
            self.judge(block, leaves);
        }
    }

    fn judge(&self, (block, bytes): (u32, Bytes), leaves: &Leaves) {
        let right = leaves.get(block as usize) == Some(&leaf_hash(&bytes));
        self.tell(if right {
            Report::Block { block, bytes }
        } else {
            Report::BadBlock { block }
        });
    }

    fn check_length(&self) -> Result<(), Failure> {
        let received_bytes = self.received.load(Ordering::Relaxed);
        if received_bytes < self.expected_bytes() {
            return Err(Failure::Broken { received_bytes });
        }
        Ok(())
    }

    fn expected_bytes(&self) -> u64 {
        let (first, last) = self.request.range.byte_span(self.request.part_bytes);
        last - first + 1
    }

    fn tell(&self, report: Report) {
        // Nobody listens once the session is over.
        let _ = self.reports.send((self.request.attempt, report));
    }
}

/// Whether the answer is the range that was asked for: 206 with its `Content-Range`, or 200 when that is all there is.
fn check_head(answer: &Response, (first, last): (u64, u64), part_bytes: u64) -> Result<(), Failure> {
    let asked = format!("bytes {first}-{last}/{part_bytes}");
    match (answer.status, answer.header("content-range")) {
        (206, Some(range)) if range == asked => Ok(()),
        (206, range) => Err(Failure::NotUnderstood {
            reason: format!("it sent \"{}\" instead of \"{asked}\"", range.unwrap_or_default()),
        }),
        (200, _) if first == 0 && last + 1 == part_bytes => Ok(()),
        (200, _) => Err(Failure::NotUnderstood {
            reason: "it sent everything instead of a range".to_owned(),
        }),
        (status, _) => Err(Failure::Refused { status, code: None }),
    }
}

const _: () = assert!(BLOCK_BYTES == vstack_core::digest::LEAF_BYTES as u64);
