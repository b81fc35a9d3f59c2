//! The gateway role: whole chunks for readers that know nothing of shards.
//!
//! `GET /chunk/{chunk_id}` answers with the verified bytes of any committed chunk, out of copies or of any three shards,
//! by the same client that plays videos. The manifest names it for erasure-coded chunks, so that a plain reader goes on
//! when a video cools down. It keeps no data: manifests for a few seconds, and what it knows of the nodes.
//!
//! Left out: Range (a chunk comes whole), HLS, uploads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use vstack_api::wire::Service;
use vstack_api::{ErrorCode, MetadataClient};
use vstack_client::{ClientConfig, ClientError, Cluster};
use vstack_core::id::{ChunkId, VideoId};
use vstack_core::keys::ClusterKey;
use vstack_core::manifest::{Manifest, ManifestChunk};

use crate::http::{Answer, Refusal, refuse};
use crate::metrics::Metrics;
use crate::role::{Running, Site, StartError, announce, listen};

/// A manifest is read again after this. Placements change seldom, and a part that has moved is noticed at once.
const MANIFEST_KEPT: Duration = Duration::from_secs(10);
/// Manifests that are kept; the oldest go first.
const MANIFESTS_KEPT: usize = 64;

/// How a gateway is set up.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    pub listen: SocketAddr,
    pub metadata_url: String,
    pub cluster_key: ClusterKey,
}

#[derive(Debug)]
struct Gateway {
    metadata_url: String,
    /// Connected by the first request, so that the roles may start in any order.
    cluster: OnceCell<Cluster>,
    manifests: Mutex<BTreeMap<VideoId, (Instant, Arc<Manifest>)>>,
}

/// Starts the role. On return it listens; the metadata role hears of it within two seconds.
///
/// # Errors
/// The port is taken.
pub async fn start(config: GatewayConfig) -> Result<Running, StartError> {
    let listener = listen(config.listen).await?;
    let stop = CancellationToken::new();
    let gateway = Arc::new(Gateway {
        metadata_url: config.metadata_url.clone(),
        cluster: OnceCell::new(),
        manifests: Mutex::default(),
    });
    let routes = Router::new()
        .route("/chunk/{chunk_id}", get(chunk))
        .route("/ping", get(|| async { StatusCode::NO_CONTENT }))
        .with_state(gateway);
    let running = Running::serve(
        "gateway",
        None,
        listener,
        Site::new(routes, Metrics::new()),
        stop.clone(),
    )
    .map_err(|cause| StartError::Listen {
        address: config.listen,
        holder: String::new(),
        cause,
    })?;
    let (key, url) = (config.cluster_key.grant_key(), running.url.clone());
    let metadata = MetadataClient::new(&config.metadata_url);
    let announcing = announce(metadata, Service::Gateway, key, url);
    tokio::spawn(stop.run_until_cancelled_owned(announcing));
    Ok(running)
}

async fn chunk(
    State(gateway): State<Arc<Gateway>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Answer<Response> {
    let id = chunk_id(path)?;
    let (found, bytes) = gateway.read(id).await?;
    let etag = format!("\"{}\"", found.checksum.prefixed());
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known == etag.as_str());
    let head = [
        (header::ETAG, etag),
        (header::ACCEPT_RANGES, "none".to_owned()),
        // A chunk never changes its bytes.
        (
            header::CACHE_CONTROL,
            "public, max-age=31536000, immutable".to_owned(),
        ),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
    ];
    Ok(match known {
        true => (StatusCode::NOT_MODIFIED, head).into_response(),
        false => (head, bytes).into_response(),
    })
}

fn chunk_id(path: Result<Path<String>, PathRejection>) -> Answer<ChunkId> {
    let bad = |reason: String| refuse(ErrorCode::BadChunkId, reason);
    let Path(text) = path.map_err(|rejection| bad(rejection.body_text()))?;
    let id: ChunkId = text
        .parse()
        .map_err(|error: vstack_core::id::ParseIdError| bad(error.to_string()))?;
    match id.shard() {
        None => Ok(id),
        Some(_) => Err(bad("this is a shard; name its chunk".to_owned())),
    }
}

impl Gateway {
    async fn cluster(&self) -> Answer<&Cluster> {
        let connect = || Cluster::connect(ClientConfig::new(&self.metadata_url));
        self.cluster
            .get_or_try_init(connect)
            .await
            .map_err(|error| refusal(&error))
    }

    /// The chunk, verified. When it is not where the kept manifest says, the manifest is read again, and the nodes are asked
    /// again only if that names others.
    async fn read(&self, id: ChunkId) -> Answer<(ManifestChunk, Bytes)> {
        let cluster = self.cluster().await?;
        let mut failed = None;
        if let Some(manifest) = self.kept(id.video())
            && let Some(chunk) = find(&manifest, id)
        {
            match cluster.fetch_verified(chunk).await {
                Ok(bytes) => return Ok((chunk.clone(), bytes)),
                Err(error) => failed = Some((chunk.placement.clone(), error)),
            }
        }
        let manifest = cluster.catalogue().manifest(id.video()).await?;
        let manifest = self.keep(manifest);
        let chunk = find(&manifest, id)
            .ok_or_else(|| refuse(ErrorCode::ChunkNotFound, format!("{id} is not in the manifest")))?;
        if let Some((_, error)) = failed.filter(|(placement, _)| *placement == chunk.placement) {
            return Err(refusal(&error));
        }
        let bytes = cluster
            .fetch_verified(chunk)
            .await
            .map_err(|error| refusal(&error))?;
        Ok((chunk.clone(), bytes))
    }

    fn kept(&self, video: VideoId) -> Option<Arc<Manifest>> {
        let manifests = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, manifest) = manifests.get(&video)?;
        (read.elapsed() < MANIFEST_KEPT).then(|| Arc::clone(manifest))
    }

    fn keep(&self, manifest: Manifest) -> Arc<Manifest> {
        let manifest = Arc::new(manifest);
        let mut manifests = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        manifests.retain(|_, (read, _)| read.elapsed() < MANIFEST_KEPT);
        if manifests.len() >= MANIFESTS_KEPT {
            let oldest = manifests
                .iter()
                .min_by_key(|(_, (read, _))| *read)
                .map(|(video, _)| *video);
            oldest.map(|video| manifests.remove(&video));
        }
        manifests.insert(manifest.video_id, (Instant::now(), Arc::clone(&manifest)));
        manifest
    }
}

fn find(manifest: &Manifest, id: ChunkId) -> Option<&ManifestChunk> {
    let init = manifest.init.iter().map(|init| &init.chunk);
    let all = manifest.chunks.iter().chain(init).chain(&manifest.poster);
    let mut all = all.chain(&manifest.storyboard).chain(&manifest.subtitles);
    all.find(|chunk| chunk.chunk_id == id)
}

fn refusal(error: &ClientError) -> Refusal {
    match error {
        ClientError::Catalogue(error) => error.clone().into(),
        error => refuse(error.code(), error.to_string()),
    }
}
