//! What a storage node counts beside its requests: its store's own figures, read when somebody asks.

use std::fmt;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::state::Node;
use crate::metrics::Metrics;

/// Adds the node's figures to what `/metrics` shows.
pub(super) fn register(metrics: &Metrics, node: &Arc<Node>) {
    let received = node.received_bytes.clone();
    let figures = StoreFigures(Arc::downgrade(node));
    metrics.register(|registry| {
        registry.register(
            "storage_received_bytes",
            "Bytes of bodies that arrived whole",
            received,
        );
        registry.register_collector(Box::new(figures));
    });
}

/// Weak: the node's folder is to be free as soon as its last request has ended.
#[derive(Debug)]
struct StoreFigures(Weak<Node>);

impl Collector for StoreFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(node) = self.0.upgrade() else {
            return Ok(());
        };
        let stats = node.store.stats();
        let counters = [
            ("batches", "Batches synced", stats.batches),
            (
                "batched_requests",
                "Requests in those batches",
                stats.batched_requests,
            ),
        ];
        for (name, help, value) in counters {
            add(&mut encoder, name, help, &ConstCounter::new(value))?;
        }
        let gauges = [
            ("chunks", "Objects that are not deleted", stats.chunk_count),
            ("stored_bytes", "Their bytes", stats.stored_bytes),
            (
                "corrupt_chunks",
                "Objects known to be damaged",
                stats.corrupt_count,
            ),
            ("superblocks", "Superblock files", stats.superblock_count as u64),
            (
                "read_only",
                "1 while no writes are taken",
                u64::from(stats.read_only.is_some()),
            ),
            (
                "disk_available_bytes",
                "Room on the disk",
                stats.disk_available_bytes,
            ),
            (
                "requests_in_flight",
                "Open requests for chunks",
                u64::from(node.load.in_flight()),
            ),
            (
                "egress_bits_per_second",
                "Sent in the last second",
                node.load.egress_bps(),
            ),
        ];
        for (name, help, value) in gauges {
            add(&mut encoder, name, help, &ConstGauge::new(value))?;
        }
        encode_upkeep(&mut encoder, &node, stats.disk_errors)
    }
}

/// What the node does behind its viewers.
fn encode_upkeep(encoder: &mut DescriptorEncoder<'_>, node: &Node, disk_errors: u64) -> fmt::Result {
    let (scrub, compaction) = (node.store.scrub(), node.store.compaction());
    let counters = [
        (
            "disk_errors",
            "Errors of the disk, besides that it is full",
            disk_errors,
        ),
        (
            "scrub_found",
            "Damage found by the scrub since the folder was made",
            scrub.found_total,
        ),
        ("compactions", "Compactions done", compaction.done),
        (
            "compaction_freed_bytes",
            "Bytes that they gave back",
            compaction.freed_bytes,
        ),
    ];
    for (name, help, value) in counters {
        add(encoder, name, help, &ConstCounter::new(value))?;
    }
    let gauges = [
        (
            "scrub_checked_bytes",
            "Read in the scrub's round",
            scrub.checked_bytes,
        ),
        (
            "scrub_total_bytes",
            "To be read in the scrub's round",
            scrub.total_bytes,
        ),
        (
            "scrub_last_ended_timestamp_seconds",
            "When the last round of the scrub ended, 0 if none has",
            scrub.last_ended.0 / 1000,
        ),
        (
            "scrub_last_clean_timestamp_seconds",
            "When the last round ended that found nothing, 0 if none has",
            scrub.last_clean.0 / 1000,
        ),
    ];
    for (name, help, value) in gauges {
        add(encoder, name, help, &ConstGauge::new(value))?;
    }
    Ok(())
}

fn add(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    let name = format!("storage_{name}");
    let metric_encoder = encoder.encode_descriptor(&name, help, None, metric.metric_type())?;
    metric.encode(metric_encoder)
}
