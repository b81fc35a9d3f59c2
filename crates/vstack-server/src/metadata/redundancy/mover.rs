//! The metadata role as a proposer: gives a decided chunk another placement, by ChunkPaxos like everybody else.
//!
//! Only where messages go differs from the uploader: OPEN and COMMIT are steps of the own catalogue. Should the role
//! end at any point, the old placement or the new one is decided and whole; what the other left is collected.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::sleep;
use tracing::debug;
use vstack_api::ErrorCode;
use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::id::{ChunkId, NodeId, SHARD_COUNT};
use vstack_core::paxos::master::{Conflict, Value, Witness};
use vstack_core::paxos::proposer::{Contents, Failure, Goal, Input, Output, Proposer};
use vstack_core::paxos::{Grant, OpenKind, Receipt};
use vstack_core::placement::{Part, Placement};
use vstack_meta::{Cmd, CommitChunk, MetaError, OpenParts, OpenedChunk};

use crate::ask_node::{self, Wanted, unknown_address};
use crate::metadata::placement::Choice;
use crate::metadata::state::Metadata;
use crate::platform::Threads;

/// Owner of the ballots.
const OWNER: &str = "redundancy";

/// The bytes of the parts to be placed, and their digests.
#[derive(Debug, Clone)]
pub(super) struct Material {
    pub(super) contents: Contents,
    bytes: Vec<Bytes>,
}

impl Material {
    /// Full copies of a chunk that was read and verified.
    pub(super) fn copies(digest: ChunkDigest, chunk: Bytes) -> Self {
        Self {
            contents: Contents::Whole(digest),
            bytes: vec![chunk],
        }
    }

    /// The shards of a chunk that was read and verified.
    ///
    /// # Errors
    /// This processor cannot encode, or the task was cancelled with the role.
    pub(super) async fn shards(threads: Threads, whole: ChunkDigest, chunk: Bytes) -> Result<Self, String> {
        let encoding = threads.run(move || {
            let shards = vstack_erasure::encode(&chunk)?.map(Bytes::from);
            let digests: [ChunkDigest; SHARD_COUNT as usize] = std::array::from_fn(|index| {
                ChunkDigest::of(shards.get(index).map_or(&[][..], |shard| shard))
            });
            Ok::<_, vstack_erasure::ErasureError>((shards, digests))
        });
        let encoded = encoding.await.map_err(|error| error.to_string())?;
        let (shards, digests) = encoded.map_err(|error| error.to_string())?;
        Ok(Self {
            contents: Contents::Shards {
                whole,
                shards: Box::new(digests),
            },
            bytes: shards.to_vec(),
        })
    }

    /// One shard of a placement that lacks none, to be put elsewhere as it is.
    ///
    /// # Errors
    /// The placement has not all its shards.
    pub(super) fn one_shard(placement: &Placement, part: &Part, shard: Bytes) -> Result<Self, String> {
        let size_bytes = shard.len() as u64;
        let mut digests = Vec::new();
        let mut bytes = vec![Bytes::new(); usize::from(SHARD_COUNT)];
        for index in 0..SHARD_COUNT {
            let found = placement.parts.iter().find(|part| part.shard == Some(index));
            let found = found.ok_or_else(|| format!("shard {index} is nowhere"))?;
            digests.push(ChunkDigest {
                size_bytes,
                sha256: found.sha256,
                leaf_root: found.leaf_root,
            });
        }
        if let Some(slot) = part.shard.and_then(|index| bytes.get_mut(usize::from(index))) {
            *slot = shard;
        }
        let shards = digests
            .try_into()
            .map_err(|_| "a placement has five shards".to_owned())?;
        Ok(Self {
            contents: Contents::Shards {
                whole: placement.digest,
                shards: Box::new(shards),
            },
            bytes,
        })
    }

    fn part(&self, shard: Option<u8>) -> Option<Bytes> {
        self.bytes.get(shard.map_or(0, usize::from)).cloned()
    }
}

/// Brings about `goal`. On return the new placement is decided, or somebody else's with the same bytes. Says how many
/// bytes were sent.
///
/// # Errors
/// Why not; the old placement stands.
pub(super) async fn place(
    metadata: &Metadata,
    chunk: ChunkId,
    goal: Goal,
    material: &Material,
) -> Result<u64, String> {
    place_on(metadata, chunk, goal, material, None).await
}

