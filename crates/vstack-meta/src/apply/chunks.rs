//! OPEN and COMMIT: one row in, one row out, and the projections beside it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, ChunkKind, Incarnation, NodeId, SHARD_COUNT};
use vstack_core::limits::{COLLECT_GRACE_MS, OPEN_LEASE_MS, REPLICA_COUNT};
use vstack_core::manifest::{MediaFacts, VideoStatus};
use vstack_core::paxos::OpenKind;
use vstack_core::paxos::master::{self, Garbage, OpenRequest, Registry, Row};
use vstack_core::placement::{Part, Placement, Scheme};
use vstack_core::time::UnixMillis;

use super::memory::Memory;
use crate::codec::{RowSum, ballot_column, json_column, signed, word};
use crate::command::{CommitChunk, CommittedChunk, OpenParts, OpenedChunk};
use crate::error::MetaError;
use crate::read::chunks::{find_chunk, media_facts};
use crate::rows;

pub(super) fn open(
    connection: &Connection,
    command: &OpenParts,
    memory: &mut Memory,
) -> Result<OpenedChunk, MetaError> {
    let status = memory.status(connection, command.chunk.video())?;
    let row = rows::read_row(connection, command.chunk)?;
    // Who asks for a chunk that is decided is told so, also when the video is complete: another uploader of the same
    // file may have been first.
    if command.kind == OpenKind::Upload && row.accepted.is_none() {
        check_takes_chunks(status, command.chunk)?;
    }
    let (generation, knowledge) = memory.granting(connection)?;
    let request = OpenRequest {
        kind: command.kind,
        owner: command.owner.clone(),
        expect_epoch: command.expect_epoch,
        nodes: command.targets.clone(),
        min_ack: command.min_ack,
        generation,
        now: command.now,
        lease_ms: OPEN_LEASE_MS,
        knowledge,
    };
    let opened = master::open(command.chunk, &row, &request)?;
    rows::write_row(connection, command.chunk, row.promised, &opened.row)?;
    rows::queue_garbage(connection, opened.garbage, command.now + COLLECT_GRACE_MS)?;
    let until = command.now + OPEN_LEASE_MS;
    Ok(OpenedChunk {
        chunk: command.chunk,
        ballot: opened.ballot,
        base: opened.base,
        replaced: opened.replaced,
        until,
    })
}

/// Posters, storyboards and subtitles may join later; what is played may not change once the video is active.
fn check_takes_chunks(status: VideoStatus, chunk: ChunkId) -> Result<(), MetaError> {
    let played = matches!(chunk.kind(), ChunkKind::Init | ChunkKind::Media);
    let video = chunk.video();
    match played && status != VideoStatus::Uploading {
        true => Err(MetaError::VideoState { video, status }),
        false => Ok(()),
    }
}

pub(super) fn commit(
    connection: &Connection,
    command: &CommitChunk,
    memory: &mut Memory,
) -> Result<CommittedChunk, MetaError> {
    let chunk = command.chunk;
    let row = rows::read_row(connection, chunk)?;
    let known = Known::of(connection, command, &row, memory)?;
    let (ballot, value) = (command.ballot, &command.value);
    let decided = master::commit(chunk, &row, ballot, value, &command.witnesses, &known)?;
    if !decided.replayed {
        let status = memory.status(connection, chunk.video())?;
        let kind = row.open.as_ref().map(|open| open.kind);
        if kind == Some(OpenKind::Upload) {
            check_takes_chunks(status, chunk)?;
        }
        rows::write_row(connection, chunk, row.promised, &decided.row)?;
        match decided.accepted.value.placement() {
            Some(placement) => {
                let projection = Projection {
                    chunk,
                    placement,
                    media: command.media.as_ref(),
                    now: command.now,
                    is_first: row.accepted.is_none(),
                };
                projection.write(connection, |part| !(&known).is_lost(part))?;
            }
            None => rows::drop_projection(connection, chunk)?,
        }
        memory.mark_unsaved(chunk);
        let plain = command.plain_nodes.iter().map(|&node| Garbage {
            node,
            object: chunk,
            ballot: Ballot::PLAIN,
        });
        let garbage = decided.garbage.into_iter().chain(plain);
        rows::queue_garbage(connection, garbage, command.now + COLLECT_GRACE_MS)?;
    }
    let (accepted, replayed, missing_parts) = (decided.accepted, decided.replayed, decided.missing_parts);
    Ok(CommittedChunk {
        chunk,
        accepted,
        replayed,
        missing_parts,
    })
}

