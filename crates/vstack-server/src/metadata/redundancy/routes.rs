//! What is asked about redundancy: a video's map and mode, and what the workers do.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use vstack_api::ErrorCode;
use vstack_api::redundancy::{
    ChunkPlaces, PartPlace, PartWord, RedundancyChoice, RedundancyStatus, SetRedundancy, SuspectPart,
    VideoRedundancyView,
};
use vstack_core::id::{ChunkKind, VideoId};
use vstack_core::placement::{Part, Scheme};
use vstack_core::redundancy::decide;
use vstack_core::repair::{ChunkFacts, PartState, part_state};
use vstack_meta::{ChunkRecord, Cmd, VideoRedundancy};

use super::{cluster_facts, video_facts};
use crate::http::{Answer, StrictJson, refuse};
use crate::metadata::fetch::check_part;
use crate::metadata::input::{ChunkPath, VideoPath};
use crate::metadata::manifest;
use crate::metadata::problem::refusal;
use crate::metadata::state::Metadata;

pub(in crate::metadata) async fn status(State(metadata): State<Arc<Metadata>>) -> Json<RedundancyStatus> {
    Json(metadata.redundancy.status())
}

/// A reader's complaint. The part is read and checked here: a reader that lies makes nothing lost.
pub(in crate::metadata) async fn suspect(
    State(metadata): State<Arc<Metadata>>,
    ChunkPath(chunk): ChunkPath,
    StrictJson(body): StrictJson<SuspectPart>,
) -> Answer<Json<Value>> {
    let record = metadata.store.chunk(chunk).await.map_err(refusal)?;
    let record =
        record.ok_or_else(|| refuse(ErrorCode::ChunkNotFound, format!("{chunk} is not committed")))?;
    let nodes = metadata.nodes().await?;
    let node = nodes.iter().find(|node| node.node == body.node_id);
    let good = match node.filter(|node| !record.lost.contains(&node.node)) {
        Some(node) => check_part(&metadata, &record, node).await,
        None => None,
    };
    Ok(Json(json!({ "good": good })))
}

pub(in crate::metadata) async fn set(
    State(metadata): State<Arc<Metadata>>,
    VideoPath(video): VideoPath,
    StrictJson(body): StrictJson<SetRedundancy>,
) -> Answer<Json<VideoRedundancyView>> {
    let pin = body.mode.pin();
    if let Some(scheme) = pin {
        check_nodes(&metadata, scheme).await?;
    }
    metadata.apply(Cmd::PinRedundancy { video, pin }).await?;
    metadata.redundancy.wake_convert.notify_one();
    view(&metadata, video).await.map(Json)
}

/// A mode that needs more nodes than there are is not offered.
async fn check_nodes(metadata: &Metadata, scheme: Scheme) -> Answer<()> {
    let there = cluster_facts(&metadata.nodes().await?).nodes;
    if there >= scheme.part_count() {
        return Ok(());
    }
    let fits = match there {
        0..3 => "no mode fits".to_owned(),
        _ => "`replicated` fits".to_owned(),
    };
    let detail = format!(
        "{} needs {} nodes that take parts, and there are {there}; {fits}",
        scheme.mode(),
        scheme.part_count()
    );
    Err(refuse(ErrorCode::NotEnoughNodes, detail))
}

pub(in crate::metadata) async fn show(
    State(metadata): State<Arc<Metadata>>,
    VideoPath(video): VideoPath,
) -> Answer<Json<VideoRedundancyView>> {
    view(&metadata, video).await.map(Json)
}

async fn view(metadata: &Metadata, video: VideoId) -> Answer<VideoRedundancyView> {
    let source = manifest::source(metadata, video).await?;
    let (now, nodes) = (metadata.now(), source.nodes.values().cloned().collect::<Vec<_>>());
    let known = metadata.store.redundancy_of(video).await.map_err(refusal)?;
    let totals = known.unwrap_or_else(|| VideoRedundancy {
        video,
        title: source.video.title.clone(),
        created_at: source.video.created_at,
        popularity: source.video.popularity,
        size_bytes: 0,
        chunks: 0,
        erasure_chunks: 0,
        erasure_bytes: 0,
        pin: None,
        converted_at: None,
    });
    let facts = video_facts(metadata, &totals, now);
    let settings = metadata.settings.redundancy;
    let decision = decide(&facts, &cluster_facts(&nodes), &settings.policy, now);
    let node_facts = metadata.node_facts(&nodes);
    let places = |record: &ChunkRecord| {
        let chunk = ChunkFacts {
            chunk: record.chunk,
            scheme: record.placement.scheme,
            parts: record.placement.parts.clone(),
            lost: record.lost.clone(),
            popularity: facts.popularity,
        };
        places(record, |part: &Part| {
            part_state(&chunk, part, &node_facts, settings.repair, now)
        })
    };
    let (media, others): (Vec<_>, Vec<_>) = source
        .chunks
        .iter()
        .partition(|record| record.chunk.kind() == ChunkKind::Media);
    let chunks_done = match decision.mode {
        Scheme::Erasure => totals.erasure_chunks,
        Scheme::Replicated => totals.chunks - totals.erasure_chunks,
    };
    Ok(VideoRedundancyView {
        video_id: video,
        mode: mode_word(&totals).to_owned(),
        choice: RedundancyChoice::of_pin(totals.pin),
        wanted: decision.mode.mode().to_owned(),
        why: decision.why,
        reason: decision.why.sentence().to_owned(),
        popularity: facts.popularity,
        hot_above: settings.policy.hot_above,
        chunks: totals.chunks,
        chunks_done,
        size_bytes: source
            .chunks
            .iter()
            .map(|chunk| chunk.placement.digest.size_bytes)
            .sum(),
        stored_bytes: source.chunks.iter().map(stored_bytes).sum(),
        map: media.into_iter().chain(others).map(places).collect(),
        title: totals.title,
    })
}

/// Bytes of all parts that are decided, good or not.
fn stored_bytes(record: &ChunkRecord) -> u64 {
    let size = record.placement.digest.size_bytes;
    let part = match record.placement.scheme {
        Scheme::Replicated => size,
        Scheme::Erasure => Scheme::Erasure.stored_bytes(size) / Scheme::Erasure.part_count() as u64,
    };
    part * record.placement.parts.len() as u64
}

pub(super) const fn mode_word(video: &VideoRedundancy) -> &'static str {
    match (video.erasure_chunks, video.chunks) {
        (0, _) => "replicated",
        (coded, all) if coded == all => "erasure",
        _ => "mixed",
    }
}

fn places(record: &ChunkRecord, state: impl Fn(&Part) -> PartState) -> ChunkPlaces {
    let place = |part: &Part| PartPlace {
        node_id: part.node,
        shard: part.shard,
        state: match state(part) {
            PartState::Good => PartWord::Good,
            PartState::Checking => PartWord::Checking,
            PartState::Leaving => PartWord::Leaving,
            PartState::Away => PartWord::Away,
            PartState::Missing => PartWord::Missing,
            PartState::Lost => PartWord::Lost,
        },
    };
    ChunkPlaces {
        chunk_id: record.chunk,
        mode: record.placement.scheme.mode().to_owned(),
        size_bytes: record.placement.digest.size_bytes,
        parts: record.placement.parts.iter().map(place).collect(),
    }
}
