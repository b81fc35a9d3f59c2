//! Playback without a decoder: chunks are taken as a player would take them and their bytes are dropped.
//!
//! The media clock runs from the first chunk on; a chunk that is not there when the clock reaches its start is a stall,
//! and the clock waits for it.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use vstack_core::id::VideoId;

use crate::cluster::Cluster;
use crate::error::ClientError;
use crate::report::SessionReport;
use crate::session::Session;

/// How often the position is told, in wall-clock time: as a player does it.
const POSITION_PERIOD: Duration = Duration::from_millis(100);

/// How fast the media clock runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// `Times(1.0)` is real time.
    Times(f64),
    /// Each chunk is taken as soon as it is there. Nothing can stall.
    AsFastAsPossible,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadlessOptions {
    pub pace: Pace,
    /// Where to begin.
    pub start_ms: u64,
}

impl Default for HeadlessOptions {
    fn default() -> Self {
        Self {
            pace: Pace::Times(1.0),
            start_ms: 0,
        }
    }
}

/// Opens and plays a video to its end. A chunk that cannot be had ends it; the report is then not `complete`.
///
/// # Errors
/// The video cannot be opened.
pub async fn play(
    cluster: &Cluster,
    video: VideoId,
    options: HeadlessOptions,
) -> Result<SessionReport, ClientError> {
    let session = cluster.open(video).await?;
    if let Err(error) = play_session(&session, options).await {
        tracing::warn!(%error, %video, "playback ended early");
    }
    Ok(session.report())
}

/// Plays an open session to its end, for those who want its events meanwhile.
///
/// # Errors
/// A chunk cannot be had.
pub async fn play_session(session: &Session, options: HeadlessOptions) -> Result<(), ClientError> {
    let chunks = &session.manifest().chunks;
    let first = chunks.partition_point(|chunk| chunk.end_ms() <= options.start_ms);
    if options.start_ms > 0 {
        session.seek(options.start_ms);
    }
    let mut clock = None;
    for (seq, chunk) in (0..session.chunk_count()).zip(chunks).skip(first) {
        let start_ms = chunk.start_ms().max(options.start_ms);
        take(session, seq, start_ms, options.pace, &mut clock).await?;
        tracing::trace!(seq, "chunk taken");
    }
    finish(session, options.pace, clock).await;
    Ok(())
}

/// The media clock: at `at`, playback was at `media_ms`.
#[derive(Debug, Clone, Copy)]
struct MediaClock {
    at: Instant,
    media_ms: u64,
    speed: f64,
}

impl MediaClock {
    /// When the clock shows `media_ms`.
    fn reaches(&self, media_ms: u64) -> Instant {
        let ahead_s = media_ms.saturating_sub(self.media_ms) as f64 / 1_000.0 / self.speed;
        self.at + Duration::try_from_secs_f64(ahead_s).unwrap_or(Duration::MAX / 4)
    }

    fn position_ms(&self) -> u64 {
        let passed_ms = Instant::now()
            .saturating_duration_since(self.at)
            .mul_f64(self.speed)
            .as_millis();
        self.media_ms
            .saturating_add(u64::try_from(passed_ms).unwrap_or(u64::MAX))
    }
}

/// Waits until the media clock reaches the chunk, then until the chunk is there.
async fn take(
    session: &Session,
    seq: u32,
    start_ms: u64,
    pace: Pace,
    clock: &mut Option<MediaClock>,
) -> Result<(), ClientError> {
    if let Some(running) = *clock {
        run_to(session, running, start_ms).await;
        // A chunk that is there is taken even when its time has come already.
        if let Ok(Ok(_)) = timeout_at(running.reaches(start_ms), session.chunk(seq)).await {
            return Ok(());
        }
        session.note_stall(true);
    }
    session.set_position(start_ms);
    session.chunk(seq).await?;
    session.note_stall(false);
    session.note_first_frame();
    session.note_playing(true);
    if let Pace::Times(speed) = pace {
        *clock = Some(MediaClock {
            at: Instant::now(),
            media_ms: start_ms,
            speed: speed.max(f64::MIN_POSITIVE),
        });
    }
    Ok(())
}

/// Tells the position until the clock shows `media_ms`.
async fn run_to(session: &Session, clock: MediaClock, media_ms: u64) {
    let due = clock.reaches(media_ms);
    loop {
        session.set_position(clock.position_ms().min(media_ms));
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        sleep(left.min(POSITION_PERIOD)).await;
    }
}

async fn finish(session: &Session, pace: Pace, clock: Option<MediaClock>) {
    let end_ms = session.manifest().duration_ms();
    match (pace, clock) {
        (Pace::Times(_), Some(clock)) => run_to(session, clock, end_ms).await,
        _ => session.set_position(end_ms),
    }
    session.note_playing(false);
}
