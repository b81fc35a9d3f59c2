//! COMMIT of a plain client: the role is the proposer for it.
//!
//! The client has PUT the chunk to some nodes, which keep it under ballot 0, and names them. The role opens a ballot on
//! those that are registered, lets each adopt what it holds, and commits what a quorum of them proves. Nothing that the
//! client says is believed but which nodes to ask.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use futures::future::join_all;
use tracing::warn;
use vstack_api::ErrorCode;
use vstack_api::wire::{Committed, PlainCommit};
use vstack_core::ballot::Ballot;
use vstack_core::digest::{ChunkDigest, Sha256Digest};
use vstack_core::id::{ChunkId, NodeId};
use vstack_core::limits::{REPLICA_COUNT, REPLICA_MIN_ACK};
use vstack_core::paxos::master::{Value, Witness, missing_parts};
use vstack_core::paxos::{Grant, OpenKind, Receipt};
use vstack_core::placement::Placement;
use vstack_meta::{ChunkRecord, Cmd, CommitChunk, NodeRecord, OpenChunk};

use super::consensus::{committed, grant};
use super::input::{self, ChunkPath};
use super::placement::Choice;
use super::problem::refusal;
use super::state::Metadata;
use crate::http::{Answer, Refusal, StrictJson, refuse};

/// Addresses that one commit may name.
const MAX_NODE_URLS: usize = 64;
/// Owner of the lease while the role proposes for somebody.
const OWNER: &str = "plain client";

pub(super) async fn commit(
    State(metadata): State<Arc<Metadata>>,
    ChunkPath(chunk): ChunkPath,
    StrictJson(body): StrictJson<PlainCommit>,
) -> Answer<Json<Committed>> {
    if body.node_urls.is_empty() || body.node_urls.len() > MAX_NODE_URLS {
        return input::invalid("node_urls", format!("1 to {MAX_NODE_URLS} addresses are named"));
    }
    if let Some(known) = metadata.store.chunk(chunk).await.map_err(refusal)? {
        return repeat(known, body.checksum).map(Json);
    }
    let nodes = metadata.nodes().await?;
    let size = Choice::of(&metadata, &nodes).check_size(REPLICA_COUNT);
    size.map_err(|problem| Refusal(*problem))?;
    let named = registered(&nodes, &body.node_urls);
    if named.len() < REPLICA_MIN_ACK {
        let detail = format!(
            "{} of the named addresses are registered nodes; see GET /nodes",
            named.len()
        );
        return Err(refuse(ErrorCode::NotEnoughReplicas, detail));
    }
    propose(&metadata, chunk, &named, body.checksum).await.map(Json)
}

/// A second COMMIT of the same bytes is answered with what was decided.
fn repeat(known: ChunkRecord, checksum: Sha256Digest) -> Answer<Committed> {
    if known.placement.digest.sha256 != checksum {
        let detail = "the chunk is committed with other bytes; a chunk never changes";
        return Err(refuse(ErrorCode::Conflict, detail));
    }
    Ok(Committed {
        chunk_id: known.chunk,
        epoch: known.epoch,
        under_replicated: missing_parts(&known.placement) > 0,
        value: known.placement,
    })
}

/// The registered nodes among the named addresses, each once. No other address is ever requested.
fn registered<'a>(nodes: &'a [NodeRecord], urls: &[String]) -> Vec<&'a NodeRecord> {
    let is_named = |node: &&NodeRecord| urls.iter().any(|url| url.trim_end_matches('/') == node.url);
    nodes.iter().filter(is_named).collect()
}

