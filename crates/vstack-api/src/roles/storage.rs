//! The client of a storage node.

use std::time::Duration;

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::{ChunkId, NodeId};
use vstack_core::paxos::{DeleteOrder, Grant, Promise};

use super::CALL_TIMEOUT;
use crate::client::{ApiError, Endpoint};
use crate::inventory::InventorySummary;
use crate::listing::ObjectPage;
use crate::transport::{Body, Method, Response};
use crate::wire::{
    AdoptRequest, DISK_USAGE_HEADER, EGRESS_HEADER, GRANT_HEADER, IN_FLIGHT_HEADER, LeavesAnswer,
    NODE_ID_HEADER, ORDER_HEADER, PrepareRequest, PutAnswer, SLACK_HEADER, StorageHealth,
};

/// A chunk being written and made durable, on a slow disk behind a slow link.
const PUT_TIMEOUT: Duration = Duration::from_secs(60);

/// A storage node.
#[derive(Debug, Clone)]
pub struct StorageClient(pub Endpoint);

/// Answer to `HEAD /ping`.
#[derive(Debug, Clone, PartialEq)]
pub struct Pong {
    pub node_id: Option<NodeId>,
    pub disk_usage_percent: Option<f64>,
    pub requests_in_flight: Option<u32>,
    /// Bits of chunks that left in the last second.
    pub egress_bps: Option<u64>,
}

fn chunk_path(chunk: ChunkId, ballot: Option<Ballot>) -> String {
    match ballot {
        Some(ballot) => format!("/chunk/{chunk}?ballot={ballot}"),
        None => format!("/chunk/{chunk}"),
    }
}

impl StorageClient {
    /// The node at `base_url`, over HTTP.
    #[must_use]
    pub fn new(base_url: &str) -> Self {
        Self(Endpoint::new(base_url))
    }

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

    /// Asks for a promise and for what the node holds of the chunk.
    ///
    /// # Errors
    /// The node promised a higher ballot, refused, or did not answer.
    pub async fn prepare(&self, grant: Grant) -> Result<Promise, ApiError> {
        let path = format!("/chunk/{}/prepare", grant.chunk_id);
        self.0.post(&path, &PrepareRequest { grant }, CALL_TIMEOUT).await
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

    /// Starts to read bytes `first..=last` of an object. `slack_ms`: how long playback can do without the first of them.
    ///
    /// # Errors
    /// As [`StorageClient::get`].
    pub async fn get_range(
        &self,
        chunk: ChunkId,
        ballot: Ballot,
        (first, last): (u64, u64),
        slack_ms: u64,
        timeout: Duration,
    ) -> Result<Response, ApiError> {
        let request = self
            .0
            .request(Method::GET, &chunk_path(chunk, Some(ballot)))
            .header("range", format!("bytes={first}-{last}"))
            .header(SLACK_HEADER, slack_ms.to_string());
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

    /// A page of what the node holds, behind the named object.
    ///
    /// # Errors
    /// The node refused or did not answer.
    pub async fn objects(&self, after: Option<(ChunkId, Ballot)>) -> Result<ObjectPage, ApiError> {
        let query = after.map_or_else(String::new, |(object, ballot)| {
            format!("?object={object}&ballot={ballot}")
        });
        self.0
            .json(
                self.0.request(Method::GET, &format!("/objects{query}")),
                CALL_TIMEOUT,
            )
            .await
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
            egress_bps: answer.header(EGRESS_HEADER).and_then(|text| text.parse().ok()),
        })
    }

    /// Lets the node tell the catalogue what it holds, now. A page of 4096 objects takes well under a second.
    ///
    /// # Errors
    /// The node or its catalogue refused, or did not answer within `patience`.
    pub async fn take_inventory(&self, patience: Duration) -> Result<InventorySummary, ApiError> {
        let request = self.0.request(Method::POST, "/inventory");
        self.0.json(request, patience).await
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
