//! What the handlers of one node share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;
use vstack_api::{ErrorCode, MetadataClient};
use vstack_core::ballot::Ballot;
use vstack_core::digest::{ChunkDigest, Sha256Digest};
use vstack_core::id::{ChunkId, NodeId};
use vstack_core::keys::DerivedKey;
use vstack_core::paxos::acceptor::{Fence, Object};
use vstack_core::paxos::{Grant, Receipt};
use vstack_store::{ObjectState, Store, StoreError};

use super::StorageConfig;
use super::buffers::Buffers;
use super::egress::Egress;
use super::load::Load;
use super::receive::Receiver;
use super::refusals::{fenced, from_store};
use crate::http::{Answer, refuse};
use crate::platform::{Clock, Platform};

/// How old the figure in `/ping` may be. Clients ping every 3 s; measuring the disk at each would be work for nothing.
const DISK_USAGE_AGE: Duration = Duration::from_secs(1);

/// What stands for the digest of an object whose header cannot be read, where a rule asks only whether it is there.
const UNREADABLE: ChunkDigest = ChunkDigest {
    size_bytes: 0,
    sha256: Sha256Digest([0; 32]),
    leaf_root: Sha256Digest([0; 32]),
};

#[derive(Debug)]
pub(super) struct Node {
    pub(super) store: Store,
    pub(super) url: String,
    /// What fails together with this node.
    pub(super) rack: Option<String>,
    /// What its operator calls it.
    pub(super) name: Option<String>,
    /// Where inventories go; none without it.
    pub(super) catalogue: Option<MetadataClient>,
    pub(super) load: Load,
    pub(super) egress: Egress,
    /// Of bodies that arrived whole.
    pub(super) received_bytes: Counter,
    pub(super) receiver: Receiver,
    pub(super) grant_key: DerivedKey,
    pub(super) receipt_key: DerivedKey,
    pub(super) clock: Clock,
    pub(super) platform: Platform,
    fence: Mutex<Fence>,
    disk_usage: Mutex<(Instant, f64)>,
    /// Why the catalogue does not take this node for the one it knows.
    shut_out: Mutex<Option<String>>,
    /// What the catalogue calls it.
    called: Mutex<Option<String>>,
    started: Instant,
}

impl Node {
    pub(super) fn new(store: Store, url: String, config: &StorageConfig) -> Self {
        let StorageConfig {
            cluster_key,
            platform,
            limits,
            ..
        } = config;
        let receipt_key = cluster_key.receipt_key(store.identity().node_id);
        let transport = &platform.transport;
        let catalogue = config.metadata_url.as_deref();
        let now = Instant::now();
        let disk_usage = Mutex::new((now, store.stats().disk_used_percent));
        Self {
            store,
            url,
            rack: config.rack.clone(),
            name: config.name.clone(),
            catalogue: catalogue.map(|url| MetadataClient::with_transport(url, Arc::clone(transport))),
            load: Load::default(),
            egress: Egress::new(config.egress_mbit, config.weights),
            received_bytes: Counter::default(),
            receiver: Receiver::new(Buffers::default(), limits.body, platform.threads),
            grant_key: cluster_key.grant_key(),
            receipt_key,
            clock: config.clock.clone(),
            platform: platform.clone(),
            fence: Mutex::default(),
            disk_usage,
            shut_out: Mutex::default(),
            called: Mutex::default(),
            started: now,
        }
    }

    pub(super) fn node_id(&self) -> NodeId {
        self.store.identity().node_id
    }

    /// Notes whether the catalogue takes this node for the one it knows, and why not. Gives whether that is news.
    pub(super) fn set_shut_out(&self, reason: Option<String>) -> bool {
        let mut known = self.shut_out.lock().unwrap_or_else(PoisonError::into_inner);
        let news = known.is_some() != reason.is_some();
        *known = reason;
        news
    }

    /// Notes what the catalogue calls this node. Gives whether that is news.
    pub(super) fn set_called(&self, name: String) -> bool {
        let mut known = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        let news = known.as_ref() != Some(&name);
        *known = Some(name);
        news
    }

