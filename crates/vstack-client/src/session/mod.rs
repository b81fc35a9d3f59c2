//! One playback. A task owns the policy and the downloads; the handle talks to it, and waits for what it brings.
//!
//! Everything that the handle reads lies behind one lock that is never held across an await. A chunk is in the buffer
//! only after its SHA-256 matched. The metadata role is asked when a session opens and when a placement turned out to
//! be old: a video that is open plays to its end without it.

mod driver;
mod scheduler;
mod shared;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use vstack_core::id::VideoId;
use vstack_core::manifest::Manifest;

use crate::cluster::Cluster;
use crate::config::PolicyName;
use crate::error::ClientError;
use crate::event::SessionEvent;
use crate::monitor::name_newcomers;
use crate::policy::prefetch::Hint;
use crate::report::SessionReport;
use crate::snapshot::SessionSnapshot;
use crate::source::{inline_init, sources, specs};
use crate::trace::TraceSink;

use driver::Driver;
use scheduler::Scheduler;
use shared::Shared;

/// What the handle tells the task.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Command {
    Position { ms: u64 },
    Seek { ms: u64 },
    Wanted { seq: u32 },
    Unwanted { seq: u32 },
    Starved { starved: bool },
    Policy { policy: PolicyName },
    Hint { why: Hint, ms: Option<u64> },
    Next { next: Option<(VideoId, u64)> },
}

