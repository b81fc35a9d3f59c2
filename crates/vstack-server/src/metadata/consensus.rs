//! OPEN and COMMIT in batches: signatures are checked and made here, the rows decide in the catalogue.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use vstack_api::consensus::ConsensusChange;
use vstack_api::wire::{
    CommitBatch, CommitBatchAnswer, CommitItem, Committed, OpenBatch, OpenBatchAnswer, OpenItem, Opened,
};
use vstack_api::{ErrorCode, Problem};
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, ChunkKind, NodeId};
use vstack_core::limits::{MAX_BATCH_CHUNKS, MAX_CHUNK_BYTES, REPLICA_COUNT, REPLICA_MIN_ACK};
use vstack_core::paxos::master::{Value, Witness};
use vstack_core::paxos::{Grant, OpenKind, Target};
use vstack_core::placement::Part;
use vstack_core::time::UnixMillis;
use vstack_meta::{Cmd, CommitChunk, CommittedChunk, MetaError, OpenChunk, OpenedChunk, Reply};

use super::input;
use super::placement::Choice;
use super::problem::chunk_problem;
use super::state::Metadata;
use crate::http::{Answer, StrictJson};

/// Longest name of a lease's owner.
const MAX_OWNER_CHARS: usize = 200;

type Item<T> = Result<T, Box<Problem>>;

pub(super) async fn open(
    State(metadata): State<Arc<Metadata>>,
    StrictJson(batch): StrictJson<OpenBatch>,
) -> Answer<Json<OpenBatchAnswer>> {
    check_batch("requests", batch.requests.len())?;
    metadata.counts.open_requests.inc();
    metadata.counts.open_items.inc_by(batch.requests.len() as u64);
    let nodes = metadata.nodes().await?;
    let now = metadata.now();
    let choice = Choice::of(&metadata, &nodes);
    let commands: Vec<_> = batch
        .requests
        .iter()
        .map(|item| open_command(item, &choice, now))
        .collect();
    let replies = apply_good(
        &metadata,
        commands,
        |open| open.chunk,
        |open| Cmd::Open(open.clone()),
    )
    .await;
    let urls: BTreeMap<NodeId, &str> = nodes.iter().map(|node| (node.node, node.url.as_str())).collect();
    let grants = replies.into_iter().map(|item| {
        let (command, reply) = item?;
        let opened = reply.opened().ok_or_else(unexpected)?;
        tell_opened(&metadata, &command, &opened);
        Ok(granted(&metadata, &command, &opened, &urls))
    });
    let grants = grants
        .map(|item: Item<Opened>| item.map_err(|problem| *problem).into())
        .collect();
    Ok(Json(OpenBatchAnswer { grants }))
}

fn tell_opened(metadata: &Metadata, command: &OpenChunk, opened: &OpenedChunk) {
    let (events, chunk, now) = (&metadata.events, command.chunk, metadata.now());
    if let Some(replaced) = &opened.replaced {
        let by = opened.ballot;
        events.tell(now, (chunk, Some(replaced.ballot)), || ConsensusChange::Fenced {
            by,
        });
    }
    events.tell(now, (chunk, Some(opened.ballot)), || ConsensusChange::Opened {
        kind: command.kind,
        owner: command.owner.clone(),
        nodes: command.nodes.iter().copied().map(Target::whole).collect(),
    });
}

fn tell_decided(metadata: &Metadata, command: &CommitChunk, decided: &CommittedChunk) {
    let (events, now) = (&metadata.events, metadata.now());
    for receipt in command.witnesses.iter().map(Witness::receipt) {
        let node = receipt.node;
        events.tell(now, (command.chunk, Some(receipt.ballot)), || {
            ConsensusChange::Accepted { node }
        });
    }
    let placement = decided.accepted.value.placement();
    events.tell(now, (command.chunk, Some(decided.accepted.ballot)), || {
        ConsensusChange::Decided {
            nodes: placement
                .into_iter()
                .flat_map(|placement| placement.parts.iter().map(Part::target))
                .collect(),
            under_replicated: decided.missing_parts > 0,
        }
    });
}

fn check_batch(field: &str, len: usize) -> Answer<()> {
    if (1..=MAX_BATCH_CHUNKS).contains(&len) {
        Ok(())
    } else {
        input::invalid(field, format!("a batch has 1 to {MAX_BATCH_CHUNKS} items"))
    }
}

fn open_command(item: &OpenItem, choice: &Choice<'_>, now: UnixMillis) -> Item<OpenChunk> {
    let invalid = |detail: &str| Err(Box::new(Problem::new(ErrorCode::InvalidField, detail)));
    if item.chunk_id.shard().is_some() {
        return invalid("chunk_id: this is a shard; name its chunk");
    }
    if item.owner.is_empty() || item.owner.chars().count() > MAX_OWNER_CHARS {
        return invalid("owner: it has 1 to 200 characters");
    }
    let min_ack = item.min_ack.map_or(REPLICA_COUNT, usize::from);
    if !(REPLICA_MIN_ACK..=REPLICA_COUNT).contains(&min_ack) {
        return invalid("min_ack: it is 2 or 3");
    }
    let (nodes, min_ack) = match item.kind {
        OpenKind::Upload | OpenKind::Repair => {
            let exclude = item.exclude.iter().copied().collect();
            (choice.choose(item.chunk_id, &exclude, min_ack)?, min_ack)
        }
        OpenKind::Abort => (Vec::new(), 0),
        OpenKind::Delete => return invalid("kind: a chunk is deleted with its video"),
        OpenKind::Convert => return invalid("kind: this catalogue converts nothing"),
    };
    Ok(OpenChunk {
        chunk: item.chunk_id,
        kind: item.kind,
        owner: item.owner.clone(),
        expect_epoch: None,
        nodes,
        min_ack: u8::try_from(min_ack).unwrap_or(u8::MAX),
        now,
    })
}

