//! What is fetched before anybody asks for it: hints come in, one download at a time goes out, and what came lies on the
//! cluster's shelf until this session or the next one needs it.
//!
//! The planner (`policy/prefetch`) decides; here its steps are made. A download is a whole chunk, verified, from the best
//! node that delivers it; stopping it drops its connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use vstack_api::ApiError;
use vstack_core::id::{ChunkId, VideoId};
use vstack_core::manifest::Manifest;

use super::Driver;
use crate::cluster::{self, Shelved};
use crate::error::ClientError;
use crate::event::EventKind;
use crate::policy::prefetch::{Hint, PauseReason, Planner, Standing, Step};
use crate::policy::{Fact, Micros, NodeIndex};
use crate::source::{Source, sources};

/// Of the next video, so much of its beginning is fetched, and at most so many chunks. Guess: its session is opened and
/// filling before that is played.
const NEXT_MS: u64 = 10_000;
const NEXT_CHUNKS: usize = 3;

#[derive(Debug)]
struct Fetching {
    key: ChunkId,
    began: Micros,
    task: AbortHandle,
    received: Arc<AtomicU64>,
}

/// Where it will begin, and what the catalogue answered.
type NextManifest = (u64, Result<Manifest, ApiError>);
type Fetched = (ChunkId, Result<(NodeIndex, Bytes), ClientError>);

/// A session's view of what comes.
pub(super) struct Ahead {
    planner: Planner<ChunkId>,
    /// Everything that is hinted at.
    sources: BTreeMap<ChunkId, Source>,
    fetching: Option<Fetching>,
    downloads: JoinSet<Fetched>,
    /// Of the next video, and where it will begin.
    manifests: JoinSet<NextManifest>,
    pub(super) look_at: Option<Micros>,
}

/// Something that was waited for has ended.
pub(super) enum Ended {
    Download(Result<Fetched, JoinError>),
    Manifest(Box<Result<NextManifest, JoinError>>),
}

impl Ahead {
    pub(super) fn new(cluster: &cluster::Shared) -> Self {
        Self {
            planner: Planner::new(cluster.config.prefetch()),
            sources: BTreeMap::new(),
            fetching: None,
            downloads: JoinSet::new(),
            manifests: JoinSet::new(),
            look_at: None,
        }
    }

    /// Waits for what ends next; for ever when nothing is under way.
    pub(super) async fn ended(&mut self) -> Ended {
        tokio::select! {
            Some(done) = self.downloads.join_next() => Ended::Download(done),
            Some(done) = self.manifests.join_next() => Ended::Manifest(Box::new(done)),
            else => std::future::pending().await,
        }
    }
}

impl Driver {
    /// The viewer may jump to this place of this video; `None`: no longer.
    pub(super) fn hint_place(&mut self, why: Hint, position: Option<Micros>) {
        let far = position.and_then(|position| {
            let state = self.shared.lock();
            let seq = state.chunk_at(position);
            let here = self.scheduler.position();
            // What lies in the window comes anyway.
            let near = state.chunks_between(here, here + self.scheduler.ahead());
            let near = near.contains(&seq);
            (!near && !state.holds(seq)).then_some(seq)
        });
        let source = far.and_then(|seq| self.sources.get(seq as usize).cloned());
        self.hint(why, source.into_iter().collect());
    }

    /// This video comes next, from `start_ms` on; `None`: no longer.
    pub(super) fn hint_next(&mut self, next: Option<(VideoId, u64)>) {
        self.ahead.manifests.abort_all();
        match next {
            None => self.hint(Hint::Next, Vec::new()),
            Some((video, start_ms)) => {
                let catalogue = self.cluster.catalogue.clone();
                self.ahead
                    .manifests
                    .spawn(async move { (start_ms, catalogue.manifest(video).await) });
            }
        }
    }

    pub(super) fn ahead_ended(&mut self, ended: Ended) {
        match ended {
            Ended::Manifest(answer) => {
                // Otherwise nothing is lost: the next session reads it again, and says so when it cannot.
                if let Ok((start_ms, Ok(manifest))) = *answer {
                    self.next_is(&manifest, start_ms);
                }
            }
            // A stopped download ends with an error and is forgotten already.
            Ended::Download(Err(_)) => {}
            Ended::Download(Ok((key, result))) => self.fetched(key, result),
        }
    }

    fn next_is(&mut self, manifest: &Manifest, start_ms: u64) {
        let Ok(all) = sources(manifest, &mut self.cluster.nodes()) else {
            return;
        };
        let first = manifest
            .chunks
            .partition_point(|chunk| chunk.end_ms() <= start_ms);
        let soon = manifest
            .chunks
            .iter()
            .zip(all)
            .skip(first)
            .take_while(|(chunk, _)| chunk.start_ms() < start_ms + NEXT_MS)
            .take(NEXT_CHUNKS);
        self.hint(Hint::Next, soon.map(|(_, source)| source).collect());
    }

    fn hint(&mut self, why: Hint, wished: Vec<Source>) {
        let now = self.cluster.clock.now();
        let wishes = wished.iter().map(|source| (source.chunk_id, source.size_bytes));
        self.ahead.planner.hint(now, why, wishes.collect());
        for source in wished {
            self.ahead.sources.insert(source.chunk_id, source);
        }
        let planner = &self.ahead.planner;
        self.ahead.sources.retain(|key, _| planner.wants(*key));
    }

