//! A client's view of one cluster: the catalogue, the nodes and their measurements, shared by all its sessions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use vstack_api::{HttpTransport, MetadataClient, Transport};
use vstack_core::id::{ChunkId, NodeId, VideoId};
use vstack_core::manifest::ManifestChunk;

use crate::clock::Clock;
use crate::config::{ClientConfig, PolicyName};
use crate::error::ClientError;
use crate::fetch::{Setback, fetch};
use crate::history;
use crate::monitor;
use crate::node::{NodeTable, NodeView};
use crate::policy::prefetch::Shelf;
use crate::policy::{Action, ChunkSpec, Fact, Failure, Micros, NodeIndex, Prior, Seed, Start};
use crate::session::Session;
use crate::source::Source;
use crate::trace::TraceSink;

/// One cluster, one monitor. Cheap to clone; the monitor stops with the last clone and the last session.
#[derive(Debug, Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
    _monitor: Arc<DropGuard>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: ClientConfig,
    pub(crate) catalogue: MetadataClient,
    pub(crate) clock: Clock,
    /// Of sessions that are opened from now on.
    policy: Mutex<PolicyName>,
    nodes: Mutex<NodeTable>,
    /// What was fetched before anybody asked for it.
    shelf: Mutex<Shelf<ChunkId, Shelved>>,
    /// Sees a change whenever the catalogue's list has a node that was not known, or a known one at a new address.
    pub(crate) nodes_changed: watch::Sender<()>,
    /// Held while the history is written.
    history: Mutex<HistoryState>,
}

/// A chunk on the shelf, verified, and who brought it.
#[derive(Debug)]
pub(crate) struct Shelved {
    pub(crate) node: NodeIndex,
    pub(crate) bytes: Bytes,
}

#[derive(Debug, Default)]
struct HistoryState {
    /// What was measured later is not in the file yet.
    saved_at: Micros,
    /// Said once and not every 15 s.
    failed: bool,
}

/// What an earlier run knew of nodes.
async fn remembered(file: Option<PathBuf>, clock: &Clock) -> BTreeMap<NodeId, Prior> {
    let Some(file) = file else { return BTreeMap::new() };
    let now = clock.unix(clock.now());
    let read = tokio::task::spawn_blocking(move || history::read(&file, now));
    // It ends early only with the runtime.
    read.await.unwrap_or_default()
}

impl Shared {
    pub(crate) fn shelf(&self) -> MutexGuard<'_, Shelf<ChunkId, Shelved>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was learned of nodes since the last time to the history's file, if there is one. Blocks.
    pub(crate) fn save_history(&self) {
        let Some(file) = &self.config.history_file else {
            return;
        };
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let priors = self.nodes().priors(now);
        if priors
            .iter()
            .all(|(_, prior)| now - prior.age <= history.saved_at)
        {
            return;
        }
        match history::write(file, self.clock.unix(now), priors) {
            Ok(()) => (history.saved_at, history.failed) = (now, false),
            Err(_) if history.failed => {}
            Err(error) => {
                history.failed = true;
                tracing::warn!(file = %file.display(), %error, "the history of nodes cannot be written");
            }
        }
    }

    pub(crate) fn policy(&self) -> PolicyName {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn nodes(&self) -> MutexGuard<'_, NodeTable> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the catalogue of bad bytes, so that they are made again; nobody waits for its answer.
    pub(crate) fn complain(&self, chunk: ChunkId, node_id: NodeId, failure: &Failure) {
        if failure.doubts_bytes() {
            let catalogue = self.catalogue.clone();
            tokio::spawn(async move {
                if let Err(error) = catalogue.suspect(chunk, node_id).await {
                    tracing::debug!(%chunk, %error, "the catalogue was not told of bad bytes");
                }
            });
        }
    }

    /// Nodes that failed in an attempt which others completed are left alone for a while too.
    pub(crate) fn note_setbacks(&self, setbacks: &[Setback]) {
        let now = self.clock.now();
        let mut nodes = self.nodes();
        for setback in setbacks {
            nodes
                .records
                .record_mut(setback.node)
                .failed(now, &setback.failure);
        }
    }
}

impl Cluster {
    /// Reads the list of nodes and pings each; waits at most 300 ms for their answers. Pings go on in the background,
    /// on the runtime that this is called in.
    ///
    /// # Errors
    /// The catalogue refused or did not answer.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        Self::connect_over(config, Arc::new(HttpTransport::new())).await
    }

    /// The same over another transport.
    ///
    /// # Errors
    /// As [`Cluster::connect`].
    pub async fn connect_over(
        config: ClientConfig,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, ClientError> {
        let catalogue = MetadataClient::with_transport(&config.metadata_url, Arc::clone(&transport));
        let clock = Clock::start();
        let remembered = remembered(config.history_file.clone(), &clock).await;
        let nodes = Mutex::new(NodeTable::new(transport, remembered));
        let policy = Mutex::new(config.policy);
        let shelf = Mutex::new(Shelf::new(config.prefetch_budget_bytes));
        let shared = Arc::new(Shared {
            shelf,
            config,
            policy,
            catalogue,
            clock,
            nodes,
            nodes_changed: watch::Sender::new(()),
            history: Mutex::default(),
        });
        monitor::read_nodes(&shared).await?;
        monitor::first_round(&shared).await;
        let stop = CancellationToken::new();
        tokio::spawn(monitor::run(Arc::clone(&shared), stop.clone()));
        Ok(Self {
            shared,
            _monitor: Arc::new(stop.drop_guard()),
        })
    }

    #[must_use]
    pub fn catalogue(&self) -> &MetadataClient {
        &self.shared.catalogue
    }

    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.shared.config
    }

