//! Driving ChunkPaxos: performs what a chunk's proposer says, and reports what came of it.
//!
//! OPEN and COMMIT of all chunks of all uploads share two batchers; the bytes go to their nodes in parallel. The rules
//! (retries, other nodes, fewer copies) are the proposer's and not repeated here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{sleep, timeout};
use tracing::warn;
use vstack_api::client::{ApiError, Endpoint};
use vstack_api::roles::{MetadataClient, StorageClient};
use vstack_api::transport::Transport;
use vstack_api::wire::{CommitBatch, CommitItem, Committed, OpenBatch, OpenItem, Opened, PutAnswer};
use vstack_api::{ErrorCode, Problem};
use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::id::{ChunkId, NodeId};
use vstack_core::limits::MAX_BATCH_CHUNKS;
use vstack_core::manifest::MediaFacts;
use vstack_core::paxos::master::{Accepted, Value};
use vstack_core::paxos::proposer::{Failure, Input, Output, Proposer};
use vstack_core::paxos::{Grant, OpenKind};
use vstack_core::time::UnixMillis;

use super::batch::Batcher;

/// Commits in one request: with three receipts and the times of a chunk of nothing but keyframes each has up to 10 kB,
/// and a JSON body may have 1 MiB.
const COMMITS_AT_ONCE: usize = 64;
/// A node that accepts a connection and then says nothing (stopped, or its disk hangs) is given up on after this and a
/// second for each MiB: slower than any disk or link that could serve video.
const PUT_PATIENCE: Duration = Duration::from_secs(10);
/// A lease that another owner holds is asked for again after this at the earliest.
const LOCKED_PAUSE_MS: u64 = 1_000;

/// A chunk to be placed.
#[derive(Debug, Clone)]
pub(super) struct NewChunk {
    pub(super) id: ChunkId,
    pub(super) bytes: Bytes,
    pub(super) media: Option<MediaFacts>,
}

/// A chunk whose placement is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) under_replicated: bool,
    /// Nodes that were given up on, and why.
    pub(super) given_up: Vec<(NodeId, String)>,
}

/// Places chunks; cheap to clone.
#[derive(Clone)]
pub(super) struct ChunkPlacer {
    opens: Batcher<OpenItem, Opened>,
    commits: Batcher<CommitItem, Committed>,
    transport: Arc<dyn Transport>,
    owner: String,
}

impl fmt::Debug for ChunkPlacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkPlacer")
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

impl ChunkPlacer {
    pub(super) fn new(metadata: MetadataClient, transport: Arc<dyn Transport>) -> Self {
        let opening = metadata.clone();
        let opens = Batcher::new(MAX_BATCH_CHUNKS, move |requests| {
            let metadata = opening.clone();
            async move {
                let answer = metadata.open(&OpenBatch { requests }).await?;
                Ok(answer.grants.into_iter().map(Into::into).collect())
            }
        });
        let commits = Batcher::new(COMMITS_AT_ONCE, move |commits| {
            let metadata = metadata.clone();
            async move {
                let answer = metadata.commit(&CommitBatch { commits }).await?;
                Ok(answer.results.into_iter().map(Into::into).collect())
            }
        });
        Self {
            opens,
            commits,
            transport,
            owner: format!("uploader-{}", uuid::Uuid::new_v4()),
        }
    }

    /// Brings a chunk to its nodes and its placement into the catalogue. On return it is durable and decided.
    ///
    /// # Errors
    /// Too few nodes took it, or the catalogue refused, after all retries.
    pub(super) async fn place(&self, chunk: NewChunk) -> Result<Placed, Problem> {
        let bytes = chunk.bytes.clone();
        let digest = tokio::task::spawn_blocking(move || ChunkDigest::of(&bytes)).await;
        let digest = digest.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
        let proposer = Proposer::new(chunk.id, digest, rand::random());
        let driver = Driver {
            placer: self,
            chunk,
            digest,
            node_urls: BTreeMap::new(),
            given_up: Vec::new(),
        };
        driver.run(proposer).await
    }
}

/// One proposer's messages.
struct Driver<'a> {
    placer: &'a ChunkPlacer,
    chunk: NewChunk,
    digest: ChunkDigest,
    node_urls: BTreeMap<NodeId, String>,
    given_up: Vec<(NodeId, String)>,
}

/// What a message came to.
struct Event {
    input: Input,
    /// Addresses that came with a grant.
    node_urls: Vec<(NodeId, String)>,
}

impl From<Input> for Event {
    fn from(input: Input) -> Self {
        Self {
            input,
            node_urls: Vec::new(),
        }
    }
}

