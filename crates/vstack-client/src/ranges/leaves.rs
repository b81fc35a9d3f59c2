//! The leaf hashes of objects, each list checked against the root that the manifest names, fetched once and kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};
use vstack_api::StorageClient;
use vstack_core::ballot::Ballot;
use vstack_core::digest::{Sha256Digest, merkle_root};
use vstack_core::id::ChunkId;

use crate::fetch::refusal;
use crate::policy::{BLOCK_BYTES, Failure, NodeIndex};

/// How long an attempt waits for a list that others asked for, before it asks its own node. Guess: a healthy node on a
/// home network or near DSL answers sooner.
const HEAD_START: Duration = Duration::from_millis(200);
/// Nodes that are asked at once while playback waits. Nothing is verified without the list, and the node that was asked
/// first may be a slow one; what the second question costs is a thousandth of the object.
const AT_ONCE_IN_NEED: usize = 2;

/// Leaf hashes of one object, in order.
pub(crate) type Leaves = [Sha256Digest];

/// Where a list can be had, and what it must be.
#[derive(Debug, Clone)]
pub(crate) struct LeafSource {
    pub(crate) node: NodeIndex,
    pub(crate) client: StorageClient,
    pub(crate) id: ChunkId,
    pub(crate) ballot: Ballot,
    pub(crate) root: Sha256Digest,
    pub(crate) part_bytes: u64,
    /// Playback waits for what the list is to prove.
    pub(crate) in_need: bool,
}

type Fetched = Result<Arc<Leaves>, Failure>;

#[derive(Debug, Clone)]
enum Entry {
    Known(Arc<Leaves>),
    /// These nodes were asked then, and have not answered yet.
    Asked(BTreeMap<NodeIndex, Instant>),
}

/// What an attempt that needs a list does next.
#[derive(Debug)]
enum Step {
    Take(Arc<Leaves>),
    /// Its own node was asked.
    Ask(oneshot::Receiver<Fetched>),
    /// Others were; from then on it may ask itself. `None`: its own node is among them.
    Wait(Option<Instant>),
}

/// All lists that a session has. 32 bytes for every 64 KiB of video: they stay as long as the session.
#[derive(Debug, Default)]
pub(crate) struct LeafBook {
    by_root: Mutex<BTreeMap<Sha256Digest, Entry>>,
    changed: Notify,
}

impl LeafBook {
    /// The list for `source`: the one that is known, the one that another attempt is about to bring, or one from the
    /// source's own node. Who asks is settled before this returns, in the order of the calls: the policy names the best
    /// node first, and tasks run in any order.
    ///
    /// The future fails when that node was asked and did not bring the list, or brought another: it is the one to blame.
    pub(crate) fn list(self: &Arc<Self>, source: LeafSource) -> impl Future<Output = Fetched> + Send + use<> {
        let first = self.step(&source, Instant::now());
        let book = Arc::clone(self);
        async move { book.pursue(source, first).await }
    }

