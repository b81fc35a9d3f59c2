//! Playback without a decoder: bytes are taken as the player takes them, fragment by fragment, and dropped.
//!
//! The media clock runs from the first fragment on; one that is not there when the clock reaches its start is a stall,
//! and the clock waits for it. A fragment may come before the rest of its chunk, when the policy finds that playback can
//! go on from that. Where the manifest names no fragments, a chunk is taken whole.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};
use vstack_core::id::VideoId;
use vstack_core::manifest::{Container, Manifest, ManifestChunk};

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
    /// Each fragment is taken as soon as it is there. Nothing can stall.
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
    play_into(session, options, |_, _| ()).await
}

/// Bytes of the video as a player gets them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    pub seq: u32,
    /// Of the chunk; `None`: all of it.
    pub bytes: Option<Range<usize>>,
    pub start_ms: u64,
}

/// The same, and `sink` is handed what a decoder would get.
///
/// # Errors
/// A chunk cannot be had.
pub async fn play_into(
    session: &Session,
    options: HeadlessOptions,
    mut sink: impl FnMut(&Unit, Bytes),
) -> Result<(), ClientError> {
    let units = units(session.manifest(), session.chunk_count());
    // The last one that begins by then: playback starts in the middle of it.
    let first = units.partition_point(|unit| unit.start_ms <= options.start_ms);
    if options.start_ms > 0 {
        session.seek(options.start_ms);
    }
    let mut clock = None;
    for unit in &units[first.saturating_sub(1)..] {
        let start_ms = unit.start_ms.max(options.start_ms);
        let bytes = take(session, unit, start_ms, options.pace, &mut clock).await?;
        sink(unit, bytes);
        tracing::trace!(unit.seq, start_ms, "taken");
    }
    finish(session, options.pace, clock).await;
    Ok(())
}

/// By time.
fn units(manifest: &Manifest, chunk_count: u32) -> Vec<Unit> {
    let whole_files = manifest.container == Container::Mp4Segments;
    let chunks = (0..chunk_count).zip(&manifest.chunks);
    chunks
        .flat_map(|(seq, chunk)| units_of(seq, chunk, whole_files))
        .collect()
}

fn units_of(seq: u32, chunk: &ManifestChunk, whole_files: bool) -> Vec<Unit> {
    let span = |(offset, size): (u32, u32)| {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        (size > 0 && end as u64 <= chunk.size_bytes).then_some(start..end)
    };
    let fragments = chunk.fragments.iter().map(|fragment| {
        Some(Unit {
            seq,
            bytes: Some(span((fragment.offset, fragment.size))?),
            start_ms: fragment.start_ms,
        })
    });
    // Nothing of the manifest is trusted: a fragment outside its chunk makes the chunk one unit.
    match fragments.collect::<Option<Vec<_>>>() {
        Some(units) if !units.is_empty() && !whole_files => units,
        _ => vec![Unit {
            seq,
            bytes: None,
            start_ms: chunk.start_ms(),
        }],
    }
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

async fn read(session: &Session, unit: &Unit) -> Result<Bytes, ClientError> {
    match &unit.bytes {
        Some(range) => session.bytes(unit.seq, range.clone()).await,
        None => session.chunk(unit.seq).await,
    }
}

/// Waits until the media clock reaches the unit, then until its bytes are there.
async fn take(
    session: &Session,
    unit: &Unit,
    start_ms: u64,
    pace: Pace,
    clock: &mut Option<MediaClock>,
) -> Result<Bytes, ClientError> {
    if let Some(running) = *clock {
        run_to(session, running, start_ms).await;
        // What is there is taken even when its time has come already.
        if let Ok(Ok(bytes)) = timeout_at(running.reaches(start_ms), read(session, unit)).await {
            return Ok(bytes);
        }
        session.note_stall(true);
    }
    session.set_position(start_ms);
    let bytes = read(session, unit).await?;
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
    Ok(bytes)
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