/// The same with the one new part on this node and no other.
///
/// # Errors
/// Why not; the old placement stands.
pub(super) async fn place_on(
    metadata: &Metadata,
    chunk: ChunkId,
    goal: Goal,
    material: &Material,
    to: Option<NodeId>,
) -> Result<u64, String> {
    let mut proposer = Proposer::with_goal(chunk, goal, metadata.platform.chance.number());
    let mut mover = Mover {
        metadata,
        chunk,
        material,
        to,
        urls: BTreeMap::new(),
        sent_bytes: 0,
    };
    let mut messages: FuturesUnordered<BoxFuture<'_, Input>> = FuturesUnordered::new();
    let mut outputs = proposer.step(metadata.now(), Input::Start);
    loop {
        for output in outputs {
            match output {
                Output::Done { .. } => return Ok(mover.sent_bytes),
                Output::Failed { reason } => return Err(reason),
                Output::GaveUpOn { node, reason } => {
                    debug!(%chunk, %node, reason, "a node does not take a part")
                }
                output => messages.extend(mover.message(output).await),
            }
        }
        let Some(input) = messages.next().await else {
            return Err("nothing is left to try".to_owned());
        };
        outputs = proposer.step(metadata.now(), input);
    }
}

struct Mover<'a> {
    metadata: &'a Metadata,
    chunk: ChunkId,
    material: &'a Material,
    to: Option<NodeId>,
    urls: BTreeMap<NodeId, String>,
    sent_bytes: u64,
}

