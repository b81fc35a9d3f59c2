//! The client of the metadata role.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use serde::Serialize;
use uuid::Uuid;
use vstack_core::id::{ChunkId, NodeId, VideoId};
use vstack_core::manifest::Manifest;

use super::CALL_TIMEOUT;
use crate::client::{ApiError, Endpoint, with_json};
use crate::consensus::{CatalogueCounts, ConsensusEvent};
use crate::inventory::{InventoryAnswer, InventoryDetails, InventoryPage};
use crate::policy::{DurabilityQuery, DurabilityReport, PolicyExplanation, PolicyQuery, PolicyReport};
use crate::redundancy::{
    RebalanceView, RedundancyChoice, RedundancyStatus, SetRedundancy, SuspectPart, VideoRedundancyView,
};
use crate::sse;
use crate::transport::{Method, Response, Transport};
use crate::wire::{
    BackupMade, CommitBatch, CommitBatchAnswer, CreateVideo, CreatedVideo, Finalize, Heartbeat,
    HeartbeatAnswer, IDEMPOTENCY_KEY_HEADER, NodeAction, NodeDetail, NodeEntry, OpenBatch, OpenBatchAnswer,
    PatchVideo, Service, ServiceHeartbeat, VideoEntry, VideoPage, VideoQuery, ViewedBy,
};

/// For a backup to be made and checked: a gigabyte takes a minute on a slow disk.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(600);

/// The metadata role.
#[derive(Debug, Clone)]
pub struct MetadataClient(pub Endpoint);

impl MetadataClient {
    /// The metadata role at `base_url`, over HTTP.
    #[must_use]
    pub fn new(base_url: &str) -> Self {
        Self(Endpoint::new(base_url))
    }

    /// The same over shared connections.
    #[must_use]
    pub fn with_transport(base_url: &str, transport: Arc<dyn Transport>) -> Self {
        Self(Endpoint::with_transport(base_url, transport))
    }

    /// Makes a video. A lost answer makes it ask again, and a key keeps that from making two.
    ///
    /// # Errors
    /// As all calls here: the role refused or did not answer.
    pub async fn create_video(&self, title: &str, duration_sec: f64) -> Result<CreatedVideo, ApiError> {
        let key = Uuid::new_v4().to_string();
        let body = CreateVideo {
            title: title.to_owned(),
            duration_sec,
        };
        match self.create_video_once(&key, &body).await {
            Err(error) if !matches!(error, ApiError::Refused(_)) => self.create_video_once(&key, &body).await,
            answered => answered,
        }
    }

