//! What the workers tell: how far they are, how fast, and when they will be done.

use std::sync::PoisonError;

use tokio::time::Instant;
use vstack_api::redundancy::{RedundancyStatus, Work};

use super::Redundancy;

/// Which of them works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Conversion,
    Repair,
    Rebalance,
}

impl Redundancy {
    pub(super) fn status(&self) -> RedundancyStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut RedundancyStatus)) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let before = status.clone();
        change(&mut status);
        if *status != before {
            self.changed.send_replace(());
        }
    }

    fn work(&self, kind: Kind, change: impl FnOnce(&mut Work)) {
        self.change(|status| {
            change(match kind {
                Kind::Conversion => &mut status.conversion,
                Kind::Repair => &mut status.repair,
                Kind::Rebalance => &mut status.rebalance,
            });
        });
    }
}

/// One stretch of work. When it is dropped, the work is not active any more.
#[derive(Debug)]
pub(super) struct Stretch<'a> {
    redundancy: &'a Redundancy,
    kind: Kind,
    started: Instant,
}

impl<'a> Stretch<'a> {
    pub(super) fn begin(redundancy: &'a Redundancy, kind: Kind, what: &str, total: u64) -> Self {
        redundancy.work(kind, |work| {
            *work = Work {
                active: true,
                what: what.to_owned(),
                total,
                finished_total: work.finished_total,
                failed_total: work.failed_total,
                ..Work::default()
            };
        });
        Self {
            redundancy,
            kind,
            started: Instant::now(),
        }
    }

    /// One chunk ended, well or not.
    pub(super) fn chunk_ended(&self, outcome: &Result<u64, String>) {
        let elapsed_s = self.started.elapsed().as_secs_f64().max(1e-3);
        self.redundancy.work(self.kind, |work| {
            work.done += 1;
            match outcome {
                Ok(bytes) => {
                    work.finished_total += 1;
                    work.moved_bytes += bytes;
                }
                Err(reason) => {
                    work.failed_total += 1;
                    work.trouble.clone_from(reason);
                }
            }
            work.bytes_per_second = work.moved_bytes as f64 / elapsed_s;
            let left = work.total.saturating_sub(work.done) as f64;
            let left_ms = left * elapsed_s * 1000.0 / work.done as f64;
            work.eta_ms = Some(vstack_core::manifest::seconds_to_ms(left_ms / 1000.0));
        });
    }
}

impl Drop for Stretch<'_> {
    fn drop(&mut self) {
        self.redundancy.work(self.kind, |work| {
            work.active = false;
            work.eta_ms = None;
        });
    }
}