impl<'a> Mover<'a> {
    async fn message(&mut self, output: Output) -> Option<BoxFuture<'a, Input>> {
        Some(match output {
            Output::Open {
                kind,
                expect_epoch,
                parts,
                exclude,
                min_ack,
            } => {
                let wanted = Asked {
                    kind,
                    expect_epoch,
                    parts,
                    exclude: exclude.into_iter().collect(),
                    min_ack,
                };
                let input = self.open(wanted).await;
                Box::pin(async move { input })
            }
            Output::Prepare { node, grant } => self.prepare(node, grant),
            Output::Accept { node, grant } => self.store(node, grant, None),
            Output::Adopt { node, grant, from } => self.store(node, grant, Some(from)),
            Output::Commit {
                ballot,
                value,
                receipts,
            } => self.commit(ballot, value, receipts),
            Output::WakeAt(at) => {
                let pause = Duration::from_millis(at.since(self.metadata.now()));
                Box::pin(async move {
                    sleep(pause).await;
                    Input::Wake
                })
            }
            Output::Done { .. } | Output::Failed { .. } | Output::GaveUpOn { .. } => return None,
        })
    }

    async fn open(&mut self, wanted: Asked) -> Input {
        match self.opened(wanted).await {
            Ok((grant, opened)) => Input::Granted {
                grant,
                replaced: opened.replaced,
            },
            Err(failure) => Input::OpenFailed(failure),
        }
    }

    async fn opened(&mut self, wanted: Asked) -> Result<(Grant, OpenedChunk), Failure> {
        let nodes = self.metadata.store.nodes().await.map_err(failure)?;
        self.urls = nodes
            .iter()
            .filter_map(|node| Some((node.node, node.known_url()?.to_owned())))
            .collect();
        let now = self.metadata.now();
        let choice = Choice::of(self.metadata, &nodes);
        let targets = match self.to {
            Some(node) => choice.choose_this(node, &wanted.parts, &wanted.exclude),
            None => choice.choose_parts(
                self.chunk,
                &wanted.parts,
                &wanted.exclude,
                usize::from(wanted.min_ack),
                self.material.contents.scheme().part_count(),
            ),
        };
        let targets = targets.map_err(|problem| match problem.code {
            ErrorCode::NotEnoughNodes => Failure::NotEnoughNodes {
                reason: problem.detail,
            },
            _ => Failure::Transient {
                reason: problem.detail,
            },
        })?;
        let open = OpenParts {
            chunk: self.chunk,
            kind: wanted.kind,
            owner: OWNER.to_owned(),
            expect_epoch: wanted.expect_epoch,
            targets: targets.clone(),
            min_ack: wanted.min_ack,
            now,
        };
        let reply = self.metadata.store.apply_one(Cmd::OpenParts(open)).await;
        let opened = reply.map_err(failure)?.opened().ok_or_else(unexpected)?;
        let base = opened.base.as_ref().map_or(Ballot::PLAIN, |base| base.ballot);
        let grant = Grant::signed(
            &self.metadata.key.grant_key(),
            self.chunk,
            (opened.ballot, base),
            targets,
            wanted.min_ack,
            opened.until,
        );
        Ok((grant, opened))
    }

    fn prepare(&self, node: NodeId, grant: Grant) -> BoxFuture<'a, Input> {
        let ballot = grant.ballot;
        let Some(url) = self.urls.get(&node) else {
            return Box::pin(async move { unknown_address(node, ballot) });
        };
        let client = self.metadata.storage_behind(url);
        Box::pin(ask_node::prepare(client, node, grant))
    }

    /// ACCEPT, or ADOPT of what the node holds under an earlier ballot.
    fn store(&mut self, node: NodeId, grant: Grant, from: Option<Ballot>) -> BoxFuture<'a, Input> {
        let ballot = grant.ballot;
        let shard = grant.target_on(node).and_then(|target| target.shard);
        let object = grant
            .target_on(node)
            .map_or(self.chunk, |target| target.object(self.chunk));
        let digest = self.material.contents.digest_of(shard);
        let (Some(url), Some(bytes), Some(digest)) =
            (self.urls.get(&node), self.material.part(shard), digest)
        else {
            return Box::pin(async move { unknown_address(node, ballot) });
        };
        let client = self.metadata.storage_behind(url);
        if from.is_none() {
            self.sent_bytes += digest.size_bytes;
        }
        let wanted = Wanted {
            object,
            digest,
            from,
            bytes,
        };
        Box::pin(ask_node::store(client, node, grant, wanted))
    }

    fn commit(&self, ballot: Ballot, value: Placement, receipts: Vec<Receipt>) -> BoxFuture<'a, Input> {
        let (metadata, chunk) = (self.metadata, self.chunk);
        Box::pin(async move {
            let check = |receipt| Witness::check(receipt, &metadata.key).ok();
            let commit = CommitChunk {
                chunk,
                ballot,
                value: Value::Placed(value),
                // A forged receipt proves nothing; without it the COMMIT is refused.
                witnesses: receipts.into_iter().filter_map(check).collect(),
                media: None,
                plain_nodes: Vec::new(),
                now: metadata.now(),
            };
            let reply = metadata.store.apply_one(Cmd::Commit(Box::new(commit))).await;
            match reply.map(vstack_meta::Reply::committed) {
                Ok(Some(decided)) => Input::Committed(decided.accepted),
                Ok(None) => Input::CommitFailed {
                    ballot,
                    failure: unexpected(),
                },
                Err(error) => Input::CommitFailed {
                    ballot,
                    failure: failure(error),
                },
            }
        })
    }
}

/// What OPEN is to ask.
struct Asked {
    kind: OpenKind,
    expect_epoch: Option<Ballot>,
    parts: Vec<Option<u8>>,
    exclude: std::collections::BTreeSet<NodeId>,
    min_ack: u8,
}

/// The proposer's view of the catalogue's refusal.
fn failure(error: MetaError) -> Failure {
    let reason = error.to_string();
    match error {
        MetaError::Conflict(Conflict::Fenced {
            accepted: Some(accepted),
            ..
        }) => Failure::Decided(accepted),
        MetaError::Conflict(Conflict::Fenced { .. }) => Failure::Fenced,
        MetaError::Conflict(Conflict::Leased { until, .. }) => Failure::Locked { until },
        MetaError::Busy | MetaError::Restored | MetaError::Database { .. } => Failure::Transient { reason },
        _ => Failure::Refused { reason },
    }
}

fn unexpected() -> Failure {
    Failure::Refused {
        reason: "the catalogue answered another question".to_owned(),
    }
}
