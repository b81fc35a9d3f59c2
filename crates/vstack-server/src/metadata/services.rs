//! Uploaders and gateways: where they are, for as long as they say that they live. A restart forgets them for two
//! seconds, until their next heartbeats.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use vstack_api::ErrorCode;
use vstack_api::wire::{Service, ServiceHeartbeat};
use vstack_core::limits::NODE_DOWN_AFTER_MS;
use vstack_core::time::UnixMillis;

use super::input;
use super::state::Metadata;
use crate::http::{Answer, StrictJson, refuse};

/// When each role of a kind was last heard of, by its address.
type Heard = Mutex<BTreeMap<String, UnixMillis>>;

#[derive(Debug, Default)]
pub(super) struct Services {
    uploaders: Heard,
    gateways: Heard,
}

impl Services {
    const fn of(&self, service: Service) -> &Heard {
        match service {
            Service::Uploader => &self.uploaders,
            Service::Gateway => &self.gateways,
        }
    }

    fn note(&self, service: Service, url: String, now: UnixMillis) {
        let mut heard = self.of(service).lock().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|_, seen| now.since(*seen) < NODE_DOWN_AFTER_MS);
        heard.insert(url, now);
    }

    /// Those that may be alive, the one heard of last first.
    pub(super) fn alive(&self, service: Service, now: UnixMillis) -> Vec<String> {
        let heard = self.of(service).lock().unwrap_or_else(PoisonError::into_inner);
        let alive = heard
            .iter()
            .filter(|(_, seen)| now.since(**seen) < NODE_DOWN_AFTER_MS);
        let mut alive: Vec<_> = alive
            .map(|(url, seen)| (std::cmp::Reverse(*seen), url.clone()))
            .collect();
        alive.sort();
        alive.into_iter().map(|(_, url)| url).collect()
    }
}

/// For each service: its list, and where its heartbeats go.
pub(super) fn routes() -> Router<Arc<Metadata>> {
    let both = [Service::Uploader, Service::Gateway];
    both.into_iter().fold(Router::new(), |router, service| {
        let list = move |State(metadata): State<Arc<Metadata>>| async move { Json(metadata.alive(service)) };
        let beat = move |metadata, body| heartbeat(service, metadata, body);
        router
            .route(service.path(), get(list))
            .route(&format!("{}/heartbeat", service.path()), post(beat))
    })
}

async fn heartbeat(
    service: Service,
    State(metadata): State<Arc<Metadata>>,
    StrictJson(heartbeat): StrictJson<ServiceHeartbeat>,
) -> Answer<Json<Value>> {
    if !heartbeat.verifies(&metadata.key.grant_key(), service) {
        return Err(refuse(
            ErrorCode::BadSignature,
            "the heartbeat is not signed with this cluster's key",
        ));
    }
    input::role_url("url", &heartbeat.url)?;
    let now = metadata.now();
    metadata.services.note(service, heartbeat.url, now);
    Ok(Json(json!({})))
}
