//! A catalogue in a folder of its own, a few nodes, and the steps that uploads are made of.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part of this"
)]

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::id::{ChunkId, Incarnation, NodeId, VideoId};
use vstack_core::keys::ClusterKey;
use vstack_core::manifest::{Container, MediaFacts};
use vstack_core::paxos::master::{Value, Witness};
use vstack_core::paxos::{OpenKind, Receipt};
use vstack_core::placement::Placement;
use vstack_core::time::UnixMillis;
use vstack_meta::{
    Cmd, CommitChunk, CommittedChunk, FinalizeVideo, MetaError, MetaStore, NodeReport, OpenChunk,
    OpenedChunk, Reply, SqliteMetaStore,
};

pub const T0: UnixMillis = UnixMillis(1_700_000_000_000);

pub fn key() -> ClusterKey {
    ClusterKey::from_bytes(&[7; 32]).expect("the bytes are a key")
}

pub fn video(number: u128) -> VideoId {
    VideoId(Uuid::from_u128(number))
}

pub fn node(number: u128) -> NodeId {
    NodeId(Uuid::from_u128(number))
}

/// The first life of a node.
pub fn life(node: NodeId) -> Incarnation {
    Incarnation(Uuid::from_u128(node.0.as_u128() + 1_000))
}

pub fn url(number: u128) -> String {
    format!("http://127.0.0.1:{}", 7_000 + number)
}

pub fn report(number: u128) -> NodeReport {
    NodeReport {
        node: node(number),
        url: url(number),
        incarnation: life(node(number)),
        boot_epoch: 1,
        version: "0.1.0".into(),
        disk_usage_percent: 10.0,
        chunk_count: 0,
        read_only: false,
        highest_generation: 0,
        capacity_bytes: 1 << 30,
        rack: None,
        name: None,
    }
}

pub fn digest(chunk: ChunkId) -> ChunkDigest {
    ChunkDigest::of(chunk.to_string().as_bytes())
}

pub fn facts(seq: u32) -> MediaFacts {
    let start_ms = u64::from(seq) * 10_000;
    MediaFacts {
        start_ms,
        duration_ms: 10_000,
        keyframes_ms: vec![start_ms],
        fragments: Vec::new(),
    }
}

pub fn witness(chunk: ChunkId, ballot: Ballot, number: u128) -> Witness {
    let node = node(number);
    let receipt = Receipt::signed(
        &key().receipt_key(node),
        (chunk, ballot),
        (node, life(node)),
        digest(chunk),
    );
    Witness::check(receipt, &key()).expect("it was signed with the node's key")
}

pub fn open_of(chunk: ChunkId, numbers: &[u128]) -> OpenChunk {
    OpenChunk {
        chunk,
        kind: OpenKind::Upload,
        owner: "uploader".into(),
        expect_epoch: None,
        nodes: numbers.iter().copied().map(node).collect(),
        min_ack: 2,
        now: T0,
    }
}

pub fn commit_of(chunk: ChunkId, ballot: Ballot, numbers: &[u128]) -> CommitChunk {
    let nodes: Vec<_> = numbers.iter().copied().map(node).collect();
    CommitChunk {
        chunk,
        ballot,
        value: Value::Placed(Placement::replicated(digest(chunk), ballot, &nodes)),
        witnesses: numbers
            .iter()
            .map(|&number| witness(chunk, ballot, number))
            .collect(),
        media: (chunk.kind() == vstack_core::id::ChunkKind::Media).then(|| facts(chunk.seq())),
        plain_nodes: Vec::new(),
        now: T0,
    }
}

pub fn finalize_of(video: VideoId, total_chunks: Option<u32>) -> FinalizeVideo {
    FinalizeVideo {
        video,
        total_chunks,
        duration_ms: 10_000 * u64::from(total_chunks.unwrap_or(1)),
        container: Container::Fmp4,
        codecs: "avc1.640028,mp4a.40.2".into(),
        tracks: Vec::new(),
        facts: Vec::new(),
        now: T0,
    }
}

/// An open catalogue; its folder is removed with it.
#[derive(Debug)]
pub struct Catalogue {
    pub store: SqliteMetaStore,
    pub folder: TempDir,
}

impl Catalogue {
    /// A new catalogue that knows five nodes.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::of(open_store(folder.path()), folder).await
    }

    /// A new one with five nodes, opened by somebody else.
    pub async fn of(store: SqliteMetaStore, folder: TempDir) -> Self {
        let catalogue = Self { store, folder };
        for number in 1..=5 {
            catalogue
                .done(Cmd::Heartbeat {
                    report: report(number),
                    now: T0,
                })
                .await;
        }
        catalogue
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("catalogue.db")
    }

    /// What a kill at this moment leaves: the files as they are, without any shutdown.
    pub fn as_after_kill(&self) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["catalogue.db", "catalogue.db-wal"] {
            let copied = std::fs::copy(self.folder.path().join(name), folder.path().join(name));
            copied.expect("the file is there while the catalogue is open");
        }
        Self {
            store: open_store(folder.path()),
            folder,
        }
    }

    /// Closes and opens it again.
    pub fn restarted(self) -> Self {
        let Self { store, folder } = self;
        drop(store);
        Self {
            store: open_store(folder.path()),
            folder,
        }
    }

    pub async fn apply(&self, command: Cmd) -> Result<Reply, MetaError> {
        self.store.apply_one(command).await
    }

    pub async fn done(&self, command: Cmd) -> Reply {
        self.apply(command).await.expect("nothing speaks against it")
    }

    pub async fn create(&self, video: VideoId) {
        let title = format!("Video {}", video.0.as_u128());
        self.done(Cmd::CreateVideo {
            key: None,
            video,
            title,
            duration_sec: 0.0,
            now: T0,
        })
        .await;
    }

    pub async fn open(&self, chunk: ChunkId, numbers: &[u128]) -> Result<OpenedChunk, MetaError> {
        let reply = self.apply(Cmd::Open(open_of(chunk, numbers))).await?;
        Ok(reply.opened().expect("an OPEN is answered by a grant"))
    }

    pub async fn commit(
        &self,
        chunk: ChunkId,
        ballot: Ballot,
        numbers: &[u128],
    ) -> Result<CommittedChunk, MetaError> {
        let reply = self
            .apply(Cmd::Commit(Box::new(commit_of(chunk, ballot, numbers))))
            .await?;
        Ok(reply
            .committed()
            .expect("a COMMIT is answered by what is decided"))
    }

    /// OPEN and COMMIT on the given nodes.
    pub async fn store_chunk(&self, chunk: ChunkId, numbers: &[u128]) -> CommittedChunk {
        let opened = self.open(chunk, numbers).await.expect("the chunk is new");
        self.commit(chunk, opened.ballot, numbers)
            .await
            .expect("all receipts are there")
    }

    /// A video of `media` chunks and an init segment, active.
    pub async fn active_video(&self, video: VideoId, media: u32) {
        self.create(video).await;
        self.store_chunk(ChunkId::init(video), &[1, 2, 3]).await;
        for seq in 0..media {
            self.store_chunk(ChunkId::media(video, seq), &[1, 2, 3]).await;
        }
        self.done(Cmd::Finalize(Box::new(finalize_of(video, Some(media)))))
            .await;
    }

    pub async fn assert_sound(&self) {
        let findings = self.store.check().await.expect("the catalogue can be read");
        assert_eq!(findings, [], "the projections differ from what is decided");
    }
}

pub fn open_store(folder: &Path) -> SqliteMetaStore {
    SqliteMetaStore::open(&folder.join("catalogue.db")).expect("the catalogue opens")
}
