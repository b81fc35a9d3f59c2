//! A typed client for each role.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use serde::Serialize;
use vstack_core::ballot::Ballot;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::{ChunkId, NodeId, VideoId};
use vstack_core::manifest::Manifest;
use vstack_core::paxos::{DeleteOrder, Grant};

use crate::client::{ApiError, Endpoint, with_json};
use crate::sse;
use crate::transport::{Body, ByteStream, Method, Response, Transport};
use crate::wire::{
    AdoptRequest, CommitBatch, CommitBatchAnswer, CreateVideo, CreatedVideo, DISK_USAGE_HEADER, Finalize,
    GRANT_HEADER, Heartbeat, IN_FLIGHT_HEADER, Job, LeavesAnswer, NODE_ID_HEADER, NodeEntry, ORDER_HEADER,
    OpenBatch, OpenBatchAnswer, PatchVideo, PutAnswer, StorageHealth, UploadAccepted, UploaderHeartbeat,
    VideoEntry, VideoPage, VideoQuery,
};

/// A call that only moves a little JSON. Generous: the catalogue may be syncing its disk.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A chunk being written and made durable, on a slow disk behind a slow link.
const PUT_TIMEOUT: Duration = Duration::from_secs(60);
/// A whole file being sent; its progress is the caller's to watch.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// A storage node.
#[derive(Debug, Clone)]
pub struct StorageClient(pub Endpoint);

/// Answer to `HEAD /ping`.
#[derive(Debug, Clone, PartialEq)]
pub struct Pong {
    pub node_id: Option<NodeId>,
    pub disk_usage_percent: Option<f64>,
    pub requests_in_flight: Option<u32>,
}

fn chunk_path(chunk: ChunkId, ballot: Option<Ballot>) -> String {
    match ballot {
        Some(ballot) => format!("/chunk/{chunk}?ballot={ballot}"),
        None => format!("/chunk/{chunk}"),
    }
}

impl StorageClient {
    /// Stores a chunk under a granted ballot. On return it is durable on that node, and the answer has its receipt.
    ///
    /// # Errors
    /// The node refused, or did not answer: then the outcome is unknown, and the same PUT may be repeated.
    pub async fn put(&self, grant: &Grant, chunk: ChunkId, bytes: Bytes) -> Result<PutAnswer, ApiError> {
        let request = self
            .0
            .request(Method::PUT, &chunk_path(chunk, Some(grant.ballot)));
        let request = request
            .header(GRANT_HEADER, grant.to_token())
            .body(Body::Bytes(bytes));
        self.0.json(request, PUT_TIMEOUT).await
    }

    /// Names an object that the node holds under the grant's ballot too.
    ///
    /// # Errors
    /// The node does not hold it with these bytes, refused, or did not answer.
    pub async fn adopt(
        &self,
        grant: Grant,
        chunk: ChunkId,
        from_ballot: Ballot,
        sha256: Option<Sha256Digest>,
    ) -> Result<PutAnswer, ApiError> {
        let body = AdoptRequest {
            grant,
            from_ballot,
            sha256,
        };
        self.0
            .post(&format!("/chunk/{chunk}/adopt"), &body, CALL_TIMEOUT)
            .await
    }

    /// Starts to read a chunk; the body is not verified. `range` is a first and last byte.
    ///
    /// # Errors
    /// The node refused, or no headers came within `timeout`.
    pub async fn get(
        &self,
        chunk: ChunkId,
        ballot: Option<Ballot>,
        range: Option<(u64, u64)>,
        timeout: Duration,
    ) -> Result<Response, ApiError> {
        let mut request = self.0.request(Method::GET, &chunk_path(chunk, ballot));
        if let Some((first, last)) = range {
            request = request.header("range", format!("bytes={first}-{last}"));
        }
        self.0.send(request, timeout).await
    }

    /// The leaf hashes of a chunk, unverified.
    ///
    /// # Errors
    /// The node refused or did not answer.
    pub async fn leaves(&self, chunk: ChunkId, ballot: Option<Ballot>) -> Result<LeavesAnswer, ApiError> {
        let query = ballot
            .map(|ballot| format!("?ballot={ballot}"))
            .unwrap_or_default();
        self.0
            .json(
                self.0
                    .request(Method::GET, &format!("/chunk/{chunk}/leaves{query}")),
                CALL_TIMEOUT,
            )
            .await
    }

    /// Deletes one object by order of the catalogue. On return the tombstone is durable.
    ///
    /// # Errors
    /// The node refused or did not answer. An object that is not there counts as deleted.
    pub async fn delete(&self, order: &DeleteOrder) -> Result<(), ApiError> {
        let request = self
            .0
            .request(Method::DELETE, &chunk_path(order.chunk_id, Some(order.ballot)));
        self.0
            .send(request.header(ORDER_HEADER, order.to_token()), CALL_TIMEOUT)
            .await
            .map(drop)
    }

