//! What the proposers of this role sent, by kind and by how their chunk was decided; in `/metrics` and `GET /consensus`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use vstack_api::consensus::{Batched, PathCounts, ProposerCounts};

use crate::metrics::Metrics;

/// How a chunk came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// One ballot, and nobody was asked what they hold.
    Fast,
    Contended,
    /// It was decided before anybody here stored it.
    Known,
    Failed,
}

impl Path {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Contended => "contended",
            Self::Known => "known",
            Self::Failed => "failed",
        }
    }
}

/// Requests that were sent for one chunk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) ballots: u64,
    pub(super) prepare: u64,
    pub(super) accept: u64,
    pub(super) adopt: u64,
    pub(super) commits: u64,
}

impl Sent {
    /// The path of a chunk that is decided.
    pub(super) const fn path(&self) -> Path {
        if self.commits == 0 {
            Path::Known
        } else if self.ballots == 1 && self.prepare == 0 {
            Path::Fast
        } else {
            Path::Contended
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PathLabel {
    path: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    kind: &'static str,
    path: &'static str,
}

/// Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    chunks: Family<PathLabel, Counter>,
    requests: Family<RequestLabels, Counter>,
    pub(super) open: BatchCounts,
    pub(super) commit: BatchCounts,
}

#[derive(Debug, Clone, Default)]
pub(super) struct BatchCounts {
    requests: Counter,
    items: Counter,
}

impl BatchCounts {
    pub(super) fn sent(&self, items: usize) {
        self.requests.inc();
        self.items.inc_by(items as u64);
    }

    fn read(&self) -> Batched {
        Batched {
            requests: self.requests.get(),
            items: self.items.get(),
        }
    }
}

impl Counts {
    pub(super) fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| {
            let consensus = registry.sub_registry_with_prefix("consensus");
            consensus.register("chunks", "Chunks by how they were decided", self.chunks.clone());
            consensus.register(
                "requests",
                "Requests to storage nodes, by kind and by how their chunk was decided",
                self.requests.clone(),
            );
            for (name, counts) in [("open", &self.open), ("commit", &self.commit)] {
                let batches = format!("{name}_requests");
                consensus.register(batches, "Requests to the catalogue", counts.requests.clone());
                let items = format!("{name}_items");
                consensus.register(items, "Chunks in those requests", counts.items.clone());
            }
        });
    }

    /// A chunk has come to its end.
    pub(super) fn settle(&self, path: Path, sent: Sent) {
        let path = path.as_str();
        self.chunks.get_or_create(&PathLabel { path }).inc();
        for (kind, count) in [
            ("ballot", sent.ballots),
            ("prepare", sent.prepare),
            ("accept", sent.accept),
            ("adopt", sent.adopt),
        ] {
            self.requests
                .get_or_create(&RequestLabels { kind, path })
                .inc_by(count);
        }
    }

    pub(super) fn read(&self) -> ProposerCounts {
        ProposerCounts {
            fast: self.path(Path::Fast),
            contended: self.path(Path::Contended),
            known: self.path(Path::Known),
            failed: self.path(Path::Failed),
            open: self.open.read(),
            commit: self.commit.read(),
        }
    }

    fn path(&self, path: Path) -> PathCounts {
        let path = path.as_str();
        let requests = |kind| self.requests.get_or_create(&RequestLabels { kind, path }).get();
        PathCounts {
            chunks: self.chunks.get_or_create(&PathLabel { path }).get(),
            ballots: requests("ballot"),
            prepare: requests("prepare"),
            accept: requests("accept"),
            adopt: requests("adopt"),
        }
    }
}
