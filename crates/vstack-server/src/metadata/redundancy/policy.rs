//! What is asked about the policy: why a video is as it is, what the library costs, how long it lasts.
//!
//! Everything is computed by the core from the catalogue as it is now; nothing is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::Uri;
use serde::de::DeserializeOwned;
use vstack_api::ErrorCode;
use vstack_api::policy::{
    DurabilityQuery, DurabilityReport, ModeCost, NodeCost, PolicyExplanation, PolicyQuery, PolicyReport,
    RepairBasis, SpeedSource, ThresholdCost,
};
use vstack_api::redundancy::RedundancyChoice;
use vstack_core::cost::{
    CostedVideo, NodeLoad, PlacedChunks, cost_now, node_loads, outcome, thresholds_around, views_per_second,
};
use vstack_core::durability::{NodeSet, RepairFacts, assess, mode_durability};
use vstack_core::forecast::forecast;
use vstack_core::id::{NodeId, VideoId};
use vstack_core::limits::NODE_DOWN_AFTER_MS;
use vstack_core::node::NodeHealth;
use vstack_core::placement::Scheme;
use vstack_core::redundancy::{ClusterFacts, Settings, decide};
use vstack_meta::{NodeRecord, VideoRedundancy};

use super::routes::mode_word;
use super::{cluster_facts, video_facts};
use crate::http::{Answer, refuse};
use crate::metadata::input::VideoPath;
use crate::metadata::problem::refusal;
use crate::metadata::state::Metadata;

/// Disks that fail within a year; the published rates of large fleets lie between 1 and 3 %, old and small ones do worse.
const ANNUAL_FAILURE_RATE: f64 = 0.05;
/// Until somebody has put another node where none is left.
const OPERATOR_HOURS: f64 = 24.0;
const HOUR_MS: f64 = 3_600_000.0;

/// The catalogue as these reports look at it.
struct Library {
    videos: Vec<CostedVideo>,
    nodes: Vec<NodeRecord>,
    cluster: ClusterFacts,
}

async fn library(metadata: &Metadata) -> Answer<Library> {
    let known = metadata.store.redundancy().await.map_err(refusal)?;
    let (nodes, now) = (metadata.nodes().await?, metadata.now());
    let costed = |video: VideoRedundancy| CostedVideo {
        video: video.video,
        facts: video_facts(metadata, &video, now),
        chunks: video.chunks,
        erasure_bytes: video.erasure_bytes,
        erasure_chunks: video.erasure_chunks,
        title: video.title,
    };
    Ok(Library {
        videos: known.into_iter().map(costed).collect(),
        cluster: cluster_facts(&nodes),
        nodes,
    })
}

pub(in crate::metadata) async fn report(
    State(metadata): State<Arc<Metadata>>,
    uri: Uri,
) -> Answer<Json<PolicyReport>> {
    let query: PolicyQuery = query(&uri)?;
    if let Some(views) = query.hot_above {
        positive("hot_above", views)?;
    }
    let library = library(&metadata).await?;
    let placed = metadata.store.placed().await.map_err(refusal)?;
    let (now, half_life_ms) = (metadata.now(), metadata.settings.view_half_life_ms);
    let settings = metadata.settings.redundancy.policy;
    let at = |hot_above: f64| {
        let settings = Settings {
            hot_above,
            ..settings
        };
        outcome(&library.videos, &library.cluster, &settings, now, half_life_ms)
    };
    let thresholds = thresholds_around(settings.hot_above).into_iter();
    let repair = basis(&metadata, &library.cluster, DurabilityQuery::default());
    let size_bytes = library.videos.iter().map(|video| video.facts.size_bytes).sum();
    Ok(Json(PolicyReport {
        settings,
        view_half_life_ms: half_life_ms,
        nodes: library.cluster.nodes as u64,
        used_share: library.cluster.used_share,
        now: cost_now(&library.videos, half_life_ms),
        settled: at(settings.hot_above),
        asked: query.hot_above.map(at),
        thresholds: thresholds
            .map(|hot_above| ThresholdCost {
                hot_above,
                cost: at(hot_above).cost,
            })
            .collect(),
        node_loads: with_names(loads(&library, &placed, half_life_ms), &library.nodes),
        modes: modes(size_bytes, size_bytes, &repair),
        repair,
    }))
}