/// What the catalogue knows of the nodes that a COMMIT names.
struct Known {
    live: BTreeMap<NodeId, Incarnation>,
    lost: BTreeSet<(String, Ballot)>,
}

impl Known {
    fn of(
        connection: &Connection,
        command: &CommitChunk,
        row: &Row,
        memory: &mut Memory,
    ) -> Result<Self, MetaError> {
        let mut live = BTreeMap::new();
        for witness in &command.witnesses {
            let node = witness.receipt().node;
            live.extend(memory.life(connection, node)?.map(|life| (node, life)));
        }
        // Parts are lost after they were placed.
        let lost = match row.accepted {
            Some(_) => failed_parts(connection, command.chunk)?,
            None => BTreeSet::new(),
        };
        Ok(Self { live, lost })
    }
}

impl Registry for &Known {
    fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        self.live.get(&node).copied()
    }

    fn is_lost(&self, part: &Part) -> bool {
        self.lost.contains(&(part.node.to_string(), part.object_ballot))
    }
}

/// What queries see of a decided placement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Projection<'a> {
    pub(super) chunk: ChunkId,
    pub(super) placement: &'a Placement,
    /// What it does not bring stays as it is.
    pub(super) media: Option<&'a MediaFacts>,
    pub(super) now: UnixMillis,
    /// Nothing was decided for this chunk before, so there is nothing to replace.
    pub(super) is_first: bool,
}

impl Projection<'_> {
    pub(super) fn write(
        &self,
        connection: &Connection,
        is_live: impl Fn(&Part) -> bool,
    ) -> Result<(), MetaError> {
        let (chunk, parts) = (self.chunk, &self.placement.parts);
        let live = parts.iter().filter(|part| is_live(part)).count();
        let missing = wanted_parts(self.placement).saturating_sub(live);
        let media = match self.media {
            Some(facts) => Cow::Borrowed(facts),
            None if self.is_first => Cow::Owned(MediaFacts::default()),
            None => Cow::Owned(
                find_chunk(connection, chunk)?
                    .map(|record| record.media)
                    .unwrap_or_default(),
            ),
        };
        write_chunk(connection, chunk, self.placement, missing, &media, self.now)?;
        let key = chunk.to_string();
        if !self.is_first {
            connection
                .prepare_cached("DELETE FROM chunk_replicas WHERE chunk_id = ?1")?
                .execute([&key])?;
        }
        let mut insert = connection.prepare_cached(
            "INSERT INTO chunk_replicas(chunk_id, node_url, status, ballot_number, shard_index, created_at)
             VALUES (?1, (SELECT node_url FROM storage_nodes WHERE node_id = ?2), ?3, ?4, ?5, ?6)",
        )?;
        for part in parts {
            let status = if is_live(part) { "active" } else { "failed" };
            insert.execute(params![
                key,
                part.node.to_string(),
                status,
                ballot_column(part.object_ballot)?,
                part.shard.map_or(rows::WHOLE, i64::from),
                signed(self.now.0)?,
            ])?;
        }
        tracing::debug!(%chunk, parts = parts.len(), "placement recorded");
        Ok(())
    }
}

pub(crate) const fn wanted_parts(placement: &Placement) -> usize {
    match placement.scheme {
        Scheme::Replicated => REPLICA_COUNT,
        Scheme::Erasure => SHARD_COUNT as usize,
    }
}

fn failed_parts(connection: &Connection, chunk: ChunkId) -> Result<BTreeSet<(String, Ballot)>, MetaError> {
    let mut query = connection.prepare_cached(
        "SELECT node_id, ballot_number FROM chunk_replicas JOIN storage_nodes USING (node_url)
         WHERE chunk_id = ?1 AND chunk_replicas.status = 'failed'",
    )?;
    let key = chunk.to_string();
    let place = crate::codec::Place {
        table: "chunk_replicas",
        key: &key,
    };
    let rows = query.query_map([&key], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    })?;
    rows.map(|row| {
        let (node, ballot) = row?;
        Ok((node, place.ballot(ballot)?))
    })
    .collect()
}

