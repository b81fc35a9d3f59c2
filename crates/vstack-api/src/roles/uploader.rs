//! The client of the uploader role.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use vstack_core::digest::Sha256Digest;

use super::CALL_TIMEOUT;
use crate::client::{ApiError, Endpoint};
use crate::consensus::ProposerCounts;
use crate::sse;
use crate::transport::{Body, ByteStream, Method};
use crate::wire::{Job, UploadAccepted};

/// A whole file being sent; its progress is the caller's to watch.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

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

    /// What ChunkPaxos cost since the role started.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn consensus(&self) -> Result<ProposerCounts, ApiError> {
        self.0
            .json(self.0.request(Method::GET, "/consensus"), CALL_TIMEOUT)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_file_name_stays_inside_its_quotes() {
        let (_, head, _) = multipart_frame("t", "a\"b\r\nEvil: x");
        let text = String::from_utf8(head.to_vec()).unwrap();
        assert!(text.contains("filename=\"a%22b%0D%0AEvil: x\""), "{text}");
    }
}
