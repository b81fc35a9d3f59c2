//! Receiving a body: bounded, hashed while it arrives, checked before anything is appended.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt as _;
use tracing::info;
use vstack_api::ErrorCode;
use vstack_core::digest::{ChunkDigest, ChunkHasher, Sha256Digest};
use vstack_core::limits::MAX_CHUNK_BYTES;

use crate::http::{Answer, Refusal, refuse};

/// A body that has arrived whole.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) data: Vec<Bytes>,
    pub(super) digest: ChunkDigest,
}

/// What a PUT announces about its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Announced {
    /// Absent for a chunked body.
    pub(super) length: Option<u64>,
    pub(super) sha256: Option<Sha256Digest>,
}

impl Announced {
    /// Reads the headers, and refuses what they alone rule out, before a byte of the body is read.
    ///
    /// # Errors
    /// No length, none that a chunk can have, or a digest that is none.
    pub(super) fn read(headers: &HeaderMap) -> Answer<Self> {
        let length = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        if length.is_none() && !headers.contains_key(header::TRANSFER_ENCODING) {
            return Err(refuse(
                ErrorCode::LengthRequired,
                "send Content-Length, or a chunked body",
            ));
        }
        if length.is_some_and(|length| length > MAX_CHUNK_BYTES) {
            return Err(too_large());
        }
        if length == Some(0) {
            return Err(empty());
        }
        Ok(Self {
            length,
            sha256: content_digest(headers)?,
        })
    }

    /// The most that may arrive.
    pub(super) fn limit(self) -> u64 {
        self.length.unwrap_or(MAX_CHUNK_BYTES)
    }

    /// Receives the body; one of which nothing arrives for `patience` is given up.
    ///
    /// # Errors
    /// It breaks off, stops arriving, is too long, empty, or not what was announced.
    pub(super) async fn receive(self, body: Body, patience: Duration) -> Answer<Received> {
        let mut pieces = body.into_data_stream();
        let mut hasher = ChunkHasher::new();
        let mut data = Vec::new();
        let mut received = 0;
        while let Some(piece) = next(&mut pieces, patience).await? {
            received += piece.len() as u64;
            if received > self.limit() {
                return Err(too_large());
            }
            hasher.update(&piece);
            if !piece.is_empty() {
                data.push(piece);
            }
        }
        if received == 0 {
            return Err(empty());
        }
        let (digest, _) = hasher.finish();
        self.check(&digest).map(|()| Received { data, digest })
    }

    fn check(self, digest: &ChunkDigest) -> Answer<()> {
        if self.length.is_some_and(|length| length != digest.size_bytes) {
            return Err(refuse(
                ErrorCode::LengthMismatch,
                "the body is not as long as Content-Length says",
            ));
        }
        match self.sha256 {
            Some(announced) if announced != digest.sha256 => Err(refuse(
                ErrorCode::HashMismatch,
                format!("the body's SHA-256 is {}, not {announced}", digest.sha256),
            )),
            _ => Ok(()),
        }
    }
}

async fn next(pieces: &mut axum::body::BodyDataStream, patience: Duration) -> Answer<Option<Bytes>> {
    match tokio::time::timeout(patience, pieces.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(piece))) => Ok(Some(piece)),
        Ok(Some(Err(error))) => {
            info!(%error, "a body broke off, nothing of it is kept");
            Err(refuse(ErrorCode::BadRequest, "the body broke off"))
        }
        Err(_) => {
            let detail = format!("nothing of the body arrived for {} s", patience.as_secs_f32());
            info!(detail, "a body stopped arriving, nothing of it is kept");
            Err(refuse(ErrorCode::BadRequest, detail))
        }
    }
}

fn too_large() -> Refusal {
    refuse(
        ErrorCode::TooLarge,
        format!("a chunk has at most {MAX_CHUNK_BYTES} bytes"),
    )
}

fn empty() -> Refusal {
    refuse(ErrorCode::EmptyChunk, "the body is empty")
}

/// `Content-Digest: sha-256=:<base64>:` (RFC 9530). Other algorithms in the list are not ours to judge.
fn content_digest(headers: &HeaderMap) -> Answer<Option<Sha256Digest>> {
    let lists = headers
        .get_all("content-digest")
        .iter()
        .filter_map(|list| list.to_str().ok());
    let mut entries = lists
        .flat_map(|list| list.split(','))
        .filter_map(|entry| entry.trim().split_once('='));
    let Some((_, value)) = entries.find(|(algorithm, _)| algorithm.eq_ignore_ascii_case("sha-256")) else {
        return Ok(None);
    };
    let digest = value
        .strip_prefix(':')
        .and_then(|value| value.strip_suffix(':'))
        .and_then(|value| STANDARD.decode(value).ok())
        .and_then(|bytes| bytes.try_into().ok());
    match digest {
        Some(digest) => Ok(Some(Sha256Digest(digest))),
        None => Err(refuse(
            ErrorCode::BadRequest,
            "Content-Digest: sha-256 has no 32 bytes in base64",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(pairs: &[(&'static str, &str)]) -> Result<Announced, ErrorCode> {
        let headers = pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()));
        Announced::read(&headers.collect()).map_err(|refusal| refusal.0.code)
    }

    #[test]
    fn lengths_are_judged_before_the_body() {
        assert_eq!(announced(&[]), Err(ErrorCode::LengthRequired));
        assert_eq!(announced(&[("content-length", "0")]), Err(ErrorCode::EmptyChunk));
        assert_eq!(
            announced(&[("content-length", "67108865")]),
            Err(ErrorCode::TooLarge)
        );
        assert!(announced(&[("content-length", "67108864")]).is_ok());
        assert!(announced(&[("transfer-encoding", "chunked")]).is_ok());
    }

    #[test]
    fn a_content_digest_is_found_among_others() {
        let digest = Sha256Digest::of(b"abc");
        let text = format!("sha-512=:AAAA:, sha-256=:{}:", STANDARD.encode(digest.0));
        let found = announced(&[("content-length", "3"), ("content-digest", &text)]);
        assert_eq!(found.map(|announced| announced.sha256), Ok(Some(digest)));
        for bad in ["sha-256=:AAAA:", "sha-256=abc", "sha-256=:!:"] {
            let found = announced(&[("content-length", "3"), ("content-digest", bad)]);
            assert_eq!(found, Err(ErrorCode::BadRequest), "{bad}");
        }
    }
}