fn write_chunk(
    connection: &Connection,
    chunk: ChunkId,
    placement: &Placement,
    missing_parts: usize,
    media: &MediaFacts,
    now: UnixMillis,
) -> Result<(), MetaError> {
    let digest = &placement.digest;
    let columns = ChunkColumns {
        chunk_id: chunk.to_string(),
        size_bytes: signed(digest.size_bytes)?,
        checksum: digest.sha256.to_string(),
        leaf_root: digest.leaf_root.to_string(),
        scheme: word(&placement.scheme),
        start_ms: signed(media.start_ms)?,
        duration_ms: signed(media.duration_ms)?,
        keyframes_ms: json_column(&media.keyframes_ms),
        fragments: json_column(&media.fragments),
    };
    connection
        .prepare_cached(
            "INSERT INTO chunks(chunk_id, video_id, kind, track, sequence_num, size_bytes, checksum, leaf_root, scheme,
               missing_parts, start_ms, duration_ms, keyframes_ms, fragments, created_at, row_sum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
             ON CONFLICT(chunk_id) DO UPDATE SET size_bytes = ?6, checksum = ?7, leaf_root = ?8, scheme = ?9,
               missing_parts = ?10, start_ms = ?11, duration_ms = ?12, keyframes_ms = ?13, fragments = ?14,
               row_sum = ?16",
        )?
        .execute(params![
            columns.chunk_id,
            chunk.video().to_string(),
            chunk.kind() as u8,
            chunk.track(),
            chunk.seq(),
            columns.size_bytes,
            columns.checksum,
            columns.leaf_root,
            columns.scheme,
            signed(missing_parts as u64)?,
            columns.start_ms,
            columns.duration_ms,
            columns.keyframes_ms,
            columns.fragments,
            signed(now.0)?,
            columns.sum().finish(),
        ])?;
    Ok(())
}

/// The columns of `chunks` that its checksum covers.
#[derive(Debug, Clone)]
pub(crate) struct ChunkColumns {
    pub(crate) chunk_id: String,
    pub(crate) size_bytes: i64,
    pub(crate) checksum: String,
    pub(crate) leaf_root: String,
    pub(crate) scheme: String,
    pub(crate) start_ms: i64,
    pub(crate) duration_ms: i64,
    pub(crate) keyframes_ms: String,
    pub(crate) fragments: String,
}

impl ChunkColumns {
    pub(crate) fn sum(&self) -> RowSum {
        RowSum::default()
            .text(&self.chunk_id)
            .number(self.size_bytes)
            .text(&self.checksum)
            .text(&self.leaf_root)
            .text(&self.scheme)
            .number(self.start_ms)
            .number(self.duration_ms)
            .text(&self.keyframes_ms)
            .text(&self.fragments)
    }
}

/// Brings facts that the commit did not have. The chunk must be committed.
pub(super) fn write_facts(
    connection: &Connection,
    chunk: ChunkId,
    facts: &MediaFacts,
) -> Result<(), MetaError> {
    let Some(mut columns) = media_facts(connection, chunk)? else {
        return Err(MetaError::ChunksMissing { missing: vec![chunk] });
    };
    columns.start_ms = signed(facts.start_ms)?;
    columns.duration_ms = signed(facts.duration_ms)?;
    columns.keyframes_ms = json_column(&facts.keyframes_ms);
    columns.fragments = json_column(&facts.fragments);
    connection
        .prepare_cached(
            "UPDATE chunks SET start_ms = ?2, duration_ms = ?3, keyframes_ms = ?4, fragments = ?5, row_sum = ?6
             WHERE chunk_id = ?1",
        )?
        .execute(params![
            columns.chunk_id,
            columns.start_ms,
            columns.duration_ms,
            columns.keyframes_ms,
            columns.fragments,
            columns.sum().finish(),
        ])?;
    Ok(())
}
