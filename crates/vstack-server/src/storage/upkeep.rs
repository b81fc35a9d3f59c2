//! The node's background work: scrub, compaction and index snapshots, on a thread of their own, behind the viewers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use vstack_api::wire::{CompactionHealth, ScrubFinding, ScrubHealth};
use vstack_store::{
    CompactionReport, Compactor, Finding, Scrub, ScrubReport, Snapshots, Store, Worker, run_workers,
};

use super::load::Load;

/// Starts the thread. The other end of what it returns is dropped when the thread has ended and let the folder go.
///
/// # Errors
/// The system gives no thread.
pub(super) fn start(
    store: &Store,
    load: &Load,
    stop: CancellationToken,
) -> std::io::Result<oneshot::Receiver<()>> {
    let (running, ended) = oneshot::channel();
    // Nothing confirms that a delete has reached every replica, so every tombstone stays.
    let keep_tombstones = Box::new(|_, _, _| false);
    let mut workers: Vec<Box<dyn Worker>> = vec![
        Box::new(Scrub::new(store)),
        Box::new(Compactor::new(store, keep_tombstones)),
        Box::new(Snapshots::new(store)),
    ];
    let load = load.clone();
    std::thread::Builder::new()
        .name("store-upkeep".to_owned())
        .spawn(move || {
            run_workers(&mut workers, &|| load.in_flight(), &mut |time| pause(&stop, time));
            drop(workers);
            drop::<oneshot::Sender<()>>(running);
        })?;
    Ok(ended)
}

/// Sleeps, and says how long it was; `None` when the node stops.
fn pause(stop: &CancellationToken, time: Duration) -> Option<Duration> {
    let began = Instant::now();
    std::thread::sleep(time);
    (!stop.is_cancelled()).then(|| began.elapsed())
}

pub(super) fn scrub_health(report: ScrubReport) -> ScrubHealth {
    let at = |time: vstack_core::time::UnixMillis| (time.0 > 0).then_some(time.0);
    ScrubHealth {
        running: report.running,
        checked_bytes: report.checked_bytes,
        total_bytes: report.total_bytes,
        round_started_ms: at(report.round_started),
        last_ended_ms: at(report.last_ended),
        last_clean_ms: at(report.last_clean),
        found_total: report.found_total,
        findings: report.findings.into_iter().map(finding).collect(),
    }
}

fn finding(finding: Finding) -> ScrubFinding {
    ScrubFinding {
        chunk_id: finding.chunk,
        ballot: finding.ballot,
        superblock: finding.superblock,
        offset: finding.offset,
        reason: finding.reason,
        found_at_ms: finding.found_at.0,
    }
}

pub(super) const fn compaction_health(report: CompactionReport) -> CompactionHealth {
    let CompactionReport {
        running,
        done,
        freed_bytes,
    } = report;
    CompactionHealth {
        running,
        done,
        freed_bytes,
    }
}

/// What `GET /health` tells beside the store's figures.
pub(super) fn reports(store: &Arc<super::state::Node>) -> (ScrubHealth, CompactionHealth, Vec<String>) {
    let store = &store.store;
    // A folder that cannot be listed shows up as a disk error elsewhere.
    let quarantined = store.quarantined().unwrap_or_default();
    (
        scrub_health(store.scrub()),
        compaction_health(store.compaction()),
        quarantined,
    )
}
