//! The conversion worker: one video at a time, one chunk at a time, at half speed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use vstack_core::id::{ChunkId, ChunkKind, VideoId};
use vstack_core::paxos::master::{Accepted, Value};
use vstack_core::paxos::proposer::Goal;
use vstack_core::placement::Scheme;
use vstack_core::redundancy::decide;
use vstack_core::time::UnixMillis;
use vstack_meta::{Behind, Cmd, MetaError, VideoRedundancy};

use super::mover::{Material, place};
use super::progress::{Kind, Stretch};
use super::{cluster_facts, scheme_of, video_facts};
use crate::metadata::fetch::chunk_bytes;
use crate::metadata::state::Metadata;

/// How often the library is looked through.
const LOOK: Duration = Duration::from_secs(2);
/// Until a video that could not be converted is tried again. Meanwhile others have their turn.
const REST_AFTER_FAILURE_MS: u64 = 60_000;
/// After a chunk that could not be converted.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// The longest rest between two chunks; otherwise it is as long as the work was, so that viewers get half at least.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Works until the role stops.
pub(in crate::metadata) async fn run(metadata: Arc<Metadata>, stop: CancellationToken) {
    let work = async {
        // Videos that could not be converted, and until when others go first.
        let mut resting: BTreeMap<VideoId, UnixMillis> = BTreeMap::new();
        loop {
            let now = metadata.now();
            resting.retain(|_, until| *until > now);
            match next_video(&metadata, &resting).await {
                Ok(Some((video, wanted))) => {
                    if convert_video(&metadata, &video, wanted).await == Ending::Failed {
                        resting.insert(video.video, metadata.now() + REST_AFTER_FAILURE_MS);
                    }
                    // Where one is done another may be due: many small videos would take for ever otherwise.
                    continue;
                }
                Ok(None) => {}
                Err(error) => debug!(%error, "the library cannot be looked through for conversions"),
            }
            tokio::select! {
                biased;
                () = sleep(LOOK) => {}
                () = metadata.redundancy.wake_convert.notified() => {}
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// The next video that should have another mode than it has: what operators wished first, then what saves most.
async fn next_video(
    metadata: &Metadata,
    resting: &BTreeMap<VideoId, UnixMillis>,
) -> Result<Option<(VideoRedundancy, Scheme)>, MetaError> {
    if metadata.store.behind().await? != Behind::No {
        return Ok(None);
    }
    let (videos, nodes) = (metadata.store.redundancy().await?, metadata.store.nodes().await?);
    let (cluster, now) = (cluster_facts(&nodes), metadata.now());
    let ready = videos
        .into_iter()
        .filter(|video| !resting.contains_key(&video.video));
    let wanted = ready.filter_map(|video| {
        let facts = video_facts(metadata, &video, now);
        let decision = decide(&facts, &cluster, &metadata.settings.redundancy.policy, now);
        let to_do = match decision.mode {
            Scheme::Erasure => video.chunks - video.erasure_chunks,
            Scheme::Replicated => video.erasure_chunks,
        };
        (to_do > 0 && decision.mode.part_count() <= cluster.nodes).then_some((video, decision.mode))
    });
    Ok(wanted.max_by_key(|(video, _)| (video.pin.is_some(), video.size_bytes)))
}

/// How a conversion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Done,
    /// It is not wanted any more.
    Stopped,
    /// Some chunks could not be converted.
    Failed,
}

/// Converts the chunks that are left.
async fn convert_video(metadata: &Metadata, video: &VideoRedundancy, wanted: Scheme) -> Ending {
    let source = match metadata.store.manifest_source(video.video).await {
        Ok(Some(source)) => source,
        Ok(None) => return Ending::Failed,
        Err(error) => {
            debug!(%error, "a video cannot be read for its conversion");
            return Ending::Failed;
        }
    };
    let chunks: Vec<(ChunkId, u64)> = source
        .chunks
        .iter()
        .filter(|chunk| chunk.chunk.kind() == ChunkKind::Media && chunk.placement.scheme != wanted)
        .map(|chunk| (chunk.chunk, chunk.placement.digest.size_bytes))
        .collect();
    let what = format!("{} to {}", video.title, wanted.mode());
    info!(video = %video.video, from = scheme_of(video).mode(), to = wanted.mode(), chunks = chunks.len(), "converting");
    let stretch = Stretch::begin(&metadata.redundancy, Kind::Conversion, &what, chunks.len() as u64);
    let mut failed = 0_usize;
    for (chunk, size_bytes) in chunks {
        if !is_still_wanted(metadata, video, wanted).await {
            metadata.keep_speed(Kind::Conversion).await;
            return Ending::Stopped;
        }
        let started = Instant::now();
        let outcome = convert_chunk(metadata, chunk, wanted).await;
        stretch.chunk_ended(&outcome);
        match outcome {
            Ok(_) => {
                let took = started.elapsed();
                metadata.redundancy.measured(Kind::Conversion, size_bytes, took);
                sleep(took.min(LONGEST_REST)).await;
            }
            Err(reason) => {
                warn!(%chunk, reason, "a chunk was not converted, it is tried again");
                failed += 1;
                sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
    metadata.keep_speed(Kind::Conversion).await;
    if failed > 0 {
        return Ending::Failed;
    }
    let converted = Cmd::Converted {
        video: video.video,
        now: metadata.now(),
    };
    if let Err(error) = metadata.store.apply_one(converted).await {
        debug!(%error, "the time of a conversion was not noted");
    }
    info!(video = %video.video, to = wanted.mode(), "converted");
    Ending::Done
}

/// An operator may change his mind, or delete the video, in the middle.
async fn is_still_wanted(metadata: &Metadata, video: &VideoRedundancy, wanted: Scheme) -> bool {
    let pin = metadata.store.pin_of(video.video).await.ok().flatten();
    pin.is_some_and(|pin| pin == video.pin || pin == Some(wanted))
}

/// Reads the chunk from its old parts, verified, and places the new ones. Old parts are collected after the grace.
async fn convert_chunk(metadata: &Metadata, chunk: ChunkId, wanted: Scheme) -> Result<u64, String> {
    let record = metadata
        .store
        .chunk(chunk)
        .await
        .map_err(|error| error.to_string())?;
    let Some(record) = record.filter(|record| record.placement.scheme != wanted) else {
        return Ok(0);
    };
    let nodes = metadata.nodes().await.map_err(|refusal| refusal.0.detail)?;
    let nodes = nodes.into_iter().map(|node| (node.node, node)).collect();
    let bytes = chunk_bytes(metadata, &record, &nodes)
        .await
        .map_err(|refusal| refusal.0.detail)?;
    let material = match wanted {
        Scheme::Replicated => Material::copies(record.placement.digest, bytes),
        Scheme::Erasure => {
            Material::shards(metadata.platform.threads, record.placement.digest, bytes).await?
        }
    };
    let base = Accepted {
        ballot: record.epoch,
        value: Value::Placed(record.placement),
    };
    match Goal::convert(&base, material.contents.clone()) {
        Some(goal) => place(metadata, chunk, goal, &material).await,
        None => Ok(0),
    }
}
