//! Making an uploaded video active.
//!
//! Our uploader knows everything and sends it. A plain client sends nothing: then the role reads the boxes of its
//! chunks, and refuses what would not play.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tracing::{info, warn};
use vstack_api::ErrorCode;
use vstack_api::wire::{Finalize, VideoEntry};
use vstack_core::id::{ChunkId, ChunkKind, VideoId};
use vstack_core::manifest::{Container, VideoStatus};
use vstack_media::boxes::joined_codecs;
use vstack_media::describe::{DescribeError, Described, describe, lay_end_to_end};
use vstack_meta::{ChunkRecord, Cmd, FinalizeVideo, ManifestSource};

use super::fetch::chunk_bytes;
use super::input::{self, VideoPath};
use super::manifest::{ensure_init, of_kind, source};
use super::state::Metadata;
use super::videos::find;
use crate::http::{Answer, parse_json, refuse};

/// Chunks that are read at the same time; each may be 64 MiB.
const READ_AT_ONCE: usize = 4;

pub(super) async fn finalize(
    State(metadata): State<Arc<Metadata>>,
    VideoPath(video): VideoPath,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Json<VideoEntry>> {
    let body = body.map_err(|rejection| refuse(ErrorCode::TooLarge, rejection.body_text()))?;
    let mut source = source(&metadata, video).await?;
    if source.video.status == VideoStatus::Uploading {
        let command = match body.trim_ascii() {
            b"" | b"{}" => from_boxes(&metadata, &mut source).await?,
            sent => from_uploader(&metadata, video, parse_json(sent)?)?,
        };
        metadata.apply(Cmd::Finalize(Box::new(command))).await?;
        info!(%video, "video is active");
        keep_init(&metadata, &mut source).await;
    }
    find(&metadata, video).await.map(Json)
}

/// From now on a manifest needs no node. Where that fails, the first manifest does it.
async fn keep_init(metadata: &Metadata, source: &mut ManifestSource) {
    if let Err(refusal) = ensure_init(metadata, source).await {
        warn!(video = %source.video.video, problem = %refusal.0, "the init segment cannot be read yet");
    }
}

fn from_uploader(metadata: &Metadata, video: VideoId, sent: Finalize) -> Answer<FinalizeVideo> {
    input::duration_ms("duration_ms", sent.duration_ms)?;
    input::codecs(&sent.codecs, &sent.tracks)?;
    if sent.total_chunks == 0 {
        return input::invalid("total_chunks", "a video has at least one chunk");
    }
    Ok(FinalizeVideo {
        video,
        total_chunks: Some(sent.total_chunks),
        duration_ms: sent.duration_ms,
        container: sent.container,
        codecs: sent.codecs,
        tracks: sent.tracks,
        facts: Vec::new(),
        now: metadata.now(),
    })
}

async fn from_boxes(metadata: &Metadata, source: &mut ManifestSource) -> Answer<FinalizeVideo> {
    check_contiguous(source)?;
    ensure_init(metadata, source).await?;
    let described = describe_all(metadata, source).await?;
    let Some((_, first)) = described.first() else {
        return Err(missing(vec![ChunkId::media(source.video.video, 0)]));
    };
    let (container, tracks) = (first.container, first.tracks.clone());
    if let Some((seq, _)) = described.iter().find(|(_, chunk)| chunk.container != container) {
        let detail = format!("chunk {seq} is packed in another way than chunk 0");
        return Err(refuse(ErrorCode::ManifestInconsistent, detail));
    }
    let (seqs, mut facts): (Vec<u32>, Vec<_>) = described
        .into_iter()
        .map(|(seq, chunk)| (seq, chunk.facts))
        .unzip();
    if container == Container::Mp4Segments {
        lay_end_to_end(&mut facts);
    }
    let duration_ms = facts
        .last()
        .map_or(0, |last| last.start_ms.saturating_add(last.duration_ms));
    input::duration_ms("duration", duration_ms)?;
    Ok(FinalizeVideo {
        video: source.video.video,
        total_chunks: None,
        duration_ms,
        container,
        codecs: joined_codecs(&tracks),
        tracks,
        facts: seqs.into_iter().zip(facts).collect(),
        now: metadata.now(),
    })
}

/// Said before any chunk is read.
fn check_contiguous(source: &ManifestSource) -> Answer<()> {
    let video = source.video.video;
    let mut there = of_kind(source, ChunkKind::Media)
        .map(|chunk| chunk.chunk.seq())
        .peekable();
    let end = of_kind(source, ChunkKind::Media)
        .last()
        .map_or(1, |last| last.chunk.seq() + 1);
    let absent = |seq: &u32| there.next_if_eq(seq).is_none();
    let lacking: Vec<_> = (0..end)
        .filter(absent)
        .map(|seq| ChunkId::media(video, seq))
        .collect();
    if lacking.is_empty() {
        Ok(())
    } else {
        Err(missing(lacking))
    }
}

fn missing(chunks: Vec<ChunkId>) -> crate::http::Refusal {
    super::problem::refusal(vstack_meta::MetaError::ChunksMissing { missing: chunks })
}

async fn describe_all(metadata: &Metadata, source: &ManifestSource) -> Answer<Vec<(u32, Described)>> {
    let work: Vec<_> = of_kind(source, ChunkKind::Media)
        .map(|chunk| describe_one(metadata, source, chunk))
        .collect();
    stream::iter(work).buffered(READ_AT_ONCE).try_collect().await
}

async fn describe_one(
    metadata: &Metadata,
    source: &ManifestSource,
    chunk: &ChunkRecord,
) -> Answer<(u32, Described)> {
    let bytes = chunk_bytes(metadata, chunk, &source.nodes).await?;
    let described = describe(source.init_data.as_deref(), &bytes).map_err(|error| {
        let code = match error {
            DescribeError::Protected { .. } => ErrorCode::ProtectedContent,
            DescribeError::NoPicture => ErrorCode::NoVideo,
            DescribeError::Box(_) => ErrorCode::ManifestInconsistent,
        };
        refuse(code, format!("{}: {error}", chunk.chunk))
    })?;
    input::media_facts(&described.facts, chunk.placement.digest.size_bytes)?;
    Ok((chunk.chunk.seq(), described))
}
