//! Driving ChunkPaxos: performs what a chunk's proposer says, and reports what came of it.
//!
//! OPEN and COMMIT go through the shared [`Catalogue`]; the bytes go to their nodes in parallel. The rules (retries,
//! other nodes, fewer copies) are the proposer's and not repeated here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::sleep;
use tracing::warn;
use vstack_api::client::Endpoint;
use vstack_api::roles::StorageClient;
use vstack_api::wire::{CommitItem, Committed, OpenItem, Opened};
use vstack_api::{ErrorCode, Problem};
use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::id::{ChunkId, NodeId};
use vstack_core::manifest::MediaFacts;
use vstack_core::paxos::master::{Accepted, Value};
use vstack_core::paxos::proposer::{Input, Output, Proposer};
use vstack_core::paxos::{Grant, OpenKind};
use vstack_core::time::UnixMillis;

use super::catalogue::{Catalogue, catalogue_failure};
use super::counts::{Counts, Path, Sent};
use super::jobs::JobHandle;
use crate::ask_node::{self, Wanted, unknown_address};
use crate::platform::{Clock, Platform};

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
#[derive(Debug, Clone)]
pub(super) struct ChunkPlacer {
    catalogue: Catalogue,
    clock: Clock,
    platform: Platform,
    pauses_ms: [u64; 3],
    counts: Counts,
}

impl ChunkPlacer {
    pub(super) fn new(
        catalogue: Catalogue,
        (clock, platform): (Clock, Platform),
        pauses_ms: [u64; 3],
        counts: Counts,
    ) -> Self {
        Self {
            catalogue,
            clock,
            platform,
            pauses_ms,
            counts,
        }
    }

    /// Brings a chunk of a job to its nodes and its placement into the catalogue. On return it is durable and decided,
    /// by this job or by somebody else with the same bytes.
    ///
    /// # Errors
    /// Too few nodes took it, or the catalogue refused, after all retries.
    pub(super) async fn place(&self, job: &Arc<JobHandle>, chunk: NewChunk) -> Result<Placed, Problem> {
        let bytes = chunk.bytes.clone();
        let digest = self.platform.threads.run(move || ChunkDigest::of(&bytes)).await;
        let digest = digest.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
        let proposer =
            Proposer::new(chunk.id, digest, self.platform.chance.number()).with_pauses(self.pauses_ms);
        let driver = Driver {
            placer: self,
            job: Arc::clone(job),
            chunk,
            digest,
            node_urls: BTreeMap::new(),
            given_up: Vec::new(),
            refused: None,
            sent: Sent::default(),
        };
        driver.run(proposer).await
    }
}

/// One proposer's messages.
struct Driver<'a> {
    placer: &'a ChunkPlacer,
    job: Arc<JobHandle>,
    chunk: NewChunk,
    digest: ChunkDigest,
    node_urls: BTreeMap<NodeId, String>,
    given_up: Vec<(NodeId, String)>,
    /// The catalogue's last word, where it was a no that no repetition changes.
    refused: Option<ErrorCode>,
    sent: Sent,
}

/// What a message came to.
struct Event {
    input: Input,
    /// Addresses that came with a grant.
    node_urls: Vec<(NodeId, String)>,
    /// The catalogue said no.
    refused: Option<ErrorCode>,
}

impl From<Input> for Event {
    fn from(input: Input) -> Self {
        Self {
            input,
            node_urls: Vec::new(),
            refused: None,
        }
    }
}

