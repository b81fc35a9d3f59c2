//! A newer manifest: which chunks have moved.

use tokio::task::JoinError;
use vstack_api::ApiError;
use vstack_core::manifest::Manifest;

use super::Driver;
use crate::error::ClientError;
use crate::event::EventKind;
use crate::policy::{Fact, Shape};
use crate::source::{Source, sources};

impl Driver {
    pub(super) fn ask_for_manifest(&mut self) {
        let (catalogue, video) = (self.cluster.catalogue.clone(), self.video);
        self.manifests
            .spawn(async move { catalogue.manifest(video).await });
    }

    /// Placements may have changed, though nothing has failed: of use while chunks are still to come, and enough once.
    pub(super) fn read_manifest(&mut self) {
        if self.manifests.is_empty() && !self.scheduler.reaches_end() {
            self.ask_for_manifest();
        }
    }

    pub(super) fn manifest_read(&mut self, done: Result<Result<Manifest, ApiError>, JoinError>) {
        // The task itself ends early only with the runtime.
        let answer = done.map_err(|_| ClientError::Closed);
        let manifest = answer.and_then(|manifest| manifest.map_err(ClientError::from));
        let fresh = manifest.and_then(|manifest| sources(&manifest, &mut self.cluster.nodes()));
        let (moved, error) = match fresh {
            Ok(fresh) => (self.take_placements(fresh), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let kind = EventKind::ManifestRead {
            moved_chunks: moved.len(),
            error,
        };
        self.shared.lock().journal.tell(self.cluster.clock.now(), kind);
        for (seq, shape) in moved {
            self.apply(Fact::Placed { seq, shape }, None);
        }
        self.apply(Fact::ManifestRead, None);
    }

    /// A chunk never changes its bytes; only where they are is taken from a later manifest.
    fn take_placements(&mut self, fresh: Vec<Source>) -> Vec<(u32, Shape)> {
        let mut moved = Vec::new();
        for ((seq, old), new) in (0..).zip(&mut self.sources).zip(fresh) {
            let same_bytes =
                (old.chunk_id, old.size_bytes, old.sha256) == (new.chunk_id, new.size_bytes, new.sha256);
            if same_bytes && old.parts != new.parts {
                old.parts = new.parts;
                moved.push((seq, old.shape()));
            }
        }
        moved
    }
}
