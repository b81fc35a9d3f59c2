//! The load on our side: OPEN in batches ahead, ACCEPT on three nodes at once, COMMIT in whatever batch gathers.
//!
//! It does what the uploader does with each chunk, over the same typed clients, without FFmpeg and retries: the first
//! refusal ends the bench.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use futures::future::try_join_all;
use tokio::sync::{Mutex, mpsc, oneshot};
use vstack_api::wire::{CommitBatch, CommitItem, Committed, ItemResult, OpenBatch, OpenItem, Opened};
use vstack_api::{Endpoint, HttpTransport, MetadataClient, Problem, StorageClient, Transport};
use vstack_core::digest::ChunkDigest;
use vstack_core::id::{ChunkId, Incarnation, NodeId, VideoId};
use vstack_core::keys::ClusterKey;
use vstack_core::manifest::{FragmentSpan, MediaFacts};
use vstack_core::paxos::{Grant, OpenKind, Receipt};
use vstack_core::placement::Placement;

use super::cells::Sample;
use super::cluster::Cluster;
use crate::load::ms;

/// Ballots opened in one request.
const OPEN_BATCH: usize = 64;
/// Commits in one request, as the uploader sends them.
const COMMIT_BATCH: usize = 64;
/// Chunks of a video: ten minutes.
pub(super) const CHUNKS_OF_VIDEO: u32 = 60;
const CHUNK: [u8; 4096] = [0x42; 4096];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Three nodes store 4 KiB.
    Bytes,
    /// The bench signs in their place.
    Metadata,
}

/// Our cluster, seen by a client that has its key.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) catalogue: MetadataClient,
    transport: Arc<dyn Transport>,
    key: ClusterKey,
    lives: BTreeMap<NodeId, Incarnation>,
    digest: ChunkDigest,
}

type Answer = oneshot::Sender<Result<(), String>>;