fn loads(library: &Library, placed: &[PlacedChunks], half_life_ms: u64) -> Vec<NodeLoad> {
    let popularity: BTreeMap<VideoId, f64> = library
        .videos
        .iter()
        .map(|video| (video.video, video.facts.popularity))
        .collect();
    node_loads(placed, &popularity, half_life_ms)
}

fn with_names(loads: Vec<NodeLoad>, nodes: &[NodeRecord]) -> Vec<NodeCost> {
    let cost = |load: NodeLoad| {
        let node = nodes.iter().find(|node| node.node == load.node_id);
        NodeCost {
            name: node.and_then(|node| node.name.clone()),
            node_url: node.map(|node| node.url.clone()).unwrap_or_default(),
            load,
        }
    };
    loads.into_iter().map(cost).collect()
}

/// What each mode costs `size_bytes`, where a library of `library_bytes` has that mode alone.
fn modes(size_bytes: u64, library_bytes: u64, repair: &RepairBasis) -> Vec<ModeCost> {
    let cost = |scheme: Scheme| {
        let on_a_node = scheme.stored_bytes(library_bytes) / repair.facts.nodes.max(1) as u64;
        let (repair_hours, durability) = mode_durability(scheme, on_a_node, repair.facts);
        ModeCost {
            mode: scheme.mode().to_owned(),
            stored_bytes: scheme.stored_bytes(size_bytes),
            requests_per_chunk: scheme.parts_to_read() as u64,
            repair_reads_per_byte: scheme.parts_to_read() as u64,
            repair_hours,
            durability,
        }
    };
    [Scheme::Replicated, Scheme::Erasure].map(cost).to_vec()
}

pub(in crate::metadata) async fn explain(
    State(metadata): State<Arc<Metadata>>,
    VideoPath(video): VideoPath,
) -> Answer<Json<PolicyExplanation>> {
    let known = metadata.store.redundancy().await.map_err(refusal)?;
    let library_bytes = known.iter().map(|known| known.size_bytes).sum();
    let totals = known.into_iter().find(|known| known.video == video);
    let totals = totals.ok_or_else(|| {
        let detail = format!("{video} is no complete video; `vstack video list` shows what is there");
        refuse(ErrorCode::VideoNotFound, detail)
    })?;
    let entry = metadata.store.video(video).await.map_err(refusal)?;
    let (now, half_life_ms) = (metadata.now(), metadata.settings.view_half_life_ms);
    let settings = metadata.settings.redundancy.policy;
    let cluster = cluster_facts(&metadata.nodes().await?);
    let facts = video_facts(&metadata, &totals, now);
    let decision = decide(&facts, &cluster, &settings, now);
    let repair = basis(&metadata, &cluster, DurabilityQuery::default());
    Ok(Json(PolicyExplanation {
        video_id: video,
        mode: mode_word(&totals).to_owned(),
        choice: RedundancyChoice::of_pin(totals.pin),
        wanted: decision.mode.mode().to_owned(),
        why: decision.why,
        reason: decision.why.sentence().to_owned(),
        views: entry.map_or(0, |entry| entry.video.views),
        popularity: facts.popularity,
        views_per_day: views_per_second(facts.popularity, half_life_ms) * 86_400.0,
        hot_above: settings.hot_above,
        cold_below: settings.hot_above * settings.cold_below_share,
        view_half_life_ms: half_life_ms,
        age_ms: now.since(facts.created_at),
        size_bytes: facts.size_bytes,
        nodes: cluster.nodes as u64,
        used_share: cluster.used_share,
        now_ms: now.0,
        forecast: forecast(&facts, &cluster, &settings, now, half_life_ms),
        modes: modes(facts.size_bytes, library_bytes, &repair),
        title: totals.title,
    }))
}