    /// `HEAD /ping`.
    ///
    /// # Errors
    /// No answer within `timeout`.
    pub async fn ping(&self, timeout: Duration) -> Result<Pong, ApiError> {
        let answer = self
            .0
            .send(self.0.request(Method::HEAD, "/ping"), timeout)
            .await?;
        Ok(Pong {
            node_id: answer.header(NODE_ID_HEADER).and_then(|text| text.parse().ok()),
            disk_usage_percent: answer
                .header(DISK_USAGE_HEADER)
                .and_then(|text| text.parse().ok()),
            requests_in_flight: answer.header(IN_FLIGHT_HEADER).and_then(|text| text.parse().ok()),
        })
    }

    /// `GET /health`.
    ///
    /// # Errors
    /// The node refused or did not answer.
    pub async fn health(&self) -> Result<StorageHealth, ApiError> {
        self.0
            .json(self.0.request(Method::GET, "/health"), CALL_TIMEOUT)
            .await
    }
}

/// The metadata role.
#[derive(Debug, Clone)]
pub struct MetadataClient(pub Endpoint);

impl MetadataClient {
    /// The metadata role at `base_url`, over HTTP.
    #[must_use]
    pub fn new(base_url: &str) -> Self {
        Self(Endpoint::new(base_url))
    }

    /// The same over shared connections.
    #[must_use]
    pub fn with_transport(base_url: &str, transport: Arc<dyn Transport>) -> Self {
        Self(Endpoint::with_transport(base_url, transport))
    }

