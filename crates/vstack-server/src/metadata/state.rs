//! What the role's handlers share.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use vstack_api::StorageClient;
use vstack_api::client::Endpoint;
use vstack_api::wire::Service;
use vstack_core::keys::ClusterKey;
use vstack_core::time::UnixMillis;
use vstack_meta::{Cmd, MetaStore, NodeRecord, Remembered, Reply};

use super::announced::Announced;
use super::counts::Counts;
use super::events::Events;
use super::manifests::Manifests;
use super::problem::refusal;
use super::redundancy::{Redundancy, RedundancySettings};
use super::services::Services;
use crate::http::Answer;
use crate::platform::{Clock, Platform};

/// What an operator may set.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) view_half_life_ms: u64,
    /// Folder of the backups.
    pub(super) backups: PathBuf,
    pub(super) backup_every: Duration,
    pub(super) backups_kept: usize,
    pub(super) abandoned_every: Duration,
    pub(super) redundancy: RedundancySettings,
}

#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) store: Arc<dyn MetaStore>,
    pub(super) key: ClusterKey,
    pub(super) clock: Clock,
    pub(super) counts: Counts,
    pub(super) events: Events,
    pub(super) manifests: Manifests,
    pub(super) settings: Settings,
    pub(super) redundancy: Redundancy,
    pub(super) platform: Platform,
    pub(super) started: UnixMillis,
    /// Held while a backup is made.
    pub(super) backing_up: tokio::sync::Mutex<()>,
    pub(super) services: Services,
    pub(super) announced: Announced,
    /// Released when the store is closed: fields are dropped in their order.
    _lock: File,
    /// Dropped last; tells the role that all of the above is.
    _closed: oneshot::Sender<()>,
}

impl Metadata {
    /// The state, and what ends when it is gone.
    pub(super) fn new(
        (store, remembered): (Arc<dyn MetaStore>, &Remembered),
        key: ClusterKey,
        (clock, platform): (Clock, Platform),
        settings: Settings,
        lock: File,
    ) -> (Self, oneshot::Receiver<()>) {
        let (closing, closed) = oneshot::channel();
        let state = Self {
            store,
            key,
            started: clock.now(),
            clock,
            counts: Counts::default(),
            events: Events::default(),
            manifests: Manifests::default(),
            settings,
            redundancy: Redundancy::remembering(remembered),
            platform,
            services: Services::default(),
            announced: Announced::default(),
            backing_up: tokio::sync::Mutex::default(),
            _lock: lock,
            _closed: closing,
        };
        (state, closed)
    }

    pub(super) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    pub(super) fn running_for_ms(&self) -> u64 {
        self.now().since(self.started)
    }

    /// A client of a node, over the connections that all clients of this role share.
    pub(super) fn storage(&self, url: &str) -> StorageClient {
        StorageClient(Endpoint::with_transport(url, self.platform.transport.clone()))
    }

    /// The same for work that viewers are not to notice.
    pub(super) fn storage_behind(&self, url: &str) -> StorageClient {
        StorageClient(self.storage(url).0.behind_viewers())
    }

    pub(super) async fn apply(&self, command: Cmd) -> Answer<Reply> {
        self.store.apply_one(command).await.map_err(refusal)
    }

    pub(super) async fn nodes(&self) -> Answer<Vec<NodeRecord>> {
        self.store.nodes().await.map_err(refusal)
    }

    /// Addresses of a service's roles that may be alive, the one heard of last first.
    pub(super) fn alive(&self, service: Service) -> Vec<String> {
        self.services.alive(service, self.now())
    }
}