    /// By which sessions begin that are opened from now on.
    #[must_use]
    pub fn policy(&self) -> PolicyName {
        self.shared.policy()
    }

    /// The same; a session that is open is told by itself ([`Session::set_policy`]).
    pub fn set_policy(&self, policy: PolicyName) {
        *self.shared.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// Writes what was learned of nodes to [`ClientConfig::history_file`] now. It is also written every 15 s.
    pub async fn save_history(&self) {
        let shared = Arc::clone(&self.shared);
        let saved = tokio::task::spawn_blocking(move || shared.save_history());
        // It ends early only with the runtime.
        let _ = saved.await;
    }

    /// What is known of each node, by index.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        self.shared.nodes().views(&self.shared.clock)
    }

    /// Reads the manifest and starts to fetch from the beginning.
    ///
    /// # Errors
    /// The catalogue refused or did not answer, or the manifest cannot be used.
    pub async fn open(&self, video: VideoId) -> Result<Session, ClientError> {
        Session::open(self, video, None).await
    }

    /// The same, with all that the policy hears and answers written down for [`crate::policy::trace::Replayer`].
    ///
    /// # Errors
    /// As [`Cluster::open`].
    pub async fn open_traced(&self, video: VideoId, trace: TraceSink) -> Result<Session, ClientError> {
        Session::open(self, video, Some(trace)).await
    }

    /// One chunk outside any session (a poster, an init segment): verified, from the best node that delivers it.
    ///
    /// # Errors
    /// At once when so many of its nodes do not have it, or have it wrong, that the others are too few; else when every
    /// replica failed in several rounds.
    pub async fn fetch_verified(&self, part: &ManifestChunk) -> Result<Bytes, ClientError> {
        let source = Source::of(part, &mut self.shared.nodes())?;
        let single = Single::new(&self.shared, source, Arc::default());
        single.run().await.map(|(_, bytes)| bytes)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

/// The policy over a video of one chunk that somebody waits for.
pub(crate) struct Single<'a> {
    shared: &'a Shared,
    source: Source,
    /// Bytes of the attempt under way.
    received: Arc<AtomicU64>,
    seed: Seed,
    last: Option<Failure>,
    /// Nodes that have answered and cannot bring it.
    ruled_out: BTreeSet<NodeIndex>,
}

impl<'a> Single<'a> {
    pub(crate) fn new(shared: &'a Shared, source: Source, received: Arc<AtomicU64>) -> Self {
        let spec = ChunkSpec {
            start: Micros(0),
            end: Micros(0),
            shape: source.shape(),
        };
        Self {
            shared,
            source,
            received,
            seed: Seed::new(shared.config.seed(shared.policy()), vec![spec]),
            last: None,
            ruled_out: BTreeSet::new(),
        }
    }

    /// The chunk, and the node that brought it.
    pub(crate) async fn run(mut self) -> Result<(NodeIndex, Bytes), ClientError> {
        let mut todo = VecDeque::from(self.apply(Fact::Wanted { seq: 0 }));
        loop {
            match todo.pop_front() {
                Some(Action::Start(start)) => match self.attempt(&start).await {
                    Ok(bytes) => return Ok((start.node, bytes)),
                    Err(failure) => {
                        self.last = Some(failure.clone());
                        todo = self
                            .apply(Fact::Failed {
                                attempt: start.attempt,
                                failure,
                            })
                            .into();
                        // Several rounds are for nodes that may bring it the next time.
                        if self.is_hopeless() {
                            return Err(self.unobtainable());
                        }
                    }
                },
                Some(Action::WakeAt(at)) => {
                    tokio::time::sleep_until(self.shared.clock.instant(at)).await;
                    todo = self.apply(Fact::Tick).into();
                }
                Some(Action::Unobtainable { .. }) | None => return Err(self.unobtainable()),
                Some(_) => {}
            }
        }
    }

    fn apply(&mut self, fact: Fact) -> Vec<Action> {
        self.seed
            .apply(self.shared.clock.now(), &mut self.shared.nodes().records, fact)
    }

    async fn attempt(&mut self, start: &Start) -> Result<Bytes, Failure> {
        self.received.store(0, Ordering::Relaxed);
        let attempt = fetch(self.shared, &self.source, start.node, Arc::clone(&self.received)).await;
        let bytes = attempt.result.clone();
        if bytes.is_ok() {
            self.apply(Fact::Done {
                attempt: start.attempt,
                bytes: self.source.part_bytes(),
                elapsed: attempt.elapsed,
            });
        }
        self.shared.note_setbacks(&attempt.setbacks);
        let failed = attempt
            .setbacks
            .iter()
            .map(|setback| (setback.node, &setback.failure));
        for (node, failure) in
            failed.chain(attempt.result.as_ref().err().map(|failure| (start.node, failure)))
        {
            let node_id = self.shared.nodes().node_ref(node).node_id;
            self.shared.complain(self.source.chunk_id, node_id, failure);
            if failure.is_final() {
                self.ruled_out.insert(node);
            }
        }
        bytes
    }

    /// So many nodes do not have it, or have it wrong, that the others are too few.
    fn is_hopeless(&self) -> bool {
        let shape = self.source.shape();
        let left = shape.nodes().filter(|node| !self.ruled_out.contains(node));
        left.count() < usize::from(shape.needed)
    }

    fn unobtainable(&self) -> ClientError {
        let replicas = self.source.parts.len();
        let last = self
            .last
            .as_ref()
            .map_or_else(|| "none is known".to_owned(), Failure::to_string);
        ClientError::Unobtainable {
            chunk_id: self.source.chunk_id,
            replicas,
            last,
        }
    }
}
