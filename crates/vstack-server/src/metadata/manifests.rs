//! Manifests as they were sent, kept for the next viewer.
//!
//! Making one reads every row of its video and checks each against its checksum, which takes longer than to send it, and
//! a video that is watched is asked for again and again. What is kept stands under everything that it was made of: the
//! catalogue's version of the video, and the nodes' addresses and health. Whatever of these changes, the next request
//! makes a new one; the old one is never asked for again and gives way when room is needed.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use vstack_core::id::{NodeId, VideoId};
use vstack_core::node::NodeHealth;
use vstack_core::time::UnixMillis;
use vstack_meta::{NodeRecord, Version};

use crate::http::Answer;

/// Memory for kept manifests: some hundred films, or some thousand clips.
const KEPT_BYTES: u64 = 64 << 20;
/// Manifests that are expected to share it. A manifest has about 1 KB a chunk.
const KEPT: usize = 1024;

/// Everything that one manifest was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    video: VideoId,
    version: Version,
    surroundings: u64,
}

/// What manifests say of the nodes: the addresses, and the order in which a plain client tries them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Surroundings {
    nodes: Vec<(NodeId, Option<String>, NodeHealth)>,
    gateway: Option<String>,
}

impl Surroundings {
    pub(super) fn new(nodes: &[NodeRecord], gateway: Option<String>, now: UnixMillis) -> Self {
        let node = |node: &NodeRecord| (node.node, node.known_url().map(str::to_owned), node.health(now));
        Self {
            nodes: nodes.iter().map(node).collect(),
            gateway,
        }
    }
}

#[derive(Debug)]
pub(super) struct Manifests {
    kept: Cache<Key, Bytes, ByLength>,
    /// The surroundings of the last request. Their number goes up with each change, so that it is never used for others.
    surroundings: Mutex<(u64, Surroundings)>,
}

#[derive(Debug, Clone)]
struct ByLength;

impl Weighter<Key, Bytes> for ByLength {
    fn weight(&self, _: &Key, manifest: &Bytes) -> u64 {
        (manifest.len() + size_of::<Key>()) as u64
    }
}

impl Default for Manifests {
    fn default() -> Self {
        Self {
            kept: Cache::with_weighter(KEPT, KEPT_BYTES, ByLength),
            surroundings: Mutex::default(),
        }
    }
}

impl Manifests {
    /// `version` must be older than what the manifest will be made of.
    pub(super) fn key(&self, video: VideoId, version: Version, surroundings: Surroundings) -> Key {
        let mut last = self.surroundings.lock().unwrap_or_else(PoisonError::into_inner);
        if last.1 != surroundings {
            *last = (last.0 + 1, surroundings);
        }
        Key {
            video,
            version,
            surroundings: last.0,
        }
    }

    /// The kept manifest, or the one that `make` makes. While it is made, others who want it wait for it.
    pub(super) async fn get(&self, key: &Key, make: impl Future<Output = Answer<Bytes>>) -> Answer<Bytes> {
        self.kept.get_or_insert_async(key, make).await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use uuid::Uuid;
    use vstack_meta::{MetaStore as _, SqliteMetaStore};

    fn version() -> Version {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteMetaStore::open(&folder.path().join("catalogue.db")).unwrap();
        store.version(VideoId(Uuid::nil()))
    }

    fn around(gateway: &str) -> Surroundings {
        Surroundings::new(&[], Some(gateway.to_owned()), UnixMillis(1))
    }

    #[tokio::test]
    async fn a_manifest_is_made_once_for_all_that_it_was_made_of() {
        let (manifests, version, made) = (Manifests::default(), version(), Cell::new(0));
        let video = VideoId(Uuid::from_u128(1));
        let get = async |gateway: &str| {
            let key = manifests.key(video, version, around(gateway));
            let make = async {
                made.set(made.get() + 1);
                Ok(Bytes::from(made.get().to_string()))
            };
            manifests.get(&key, make).await.unwrap()
        };
        assert_eq!(get("a").await, get("a").await);
        assert_eq!(made.get(), 1);
        assert_eq!(get("b").await, "2");
        assert_eq!(get("a").await, "3", "what was is not asked for again");
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_by_its_bytes() {
        let (manifests, version) = (Manifests::default(), version());
        let large = Bytes::from(vec![0; 4 << 20]);
        for number in 0..40 {
            let key = manifests.key(VideoId(Uuid::from_u128(number)), version, around("a"));
            manifests.get(&key, async { Ok(large.clone()) }).await.unwrap();
        }
        assert!(
            manifests.kept.weight() <= KEPT_BYTES,
            "{}",
            manifests.kept.weight()
        );
        assert!(!manifests.kept.is_empty());
    }
}
