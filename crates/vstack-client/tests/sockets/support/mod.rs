//! A small cluster on loopback sockets whose nodes misbehave on command: `node` is one of them, `video` what they hold.

mod node;
mod video;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::routing::get;
use base64::Engine as _;
use uuid::Uuid;
use vstack_api::wire::NodeEntry;
use vstack_client::{ClientConfig, Cluster, EventKind, PolicyName, SessionEvent};
use vstack_core::id::{ChunkId, VideoId};
use vstack_core::manifest::{InitSegment, Manifest};
use vstack_core::node_name::numbered;
use vstack_emulator::{Emulator, Profile};

pub(crate) use node::{Behaviour, LOAD, TestNode};
pub(crate) use video::{CHUNK_MS, Footage};

use node::{Server, node_entry, start_node};
use video::{fragments, manifest, manifest_chunk, pattern};

/// Nothing in these tests takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Metadata role, nodes, and one video on all of them.
#[derive(Debug)]
pub(crate) struct TestCluster {
    pub(crate) nodes: Vec<TestNode>,
    pub(crate) source: BTreeMap<ChunkId, Bytes>,
    pub(crate) video: VideoId,
    pub(crate) metadata_url: String,
    pub(crate) manifest: Arc<Mutex<Manifest>>,
    listed: Arc<Mutex<Vec<NodeEntry>>>,
    metadata: Server,
}

impl TestCluster {
    /// A video of `chunk_count` chunks whose replicas are on the nodes that `replicas_of` names for each.
    pub(crate) fn start(
        node_count: usize,
        chunk_count: u32,
        replicas_of: impl Fn(u32) -> Vec<usize>,
    ) -> Self {
        let nodes = (0..node_count).map(|_| start_node()).collect();
        Self::with_nodes(nodes, Footage::small(chunk_count), replicas_of)
    }

    /// The same with a path in front of each node, which is then reached through it only.
    pub(crate) async fn start_behind(
        profile: Profile,
        node_count: usize,
        chunk_count: u32,
        replicas_of: impl Fn(u32) -> Vec<usize>,
    ) -> Self {
        Self::behind(profile, node_count, Footage::small(chunk_count), replicas_of).await
    }

    /// The same with another video.
    pub(crate) async fn behind(
        profile: Profile,
        node_count: usize,
        footage: Footage,
        replicas_of: impl Fn(u32) -> Vec<usize>,
    ) -> Self {
        let mut nodes: Vec<_> = (0..node_count).map(|_| start_node()).collect();
        for node in &mut nodes {
            let addr = node
                .url
                .trim_start_matches("http://")
                .parse()
                .expect("an address");
            let path = Emulator::start(addr, profile)
                .await
                .expect("loopback has free ports");
            node.url = path.url();
            node.path = Some(path);
        }
        Self::with_nodes(nodes, footage, replicas_of)
    }

    fn with_nodes(nodes: Vec<TestNode>, footage: Footage, replicas_of: impl Fn(u32) -> Vec<usize>) -> Self {
        let video = VideoId(Uuid::new_v4());
        let node_count = nodes.len();
        let mut source = BTreeMap::new();
        let mut place = |id: ChunkId, size: usize, replicas: &[usize]| {
            let bytes = pattern(id, size);
            for &index in replicas {
                nodes[index]
                    .shared
                    .chunks
                    .lock()
                    .expect("no test panicked with it")
                    .insert(id, bytes.clone());
            }
            source.insert(id, bytes.clone());
            let parts = replicas
                .iter()
                .map(|&index| (nodes[index].id, nodes[index].url.clone()))
                .collect();
            manifest_chunk(id, &bytes, parts)
        };
        let all: Vec<usize> = (0..node_count).collect();
        let init = place(ChunkId::init(video), 700, &all);
        let poster = place(ChunkId::poster(video), 9_000, &all);
        let chunks = (0..footage.chunks)
            .map(|seq| {
                let size = footage.chunk_bytes + 1_000 * seq as usize;
                let mut chunk = place(ChunkId::media(video, seq), size, &replicas_of(seq));
                chunk.fragments = fragments(seq, size, footage.fragments);
                chunk
            })
            .collect();
        let init = InitSegment {
            data_base64: base64::engine::general_purpose::STANDARD.encode(&source[&init.chunk_id]),
            chunk: init,
        };
        let manifest = Arc::new(Mutex::new(manifest(video, init, poster, chunks)));
        // At whatever addresses: the first one is `node-1`.
        let listed = (1..)
            .zip(&nodes)
            .map(|(number, node)| node_entry(node, numbered(number)));
        let listed = Arc::new(Mutex::new(listed.collect()));
        let metadata = start_metadata(Arc::clone(&listed), Arc::clone(&manifest));
        Self {
            nodes,
            source,
            video,
            metadata_url: metadata.url.clone(),
            manifest,
            listed,
            metadata,
        }
    }