    /// Makes a video, the same one however often it is called with this key.
    ///
    /// # Errors
    /// The role refused (the key was used for another video) or did not answer.
    pub async fn create_video_once(&self, key: &str, body: &CreateVideo) -> Result<CreatedVideo, ApiError> {
        let request = self.0.request(Method::POST, "/video");
        let request = request.header(IDEMPOTENCY_KEY_HEADER, key);
        self.0.json(with_json(request, body), CALL_TIMEOUT).await
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn manifest(&self, video: VideoId) -> Result<Manifest, ApiError> {
        self.get(&format!("/manifest/{video}")).await
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn video(&self, video: VideoId) -> Result<VideoEntry, ApiError> {
        self.get(&format!("/video/{video}")).await
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn videos(&self, query: &VideoQuery) -> Result<VideoPage, ApiError> {
        self.get(&format!("/video?{}", query_text(query))).await
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn rename_video(&self, video: VideoId, title: &str) -> Result<VideoEntry, ApiError> {
        let request = self.0.request(Method::PATCH, &format!("/video/{video}"));
        self.0
            .json(
                with_json(
                    request,
                    &PatchVideo {
                        title: title.to_owned(),
                    },
                ),
                CALL_TIMEOUT,
            )
            .await
    }

    /// Deletes a video. On return no new reader finds it; its bytes are collected later.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn delete_video(&self, video: VideoId) -> Result<(), ApiError> {
        let request = self.0.request(Method::DELETE, &format!("/video/{video}"));
        self.0.send(request, CALL_TIMEOUT).await.map(drop)
    }

    /// Counts a view; called once a session has played 10 s. A lost answer makes it ask again, and the session's id
    /// keeps that from counting twice.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn record_view(&self, video: VideoId) -> Result<(), ApiError> {
        let session_id = Uuid::new_v4().to_string();
        let viewed_by = ViewedBy { session_id };
        let first = self.record_view_of(video, &viewed_by).await;
        match first {
            Err(error) if !matches!(error, ApiError::Refused(_)) => {
                self.record_view_of(video, &viewed_by).await
            }
            answered => answered,
        }
    }

    /// Counts a view of the named session, once however often it is called.
    ///
    /// # Errors
    /// The role refused (the session watched another video) or did not answer.
    pub async fn record_view_of(&self, video: VideoId, viewed_by: &ViewedBy) -> Result<(), ApiError> {
        self.tell(&format!("/video/{video}/view"), viewed_by).await
    }

    /// Removes what a failed upload left behind.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn abort_video(&self, video: VideoId) -> Result<(), ApiError> {
        self.act(&format!("/video/{video}/abort")).await
    }

    /// # Errors
    /// The role refused (chunks are missing, say) or did not answer.
    pub async fn finalize(&self, video: VideoId, body: &Finalize) -> Result<VideoEntry, ApiError> {
        self.0
            .post(&format!("/video/{video}/finalize"), body, CALL_TIMEOUT)
            .await
    }

    /// Opens a ballot for each chunk.
    ///
    /// # Errors
    /// The role refused the whole batch or did not answer.
    pub async fn open(&self, batch: &OpenBatch) -> Result<OpenBatchAnswer, ApiError> {
        self.0.post("/consensus/open", batch, CALL_TIMEOUT).await
    }

    /// Commits placements. Each one that is answered as committed is durable.
    ///
    /// # Errors
    /// The role refused the whole batch or did not answer: then the outcome is unknown, and the same may be repeated.
    pub async fn commit(&self, batch: &CommitBatch) -> Result<CommitBatchAnswer, ApiError> {
        self.0.post("/consensus/commit", batch, CALL_TIMEOUT).await
    }

    /// Agreement as it happens, from now on.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn consensus_events(
        &self,
    ) -> Result<BoxStream<'static, Result<ConsensusEvent, ApiError>>, ApiError> {
        let request = self.0.request(Method::GET, "/consensus/events");
        let answer = self
            .0
            .send(request.header("accept", "text/event-stream"), CALL_TIMEOUT)
            .await?;
        Ok(sse::events(answer))
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn nodes(&self) -> Result<Vec<NodeEntry>, ApiError> {
        self.get("/nodes").await
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn healthy_nodes(&self) -> Result<Vec<NodeEntry>, ApiError> {
        self.get("/nodes/healthy").await
    }

    /// # Errors
    /// The role refused (a foreign signature, a second node with this id) or did not answer.
    pub async fn heartbeat(&self, node: NodeId, heartbeat: &Heartbeat) -> Result<HeartbeatAnswer, ApiError> {
        self.0
            .post(&format!("/nodes/{node}/heartbeat"), heartbeat, CALL_TIMEOUT)
            .await
    }

    /// One node, and what lies on it.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn node(&self, node: NodeId) -> Result<NodeDetail, ApiError> {
        self.get(&format!("/nodes/{node}")).await
    }

    /// Changes what is wanted of a node. `force` lets chunks be lost that lie nowhere else.
    ///
    /// # Errors
    /// The role refused (it is the only holder of a chunk) or did not answer.
    pub async fn change_node(
        &self,
        node: NodeId,
        action: NodeAction,
        force: bool,
    ) -> Result<NodeDetail, ApiError> {
        let path = format!("/nodes/{node}/{}?force={force}", action.as_str());
        self.0
            .json(self.0.request(Method::POST, &path), CALL_TIMEOUT)
            .await
    }

