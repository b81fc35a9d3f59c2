//! The library.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::IntoResponse;
use vstack_api::ErrorCode;
use vstack_api::wire::{
    CreateVideo, CreatedVideo, PatchVideo, Service, VideoEntry, VideoPage, VideoQuery, VideoSort, ViewedBy,
};
use vstack_core::id::VideoId;
use vstack_core::manifest::VideoStatus;
use vstack_core::time::UnixMillis;
use vstack_meta::{Cmd, Library, LibraryOrder, LibraryQuery};

use super::input::{self, VideoPath};
use super::problem::refusal;
use super::state::Metadata;
use crate::http::{Answer, StrictJson, refuse};

const PAGE_DEFAULT: u32 = 100;
const PAGE_MAX: u32 = 500;
/// Longest search text; no title is longer.
const SEARCH_MAX_CHARS: usize = vstack_core::limits::MAX_TITLE_CHARS;

pub(super) async fn create(
    State(metadata): State<Arc<Metadata>>,
    headers: HeaderMap,
    StrictJson(body): StrictJson<CreateVideo>,
) -> Answer<impl IntoResponse> {
    let key = input::idempotency_key(&headers)?;
    input::title(&body.title)?;
    input::duration_sec(body.duration_sec)?;
    let video = VideoId(metadata.platform.chance.uuid());
    let (title, duration_sec) = (body.title, body.duration_sec);
    let create = Cmd::CreateVideo {
        key,
        video,
        title,
        duration_sec,
        now: metadata.now(),
    };
    let video = metadata.apply(create).await?.created().unwrap_or(video);
    let upload_url = metadata
        .alive(Service::Uploader)
        .first()
        .map(|uploader| format!("{uploader}/upload/{video}"));
    let location = [(header::LOCATION, format!("/video/{video}"))];
    Ok((
        StatusCode::CREATED,
        location,
        Json(CreatedVideo {
            video_id: video,
            upload_url,
        }),
    ))
}

pub(super) async fn list(State(metadata): State<Arc<Metadata>>, uri: Uri) -> Answer<Json<VideoPage>> {
    let Query(query) = Query::<VideoQuery>::try_from_uri(&uri)
        .map_err(|rejection| refuse(ErrorCode::BadRequest, rejection.body_text()))?;
    let limit = query.limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(refuse(
            ErrorCode::BadRequest,
            format!("limit: a page has 1 to {PAGE_MAX} videos"),
        ));
    }
    let search = query.search.unwrap_or_default();
    if search.chars().count() > SEARCH_MAX_CHARS {
        return Err(refuse(
            ErrorCode::BadRequest,
            "search: it is longer than any title",
        ));
    }
    let query = LibraryQuery {
        search,
        order: order(query.sort),
        offset: query.offset,
        limit,
        now: metadata.now(),
        half_life_ms: metadata.settings.view_half_life_ms,
    };
    let page = metadata.store.library(query).await.map_err(refusal)?;
    Ok(Json(VideoPage {
        videos: page.videos.iter().map(|found| entry(&metadata, found)).collect(),
        total: page.total,
    }))
}

const fn order(sort: VideoSort) -> LibraryOrder {
    match sort {
        VideoSort::Newest => LibraryOrder::Newest,
        VideoSort::Title => LibraryOrder::Title,
        VideoSort::Duration => LibraryOrder::Duration,
        VideoSort::Views => LibraryOrder::Views,
    }
}

pub(super) async fn show(
    State(metadata): State<Arc<Metadata>>,
    VideoPath(video): VideoPath,
) -> Answer<Json<VideoEntry>> {
    find(&metadata, video).await.map(Json)
}

/// A video that a reader may find.
pub(super) async fn find(metadata: &Metadata, video: VideoId) -> Answer<VideoEntry> {
    match metadata.store.video(video).await.map_err(refusal)? {
        Some(found) if found.video.status != VideoStatus::Deleted => Ok(entry(metadata, &found)),
        _ => Err(refuse(
            ErrorCode::VideoNotFound,
            format!("there is no video {video}"),
        )),
    }
}

fn entry(metadata: &Metadata, found: &Library) -> VideoEntry {
    let video = &found.video;
    VideoEntry {
        video_id: video.video,
        title: video.title.clone(),
        duration_sec: video.duration_sec,
        status: video.status,
        created_at: rfc3339(video.created_at),
        total_chunks: found.media_chunks,
        size_bytes: found.size_bytes,
        views: video.views,
        views_recent: video
            .popularity
            .decayed(metadata.now(), metadata.settings.view_half_life_ms),
        has_poster: found.has_poster,
        redundancy: if found.erasure { "erasure" } else { "replicated" }.to_owned(),
        under_replicated: found.under_replicated,
    }
}

pub(super) async fn rename(
    State(metadata): State<Arc<Metadata>>,
    VideoPath(video): VideoPath,
    StrictJson(body): StrictJson<PatchVideo>,
) -> Answer<Json<VideoEntry>> {
    input::title(&body.title)?;
    metadata
        .apply(Cmd::RenameVideo {
            video,
            title: body.title,
        })
        .await?;
    find(&metadata, video).await.map(Json)
}

pub(super) async fn delete(
    State(metadata): State<Arc<Metadata>>,
    VideoPath(video): VideoPath,
) -> Answer<StatusCode> {
    metadata
        .apply(Cmd::DeleteVideo {
            video,
            now: metadata.now(),
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn abort(
    State(metadata): State<Arc<Metadata>>,
    VideoPath(video): VideoPath,
) -> Answer<StatusCode> {
    metadata
        .apply(Cmd::AbortVideo {
            video,
            now: metadata.now(),
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn view(
    State(metadata): State<Arc<Metadata>>,
    VideoPath(video): VideoPath,
    body: Option<StrictJson<ViewedBy>>,
) -> Answer<StatusCode> {
    let session = match body {
        Some(StrictJson(ViewedBy { session_id })) => {
            input::session_id(&session_id)?;
            Some(session_id)
        }
        None => None,
    };
    metadata
        .apply(Cmd::RecordView {
            video,
            session,
            half_life_ms: metadata.settings.view_half_life_ms,
            now: metadata.now(),
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// UTC, to the millisecond.
pub(super) fn rfc3339(time: UnixMillis) -> String {
    let ms = i64::try_from(time.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms)
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}
