//! Where the pipeline gets its bytes, and what the worker may know of how it goes.
//!
//! [`ChunkFeed`] is all that playback needs of the smart client; tests put a clip in memory behind it. Bytes that come
//! out of it were verified. [`Feed`] is one opened video: its timeline, its init segment, and the marks that the
//! streaming thread leaves for the worker.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use vstack_client::{ClientError, Session};

use super::timeline::{Timeline, Unit};

/// Chunks in, facts about playback out.
pub trait ChunkFeed: Send + Sync + 'static {
    /// Blocks until these bytes of chunk `seq` are here and verified, the rest of the chunk or not; `range` `None` is all of
    /// it. `None` once `cancelled` says so; it is asked again after each [`ChunkFeed::wake`].
    fn bytes(
        &self,
        seq: u32,
        range: Option<Range<usize>>,
        cancelled: &dyn Fn() -> bool,
    ) -> Option<Result<Bytes, FeedError>>;
    /// Wakes those who wait in [`ChunkFeed::bytes`].
    fn wake(&self);
    /// Where playback is.
    fn set_position(&self, position_ms: u64);
    /// Where playback goes next: what lies outside the new window is not needed any more.
    fn seek(&self, position_ms: u64);
    fn note_playing(&self, playing: bool);
    fn note_first_frame(&self);
    fn note_stall(&self, started: bool);
}

/// Why a chunk does not come, in words for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FeedError {
    pub message: String,
}

impl From<ClientError> for FeedError {
    fn from(error: ClientError) -> Self {
        Self {
            message: error.to_string(),
        }
    }
}

impl ChunkFeed for Session {
    fn bytes(
        &self,
        seq: u32,
        range: Option<Range<usize>>,
        cancelled: &dyn Fn() -> bool,
    ) -> Option<Result<Bytes, FeedError>> {
        let bytes = match range {
            Some(range) => self.bytes_blocking(seq, range, cancelled),
            None => self.chunk_blocking(seq, cancelled),
        };
        bytes.map(|bytes| bytes.map_err(FeedError::from))
    }

    fn wake(&self) {
        Self::wake(self);
    }

    fn set_position(&self, position_ms: u64) {
        Self::set_position(self, position_ms);
    }

    fn seek(&self, position_ms: u64) {
        Self::seek(self, position_ms);
    }

    fn note_playing(&self, playing: bool) {
        Self::note_playing(self, playing);
    }

    fn note_first_frame(&self) {
        Self::note_first_frame(self);
    }

    fn note_stall(&self, started: bool) {
        Self::note_stall(self, started);
    }
}

/// One opened video.
pub struct Feed {
    pub timeline: Timeline,
    /// `None` when each chunk is a file of its own.
    pub init: Option<Bytes>,
    pub chunks: Box<dyn ChunkFeed>,
    /// Presentation time up to which bytes were handed to the demuxer since the last seek.
    handed_until_ms: AtomicU64,
    /// The streaming thread waits for a chunk right now.
    waiting: AtomicBool,
    failure: Mutex<Option<FeedError>>,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed")
            .field("units", &self.timeline.units().len())
            .finish_non_exhaustive()
    }
}

impl Feed {
    /// A video to play. `init` is the init segment, already verified.
    #[must_use]
    pub fn new(timeline: Timeline, init: Option<Bytes>, chunks: Box<dyn ChunkFeed>) -> Arc<Self> {
        let (handed_until_ms, waiting, failure) =
            (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(None));
        Arc::new(Self {
            timeline,
            init,
            chunks,
            handed_until_ms,
            waiting,
            failure,
        })
    }

    /// The verified bytes of a unit; blocks. `None` when `cancelled`.
    pub(super) fn unit_bytes(
        &self,
        unit: &Unit,
        cancelled: &dyn Fn() -> bool,
    ) -> Option<Result<Bytes, FeedError>> {
        self.waiting.store(true, Ordering::SeqCst);
        let bytes = self.chunks.bytes(unit.seq, unit.bytes.clone(), cancelled);
        self.waiting.store(false, Ordering::SeqCst);
        let bytes = bytes?;
        if let Err(error) = &bytes {
            *lock(&self.failure) = Some(error.clone());
        }
        Some(bytes)
    }

    /// Called when a unit is on its way to the demuxer.
    pub(super) fn mark_handed(&self, until_ms: u64) {
        self.handed_until_ms.store(until_ms, Ordering::SeqCst);
    }

    /// Where bytes run out if none follow, while the streaming thread waits for more; `None` while it does not wait.
    pub(super) fn runs_dry_at_ms(&self) -> Option<u64> {
        let waiting = self.waiting.load(Ordering::SeqCst);
        waiting.then(|| self.handed_until_ms.load(Ordering::SeqCst))
    }

    /// The feed's own word for why the pipeline failed, once.
    pub(super) fn take_failure(&self) -> Option<FeedError> {
        lock(&self.failure).take()
    }
}

/// The value behind a lock, also after another thread died holding it: every value here is replaced whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