    /// What ChunkPaxos cost since the role started, and what the cluster lacks now.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn consensus(&self) -> Result<CatalogueCounts, ApiError> {
        self.get("/consensus").await
    }

    /// Addresses of all uploaders that may be alive.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn uploader_urls(&self) -> Result<Vec<String>, ApiError> {
        self.get("/uploaders").await
    }

    /// Tells a page of what the node holds.
    ///
    /// # Errors
    /// The role refused (a foreign signature, another incarnation) or did not answer.
    pub async fn inventory(&self, node: NodeId, page: &InventoryPage) -> Result<InventoryAnswer, ApiError> {
        let path = format!("/nodes/{node}/inventory");
        self.0.post(&path, page, CALL_TIMEOUT).await
    }

    /// Answers what the catalogue asked about a page.
    ///
    /// # Errors
    /// As [`MetadataClient::inventory`].
    pub async fn inventory_details(
        &self,
        node: NodeId,
        details: &InventoryDetails,
    ) -> Result<InventoryAnswer, ApiError> {
        let path = format!("/nodes/{node}/inventory/details");
        self.0.post(&path, details, CALL_TIMEOUT).await
    }

    /// Conversion, repair and balance as they go on: the state now, and then each change.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn redundancy_events(
        &self,
    ) -> Result<BoxStream<'static, Result<RedundancyStatus, ApiError>>, ApiError> {
        let request = self.0.request(Method::GET, "/redundancy/events");
        let request = request.header("accept", "text/event-stream");
        Ok(sse::events(self.0.send(request, CALL_TIMEOUT).await?))
    }

    /// What would be moved to even out the nodes.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn rebalance(&self) -> Result<RebalanceView, ApiError> {
        self.get("/rebalance").await
    }

    /// Starts moving, or goes on.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn apply_rebalance(&self) -> Result<RebalanceView, ApiError> {
        let request = self.0.request(Method::POST, "/rebalance/apply");
        self.0.json(request, CALL_TIMEOUT).await
    }

    /// Stops moving after the part that is on its way.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn pause_rebalance(&self) -> Result<RebalanceView, ApiError> {
        let request = self.0.request(Method::POST, "/rebalance/pause");
        self.0.json(request, CALL_TIMEOUT).await
    }

    /// # Errors
    /// The role refused or did not answer.
    pub async fn service_heartbeat(
        &self,
        service: Service,
        heartbeat: &ServiceHeartbeat,
    ) -> Result<(), ApiError> {
        self.tell(&format!("{}/heartbeat", service.path()), heartbeat)
            .await
    }

    /// Where plain readers find whole chunks, or `None` while no gateway is known.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn gateway_url(&self) -> Result<Option<String>, ApiError> {
        let gateways: Vec<String> = self.get("/gateways").await?;
        Ok(gateways.into_iter().next())
    }

    /// How a video is protected, and where its parts are.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn redundancy(&self, video: VideoId) -> Result<VideoRedundancyView, ApiError> {
        self.get(&format!("/video/{video}/redundancy")).await
    }

    /// Fixes how a video is protected. Durable on return; the conversion follows in the background.
    ///
    /// # Errors
    /// Too few nodes, or the role refused or did not answer.
    pub async fn set_redundancy(
        &self,
        video: VideoId,
        mode: RedundancyChoice,
    ) -> Result<VideoRedundancyView, ApiError> {
        let request = self.0.request(Method::PUT, &format!("/video/{video}/redundancy"));
        self.0
            .json(with_json(request, &SetRedundancy { mode }), CALL_TIMEOUT)
            .await
    }

    /// Conversion and repair as they are now.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn redundancy_status(&self) -> Result<RedundancyStatus, ApiError> {
        self.get("/redundancy").await
    }

    /// Why a video has the mode that it has, and where it is heading.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn explain_policy(&self, video: VideoId) -> Result<PolicyExplanation, ApiError> {
        self.get(&format!("/video/{video}/policy")).await
    }

    /// What redundancy costs the library, and what another threshold would change.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn policy(&self, query: PolicyQuery) -> Result<PolicyReport, ApiError> {
        let asked = query.hot_above.map(|views| format!("?hot_above={views}"));
        self.get(&format!("/policy{}", asked.unwrap_or_default())).await
    }

    /// How long the library lasts as it is now.
    ///
    /// # Errors
    /// The role refused (a rate that is none) or did not answer.
    pub async fn durability(&self, query: DurabilityQuery) -> Result<DurabilityReport, ApiError> {
        let rate = query
            .annual_failure_rate
            .map(|rate| format!("annual_failure_rate={rate}"));
        let hours = query
            .operator_hours
            .map(|hours| format!("operator_hours={hours}"));
        let asked: Vec<String> = [rate, hours].into_iter().flatten().collect();
        self.get(&format!("/durability?{}", asked.join("&"))).await
    }

    /// Says that a node delivered something wrong or nothing for a chunk. The role looks for itself.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn suspect(&self, chunk: ChunkId, node_id: NodeId) -> Result<(), ApiError> {
        let path = format!("/chunk/{}/suspect", chunk.whole());
        self.tell(&path, &SuspectPart { node_id }).await
    }

    /// Where uploads go, or `None` while no uploader is known.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn uploader_url(&self) -> Result<Option<String>, ApiError> {
        Ok(self.uploader_urls().await?.into_iter().next())
    }

    /// Makes a backup on the role's machine. It may take as long as the catalogue is large.
    ///
    /// # Errors
    /// The role refused (its catalogue is damaged, its disk is full) or did not answer.
    pub async fn backup(&self) -> Result<BackupMade, ApiError> {
        self.0
            .json(self.0.request(Method::POST, "/backup"), BACKUP_TIMEOUT)
            .await
    }

    /// Starts to read a backup; the body is not verified.
    ///
    /// # Errors
    /// The role refused or did not answer.
    pub async fn read_backup(&self, name: &str) -> Result<Response, ApiError> {
        let request = self.0.request(Method::GET, &format!("/backup/{name}"));
        self.0.send(request, CALL_TIMEOUT).await
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.0.json(self.0.request(Method::GET, path), CALL_TIMEOUT).await
    }

    async fn tell(&self, path: &str, body: &impl Serialize) -> Result<(), ApiError> {
        let request = with_json(self.0.request(Method::POST, path), body);
        self.0.send(request, CALL_TIMEOUT).await.map(drop)
    }

    async fn act(&self, path: &str) -> Result<(), ApiError> {
        self.0
            .send(self.0.request(Method::POST, path), CALL_TIMEOUT)
            .await
            .map(drop)
    }
}

fn query_text(query: &VideoQuery) -> String {
    let mut pairs = vec![("sort", sort_word(query)), ("offset", query.offset.to_string())];
    pairs.extend(query.limit.map(|limit| ("limit", limit.to_string())));
    pairs.extend(query.search.clone().map(|search| ("search", search)));
    let encoded = pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", percent_encoded(value)));
    encoded.collect::<Vec<_>>().join("&")
}

fn sort_word(query: &VideoQuery) -> String {
    let word = serde_json::to_value(query.sort).expect("an enum of plain words serializes");
    word.as_str().unwrap_or_default().to_owned()
}

/// Everything but RFC 3986's unreserved characters as `%XX`.
fn percent_encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes()
        .map(|byte| {
            if plain(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_text_survives_the_address() {
        let query = VideoQuery {
            search: Some("a&b=ü %".into()),
            limit: Some(5),
            ..VideoQuery::default()
        };
        assert_eq!(
            query_text(&query),
            "sort=newest&offset=0&limit=5&search=a%26b%3D%C3%BC%20%25"
        );
    }
}
