//! Posters for the page: `poster://localhost/{video_id}`, fetched and verified by the smart client, kept in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tauri::http::{Response, StatusCode, header};
use vstack_core::id::VideoId;

use super::cluster::ClusterLink;
use crate::dto::UiError;

/// Scheme of the addresses.
pub(super) const SCHEME: &str = "poster";
/// Posters kept; at about 40 KB each this is 10 MB.
const KEPT: usize = 250;

/// Recently shown posters, the newest last.
#[derive(Debug)]
pub(crate) struct Posters {
    link: Arc<ClusterLink>,
    kept: Mutex<VecDeque<(VideoId, Bytes)>>,
}

impl Posters {
    pub(crate) fn new(link: Arc<ClusterLink>) -> Self {
        Self {
            link,
            kept: Mutex::default(),
        }
    }

    /// The answer to a request for `path`.
    pub(crate) async fn answer(&self, path: &str) -> Response<Vec<u8>> {
        let found = match path.trim_start_matches('/').parse::<VideoId>() {
            Ok(video) => self.poster(video).await,
            Err(_) => Ok(None),
        };
        match found {
            Ok(Some(bytes)) => respond(StatusCode::OK, content_type(&bytes), bytes.to_vec()),
            Ok(None) => respond(StatusCode::NOT_FOUND, "text/plain", Vec::new()),
            Err(error) => respond(StatusCode::BAD_GATEWAY, "text/plain", error.message.into_bytes()),
        }
    }

    async fn poster(&self, video: VideoId) -> Result<Option<Bytes>, UiError> {
        if let Some(bytes) = self.recall(video) {
            return Ok(Some(bytes));
        }
        let cluster = self.link.cluster().await?;
        let manifest = cluster.catalogue().manifest(video).await?;
        let Some(poster) = manifest.poster else {
            return Ok(None);
        };
        let bytes = cluster.fetch_verified(&poster).await?;
        self.keep(video, bytes.clone());
        Ok(Some(bytes))
    }

    fn recall(&self, video: VideoId) -> Option<Bytes> {
        let mut kept = self
            .kept
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let at = kept.iter().position(|(id, _)| *id == video)?;
        let entry = kept.remove(at)?;
        kept.push_back(entry.clone());
        Some(entry.1)
    }

    fn keep(&self, video: VideoId, bytes: Bytes) {
        let mut kept = self
            .kept
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.push_back((video, bytes));
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    response
}

/// By the first bytes; the page shows pictures of these kinds only.
fn content_type(bytes: &[u8]) -> &'static str {
    match bytes {
        [0xff, 0xd8, ..] => "image/jpeg",
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        _ => "application/octet-stream",
    }
}