impl Driver<'_> {
    async fn run(mut self, mut proposer: Proposer) -> Result<Placed, Problem> {
        let mut messages: FuturesUnordered<BoxFuture<'static, Event>> = FuturesUnordered::new();
        let mut outputs = proposer.step(self.placer.clock.now(), Input::Start);
        loop {
            for output in outputs {
                match output {
                    Output::Done { under_replicated, .. } => {
                        self.placer.counts.settle(self.sent.path(), self.sent);
                        return Ok(Placed {
                            under_replicated,
                            given_up: self.given_up,
                        });
                    }
                    Output::Failed { reason } => {
                        self.placer.counts.settle(Path::Failed, self.sent);
                        return Err(self.failure(&reason));
                    }
                    Output::GaveUpOn { node, reason } => {
                        warn!(chunk = %self.chunk.id, %node, %reason, "node given up on for this chunk");
                        self.given_up.push((node, reason));
                    }
                    output => messages.extend(self.message(output)),
                }
            }
            let Some(event) = messages.next().await else {
                return Err(self.failure("nothing is left to try"));
            };
            self.refused = event.refused;
            self.sent.ballots += u64::from(matches!(event.input, Input::Granted { .. }));
            self.node_urls.extend(event.node_urls);
            outputs = proposer.step(self.placer.clock.now(), event.input);
        }
    }

    fn client(&self, node: NodeId) -> Option<StorageClient> {
        let url = self.node_urls.get(&node)?;
        let transport = Arc::clone(&self.placer.platform.transport);
        Some(StorageClient(Endpoint::with_transport(url, transport)))
    }

    fn failure(&self, reason: &str) -> Problem {
        let code = match self.refused {
            // There were nodes, and they did not take it.
            Some(ErrorCode::NotEnoughNodes) if !self.given_up.is_empty() => ErrorCode::NotEnoughReplicas,
            Some(code) => code,
            None if self.given_up.is_empty() => ErrorCode::Unavailable,
            None => ErrorCode::NotEnoughReplicas,
        };
        let detail = match code {
            ErrorCode::VideoNotFound => "the video was deleted while its file was being stored".to_owned(),
            // It is the cluster's, not the chunk's.
            ErrorCode::NotEnoughNodes => reason.to_owned(),
            _ => format!("chunk {} could not be stored: {reason}", self.chunk.id),
        };
        Problem::new(code, detail)
    }

    fn message(&mut self, output: Output) -> Option<BoxFuture<'static, Event>> {
        let (job, catalogue) = (Arc::clone(&self.job), self.placer.catalogue.clone());
        let clock = self.placer.clock.clone();
        let digest = self.digest;
        Some(match output {
            Output::Open { exclude, min_ack, .. } => {
                let item = OpenItem {
                    chunk_id: self.chunk.id,
                    kind: OpenKind::Upload,
                    // The lease is the job's: its next life goes on at once, anybody else waits.
                    owner: format!("upload {}", job.id()),
                    exclude: exclude.into_iter().collect(),
                    min_ack: Some(min_ack),
                };
                Box::pin(async move {
                    let opened = catalogue.open(&job, item).await;
                    if let Some(copies) = copies_there(&opened, &digest) {
                        job.spared(copies * digest.size_bytes);
                    }
                    open_event(opened, &digest, clock.now())
                })
            }
            Output::Prepare { node, grant } => {
                self.sent.prepare += 1;
                self.prepare(node, grant)
            }
            Output::Accept { node, grant } => {
                self.sent.accept += 1;
                self.store(node, grant, None)
            }
            Output::Adopt { node, grant, from } => {
                self.sent.adopt += 1;
                self.store(node, grant, Some(from))
            }
            Output::Commit {
                ballot,
                value,
                receipts,
            } => {
                self.sent.commits += 1;
                let media = self.chunk.media.clone();
                let item = CommitItem {
                    chunk_id: self.chunk.id,
                    ballot,
                    value,
                    receipts,
                    media,
                };
                Box::pin(async move {
                    let committed = catalogue.commit(&job, item).await;
                    commit_event(ballot, committed, &digest, clock.now())
                })
            }
            Output::WakeAt(at) => {
                let pause = Duration::from_millis(at.since(clock.now()));
                Box::pin(async move {
                    sleep(pause).await;
                    Input::Wake.into()
                })
            }
            Output::Done { .. } | Output::Failed { .. } | Output::GaveUpOn { .. } => return None,
        })
    }

    fn prepare(&self, node: NodeId, grant: Grant) -> BoxFuture<'static, Event> {
        let ballot = grant.ballot;
        let Some(client) = self.client(node) else {
            return Box::pin(async move { unknown_address(node, ballot).into() });
        };
        Box::pin(async move { ask_node::prepare(client, node, grant).await.into() })
    }

    /// ACCEPT, or ADOPT of what the node holds under an earlier ballot.
    fn store(&self, node: NodeId, grant: Grant, from: Option<Ballot>) -> BoxFuture<'static, Event> {
        let ballot = grant.ballot;
        let Some(client) = self.client(node) else {
            return Box::pin(async move { unknown_address(node, ballot).into() });
        };
        let wanted = Wanted {
            object: self.chunk.id,
            digest: self.digest,
            from,
            bytes: self.chunk.bytes.clone(),
        };
        let (job, size_bytes) = (Arc::clone(&self.job), self.digest.size_bytes);
        Box::pin(async move {
            if from.is_none() {
                job.sent(size_bytes);
            }
            let input = ask_node::store(client, node, grant, wanted).await;
            if from.is_some() && matches!(input, Input::Stored(_)) {
                job.spared(size_bytes);
            }
            input.into()
        })
    }
}