async fn propose(
    metadata: &Metadata,
    chunk: ChunkId,
    named: &[&NodeRecord],
    checksum: Sha256Digest,
) -> Answer<Committed> {
    let open = OpenChunk {
        chunk,
        kind: OpenKind::Upload,
        owner: OWNER.to_owned(),
        expect_epoch: None,
        nodes: named.iter().map(|node| node.node).collect(),
        min_ack: u8::try_from(REPLICA_MIN_ACK).unwrap_or(u8::MAX),
        now: metadata.now(),
    };
    let opened = metadata.apply(Cmd::Open(open.clone())).await?.opened();
    let opened =
        opened.ok_or_else(|| refuse(ErrorCode::Internal, "the catalogue answered another question"))?;
    let grant = grant(metadata, &open, &opened);
    let adopted = join_all(named.iter().map(|node| adopt(metadata, node, &grant, checksum))).await;
    let (receipts, reasons) = agreeing(metadata, checksum, adopted);
    if receipts.len() < REPLICA_MIN_ACK {
        give_up(metadata, open).await;
        let detail = format!(
            "{} of the named nodes hold {chunk} with this checksum, and {REPLICA_MIN_ACK} are needed{}",
            receipts.len(),
            if reasons.is_empty() {
                String::new()
            } else {
                format!(": {}", reasons.join("; "))
            }
        );
        return Err(refuse(ErrorCode::NotEnoughReplicas, detail));
    }
    let nodes: Vec<NodeId> = receipts.iter().map(|witness| witness.receipt().node).collect();
    let digest = receipts[0].receipt().digest;
    let commit = CommitChunk {
        chunk,
        ballot: grant.ballot,
        value: Value::Placed(Placement::replicated(digest, grant.ballot, &nodes)),
        witnesses: receipts,
        media: None,
        plain_nodes: open.nodes,
        now: metadata.now(),
    };
    let reply = metadata.apply(Cmd::Commit(Box::new(commit))).await?;
    let decided = reply.committed();
    let decided =
        decided.ok_or_else(|| refuse(ErrorCode::Internal, "the catalogue answered another question"))?;
    committed(decided).map_err(|problem| Refusal(*problem))
}

/// One node's receipt, or why there is none.
async fn adopt(
    metadata: &Metadata,
    node: &NodeRecord,
    grant: &Grant,
    checksum: Sha256Digest,
) -> Result<Receipt, String> {
    let storage = metadata.storage(&node.url);
    metadata.counts.adopt.inc();
    let answer = storage
        .adopt(grant.clone(), grant.chunk_id, Ballot::PLAIN, Some(checksum))
        .await;
    match answer {
        Ok(answer) => answer
            .receipt
            .ok_or_else(|| format!("{} gave no receipt", node.url)),
        Err(error) => Err(format!("{}: {error}", node.url)),
    }
}

/// Receipts with the named checksum that agree on everything else, and why the others do not count.
fn agreeing(
    metadata: &Metadata,
    checksum: Sha256Digest,
    adopted: Vec<Result<Receipt, String>>,
) -> (Vec<Witness>, Vec<String>) {
    let mut reasons = Vec::new();
    let mut witnesses = Vec::new();
    for outcome in adopted {
        let witness = outcome.and_then(|receipt| {
            let node = receipt.node;
            match receipt.digest.sha256 == checksum {
                true => Witness::check(receipt, &metadata.key).map_err(|forged| forged.to_string()),
                false => Err(format!("node {node} acknowledged other bytes")),
            }
        });
        match witness {
            Ok(witness) => witnesses.push(witness),
            Err(reason) => reasons.push(reason),
        }
    }
    // Equal SHA-256 with another size or leaf root is a node that miscounts; the majority is right.
    let digest_of = |witness: &Witness| witness.receipt().digest;
    let votes = |digest: ChunkDigest| {
        witnesses
            .iter()
            .filter(|witness| digest_of(witness) == digest)
            .count()
    };
    let agreed = witnesses
        .iter()
        .map(digest_of)
        .max_by_key(|digest| votes(*digest));
    witnesses.retain(|witness| Some(digest_of(witness)) == agreed);
    (witnesses, reasons)
}

/// Kills the ballot, so that what was adopted under it is collected.
async fn give_up(metadata: &Metadata, open: OpenChunk) {
    let abort = OpenChunk {
        kind: OpenKind::Abort,
        nodes: Vec::new(),
        min_ack: 0,
        now: metadata.now(),
        ..open
    };
    if let Err(refusal) = metadata.apply(Cmd::Open(abort)).await {
        warn!(problem = %refusal.0, "a ballot that failed stays open until its lease ends");
    }
}