    /// What the catalogue calls this node, once it has said so.
    pub(super) fn called(&self) -> Option<String> {
        self.called.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why nothing is written here although the disk would take it.
    pub(super) fn shut_out(&self) -> Option<String> {
        let known = self.shut_out.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    /// A copy of this node's folder, or the original of it, may be writing elsewhere under the same name: what is
    /// written here could be what nobody looks for. Reading goes on.
    pub(super) fn check_writable(&self) -> Answer<()> {
        match self.shut_out() {
            None => Ok(()),
            Some(reason) => {
                let detail = format!("this node only reads, the catalogue shut it out: {reason}");
                Err(refuse(ErrorCode::Unavailable, detail))
            }
        }
    }

    pub(super) fn uptime_sec(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    pub(super) fn disk_used_percent(&self) -> f64 {
        let mut known = self.disk_usage.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0.elapsed() > DISK_USAGE_AGE {
            *known = (Instant::now(), self.store.stats().disk_used_percent);
        }
        known.1
    }

    /// Runs what touches the disk where it may block.
    pub(super) async fn on_disk<T, F>(self: &Arc<Self>, work: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Self>) -> Answer<T> + Send + 'static,
    {
        let node = Arc::clone(self);
        let span = tracing::Span::current();
        match self
            .platform
            .threads
            .run(move || span.in_scope(|| work(&node)))
            .await
        {
            Ok(answer) => answer,
            Err(panic) => Err(refuse(
                ErrorCode::Internal,
                format!("the request failed inside: {panic}"),
            )),
        }
    }

    /// Lets a grant pass the fence: signed by the catalogue, for this object and node, not overtaken. Remembers the
    /// catalogue's generation before anything is done in its name.
    pub(super) fn admit(&self, grant: &Grant, object: ChunkId) -> Answer<()> {
        self.verify(grant)?;
        let stored = self.store.highest_ballot(object);
        let admitted = self.fence().admit(grant, object, self.node_id(), stored);
        admitted.map_err(fenced)
    }

    /// Whether the catalogue signed this grant; remembers its generation.
    pub(super) fn verify(&self, grant: &Grant) -> Answer<()> {
        if !grant.verifies(&self.grant_key) {
            return Err(refuse(
                ErrorCode::BadSignature,
                "the catalogue did not sign this grant",
            ));
        }
        self.store
            .note_generation(grant.ballot.generation())
            .map_err(from_store)
    }

    pub(super) fn fence(&self) -> std::sync::MutexGuard<'_, Fence> {
        self.fence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is here under a name. A damaged object counts as absent where bytes are to be written: the store takes the
    /// same bytes again, and only those.
    pub(super) fn object(&self, chunk: ChunkId, ballot: Ballot) -> Answer<Object> {
        match self.store.stat(chunk, Some(ballot)) {
            Ok(stat) => Ok(Object::Stored(stat.digest)),
            Err(StoreError::NotFound { .. }) if self.is_deleted(chunk, ballot) => Ok(Object::Deleted),
            Err(StoreError::NotFound { .. } | StoreError::Unsure { .. } | StoreError::Corrupt { .. }) => {
                Ok(Object::Absent)
            }
            Err(error) => Err(from_store(error)),
        }
    }

    /// What is here to be deleted; a damaged object counts.
    pub(super) fn object_to_delete(&self, chunk: ChunkId, ballot: Ballot) -> Answer<Object> {
        match self.store.stat(chunk, Some(ballot)) {
            Err(StoreError::Corrupt { .. }) => Ok(Object::Stored(UNREADABLE)),
            Err(error @ StoreError::Unsure { .. }) => Err(from_store(error)),
            _ => self.object(chunk, ballot),
        }
    }

    fn is_deleted(&self, chunk: ChunkId, ballot: Ballot) -> bool {
        let ballots = self.store.ballots(chunk);
        ballots
            .iter()
            .any(|entry| entry.ballot == ballot && entry.state == ObjectState::Deleted)
    }

    /// Whether an object of a ballot above 0 is here.
    pub(super) fn holds_higher(&self, chunk: ChunkId) -> bool {
        let ballots = self.store.ballots(chunk);
        ballots
            .iter()
            .any(|entry| !entry.ballot.is_plain() && entry.state != ObjectState::Deleted)
    }

    /// The node's word that it holds these bytes. To be given only when they are durable.
    pub(super) fn receipt(&self, chunk: ChunkId, ballot: Ballot, digest: ChunkDigest) -> Receipt {
        let identity = self.store.identity();
        Receipt::signed(
            &self.receipt_key,
            (chunk, ballot),
            (identity.node_id, identity.incarnation),
            digest,
        )
    }
}