/// Copies that are decided already, of a chunk with these bytes.
fn copies_there(opened: &Result<Opened, Problem>, digest: &ChunkDigest) -> Option<u64> {
    let decided = opened.as_ref().err()?.decided.as_ref()?;
    (decided.value.digest == *digest).then_some(decided.value.parts.len() as u64)
}

/// Of the granted nodes and of those of the replaced ballot.
fn addresses(opened: &Opened) -> Vec<(NodeId, String)> {
    let before = opened.replaced.iter().flat_map(|replaced| &replaced.nodes);
    let before = before.zip(&opened.replaced_urls);
    let granted = opened.grant.nodes.iter().zip(&opened.node_urls);
    before
        .chain(granted)
        .filter(|(_, url)| !url.is_empty())
        .map(|(target, url)| (target.node, url.clone()))
        .collect()
}

fn open_event(result: Result<Opened, Problem>, digest: &ChunkDigest, now: UnixMillis) -> Event {
    match result {
        Ok(opened) => Event {
            node_urls: addresses(&opened),
            input: Input::Granted {
                grant: opened.grant,
                replaced: opened.replaced,
            },
            refused: None,
        },
        Err(problem) => Event {
            refused: refusal(&problem, digest),
            node_urls: Vec::new(),
            input: Input::OpenFailed(catalogue_failure(problem, now)),
        },
    }
}

fn commit_event(
    ballot: Ballot,
    result: Result<Committed, Problem>,
    digest: &ChunkDigest,
    now: UnixMillis,
) -> Event {
    match result {
        Ok(committed) => Input::Committed(Accepted {
            ballot: committed.epoch,
            value: Value::Placed(committed.value),
        })
        .into(),
        Err(problem) => Event {
            refused: refusal(&problem, digest),
            node_urls: Vec::new(),
            input: Input::CommitFailed {
                ballot,
                failure: catalogue_failure(problem, now),
            },
        },
    }
}

/// The code with which the upload fails if this is the catalogue's last word.
fn refusal(problem: &Problem, digest: &ChunkDigest) -> Option<ErrorCode> {
    match &problem.decided {
        Some(decided) if decided.value.digest != *digest => Some(ErrorCode::Conflict),
        Some(_) => None,
        None => is_last_word(problem).then_some(problem.code),
    }
}

/// The same again gets the same answer, or only an operator can change it.
const fn is_last_word(problem: &Problem) -> bool {
    match problem.code {
        ErrorCode::Fenced => false,
        ErrorCode::NotEnoughNodes => true,
        _ => !problem.retryable,
    }
}
