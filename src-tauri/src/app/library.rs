//! The library: the catalogue's videos in the words of the page.

use vstack_api::wire::{VideoEntry, VideoQuery, VideoSort};
use vstack_core::id::VideoId;
use vstack_core::limits::MAX_TITLE_CHARS;
use vstack_core::manifest;

use super::cluster::ClusterLink;
use crate::dto::{LibraryPage, LibrarySort, RedundancyMode, UiError, VideoCard, VideoStatus};

/// A video's id from the page.
pub(super) fn video_id(text: &str) -> Result<VideoId, UiError> {
    let bad = |_| {
        UiError::new(
            "bad_video_id",
            "This is no video's id.",
            "Open the video from the library.",
        )
    };
    text.parse().map_err(bad)
}

pub(super) async fn list(
    link: &ClusterLink,
    search: String,
    sort: LibrarySort,
    offset: u64,
    limit: u32,
) -> Result<LibraryPage, UiError> {
    let search = Some(search.trim().to_owned()).filter(|search| !search.is_empty());
    let query = VideoQuery {
        search,
        sort: order(sort),
        offset,
        limit: Some(limit.clamp(1, 500)),
    };
    let page = link.cluster().await?.catalogue().videos(&query).await?;
    Ok(LibraryPage {
        videos: page.videos.into_iter().map(card).collect(),
        total: page.total,
    })
}

pub(super) async fn rename(link: &ClusterLink, video: VideoId, title: &str) -> Result<(), UiError> {
    let title = title.trim();
    if title.is_empty() || title.chars().count() > MAX_TITLE_CHARS {
        let message = format!("A title has 1 to {MAX_TITLE_CHARS} characters.");
        return Err(UiError::new("invalid_field", message, "Type another title."));
    }
    link.cluster()
        .await?
        .catalogue()
        .rename_video(video, title)
        .await?;
    Ok(())
}

pub(super) async fn delete(link: &ClusterLink, video: VideoId) -> Result<(), UiError> {
    Ok(link.cluster().await?.catalogue().delete_video(video).await?)
}

fn order(sort: LibrarySort) -> VideoSort {
    match sort {
        LibrarySort::Newest => VideoSort::Newest,
        LibrarySort::Title => VideoSort::Title,
        LibrarySort::Duration => VideoSort::Duration,
        LibrarySort::Views => VideoSort::Views,
    }
}

fn card(video: VideoEntry) -> VideoCard {
    VideoCard {
        video_id: video.video_id.to_string(),
        title: video.title,
        duration_sec: video.duration_sec,
        status: match video.status {
            manifest::VideoStatus::Uploading => VideoStatus::Uploading,
            manifest::VideoStatus::Active => VideoStatus::Active,
            manifest::VideoStatus::Deleted => VideoStatus::Deleted,
        },
        created_at: video.created_at,
        size_bytes: video.size_bytes,
        redundancy: match video.redundancy.as_str() {
            "erasure" => RedundancyMode::Erasure,
            _ => RedundancyMode::Replicated,
        },
        protecting: video.under_replicated > 0,
        views: video.views,
        poster: video.has_poster,
    }
}