    /// One more node, which has a copy of every chunk from `from` on; the catalogue knows of both.
    pub(crate) fn join(&mut self, from: u32) {
        let node = start_node();
        let listed = &mut self.listed.lock().expect("no test panicked with it");
        listed.push(node_entry(&node, numbered(self.nodes.len() as u64 + 1)));
        let mut manifest = self.manifest.lock().expect("no test panicked with it");
        for chunk in manifest
            .chunks
            .iter_mut()
            .filter(|chunk| chunk.sequence_num >= from)
        {
            let bytes = self.source[&chunk.chunk_id].clone();
            let mut chunks = node.shared.chunks.lock().expect("no test panicked with it");
            chunks.insert(chunk.chunk_id, bytes);
            let mut part = chunk.placement.parts[0].clone();
            (part.node_id, part.node_url) = (node.id, node.url.clone());
            chunk.replicas.push(node.url.clone());
            chunk.placement.parts.push(part);
        }
        self.nodes.push(node);
    }

    pub(crate) async fn connect(&self, policy: PolicyName) -> Cluster {
        let config = ClientConfig {
            policy,
            ..ClientConfig::new(&self.metadata_url)
        };
        Cluster::connect(config).await.expect("the metadata role answers")
    }

    pub(crate) fn media(&self, seq: u32) -> &Bytes {
        &self.source[&ChunkId::media(self.video, seq)]
    }

    pub(crate) fn stop_metadata(&self) {
        self.metadata.stop();
    }

    /// The manifest says from now on that chunk `seq` is on these nodes, and it is.
    pub(crate) fn move_chunk(&self, seq: u32, to: &[usize]) {
        let id = ChunkId::media(self.video, seq);
        for node in &self.nodes {
            node.shared
                .chunks
                .lock()
                .expect("no test panicked with it")
                .remove(&id);
        }
        for &index in to {
            self.nodes[index]
                .shared
                .chunks
                .lock()
                .expect("no test panicked with it")
                .insert(id, self.source[&id].clone());
        }
        let parts = to
            .iter()
            .map(|&index| (self.nodes[index].id, self.nodes[index].url.clone()))
            .collect();
        let chunk = manifest_chunk(id, &self.source[&id], parts);
        self.manifest.lock().expect("no test panicked with it").chunks[seq as usize] = chunk;
    }
}

fn start_metadata(listed: Arc<Mutex<Vec<NodeEntry>>>, manifest: Arc<Mutex<Manifest>>) -> Server {
    let nodes =
        get(move || async move { axum::Json(listed.lock().expect("no test panicked with it").clone()) });
    let read = get(move |Path(_): Path<VideoId>| async move {
        axum::Json(manifest.lock().expect("no test panicked with it").clone())
    });
    Server::start(Router::new().route("/nodes", nodes).route("/manifest/{id}", read))
}

/// Looks again and again until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    until_within(DEADLINE, what, condition).await;
}

/// The same with a deadline of its own.
pub(crate) async fn until_within(limit: Duration, what: &str, condition: impl Fn() -> bool) {
    let looking = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(limit, looking).await.is_ok();
    assert!(in_time, "never: {what}");
}

/// What has been told so far.
pub(crate) fn told(events: &mut tokio::sync::broadcast::Receiver<SessionEvent>) -> Vec<EventKind> {
    std::iter::from_fn(|| events.try_recv().ok())
        .map(|event| event.kind)
        .collect()
}