/// Runs the commands that passed their checks as one batch, and puts the answers back into their places.
async fn apply_good<T: Clone>(
    metadata: &Metadata,
    commands: Vec<Item<T>>,
    chunk_of: impl Fn(&T) -> ChunkId,
    to_cmd: impl Fn(&T) -> Cmd,
) -> Vec<Item<(T, Reply)>> {
    let good: Vec<Cmd> = commands
        .iter()
        .filter_map(|item| item.as_ref().ok().map(&to_cmd))
        .collect();
    let mut replies = match good.is_empty() {
        true => Vec::new().into_iter(),
        false => metadata.store.apply(good).await.into_iter(),
    };
    let now = metadata.now();
    let placed = commands.into_iter().map(|item| {
        let command = item?;
        match replies.next().unwrap_or(Err(MetaError::Busy)) {
            Ok(reply) => Ok((command, reply)),
            Err(error) => {
                let chunk = chunk_of(&command);
                let problem = chunk_problem(&error, chunk, now);
                metadata.events.refused(now, (chunk, None), &problem);
                Err(Box::new(problem))
            }
        }
    });
    placed.collect()
}

fn unexpected() -> Box<Problem> {
    Box::new(Problem::new(
        ErrorCode::Internal,
        "the catalogue answered another question",
    ))
}

fn granted(
    metadata: &Metadata,
    command: &OpenChunk,
    opened: &OpenedChunk,
    urls: &BTreeMap<NodeId, &str>,
) -> Opened {
    let url = |node: &NodeId| urls.get(node).copied().unwrap_or_default().to_owned();
    let replaced = opened.replaced.as_ref();
    let before = replaced.into_iter().flat_map(|replaced| &replaced.nodes);
    Opened {
        grant: grant(metadata, command, opened),
        node_urls: command.nodes.iter().map(url).collect(),
        replaced_urls: before.map(|target| url(&target.node)).collect(),
        replaced: opened.replaced.clone(),
    }
}

/// The signed permission for what was opened.
pub(super) fn grant(metadata: &Metadata, command: &OpenChunk, opened: &OpenedChunk) -> Grant {
    let base = opened.base.as_ref().map_or(Ballot::PLAIN, |base| base.ballot);
    Grant::signed(
        &metadata.key.grant_key(),
        command.chunk,
        (opened.ballot, base),
        command.nodes.clone(),
        command.min_ack,
        opened.until,
    )
}

pub(super) async fn commit(
    State(metadata): State<Arc<Metadata>>,
    StrictJson(batch): StrictJson<CommitBatch>,
) -> Answer<Json<CommitBatchAnswer>> {
    check_batch("commits", batch.commits.len())?;
    metadata.counts.commit_requests.inc();
    metadata.counts.commit_items.inc_by(batch.commits.len() as u64);
    let now = metadata.now();
    let commands = batch
        .commits
        .into_iter()
        .map(|item| commit_command(&metadata, item, now))
        .collect();
    let replies = apply_good(
        &metadata,
        commands,
        |commit| commit.chunk,
        |commit| Cmd::Commit(Box::new(commit.clone())),
    )
    .await;
    let results = replies.into_iter().map(|item| {
        let (command, reply) = item?;
        let decided = reply.committed().ok_or_else(unexpected)?;
        if !decided.replayed {
            metadata.counts.decided.inc();
            tell_decided(&metadata, &command, &decided);
        }
        committed(decided)
    });
    let results = results
        .inspect(|item: &Item<Committed>| {
            if item.is_err() {
                metadata.counts.refused.inc();
            }
        })
        .map(|item| item.map_err(|problem| *problem).into())
        .collect();
    Ok(Json(CommitBatchAnswer { results }))
}

fn commit_command(metadata: &Metadata, item: CommitItem, now: UnixMillis) -> Item<CommitChunk> {
    let invalid = |detail: &str| Err(Box::new(Problem::new(ErrorCode::InvalidField, detail)));
    if item.chunk_id.shard().is_some() {
        return invalid("chunk_id: this is a shard; name its chunk");
    }
    let size_bytes = item.value.digest.size_bytes;
    if !(1..=MAX_CHUNK_BYTES).contains(&size_bytes) {
        return invalid("value.size_bytes: a chunk has 1 byte to 64 MiB");
    }
    if let Some(facts) = &item.media {
        if item.chunk_id.kind() != ChunkKind::Media {
            return invalid("media: only media chunks have such facts");
        }
        input::media_facts(facts, size_bytes).map_err(|refusal| Box::new(refusal.0))?;
    }
    let check = |receipt| {
        Witness::check(receipt, &metadata.key)
            .map_err(|forged| Box::new(Problem::new(ErrorCode::BadSignature, forged.to_string())))
    };
    Ok(CommitChunk {
        chunk: item.chunk_id,
        ballot: item.ballot,
        value: Value::Placed(item.value),
        witnesses: item.receipts.into_iter().map(check).collect::<Result<_, _>>()?,
        media: item.media,
        plain_nodes: Vec::new(),
        now,
    })
}

/// The wire's form of a decided chunk.
pub(super) fn committed(decided: CommittedChunk) -> Item<Committed> {
    match decided.accepted.value {
        Value::Placed(value) => Ok(Committed {
            chunk_id: decided.chunk,
            epoch: decided.accepted.ballot,
            value,
            under_replicated: decided.missing_parts > 0,
        }),
        Value::Deleted(_) => {
            let detail = "the chunk is deleted; its id is never used again";
            Err(Box::new(Problem::new(ErrorCode::ChunkDeleted, detail)))
        }
    }
}