    /// # Errors
    /// As all calls here: the role refused or did not answer.
    pub async fn create_video(&self, title: &str, duration_sec: f64) -> Result<CreatedVideo, ApiError> {
        let body = CreateVideo {
            title: title.to_owned(),
            duration_sec,
        };
        self.0.post("/video", &body, CALL_TIMEOUT).await
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn manifest(&self, video: VideoId) -> Result<Manifest, ApiError> {
        self.get(&format!("/manifest/{video}")).await
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn video(&self, video: VideoId) -> Result<VideoEntry, ApiError> {
        self.get(&format!("/video/{video}")).await
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn videos(&self, query: &VideoQuery) -> Result<VideoPage, ApiError> {
        self.get(&format!("/video?{}", query_text(query))).await
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn rename_video(&self, video: VideoId, title: &str) -> Result<VideoEntry, ApiError> {
        let request = self.0.request(Method::PATCH, &format!("/video/{video}"));
        self.0
            .json(
                with_json(
                    request,
                    &PatchVideo {
                        title: title.to_owned(),
                    },
                ),
                CALL_TIMEOUT,
            )
            .await
    }

    /// Deletes a video. On return no new reader finds it; its bytes are collected later.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn delete_video(&self, video: VideoId) -> Result<(), ApiError> {
        let request = self.0.request(Method::DELETE, &format!("/video/{video}"));
        self.0.send(request, CALL_TIMEOUT).await.map(drop)
    }

    /// Counts a view; called once a session has played 10 s.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn record_view(&self, video: VideoId) -> Result<(), ApiError> {
        self.act(&format!("/video/{video}/view")).await
    }

    /// Removes what a failed upload left behind.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn abort_video(&self, video: VideoId) -> Result<(), ApiError> {
        self.act(&format!("/video/{video}/abort")).await
    }

    /// # Errors
    /// The role refused (chunks are missing, say) or did not answer.
    pub async fn finalize(&self, video: VideoId, body: &Finalize) -> Result<VideoEntry, ApiError> {
        self.0
            .post(&format!("/video/{video}/finalize"), body, CALL_TIMEOUT)
            .await
    }

    /// Opens a ballot for each chunk.
    ///
    /// # Errors
    /// The role refused the whole batch or did not answer.
    pub async fn open(&self, batch: &OpenBatch) -> Result<OpenBatchAnswer, ApiError> {
        self.0.post("/consensus/open", batch, CALL_TIMEOUT).await
    }

    /// Commits placements. Each one that is answered as committed is durable.
    ///
    /// # Errors
    /// The role refused the whole batch or did not answer: then the outcome is unknown, and the same may be repeated.
    pub async fn commit(&self, batch: &CommitBatch) -> Result<CommitBatchAnswer, ApiError> {
        self.0.post("/consensus/commit", batch, CALL_TIMEOUT).await
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn nodes(&self) -> Result<Vec<NodeEntry>, ApiError> {
        self.get("/nodes").await
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn healthy_nodes(&self) -> Result<Vec<NodeEntry>, ApiError> {
        self.get("/nodes/healthy").await
    }

    /// # Errors
    /// The role refused (a foreign signature, a second node with this id) or did not answer.
    pub async fn heartbeat(&self, node: NodeId, heartbeat: &Heartbeat) -> Result<(), ApiError> {
        self.tell(&format!("/nodes/{node}/heartbeat"), heartbeat).await
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn uploader_heartbeat(&self, heartbeat: &UploaderHeartbeat) -> Result<(), ApiError> {
        self.tell("/uploaders/heartbeat", heartbeat).await
    }

    /// Where uploads go, or `None` while no uploader is known.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn uploader_url(&self) -> Result<Option<String>, ApiError> {
        let uploaders: Vec<String> = self.get("/uploaders").await?;
        Ok(uploaders.into_iter().next())
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.0.json(self.0.request(Method::GET, path), CALL_TIMEOUT).await
    }

    async fn tell(&self, path: &str, body: &impl Serialize) -> Result<(), ApiError> {
        let request = with_json(self.0.request(Method::POST, path), body);
        self.0.send(request, CALL_TIMEOUT).await.map(drop)
    }

    async fn act(&self, path: &str) -> Result<(), ApiError> {
        self.0
            .send(self.0.request(Method::POST, path), CALL_TIMEOUT)
            .await
            .map(drop)
    }
}

/// The uploader role.
#[derive(Debug, Clone)]
pub struct UploaderClient(pub Endpoint);

impl UploaderClient {
    /// The uploader at `base_url`, over HTTP.
    #[must_use]
    pub fn new(base_url: &str) -> Self {
        Self(Endpoint::new(base_url))
    }

    /// Sends a file as multipart `POST /upload`. Returns when the uploader has all bytes on its disk; the job goes on.
    ///
    /// # Errors
    /// The uploader refused, or the connection broke: nothing is kept then.
    pub async fn upload(
        &self,
        title: &str,
        file_name: &str,
        content: ByteStream,
        size_bytes: u64,
    ) -> Result<UploadAccepted, ApiError> {
        let (content_type, head, tail) = multipart_frame(title, file_name);
        let total = head.len() as u64 + size_bytes + tail.len() as u64;
        let stream = stream::iter([Ok(head)])
            .chain(content)
            .chain(stream::iter([Ok(tail)]))
            .boxed();
        let request = self
            .0
            .request(Method::POST, "/upload")
            .header("content-type", content_type);
        let request = request.body(Body::Stream {
            stream,
            size_bytes: Some(total),
        });
        self.0.json(request, UPLOAD_TIMEOUT).await
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn jobs(&self) -> Result<Vec<Job>, ApiError> {
        self.0
            .json(self.0.request(Method::GET, "/jobs"), CALL_TIMEOUT)
            .await
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn job(&self, job_id: &str) -> Result<Job, ApiError> {
        self.0
            .json(
                self.0.request(Method::GET, &format!("/jobs/{job_id}")),
                CALL_TIMEOUT,
            )
            .await
    }

    /// Every change of the job, the present state first; ends after a final state.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn job_events(
        &self,
        job_id: &str,
    ) -> Result<BoxStream<'static, Result<Job, ApiError>>, ApiError> {
        let request = self.0.request(Method::GET, &format!("/jobs/{job_id}/events"));
        let answer = self
            .0
            .send(request.header("accept", "text/event-stream"), CALL_TIMEOUT)
            .await?;
        Ok(sse::events(answer))
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn cancel_job(&self, job_id: &str) -> Result<(), ApiError> {
        let request = self.0.request(Method::DELETE, &format!("/jobs/{job_id}"));
        self.0.send(request, CALL_TIMEOUT).await.map(drop)
    }
}

/// Content type, and what stands before and after the file (RFC 7578).
fn multipart_frame(title: &str, file_name: &str) -> (String, Bytes, Bytes) {
    let boundary = format!(
        "vstack-{}",
        Sha256Digest::of(format!("{title}\0{file_name}").as_bytes())
    );
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\n{title}\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n",
        escaped_file_name(file_name)
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    (
        format!("multipart/form-data; boundary={boundary}"),
        head.into(),
        tail.into(),
    )
}

/// As browsers do it (WHATWG HTML, multipart/form-data encoding algorithm).
fn escaped_file_name(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

fn query_text(query: &VideoQuery) -> String {
    let mut pairs = vec![("sort", sort_word(query)), ("offset", query.offset.to_string())];
    pairs.extend(query.limit.map(|limit| ("limit", limit.to_string())));
    pairs.extend(query.search.clone().map(|search| ("search", search)));
    let encoded = pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", percent_encoded(value)));
    encoded.collect::<Vec<_>>().join("&")
}

fn sort_word(query: &VideoQuery) -> String {
    let word = serde_json::to_value(query.sort).expect("an enum of plain words serializes");
    word.as_str().unwrap_or_default().to_owned()
}

/// Everything but RFC 3986's unreserved characters as `%XX`.
fn percent_encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes()
        .map(|byte| {
            if plain(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_text_survives_the_address() {
        let query = VideoQuery {
            search: Some("a&b=ü %".into()),
            limit: Some(5),
            ..VideoQuery::default()
        };
        assert_eq!(
            query_text(&query),
            "sort=newest&offset=0&limit=5&search=a%26b%3D%C3%BC%20%25"
        );
    }

    #[test]
    fn a_hostile_file_name_stays_inside_its_quotes() {
        let (_, head, _) = multipart_frame("t", "a\"b\r\nEvil: x");
        let text = String::from_utf8(head.to_vec()).unwrap();
        assert!(text.contains("filename=\"a%22b%0D%0AEvil: x\""), "{text}");
    }
}
