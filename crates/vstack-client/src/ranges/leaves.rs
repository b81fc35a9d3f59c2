//! The leaf hashes of objects, each list checked against the root that the manifest names, fetched once and kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use vstack_api::StorageClient;
use vstack_core::ballot::Ballot;
use vstack_core::digest::{Sha256Digest, merkle_root};
use vstack_core::id::ChunkId;

use crate::fetch::refusal;
use crate::policy::{BLOCK_BYTES, Failure};

/// How long an attempt waits for a list that another one asked for, before it asks its own node. Guess: a healthy node
/// on a home network or near DSL answers sooner.
const HEAD_START: Duration = Duration::from_millis(200);

/// Leaf hashes of one object, in order.
pub(crate) type Leaves = [Sha256Digest];

/// Where a list can be had, and what it must be.
#[derive(Debug, Clone)]
pub(crate) struct LeafSource {
    pub(crate) client: StorageClient,
    pub(crate) id: ChunkId,
    pub(crate) ballot: Ballot,
    pub(crate) root: Sha256Digest,
    pub(crate) part_bytes: u64,
}

#[derive(Debug, Clone)]
enum Entry {
    Known(Arc<Leaves>),
    /// Somebody asked for it then.
    Asked(Instant),
}

/// All lists that a session has. 32 bytes for every 64 KiB of video: they stay as long as the session.
#[derive(Debug, Default)]
pub(crate) struct LeafBook {
    by_root: Mutex<BTreeMap<Sha256Digest, Entry>>,
    changed: Notify,
}

impl LeafBook {
    /// The list for `source`: the one that is known, the one that another attempt is about to bring, or one from the
    /// source's own node.
    ///
    /// # Errors
    /// That node did not bring it, or brought another: then it is the one to blame.
    pub(crate) async fn list(&self, source: LeafSource) -> Result<Arc<Leaves>, Failure> {
        // A tree of one leaf is that leaf's hash.
        if source.part_bytes <= BLOCK_BYTES {
            return Ok(Arc::from([source.root]));
        }
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.look(source.root) {
                Some(Entry::Known(leaves)) => return Ok(leaves),
                Some(Entry::Asked(at)) if at.elapsed() < HEAD_START => {
                    // Late is as good as changed: the entry is looked at again.
                    let _ = timeout_at(at + HEAD_START, changed).await;
                }
                Some(Entry::Asked(_)) | None => break,
            }
        }
        let fetched = fetch(&source).await;
        match &fetched {
            Ok(leaves) => {
                self.lock().insert(source.root, Entry::Known(Arc::clone(leaves)));
            }
            Err(_) => self.forget_question(source.root),
        }
        self.changed.notify_waiters();
        fetched
    }

    /// What is known, leaving a note that it is asked for when nothing is.
    fn look(&self, root: Sha256Digest) -> Option<Entry> {
        let mut lists = self.lock();
        let entry = lists.get(&root).cloned();
        let stale = match &entry {
            None => true,
            Some(Entry::Asked(at)) => at.elapsed() >= HEAD_START,
            Some(Entry::Known(_)) => false,
        };
        if stale {
            lists.insert(root, Entry::Asked(Instant::now()));
        }
        entry
    }

    fn forget_question(&self, root: Sha256Digest) {
        let mut lists = self.lock();
        if matches!(lists.get(&root), Some(Entry::Asked(_))) {
            lists.remove(&root);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Sha256Digest, Entry>> {
        self.by_root.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn fetch(source: &LeafSource) -> Result<Arc<Leaves>, Failure> {
    let answer = source.client.leaves(source.id, Some(source.ballot)).await;
    let leaves = answer.map_err(refusal)?.leaves;
    let expected = source.part_bytes.div_ceil(BLOCK_BYTES);
    if leaves.len() as u64 == expected && merkle_root(&leaves) == source.root {
        Ok(leaves.into())
    } else {
        Err(Failure::WrongBytes)
    }
}