impl Load {
    pub(super) async fn new(cluster: &Cluster) -> Result<Self> {
        let transport: Arc<dyn Transport> = Arc::new(HttpTransport::new());
        let catalogue = MetadataClient::with_transport(&cluster.metadata_url, Arc::clone(&transport));
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let nodes = catalogue.healthy_nodes().await?;
            // A node that tells what it holds after placements without bytes began would be found to have lost them, and
            // the repair of what never was would be measured, too.
            let told = catalogue.consensus().await?.inventory;
            if nodes.len() == 3 && told >= 3 {
                let lives = nodes.iter().map(|node| (node.node_id, node.incarnation));
                return Ok(Self {
                    lives: lives.collect(),
                    catalogue,
                    transport,
                    key: cluster.key.clone(),
                    digest: ChunkDigest::of(&CHUNK),
                });
            }
            if Instant::now() > deadline {
                bail!(
                    "{} of 3 nodes are healthy, {told} told what they hold",
                    nodes.len()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// So many clients, each placing its next chunk when the last one was decided.
    pub(super) async fn run(&self, mode: Mode, clients: usize, limit: Duration) -> Result<Sample> {
        self.run_until(mode, clients, Instant::now() + limit, usize::MAX)
            .await
    }

    /// Commits `count` chunks, metadata only; returns their videos.
    pub(super) async fn fill(&self, count: usize) -> Result<()> {
        let far = Instant::now() + Duration::from_secs(24 * 3600);
        self.run_until(Mode::Metadata, 192, far, count).await.map(drop)
    }

    async fn run_until(&self, mode: Mode, clients: usize, deadline: Instant, count: usize) -> Result<Sample> {
        let (opened, grants) = mpsc::channel(4 * OPEN_BATCH);
        let (commits, waiting) = mpsc::channel(COMMIT_BATCH);
        let grants = Mutex::new(grants);
        let opening = self.open_ahead(opened, count);
        let committing = self.commit_all(waiting);
        let placing = async {
            // The last client's sender ends the committer.
            let commits = commits;
            let started = Instant::now();
            let clients = (0..clients).map(|_| self.place_until(mode, deadline, &grants, commits.clone()));
            let latencies = try_join_all(clients).await?;
            let elapsed = started.elapsed();
            grants.lock().await.close();
            let latencies_ms = latencies.into_iter().flatten().collect();
            Ok::<_, anyhow::Error>(Sample {
                elapsed,
                latencies_ms,
            })
        };
        let (sample, (), ()) = tokio::try_join!(placing, opening, committing)?;
        Ok(sample)
    }

    /// Keeps grants ready until nobody wants them.
    async fn open_ahead(&self, opened: mpsc::Sender<Opened>, count: usize) -> Result<()> {
        let mut ids = Vec::new();
        let mut left = count;
        while left > 0 {
            if ids.is_empty() {
                let video = self.catalogue.create_video("bench", 0.0).await?.video_id;
                ids = chunk_ids(video);
            }
            let batch: Vec<_> = ids.drain(..ids.len().min(OPEN_BATCH).min(left)).collect();
            left -= batch.len();
            for grant in self.open(batch).await? {
                if opened.send(grant).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn open(&self, chunks: Vec<ChunkId>) -> Result<Vec<Opened>> {
        let item = |chunk_id| OpenItem {
            chunk_id,
            kind: OpenKind::Upload,
            owner: "bench".to_owned(),
            exclude: Vec::new(),
            min_ack: None,
        };
        let requests = chunks.into_iter().map(item).collect();
        let answer = self.catalogue.open(&OpenBatch { requests }).await?;
        let grants = answer.grants.into_iter();
        grants
            .map(|grant| Ok(Result::<_, Problem>::from(grant)?))
            .collect()
    }

    async fn place_until(
        &self,
        mode: Mode,
        deadline: Instant,
        grants: &Mutex<mpsc::Receiver<Opened>>,
        commits: mpsc::Sender<(CommitItem, Answer)>,
    ) -> Result<Vec<f64>> {
        let mut latencies = Vec::new();
        while Instant::now() < deadline {
            let next = grants.lock().await.recv().await;
            let Some(opened) = next else { break };
            let begun = Instant::now();
            let receipts = match mode {
                Mode::Bytes => self.accept(&opened).await?,
                Mode::Metadata => self.sign(&opened.grant)?,
            };
            let (answer, answered) = oneshot::channel();
            let commit = self.commit_of(&opened.grant, receipts);
            commits
                .send((commit, answer))
                .await
                .map_err(|_| anyhow!("the committer has ended"))?;
            answered
                .await
                .context("the committer has ended")?
                .map_err(|reason| anyhow!(reason))?;
            latencies.push(ms(begun.elapsed()));
        }
        Ok(latencies)
    }

    async fn accept(&self, opened: &Opened) -> Result<Vec<Receipt>> {
        let puts = opened.node_urls.iter().map(|url| async {
            let node = StorageClient(Endpoint::with_transport(url, Arc::clone(&self.transport)));
            let answer = node
                .put(&opened.grant, opened.grant.chunk_id, Bytes::from_static(&CHUNK))
                .await?;
            answer.receipt.context("a granted PUT has a receipt")
        });
        try_join_all(puts).await
    }

    fn sign(&self, grant: &Grant) -> Result<Vec<Receipt>> {
        let receipt = |node: NodeId| {
            let life = *self
                .lives
                .get(&node)
                .context("a node that was not there before")?;
            let key = self.key.receipt_key(node);
            Ok(Receipt::signed(
                &key,
                (grant.chunk_id, grant.ballot),
                (node, life),
                self.digest,
            ))
        };
        grant.nodes.iter().map(|target| receipt(target.node)).collect()
    }

    fn commit_of(&self, grant: &Grant, receipts: Vec<Receipt>) -> CommitItem {
        let nodes: Vec<_> = receipts.iter().map(|receipt| receipt.node).collect();
        CommitItem {
            chunk_id: grant.chunk_id,
            ballot: grant.ballot,
            value: Placement::replicated(self.digest, grant.ballot, &nodes),
            receipts,
            media: Some(facts(grant.chunk_id.seq())),
        }
    }

    /// One request at a time; what comes meanwhile goes out together in the next.
    async fn commit_all(&self, mut waiting: mpsc::Receiver<(CommitItem, Answer)>) -> Result<()> {
        let mut batch = Vec::new();
        while waiting.recv_many(&mut batch, COMMIT_BATCH).await > 0 {
            let (commits, answers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
            let results = self.catalogue.commit(&CommitBatch { commits }).await?.results;
            for (answer, result) in answers.into_iter().zip(results) {
                let decided = match result {
                    ItemResult::Ok(Committed { .. }) => Ok(()),
                    ItemResult::Problem(problem) => Err(problem.to_string()),
                };
                // A client that failed has ended the bench already.
                let _ = answer.send(decided);
            }
        }
        Ok(())
    }
}

fn chunk_ids(video: VideoId) -> Vec<ChunkId> {
    (0..CHUNKS_OF_VIDEO)
        .map(|seq| ChunkId::media(video, seq))
        .collect()
}

/// As those of a chunk of 10 s: a keyframe and a fragment every two seconds.
fn facts(seq: u32) -> MediaFacts {
    let start_ms = u64::from(seq) * 10_000;
    let fragments = (0..5).map(|number| FragmentSpan {
        offset: number * 800,
        size: 800,
        start_ms: start_ms + u64::from(number) * 2_000,
    });
    MediaFacts {
        start_ms,
        duration_ms: 10_000,
        keyframes_ms: (0..5).map(|number| start_ms + number * 2_000).collect(),
        fragments: fragments.collect(),
    }
}