    async fn pursue(self: Arc<Self>, source: LeafSource, mut step: Step) -> Fetched {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(leaves) = self.known(source.root) {
                return Ok(leaves);
            }
            match &mut step {
                Step::Take(leaves) => return Ok(Arc::clone(leaves)),
                Step::Ask(answer) => tokio::select! {
                    // The question ends early only with the runtime.
                    fetched = answer => return fetched.unwrap_or(Err(Failure::Connect)),
                    () = changed => continue,
                },
                Step::Wait(Some(until)) => {
                    // Late is as good as changed.
                    let _ = timeout_at(*until, changed).await;
                }
                Step::Wait(None) => changed.await,
            }
            step = self.step(&source, Instant::now());
        }
    }

    fn step(self: &Arc<Self>, source: &LeafSource, now: Instant) -> Step {
        // A tree of one leaf is that leaf's hash.
        if source.part_bytes <= BLOCK_BYTES {
            return Step::Take(Arc::from([source.root]));
        }
        let mut lists = self.lock();
        let entry = lists
            .entry(source.root)
            .or_insert_with(|| Entry::Asked(BTreeMap::new()));
        let asked = match entry {
            Entry::Known(leaves) => return Step::Take(Arc::clone(leaves)),
            Entry::Asked(asked) => asked,
        };
        if asked.contains_key(&source.node) {
            return Step::Wait(None);
        }
        let at_once = if source.in_need { AT_ONCE_IN_NEED } else { 1 };
        let last = asked.values().max().filter(|_| asked.len() >= at_once);
        match last.map(|last| *last + HEAD_START) {
            Some(until) if until > now => Step::Wait(Some(until)),
            _ => {
                asked.insert(source.node, now);
                Step::Ask(self.ask(source.clone()))
            }
        }
    }

    /// The question ends with the attempt that asked, but for one that was answered elsewhere meanwhile: its answer is on the
    /// way, and its connection is used again.
    fn ask(self: &Arc<Self>, source: LeafSource) -> oneshot::Receiver<Fetched> {
        let (mut answer, receiver) = oneshot::channel();
        let book = Arc::clone(self);
        tokio::spawn(async move {
            let mut fetching = std::pin::pin!(fetch(&source));
            let fetched = tokio::select! {
                fetched = &mut fetching => Some(fetched),
                () = answer.closed() => None,
            };
            let fetched = match fetched {
                None if book.known(source.root).is_some() => Some(fetching.await),
                fetched => fetched,
            };
            book.note(&source, fetched.as_ref());
            if let Some(fetched) = fetched {
                // Nobody waits for it when another node was quicker.
                let _ = answer.send(fetched);
            }
        });
        receiver
    }

    fn note(&self, source: &LeafSource, fetched: Option<&Fetched>) {
        let mut lists = self.lock();
        match (fetched, lists.get_mut(&source.root)) {
            (Some(Ok(leaves)), _) => {
                lists.insert(source.root, Entry::Known(Arc::clone(leaves)));
            }
            (_, Some(Entry::Asked(asked))) => {
                asked.remove(&source.node);
            }
            _ => {}
        }
        drop(lists);
        self.changed.notify_waiters();
    }

    fn known(&self, root: Sha256Digest) -> Option<Arc<Leaves>> {
        match self.lock().get(&root)? {
            Entry::Known(leaves) => Some(Arc::clone(leaves)),
            Entry::Asked(_) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Sha256Digest, Entry>> {
        self.by_root.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn fetch(source: &LeafSource) -> Fetched {
    let answer = source.client.leaves(source.id, Some(source.ballot)).await;
    let leaves = answer.map_err(refusal)?.leaves;
    let expected = source.part_bytes.div_ceil(BLOCK_BYTES);
    if leaves.len() as u64 == expected && merkle_root(&leaves) == source.root {
        Ok(leaves.into())
    } else {
        Err(Failure::WrongBytes)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use vstack_core::id::VideoId;

    use super::*;

    fn source(node: u16, client: &StorageClient, in_need: bool) -> LeafSource {
        LeafSource {
            node: NodeIndex(node),
            client: client.clone(),
            id: ChunkId::media(VideoId(Uuid::nil()), 0),
            ballot: Ballot::from_number(1),
            root: Sha256Digest::of(b"root"),
            part_bytes: 4 * BLOCK_BYTES,
            in_need,
        }
    }

    /// Which of the attempts at these nodes, in this order, ask at that time.
    fn asking(book: &Arc<LeafBook>, nodes: &[u16], in_need: bool, now: Instant) -> (Vec<u16>, Vec<Step>) {
        // What happens to the questions does not matter: no task runs before the test ends.
        let client = StorageClient::new("http://127.0.0.1:9");
        let step = |node: &u16| book.step(&source(*node, &client, in_need), now);
        let steps: Vec<Step> = nodes.iter().map(step).collect();
        let asks = nodes.iter().zip(&steps);
        let asks = asks.filter(|(_, step)| matches!(step, Step::Ask(_)));
        (asks.map(|(node, _)| *node).collect(), steps)
    }

    #[tokio::test]
    async fn while_playback_waits_the_two_best_nodes_are_asked_at_once_and_else_one() {
        for (in_need, expected) in [(true, vec![4, 2]), (false, vec![4])] {
            let book = Arc::default();
            // The best node gets two requests, and is asked for the list once.
            let (asks, _steps) = asking(&book, &[4, 4, 2, 7], in_need, Instant::now());
            assert_eq!(asks, expected, "in need: {in_need}");
        }
    }

    #[tokio::test]
    async fn another_node_is_asked_after_the_head_start() {
        let (book, now) = (Arc::default(), Instant::now());
        let (_, _steps) = asking(&book, &[0], false, now);
        let soon = now + HEAD_START - Duration::from_millis(1);
        assert_eq!(asking(&book, &[0, 1], false, soon).0, [0_u16; 0]);
        assert_eq!(asking(&book, &[0, 1], false, now + HEAD_START).0, [1]);
    }

    #[tokio::test]
    async fn when_the_attempt_that_asked_ends_the_next_one_asks_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = StorageClient::new(&format!("http://{}", listener.local_addr().unwrap()));
        // Nobody is there, which nobody knows without having asked.
        let gone = StorageClient::new("http://127.0.0.1:9");
        let book: Arc<LeafBook> = Arc::default();
        let asked = book.step(&source(0, &silent, false), Instant::now());
        let waiting = book.list(source(0, &gone, false));
        drop(asked);
        let fetched = tokio::time::timeout(Duration::from_secs(5), waiting).await;
        assert_eq!(fetched.expect("it asks"), Err(Failure::Connect));
    }
}