impl Driver<'_> {
    async fn run(mut self, mut proposer: Proposer) -> Result<Placed, Problem> {
        let mut messages: FuturesUnordered<BoxFuture<'static, Event>> = FuturesUnordered::new();
        let mut outputs = proposer.step(now(), Input::Start);
        loop {
            for output in outputs {
                match output {
                    Output::Done { under_replicated, .. } => {
                        return Ok(Placed {
                            under_replicated,
                            given_up: self.given_up,
                        });
                    }
                    Output::Failed { reason } => return Err(self.failure(reason)),
                    Output::GaveUpOn { node, reason } => {
                        warn!(chunk = %self.chunk.id, %node, %reason, "node given up on for this chunk");
                        self.given_up.push((node, reason));
                    }
                    output => messages.extend(self.message(output)),
                }
            }
            let Some(event) = messages.next().await else {
                return Err(self.failure("nothing is left to try".to_owned()));
            };
            self.node_urls.extend(event.node_urls);
            outputs = proposer.step(now(), event.input);
        }
    }

    fn failure(&self, reason: String) -> Problem {
        let code = if self.given_up.is_empty() {
            ErrorCode::Unavailable
        } else {
            ErrorCode::NotEnoughReplicas
        };
        Problem::new(
            code,
            format!("chunk {} could not be stored: {reason}", self.chunk.id),
        )
    }

    fn message(&self, output: Output) -> Option<BoxFuture<'static, Event>> {
        Some(match output {
            Output::Open { exclude, min_ack, .. } => {
                let item = OpenItem {
                    chunk_id: self.chunk.id,
                    kind: OpenKind::Upload,
                    owner: self.placer.owner.clone(),
                    exclude: exclude.into_iter().collect(),
                    min_ack: Some(min_ack),
                };
                let opens = self.placer.opens.clone();
                Box::pin(async move { open_event(opens.call(item).await) })
            }
            // Nobody asks while grants do not tell of replaced ballots; the proposer then sends the bytes.
            Output::Prepare { node, grant } => {
                let failure = Failure::Permanent {
                    reason: "it was not asked what it holds".to_owned(),
                };
                let ballot = grant.ballot;
                Box::pin(async move {
                    Input::StoreFailed {
                        node,
                        ballot,
                        failure,
                    }
                    .into()
                })
            }
            Output::Accept { node, grant } => self.store(node, grant, None),
            Output::Adopt { node, grant, from } => self.store(node, grant, Some(from)),
            Output::Commit {
                ballot,
                value,
                receipts,
            } => {
                let media = self.chunk.media.clone();
                let item = CommitItem {
                    chunk_id: self.chunk.id,
                    ballot,
                    value,
                    receipts,
                    media,
                };
                let commits = self.placer.commits.clone();
                Box::pin(async move { commit_input(ballot, commits.call(item).await).into() })
            }
            Output::WakeAt(at) => {
                let pause = Duration::from_millis(at.since(now()));
                Box::pin(async move {
                    sleep(pause).await;
                    Input::Wake.into()
                })
            }
            Output::Done { .. } | Output::Failed { .. } | Output::GaveUpOn { .. } => return None,
        })
    }

    /// ACCEPT, or ADOPT of what the node holds under an earlier ballot.
    fn store(&self, node: NodeId, grant: Grant, from: Option<Ballot>) -> BoxFuture<'static, Event> {
        let ballot = grant.ballot;
        let Some(url) = self.node_urls.get(&node) else {
            let failure = Failure::Permanent {
                reason: "its address is not known".to_owned(),
            };
            return Box::pin(async move {
                Input::StoreFailed {
                    node,
                    ballot,
                    failure,
                }
                .into()
            });
        };
        let client = StorageClient(Endpoint::with_transport(url, Arc::clone(&self.placer.transport)));
        let NewChunk { id, bytes, .. } = self.chunk.clone();
        let sha256 = Some(self.digest.sha256);
        let patience = PUT_PATIENCE + Duration::from_secs(self.digest.size_bytes >> 20);
        Box::pin(async move {
            let stored = async {
                match from {
                    Some(from) => client.adopt(grant, id, from, sha256).await,
                    None => client.put(&grant, id, bytes).await,
                }
            };
            store_input(node, ballot, timeout(patience, stored).await).into()
        })
    }
}

fn open_event(result: Result<Opened, Problem>) -> Event {
    match result {
        Ok(opened) => Event {
            node_urls: opened
                .grant
                .nodes
                .iter()
                .map(|target| target.node)
                .zip(opened.node_urls)
                .collect(),
            input: Input::Granted {
                grant: opened.grant,
                replaced: None,
            },
        },
        Err(problem) => Input::OpenFailed(catalogue_failure(problem)).into(),
    }
}

fn commit_input(ballot: Ballot, result: Result<Committed, Problem>) -> Input {
    match result {
        Ok(committed) => Input::Committed(Accepted {
            ballot: committed.epoch,
            value: Value::Placed(committed.value),
        }),
        Err(problem) => Input::CommitFailed {
            ballot,
            failure: catalogue_failure(problem),
        },
    }
}

fn catalogue_failure(problem: Problem) -> Failure {
    let reason = problem.detail;
    match problem.code {
        ErrorCode::Fenced => Failure::Fenced,
        ErrorCode::Locked => Failure::Locked {
            until: now() + LOCKED_PAUSE_MS,
        },
        ErrorCode::NotEnoughNodes => Failure::NotEnoughNodes { reason },
        _ if problem.retryable => Failure::Transient { reason },
        _ => Failure::Refused { reason },
    }
}

fn store_input(
    node: NodeId,
    ballot: Ballot,
    result: Result<Result<PutAnswer, ApiError>, tokio::time::error::Elapsed>,
) -> Input {
    let failure = match result {
        Ok(Ok(PutAnswer {
            receipt: Some(receipt),
            ..
        })) => return Input::Stored(receipt),
        Ok(Ok(PutAnswer { receipt: None, .. })) => Failure::Permanent {
            reason: "it stored the chunk without a receipt".to_owned(),
        },
        Ok(Err(error)) => node_failure(error),
        Err(_) => Failure::Transient {
            reason: "it does not answer".to_owned(),
        },
    };
    Input::StoreFailed {
        node,
        ballot,
        failure,
    }
}

fn node_failure(error: ApiError) -> Failure {
    let problem = error.into_problem();
    let reason = problem.detail;
    match problem.code {
        ErrorCode::Fenced => Failure::Fenced,
        ErrorCode::ChunkNotFound => Failure::SourceMissing,
        _ if problem.retryable => Failure::Transient { reason },
        _ => Failure::Permanent { reason },
    }
}

/// Wall-clock time, for leases and pauses alone.
pub(super) fn now() -> UnixMillis {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}
