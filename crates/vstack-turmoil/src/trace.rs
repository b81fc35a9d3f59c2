//! What happened in a run, in order: lines to read, and their fingerprint to compare runs by.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vstack_core::digest::{ChunkHasher, Sha256Digest};
use vstack_core::time::UnixMillis;

/// Clones note into the same run.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Mutex<State>>);

struct State {
    kept: Option<Vec<String>>,
    hasher: ChunkHasher,
    events: u64,
    now: UnixMillis,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").finish_non_exhaustive()
    }
}

impl Trace {
    /// Lines are kept only if `keep`; the fingerprint is the same.
    pub(crate) fn new(keep: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            kept: keep.then(Vec::new),
            hasher: ChunkHasher::new(),
            events: 0,
            now: UnixMillis(0),
        })))
    }

    /// The time of what is noted from now on.
    pub(crate) fn at(&self, now: UnixMillis) {
        self.lock().now = now;
    }

    pub(crate) fn note(&self, line: impl FnOnce() -> String) {
        let mut state = self.lock();
        let line = format!("{:>7} ms  {}", state.now.0, line());
        state.hasher.update(line.as_bytes());
        state.events += 1;
        if let Some(kept) = &mut state.kept {
            kept.push(line);
        }
    }

    /// The lines, how many there were, and the fingerprint of all.
    pub(crate) fn end(&self) -> (Vec<String>, u64, Sha256Digest) {
        let mut state = self.lock();
        let hasher = std::mem::replace(&mut state.hasher, ChunkHasher::new());
        (
            state.kept.take().unwrap_or_default(),
            state.events,
            hasher.finish().0.sha256,
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