    /// Makes the planner's steps. Called after everything that happens.
    pub(super) fn look_ahead(&mut self) {
        let now = self.cluster.clock.now();
        while let Some(step) = self.next_step(now) {
            match step {
                Step::Start { key, why } => self.fetch_ahead(now, key, why),
                Step::Stop { key, why } => self.stop_ahead(now, key, why),
            }
        }
        self.ahead.look_at = self.ahead.planner.look_at(now);
    }

    fn next_step(&mut self, now: Micros) -> Option<Step<ChunkId>> {
        if self.ahead.sources.is_empty() && self.ahead.fetching.is_none() {
            return None;
        }
        let standing = {
            let state = self.shared.lock();
            Standing {
                level: self.scheduler.level(),
                reaches_end: self.scheduler.reaches_end(),
                waits: self.starved || state.somebody_waits(),
                received_bytes: state.journal.totals.bytes,
            }
        };
        self.ahead.planner.step(now, standing, &self.cluster.shelf())
    }

    fn fetch_ahead(&mut self, now: Micros, key: ChunkId, why: Hint) {
        let Some(source) = self.ahead.sources.get(&key).cloned() else {
            self.ahead.planner.ended(key, false);
            return;
        };
        let bytes = source.size_bytes;
        let received = Arc::new(AtomicU64::new(0));
        let (cluster, counter) = (Arc::clone(&self.cluster), Arc::clone(&received));
        let task = self.ahead.downloads.spawn(async move {
            let single = cluster::Single::new(&cluster, source, counter);
            (key, single.run().await)
        });
        self.ahead.fetching = Some(Fetching {
            key,
            began: now,
            task,
            received,
        });
        let mut state = self.shared.lock();
        state.journal.totals.prefetch.requests += 1;
        let kind = EventKind::PrefetchStarted {
            chunk_id: key,
            why,
            bytes,
        };
        state.journal.tell(now, kind);
    }

    fn stop_ahead(&mut self, now: Micros, key: ChunkId, why: PauseReason) {
        let Some(fetching) = self.ahead.fetching.take() else {
            return;
        };
        fetching.task.abort();
        let wasted_bytes = fetching.received.load(Ordering::Relaxed);
        self.cluster.shelf().waste(wasted_bytes);
        let mut state = self.shared.lock();
        state.journal.totals.prefetch.wasted_bytes += wasted_bytes;
        let kind = EventKind::PrefetchStopped {
            chunk_id: key,
            why,
            wasted_bytes,
        };
        state.journal.tell(now, kind);
    }

    fn fetched(&mut self, key: ChunkId, result: Result<(NodeIndex, Bytes), ClientError>) {
        let now = self.cluster.clock.now();
        let Some(fetching) = self.ahead.fetching.take_if(|fetching| fetching.key == key) else {
            return;
        };
        self.ahead.planner.ended(key, result.is_ok());
        let mut thrown = 0;
        let kind = match result {
            Ok((node, bytes)) => {
                let length = bytes.len() as u64;
                let shelved = Shelved { node, bytes };
                let planner = &self.ahead.planner;
                thrown = self
                    .cluster
                    .shelf()
                    .put(key, length, shelved, |key| planner.wants(key));
                EventKind::Prefetched {
                    chunk_id: key,
                    node: self.cluster.nodes().node_ref(node),
                    bytes: length,
                    elapsed_ms: (now - fetching.began).as_ms(),
                }
            }
            Err(error) => EventKind::PrefetchFailed {
                chunk_id: key,
                error: error.to_string(),
            },
        };
        let mut state = self.shared.lock();
        if let EventKind::Prefetched { bytes, .. } = kind {
            state.journal.totals.prefetch.bytes += bytes;
        }
        state.journal.totals.prefetch.wasted_bytes += thrown;
        state.journal.tell(now, kind);
    }

    /// What lies on the shelf and is played soon after `position` goes into the buffer; before the policy hears of the
    /// position, so that it asks for none of it.
    pub(super) fn supply(&mut self, position: Micros) {
        let soon: Vec<u32> = {
            let state = self.shared.lock();
            let between = state.chunks_between(position, position + self.scheduler.ahead());
            between.filter(|seq| !state.holds(*seq)).collect()
        };
        let on_shelf: Vec<u32> = {
            let shelf = self.cluster.shelf();
            soon.into_iter()
                .filter(|seq| {
                    let source = self.sources.get(*seq as usize);
                    source.is_some_and(|source| shelf.contains(source.chunk_id))
                })
                .collect()
        };
        for seq in on_shelf {
            self.put_into_buffer(seq);
        }
    }

    fn put_into_buffer(&mut self, seq: u32) {
        let Some(key) = self.sources.get(seq as usize).map(|source| source.chunk_id) else {
            return;
        };
        let Some(Shelved { node, bytes }) = self.cluster.shelf().take(key) else {
            return;
        };
        let now = self.cluster.clock.now();
        let length = bytes.len() as u64;
        // Its bytes come a second time; blocks of it that came already are given up.
        self.blocks.take(seq);
        self.ahead.planner.served(key);
        let mut state = self.shared.lock();
        state.keep(seq, node, bytes);
        state.journal.totals.prefetch.used_bytes += length;
        let kind = EventKind::PrefetchUsed { seq, bytes: length };
        state.journal.tell(now, kind);
        drop(state);
        self.apply(Fact::Supplied { seq }, None);
    }
}
