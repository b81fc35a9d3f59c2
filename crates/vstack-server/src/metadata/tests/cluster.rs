//! A metadata role and storage nodes in this process, each in a folder of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::{Client, Response};
use tempfile::TempDir;
use vstack_api::wire::{
    CommitBatch, CommitItem, Committed, Finalize, ItemResult, OpenBatch, OpenItem, Opened,
};
use vstack_api::{Endpoint, ErrorCode, MetadataClient, Problem, StorageClient};
use vstack_core::digest::ChunkDigest;
use vstack_core::id::{ChunkId, ChunkKind, VideoId};
use vstack_core::keys::ClusterKey;
use vstack_core::manifest::{Container, MediaFacts};
use vstack_core::node::NodeHealth;
use vstack_core::paxos::{OpenKind, Receipt};
use vstack_core::placement::Placement;
use vstack_emulator::{Emulated, Emulator, Profile};

use crate::metadata::{self, Clock, MetadataConfig, RedundancySettings};
use crate::role::{Running, StartError};
use crate::storage::{self, StorageConfig};

/// Nothing in these tests takes longer on a machine that works.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

pub(super) fn key() -> ClusterKey {
    ClusterKey::from_bytes(&[7; 32]).expect("the bytes are a key")
}

pub(super) struct Cluster {
    pub(super) metadata: Running,
    pub(super) nodes: Vec<Running>,
    pub(super) catalogue: MetadataClient,
    pub(super) http: Client,
    pub(super) clock: Clock,
    pub(super) folder: TempDir,
}

pub(super) async fn start_metadata(folder: &Path, clock: &Clock) -> Result<Running, StartError> {
    metadata::start(metadata_config(folder, clock)).await
}

fn metadata_config(folder: &Path, clock: &Clock) -> MetadataConfig {
    let listen = "127.0.0.1:0".parse().expect("an address");
    MetadataConfig {
        clock: clock.clone(),
        ..MetadataConfig::new(listen, folder.join("metadata"), key())
    }
}

fn node_config(folder: &Path, number: usize, metadata_url: &str) -> StorageConfig {
    let listen = "127.0.0.1:0".parse().expect("an address");
    StorageConfig {
        metadata_url: Some(metadata_url.to_owned()),
        reserve_bytes: Some(0),
        superblock_bytes: Some(64 << 20),
        ..StorageConfig::new(listen, folder.join(format!("node-{number}")), key())
    }
}

async fn start_node(folder: &Path, number: usize, metadata_url: &str) -> Running {
    started(node_config(folder, number, metadata_url)).await
}

