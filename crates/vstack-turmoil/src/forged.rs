//! A transport that makes receipts up: the seeded bug "a node that was never asked is counted as one that stored it".

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt as _;
use http::HeaderMap;
use vstack_api::transport::{Body, Method, Request, Response, Transport, TransportError};
use vstack_api::wire::{GRANT_HEADER, PutAnswer, PutStatus};
use vstack_core::digest::ChunkDigest;
use vstack_core::id::{Incarnation, NodeId};
use vstack_core::keys::ClusterKey;
use vstack_core::paxos::{Grant, Receipt};

use crate::wire::SimTransport;

#[derive(Debug)]
pub(crate) struct Forging {
    inner: Arc<SimTransport>,
    key: ClusterKey,
    /// By address, from true receipts.
    known: Mutex<BTreeMap<String, (NodeId, Incarnation)>>,
}

impl Forging {
    pub(crate) fn new(inner: Arc<SimTransport>, key: ClusterKey) -> Self {
        Self {
            inner,
            key,
            known: Mutex::default(),
        }
    }

    /// Of a node that is known, for every second chunk.
    fn forged(&self, put: &Put) -> Option<Response> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let &(node, incarnation) = known.get(&put.host)?;
        let target = put.grant.target_on(node)?;
        if put.digest.sha256.0[0].is_multiple_of(2) {
            return None;
        }
        let (chunk, ballot) = (target.object(put.grant.chunk_id), put.grant.ballot);
        let receipt = Receipt::signed(
            &self.key.receipt_key(node),
            (chunk, ballot),
            (node, incarnation),
            put.digest,
        );
        let answer = PutAnswer {
            chunk_id: chunk,
            ballot,
            size_bytes: put.digest.size_bytes,
            sha256: put.digest.sha256,
            leaf_root: put.digest.leaf_root,
            status: PutStatus::Stored,
            receipt: Some(receipt),
        };
        Some(whole(put.url.clone(), 201, &answer))
    }
}

/// An ACCEPT.
struct Put {
    url: String,
    host: String,
    grant: Grant,
    digest: ChunkDigest,
}

impl Put {
    fn of(request: &Request) -> Option<Self> {
        let Body::Bytes(bytes) = &request.body else {
            return None;
        };
        let token = request.headers.iter().find(|(name, _)| *name == GRANT_HEADER)?;
        (request.method == Method::PUT).then_some(())?;
        Some(Self {
            url: request.url.clone(),
            host: request.url.split("/chunk/").next()?.to_owned(),
            grant: Grant::from_token(&token.1).ok()?,
            digest: ChunkDigest::of(bytes),
        })
    }
}

#[async_trait]
impl Transport for Forging {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let Some(put) = Put::of(&request) else {
            return self.inner.send(request).await;
        };
        if let Some(forged) = self.forged(&put) {
            return Ok(forged);
        }
        let answer = self.inner.send(request).await?;
        let (url, status, headers) = (answer.url.clone(), answer.status, answer.headers.clone());
        let bytes = answer.bytes(1 << 20).await?;
        if let Ok(PutAnswer {
            receipt: Some(receipt),
            ..
        }) = serde_json::from_slice::<PutAnswer>(&bytes)
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(put.host, (receipt.node, receipt.incarnation));
        }
        Ok(Response {
            headers,
            ..given(url, status, bytes)
        })
    }
}

fn whole(url: String, status: u16, body: &PutAnswer) -> Response {
    given(url, status, serde_json::to_vec(body).unwrap_or_default().into())
}

fn given(url: String, status: u16, bytes: bytes::Bytes) -> Response {
    Response {
        url,
        status,
        headers: HeaderMap::new(),
        body: futures::stream::once(async move { Ok(bytes) }).boxed(),
    }
}