/// A playback. Cheap to clone; dropping the last clone stops its downloads.
#[derive(Clone)]
pub struct Session {
    manifest: Arc<Manifest>,
    init: Option<Bytes>,
    cluster: Cluster,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    _task: Arc<DropGuard>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("video_id", &self.manifest.video_id)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) async fn open(
        cluster: &Cluster,
        video: VideoId,
        trace: Option<TraceSink>,
    ) -> Result<Self, ClientError> {
        let opened = cluster.shared().clock.now();
        let manifest = cluster.catalogue().manifest(video).await?;
        let sources = sources(&manifest, &mut cluster.shared().nodes())?;
        name_newcomers(cluster.shared()).await;
        let specs = specs(&manifest, &sources);
        let policy = cluster.policy();
        let recorder = trace.map(|sink| sink.recorder(cluster.shared(), policy, &manifest, &specs));
        let shared = Arc::new(Shared::new(cluster.shared(), policy, &specs, opened));
        let (commands, inbox) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let driver = Driver::new(
            Arc::clone(cluster.shared()),
            Arc::clone(&shared),
            video,
            sources,
            Scheduler::new(cluster.config(), policy, specs, recorder),
        );
        tokio::spawn(driver.run(inbox, stop.clone()));
        let mut session = Self {
            manifest: Arc::new(manifest),
            init: None,
            cluster: cluster.clone(),
            shared,
            commands,
            _task: Arc::new(stop.drop_guard()),
        };
        session.init = session.read_init().await?;
        Ok(session)
    }

    /// From the manifest; from a node when those bytes are not there or not right.
    async fn read_init(&self) -> Result<Option<Bytes>, ClientError> {
        let Some(init) = &self.manifest.init else {
            return Ok(None);
        };
        match inline_init(init) {
            Some(bytes) => Ok(Some(bytes)),
            None => self.cluster.fetch_verified(&init.chunk).await.map(Some),
        }
    }

    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The init segment, verified. `None` for a video whose chunks are whole MP4 files.
    #[must_use]
    pub fn init_segment(&self) -> Option<Bytes> {
        self.init.clone()
    }

    /// Media chunks that can be asked for: all of an active video, the gapless beginning of one that still arrives.
    #[must_use]
    pub fn chunk_count(&self) -> u32 {
        self.shared.chunk_count()
    }

    /// Where playback is. Moves the window; call it 4 to 10 times a second.
    pub fn set_position(&self, position_ms: u64) {
        self.send(Command::Position { ms: position_ms });
    }

    /// Jumps. Downloads outside the new window are cancelled; what is held inside it stays.
    pub fn seek(&self, position_ms: u64) {
        self.send(Command::Seek { ms: position_ms });
    }

    /// The pointer is over this place on the seek bar; `None`: it has left. When it rests there and playback needs nothing,
    /// the chunk that a jump would begin in is fetched in advance.
    pub fn hint_pointer(&self, position_ms: Option<u64>) {
        self.send(Command::Hint {
            why: Hint::Pointer,
            ms: position_ms,
        });
    }

    /// The viewer is offered to go on from here.
    pub fn hint_resume(&self, position_ms: Option<u64>) {
        self.send(Command::Hint {
            why: Hint::Resume,
            ms: position_ms,
        });
    }

    /// This video comes next, from `start_ms` on: its first seconds are fetched in advance while playback needs nothing,
    /// for a session of the same [`Cluster`].
    pub fn hint_next(&self, next: Option<(VideoId, u64)>) {
        self.send(Command::Next { next });
    }

    /// The verified bytes of chunk `seq`; waits for them. A chunk outside the window is fetched too. Dropping the
    /// future is harmless.
    ///
    /// # Errors
    /// Every replica failed in several rounds (asking again goes on trying), there is no such chunk, or the session is
    /// over.
    pub async fn chunk(&self, seq: u32) -> Result<Bytes, ClientError> {
        let wish = Wish::new(self, seq);
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            if let Some(result) = self.shared.look(seq, wish.errors_before) {
                return result;
            }
            changed.await;
        }
    }

    /// The same for a thread outside the runtime. `None` when `cancelled` says so; it is asked before each wait and
    /// after [`Session::wake`], with a lock held: it must not call into this session.
    #[must_use]
    pub fn chunk_blocking(
        &self,
        seq: u32,
        cancelled: &dyn Fn() -> bool,
    ) -> Option<Result<Bytes, ClientError>> {
        let wish = Wish::new(self, seq);
        self.shared
            .wait_for(cancelled, |state| state.look(seq, wish.errors_before))
    }

    /// Bytes `range` of chunk `seq`, verified; waits for them. They may be had before the rest of the chunk: its beginning,
    /// when the policy finds that playback can start from that.
    ///
    /// # Errors
    /// As [`Session::chunk`]; and the chunk has fewer bytes.
    pub async fn bytes(&self, seq: u32, range: Range<usize>) -> Result<Bytes, ClientError> {
        let wish = Wish::new(self, seq);
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            if let Some(result) = self.shared.look_at(seq, range.clone(), wish.errors_before) {
                return result;
            }
            changed.await;
        }
    }

    /// The same for a thread outside the runtime; `cancelled` as in [`Session::chunk_blocking`].
    #[must_use]
    pub fn bytes_blocking(
        &self,
        seq: u32,
        range: Range<usize>,
        cancelled: &dyn Fn() -> bool,
    ) -> Option<Result<Bytes, ClientError>> {
        let wish = Wish::new(self, seq);
        self.shared.wait_for(cancelled, |state| {
            state.look_at(seq, range.clone(), wish.errors_before)
        })
    }

    /// Makes every [`Session::chunk_blocking`] ask its `cancelled` again.
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// Playback runs (true) or is paused. The buffer's figures count only while it runs.
    pub fn note_playing(&self, playing: bool) {
        let now = self.cluster.shared().clock.now();
        self.shared.lock().journal.playing(now, playing);
    }

    /// The first picture is on the screen.
    pub fn note_first_frame(&self) {
        let now = self.cluster.shared().clock.now();
        self.shared.lock().journal.first_frame(now);
        self.send(Command::Starved { starved: false });
    }

    /// Playback stopped for lack of data (true), or goes on.
    pub fn note_stall(&self, started: bool) {
        let now = self.cluster.shared().clock.now();
        self.shared.lock().journal.stall(now, started);
        self.send(Command::Starved { starved: started });
    }

    /// Lets another policy decide from now on: what is verified and whole stays, what is under way is asked for anew.
    /// While playback runs on the beginning of a chunk that is not whole yet, this waits until it is.
    pub fn set_policy(&self, policy: PolicyName) {
        self.send(Command::Policy { policy });
    }

    /// The policy that decides now.
    #[must_use]
    pub fn policy(&self) -> PolicyName {
        self.shared.lock().policy
    }

    /// The state now.
    #[must_use]
    pub fn snapshot(&self) -> SessionSnapshot {
        let now = self.cluster.shared().clock.now();
        let node_count = self.cluster.shared().nodes().len();
        self.shared.lock().snapshot(now, node_count)
    }

    /// Every decision from now on. A listener that falls 1024 events behind misses some.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<SessionEvent> {
        self.shared.lock().journal.subscribe()
    }

    /// The figures so far.
    #[must_use]
    pub fn report(&self) -> SessionReport {
        let now = self.cluster.shared().clock.now();
        let nodes = self.cluster.nodes();
        self.shared
            .lock()
            .report(now, self.manifest.video_id, self.cluster.config(), nodes)
    }

    fn send(&self, command: Command) {
        // The task is gone only when its runtime is; then nobody waits for the effect.
        let _ = self.commands.send(command);
    }
}

/// Somebody waits for a chunk, until this is dropped.
struct Wish<'a> {
    session: &'a Session,
    seq: u32,
    /// Times that this chunk was reported as unobtainable before.
    errors_before: u64,
}

impl<'a> Wish<'a> {
    fn new(session: &'a Session, seq: u32) -> Self {
        let (first, errors_before) = session.shared.add_wish(seq);
        if first {
            session.send(Command::Wanted { seq });
        }
        Self {
            session,
            seq,
            errors_before,
        }
    }
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        if self.session.shared.end_wish(self.seq) {
            self.session.send(Command::Unwanted { seq: self.seq });
        }
    }
}