async fn started(config: StorageConfig) -> Running {
    // A node that was stopped lets go of its folder a moment after it said goodbye.
    let begin = Instant::now();
    loop {
        match storage::start(config.clone()).await {
            Ok(node) => return node,
            Err(error) => assert!(begin.elapsed() < DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Cluster {
    /// A cluster whose nodes are all healthy.
    pub(super) async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, RedundancySettings::default()).await
    }

    pub(super) async fn start_with(nodes: usize, redundancy: RedundancySettings) -> Self {
        Self::start_configured(nodes, |config| MetadataConfig { redundancy, ..config }).await
    }

    /// A cluster whose nodes neither scrub nor compact: what a test does to their files stays as it is until it is read.
    pub(super) async fn start_without_upkeep(nodes: usize) -> Self {
        let idle = |config| StorageConfig {
            upkeep: false,
            ..config
        };
        Self::start_of(nodes, |config| config, idle).await
    }

    pub(super) async fn start_configured(
        nodes: usize,
        configure: impl FnOnce(MetadataConfig) -> MetadataConfig,
    ) -> Self {
        Self::start_of(nodes, configure, |config| config).await
    }

    async fn start_of(
        nodes: usize,
        configure: impl FnOnce(MetadataConfig) -> MetadataConfig,
        configure_node: impl Fn(StorageConfig) -> StorageConfig,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = Clock::default();
        let metadata = metadata::start(configure(metadata_config(folder.path(), &clock)))
            .await
            .expect("the role starts");
        let mut cluster = Self {
            catalogue: MetadataClient::new(&metadata.url),
            nodes: Vec::new(),
            http: Client::new(),
            metadata,
            clock,
            folder,
        };
        for number in 0..nodes {
            let config = node_config(cluster.folder.path(), number, &cluster.metadata.url);
            cluster.nodes.push(started(configure_node(config)).await);
        }
        cluster.until_healthy(nodes).await;
        cluster
    }

    /// Starts the node of a folder that was stopped.
    pub(super) async fn start_node(&mut self, number: usize) {
        let node = start_node(self.folder.path(), number, &self.metadata.url).await;
        self.nodes.insert(number, node);
    }

    /// The cluster with its metadata role stopped, `between` done to the role's folder, and the role started again where it
    /// was.
    pub(super) async fn restarted(self, between: impl AsyncFnOnce(&Path)) -> Self {
        let listen = self.metadata.url.trim_start_matches("http://").parse();
        let listen = listen.expect("an address");
        self.metadata.stop().await;
        let data = self.folder.path().join("metadata");
        between(&data).await;
        let config = MetadataConfig {
            clock: self.clock.clone(),
            ..MetadataConfig::new(listen, data, key())
        };
        let metadata = metadata::start(config).await.expect("the role starts again");
        let cluster = Self {
            catalogue: MetadataClient::new(&metadata.url),
            metadata,
            ..self
        };
        cluster.until_healthy(cluster.nodes.len()).await;
        cluster
    }

    /// Puts a path in front of a node, which is then reached through it only.
    pub(super) async fn put_behind_path(&mut self, number: usize) -> Emulated {
        let node = self.nodes.remove(number);
        let upstream = node.url.trim_start_matches("http://").parse();
        let upstream = upstream.expect("an address");
        node.stop().await;
        let path = Emulator::start(upstream, Profile::default()).await;
        let path = path.expect("loopback has free ports");
        let config = StorageConfig {
            listen: upstream,
            public_url: Some(path.url()),
            ..node_config(self.folder.path(), number, &self.metadata.url)
        };
        self.nodes.insert(number, started(config).await);
        let known = async || {
            let nodes = self.catalogue.nodes().await.unwrap_or_default();
            nodes.iter().any(|node| node.node_url == path.url())
        };
        until("the node is known by its path", known).await;
        self.until_healthy(self.nodes.len()).await;
        path
    }

    pub(super) async fn stop(self) -> TempDir {
        self.metadata.stop().await;
        for node in self.nodes {
            node.stop().await;
        }
        self.folder
    }

    pub(super) async fn until_healthy(&self, count: usize) {
        until("all nodes are healthy", async || {
            let nodes = self.catalogue.nodes().await.unwrap_or_default();
            nodes
                .iter()
                .filter(|node| node.status == NodeHealth::Healthy)
                .count()
                == count
        })
        .await;
    }

    /// Lets the graces of the catalogue pass, in steps that no node needs to be down for.
    pub(super) async fn let_graces_pass(&self) {
        for _ in 0..3 {
            self.clock.advance(28_000);
            self.until_healthy(self.nodes.len()).await;
        }
    }

    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.metadata.url)
    }

    pub(super) fn storage(&self, number: usize) -> StorageClient {
        StorageClient(Endpoint::new(&self.nodes[number].url))
    }

    pub(super) async fn create(&self, title: &str) -> VideoId {
        self.catalogue
            .create_video(title, 0.0)
            .await
            .expect("a video is made")
            .video_id
    }

    pub(super) async fn open_as(
        &self,
        owner: &str,
        chunk: ChunkId,
        min_ack: Option<u8>,
    ) -> Result<Opened, Problem> {
        let (owner, kind, exclude) = (owner.to_owned(), OpenKind::Upload, Vec::new());
        let requests = vec![OpenItem {
            chunk_id: chunk,
            kind,
            owner,
            exclude,
            min_ack,
        }];
        let mut answer = self
            .catalogue
            .open(&OpenBatch { requests })
            .await
            .expect("the batch is answered");
        answer.grants.remove(0).into()
    }

    /// Sends the bytes to every granted node.
    pub(super) async fn put_all(&self, opened: &Opened, bytes: &[u8]) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        for url in &opened.node_urls {
            let storage = StorageClient(Endpoint::new(url));
            let bytes = Bytes::copy_from_slice(bytes);
            let answer = storage
                .put(&opened.grant, opened.grant.chunk_id, bytes)
                .await
                .expect("the node stores");
            receipts.push(answer.receipt.expect("a granted PUT has a receipt"));
        }
        receipts
    }

    pub(super) async fn commit(
        &self,
        opened: &Opened,
        bytes: &[u8],
        receipts: Vec<Receipt>,
    ) -> Result<Committed, Problem> {
        let nodes: Vec<_> = receipts.iter().map(|receipt| receipt.node).collect();
        let (chunk_id, ballot) = (opened.grant.chunk_id, opened.grant.ballot);
        let start_ms = u64::from(chunk_id.seq()) * 10_000;
        let media = MediaFacts {
            start_ms,
            duration_ms: 10_000,
            keyframes_ms: vec![start_ms],
            fragments: Vec::new(),
        };
        let item = CommitItem {
            chunk_id,
            ballot,
            value: Placement::replicated(ChunkDigest::of(bytes), ballot, &nodes),
            receipts,
            media: (chunk_id.kind() == ChunkKind::Media).then_some(media),
        };
        let batch = CommitBatch { commits: vec![item] };
        let mut answer = self
            .catalogue
            .commit(&batch)
            .await
            .expect("the batch is answered");
        let result: ItemResult<Committed> = answer.results.remove(0);
        result.into()
    }

    /// OPEN, ACCEPT on all nodes, COMMIT.
    pub(super) async fn store(&self, chunk: ChunkId, bytes: &[u8]) -> Committed {
        let opened = self
            .open_as("uploader", chunk, None)
            .await
            .expect("the chunk is new");
        let receipts = self.put_all(&opened, bytes).await;
        self.commit(&opened, bytes, receipts)
            .await
            .expect("all receipts are there")
    }

    /// An active video of an init segment and `media` chunks, whose bytes are their ids.
    pub(super) async fn active_video(&self, title: &str, media: u32) -> VideoId {
        let video = self.create(title).await;
        self.fill(video, media).await;
        video
    }

    /// Makes a video that was created active, as [`Cluster::active_video`] does.
    pub(super) async fn fill(&self, video: VideoId, media: u32) {
        self.fill_with(video, media, |chunk| chunk.to_string().into_bytes())
            .await;
    }

    pub(super) async fn fill_with(&self, video: VideoId, media: u32, bytes_of: impl Fn(ChunkId) -> Vec<u8>) {
        let chunks = (0..media).map(|seq| ChunkId::media(video, seq));
        for chunk in [ChunkId::init(video)].into_iter().chain(chunks) {
            self.store(chunk, &bytes_of(chunk)).await;
        }
        let entry = self
            .catalogue
            .finalize(video, &finalize_of(media))
            .await
            .expect("the video is complete");
        assert_eq!(entry.total_chunks, media);
    }

    /// How many nodes give this chunk out.
    pub(super) async fn holders(&self, chunk: ChunkId) -> usize {
        let mut holders = 0;
        for node in &self.nodes {
            let answer = self
                .http
                .head(format!("{}/chunk/{chunk}", node.url))
                .send()
                .await
                .expect("the node answers");
            holders += usize::from(answer.status().is_success());
        }
        holders
    }

    pub(super) async fn until_gone(&self, chunk: ChunkId) {
        until("no node holds the chunk", async || self.holders(chunk).await == 0).await;
    }
}

pub(super) fn finalize_of(media: u32) -> Finalize {
    Finalize {
        total_chunks: media,
        duration_ms: u64::from(media) * 10_000,
        container: Container::Fmp4,
        codecs: "avc1.640028".into(),
        tracks: Vec::new(),
    }
}

pub(super) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    until_within(DEADLINE, what, condition).await;
}

pub(super) async fn until_within(deadline: Duration, what: &str, condition: impl AsyncFn() -> bool) {
    let begin = Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < deadline, "waited {deadline:?} until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The code of a refusal.
pub(super) async fn code(answer: Response) -> ErrorCode {
    let (status, url) = (answer.status().as_u16(), answer.url().clone());
    let body = answer.text().await.expect("the answer has a body");
    let problem: Problem = serde_json::from_str(&body).unwrap_or_else(|error| {
        unreachable!("{url} answered {status} {body:?}, which is no problem: {error}")
    });
    assert_eq!(problem.status, status);
    assert!(!problem.request_id.is_empty(), "a refusal names its request");
    problem.code
}