pub(in crate::metadata) async fn durability(
    State(metadata): State<Arc<Metadata>>,
    uri: Uri,
) -> Answer<Json<DurabilityReport>> {
    let query: DurabilityQuery = query(&uri)?;
    if let Some(rate) = query.annual_failure_rate {
        positive("annual_failure_rate", rate)?;
        if rate >= 1.0 {
            return Err(refuse(
                ErrorCode::BadRequest,
                "annual_failure_rate: it is a share below 1; 5 % is 0.05",
            ));
        }
    }
    if let Some(hours) = query.operator_hours {
        positive("operator_hours", hours)?;
    }
    let library = library(&metadata).await?;
    let placed = metadata.store.placed().await.map_err(refusal)?;
    let loads = loads(&library, &placed, metadata.settings.view_half_life_ms);
    let lost_read_bytes = loads.iter().map(NodeLoad::repair_read_bytes).max().unwrap_or(0);
    let repair = basis(&metadata, &library.cluster, query);
    let sets = node_sets(&metadata, &placed, &library.nodes);
    Ok(Json(DurabilityReport {
        assessment: assess(&sets, lost_read_bytes, repair.facts),
        assumptions: assumptions(&repair),
        lost_read_bytes,
        repair,
    }))
}

/// The sets of nodes that hold chunks together. A part on a node that is down counts as lost: nobody can read it.
fn node_sets(metadata: &Metadata, placed: &[PlacedChunks], nodes: &[NodeRecord]) -> Vec<NodeSet> {
    let now = metadata.now();
    let answers = |id: &NodeId| {
        let node = nodes.iter().find(|node| node.node == *id);
        node.is_some_and(|node| node.is_member() && node.health(now) != NodeHealth::Down)
    };
    let mut sets: BTreeMap<(Scheme, &[NodeId]), u64> = BTreeMap::new();
    for group in placed {
        *sets.entry((group.scheme, group.nodes.as_slice())).or_default() += group.chunks;
    }
    sets.into_iter()
        .map(|((scheme, holders), chunks)| NodeSet {
            scheme,
            good: holders.iter().filter(|holder| answers(holder)).count(),
            chunks,
        })
        .collect()
}

fn basis(metadata: &Metadata, cluster: &ClusterFacts, query: DurabilityQuery) -> RepairBasis {
    let wait_ms = NODE_DOWN_AFTER_MS + metadata.settings.redundancy.repair.grace_ms;
    metadata.redundancy.repair_basis(RepairFacts {
        annual_failure_rate: query.annual_failure_rate.unwrap_or(ANNUAL_FAILURE_RATE),
        bytes_per_second: 0.0,
        wait_hours: wait_ms as f64 / HOUR_MS,
        nodes: cluster.nodes,
        operator_hours: query.operator_hours.unwrap_or(OPERATOR_HOURS),
    })
}

fn assumptions(repair: &RepairBasis) -> Vec<String> {
    let facts = repair.facts;
    let speed = match repair.speed_source {
        SpeedSource::Repairs => "measured on repairs",
        SpeedSource::Conversions => "measured on conversions, since nothing was repaired yet",
        SpeedSource::Assumed => "assumed, since nothing was repaired or converted yet",
    };
    vec![
        format!(
            "disks fail independently of each other, {:.1} % of them within a year; a fire, a thief or a faulty update \
             takes several at once, and only a copy elsewhere helps against those",
            facts.annual_failure_rate * 100.0
        ),
        format!(
            "a lost node is noticed and waited for during {:.1} minutes, then its parts are made again by reading {:.1} \
             MB/s ({speed}); a shard is made from three",
            facts.wait_hours * 60.0,
            facts.bytes_per_second / 1e6
        ),
        format!(
            "where no node is left for a lost part (copies need a fourth node, shards a sixth), an operator adds one \
             within {:.0} h",
            facts.operator_hours
        ),
        "MTTDL = m! mu^m / (lambda^(m+1) n (n-1) ... (n-m)) for each set of nodes that holds chunks together; Angus, IEEE \
         Transactions on Reliability 37(3), 1988"
            .to_owned(),
    ]
}

fn query<T: DeserializeOwned>(uri: &Uri) -> Answer<T> {
    let Query(query) = Query::<T>::try_from_uri(uri)
        .map_err(|rejection| refuse(ErrorCode::BadRequest, rejection.body_text()))?;
    Ok(query)
}

fn positive(name: &str, value: f64) -> Answer<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(refuse(
        ErrorCode::BadRequest,
        format!("{name}: it is a number above 0"),
    ))
}
