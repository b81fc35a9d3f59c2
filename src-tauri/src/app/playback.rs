//! The open video: a session of the smart client on one side, the player on the other.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};
use vstack_client::{Cluster, PolicyName, Session, SessionReport, SpanState};
use vstack_core::id::VideoId;

use super::cluster::ClusterLink;
use super::traces::SessionTrace;
use crate::dto::{Playback, PlaybackPhase, SourcePolicy, SourceSpan, UiError};
use crate::player::{Feed, Player, PlayerCommand, PlayerPhase, PlayerStatus, Timeline};

/// A video counts as viewed once this much of it was played.
const VIEW_AFTER: Duration = Duration::from_secs(10);
const VIEW_STEP: Duration = Duration::from_secs(1);

/// What is being watched.
#[derive(Debug)]
pub(crate) struct NowPlaying {
    player: Player,
    open: Mutex<Option<Open>>,
    /// For traces of open sessions.
    cache: PathBuf,
}

#[derive(Debug)]
struct Open {
    video: VideoId,
    title: String,
    duration_ms: u64,
    session: Session,
    /// `None` when it could not be begun, which the log says.
    trace: Option<SessionTrace>,
    _viewer: DropGuard,
}

impl NowPlaying {
    pub(crate) fn new(player: Player, cache: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            player,
            open: Mutex::new(None),
            cache,
        })
    }

    fn open_video(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a video and plays it from its beginning.
    pub(crate) async fn open(
        self: &Arc<Self>,
        link: &ClusterLink,
        video: VideoId,
    ) -> Result<Playback, UiError> {
        let cluster = link.cluster().await?;
        let (session, trace) = self.open_session(&cluster, video).await?;
        let manifest = Arc::clone(session.manifest());
        if manifest.chunks.is_empty() {
            let message = "Nothing of this video has arrived yet.";
            return Err(UiError::new(
                "nothing_yet",
                message,
                "Wait until its upload has stored the first minutes.",
            ));
        }
        let viewer = CancellationToken::new();
        tauri::async_runtime::spawn(Arc::clone(self).count_view(cluster, video, viewer.clone()));
        let (title, duration_ms) = (manifest.title.clone(), manifest.duration_ms());
        let open = Open {
            video,
            title,
            duration_ms,
            session,
            trace,
            _viewer: viewer.drop_guard(),
        };
        self.load(&open, 0);
        *self.open_video() = Some(open);
        self.snapshot(false)
            .ok_or_else(|| UiError::new("closed", "The video was closed.", "Open it again."))
    }

    /// With a trace, where one can be written: playback does not depend on it.
    async fn open_session(
        &self,
        cluster: &Cluster,
        video: VideoId,
    ) -> Result<(Session, Option<SessionTrace>), UiError> {
        let cache = self.cache.clone();
        let begun = tokio::task::spawn_blocking(move || SessionTrace::begin(&cache)).await;
        match begun.map_err(std::io::Error::other).flatten() {
            Ok((sink, trace)) => Ok((cluster.open_traced(video, sink).await?, Some(trace))),
            Err(error) => {
                tracing::warn!(folder = %self.cache.display(), %error, "no trace of this session can be written");
                Ok((cluster.open(video).await?, None))
            }
        }
    }

    fn load(&self, open: &Open, start_ms: u64) {
        let timeline = Timeline::of(open.session.manifest());
        let feed = Feed::new(
            timeline,
            open.session.init_segment(),
            Box::new(open.session.clone()),
        );
        self.player.send(PlayerCommand::Open {
            id: open.video.to_string(),
            feed,
            start_ms,
            play: true,
        });
    }

    pub(crate) fn close(&self) {
        self.player.send(PlayerCommand::Close);
        if let Some(open) = self.open_video().take() {
            let report = open.session.report();
            tracing::info!(video = %open.video, report = %serde_json::to_string(&report).unwrap_or_default(), "closed");
        }
    }

    /// Plays; a video that failed is loaded again where it was.
    pub(crate) fn play(&self) {
        let status = self.player.status();
        match &*self.open_video() {
            Some(open) if status.phase == PlayerPhase::Failed => self.load(open, status.position_ms),
            _ => self.player.send(PlayerCommand::Play),
        }
    }

    pub(crate) fn pause(&self) {
        self.player.send(PlayerCommand::Pause);
    }

    pub(crate) fn seek(&self, position_ms: u64) {
        self.player.send(PlayerCommand::Seek { position_ms });
    }

    pub(crate) fn set_volume(&self, volume: f64, muted: bool) {
        self.player.send(PlayerCommand::SetVolume { volume, muted });
    }

    /// The viewer may jump here in the open video: what lies there may be fetched in advance. Hints never get in the way
    /// of playback: the session takes them only while it needs nothing itself.
    pub(crate) fn hint_pointer(&self, position_ms: Option<u64>) {
        if let Some(session) = self.session() {
            session.hint_pointer(position_ms);
        }
    }

    /// This video is opened from its beginning after the open one.
    pub(crate) fn hint_next(&self, next: Option<VideoId>) {
        if let Some(session) = self.session() {
            session.hint_next(next.map(|next| (next, 0)));
        }
    }

    /// The viewer is offered to go on here in the open video.
    pub(crate) fn hint_resume(&self, position_ms: Option<u64>) {
        if let Some(session) = self.session() {
            session.hint_resume(position_ms);
        }
    }

    /// Lets another policy choose the sources of the open video from now on.
    pub(crate) fn set_policy(&self, policy: PolicyName) {
        if let Some(session) = self.session() {
            session.set_policy(policy);
        }
    }

    /// Tells the player to end; [`NowPlaying::has_ended`] says when it has.
    pub(crate) fn shut_down(&self) {
        self.close();
        self.player.send(PlayerCommand::Shutdown);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.player.is_finished()
    }

    /// The session of the open video.
    pub(crate) fn session(&self) -> Option<Session> {
        self.open_video().as_ref().map(|open| open.session.clone())
    }

    /// What the session of the open video has come to.
    pub(crate) fn report(&self) -> Option<SessionReport> {
        self.session().map(|session| session.report())
    }

    /// Saves the trace of the open video's session, as far as it goes now, in `folder`; the file.
    pub(crate) async fn save_trace(&self, folder: PathBuf) -> Result<PathBuf, UiError> {
        let (video, trace) = self.trace()?;
        let place = folder.clone();
        let saved = tokio::task::spawn_blocking(move || trace.save(&place, video)).await;
        saved.map_err(std::io::Error::other).flatten().map_err(|error| {
            UiError::new(
                "not_saved",
                format!("The trace cannot be saved in {}: {error}.", folder.display()),
                "Make room there, or make the folder writable, then save it again.",
            )
        })
    }

    fn trace(&self) -> Result<(VideoId, SessionTrace), UiError> {
        let open = self.open_video();
        let open = open.as_ref().ok_or_else(|| {
            UiError::new(
                "closed",
                "No video is open.",
                "Open one: its session is traced from the beginning.",
            )
        })?;
        let trace = open.trace.as_ref().and_then(|trace| trace.try_clone().ok());
        let trace = trace.ok_or_else(|| {
            UiError::new(
                "no_trace",
                "This session is not traced.",
                format!("Make {} writable and open the video again.", self.cache.display()),
            )
        })?;
        Ok((open.video, trace))
    }

    /// How things are; `None` while no video is open.
    pub(crate) fn snapshot(&self, fullscreen: bool) -> Option<Playback> {
        let status = self.player.status();
        let open = self.open_video();
        let open = open.as_ref()?;
        let snapshot = open.session.snapshot();
        let spans = snapshot
            .spans
            .iter()
            .filter(|span| span.state != SpanState::Fetching)
            .map(|span| SourceSpan {
                start_ms: span.start_ms,
                end_ms: span.end_ms,
                node: u32::from(span.node_index),
            });
        Some(Playback {
            video_id: open.video.to_string(),
            title: open.title.clone(),
            phase: phase(&status),
            position_ms: status.position_ms,
            duration_ms: open.duration_ms,
            volume: status.volume,
            muted: status.muted,
            fullscreen,
            buffer_ms: snapshot.buffer_ms,
            startup_ms: snapshot.startup_ms,
            stalls: status.stalls,
            policy: source_policy(open.session.policy()),
            spans: spans.collect(),
            error: status.error.map(UiError::from),
        })
    }

    /// Tells the catalogue of a view once enough was played.
    async fn count_view(self: Arc<Self>, cluster: Cluster, video: VideoId, closed: CancellationToken) {
        let mut played = Duration::ZERO;
        while played < VIEW_AFTER {
            tokio::select! {
                () = tokio::time::sleep(VIEW_STEP) => {}
                () = closed.cancelled() => return,
            }
            if self.player.status().phase == PlayerPhase::Playing {
                played += VIEW_STEP;
            }
        }
        if let Err(error) = cluster.catalogue().record_view(video).await {
            tracing::debug!(%error, "the view was not counted");
        }
    }
}

pub(super) const fn policy_name(policy: SourcePolicy) -> PolicyName {
    match policy {
        SourcePolicy::Pool => PolicyName::Pool,
        SourcePolicy::Seed => PolicyName::Seed,
        SourcePolicy::RoundRobin => PolicyName::RoundRobin,
        SourcePolicy::Random => PolicyName::Random,
        SourcePolicy::Single => PolicyName::Single,
    }
}

pub(super) const fn source_policy(policy: PolicyName) -> SourcePolicy {
    match policy {
        PolicyName::Pool => SourcePolicy::Pool,
        PolicyName::Seed => SourcePolicy::Seed,
        PolicyName::RoundRobin => SourcePolicy::RoundRobin,
        PolicyName::Random => SourcePolicy::Random,
        PolicyName::Single => SourcePolicy::Single,
    }
}

fn phase(status: &PlayerStatus) -> PlaybackPhase {
    match status.phase {
        // The command to open is on its way to the player.
        PlayerPhase::Idle | PlayerPhase::Loading => PlaybackPhase::Loading,
        PlayerPhase::Playing => PlaybackPhase::Playing,
        PlayerPhase::Paused => PlaybackPhase::Paused,
        PlayerPhase::Buffering => PlaybackPhase::Buffering,
        PlayerPhase::Ended => PlaybackPhase::Ended,
        PlayerPhase::Failed => PlaybackPhase::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_and_the_client_call_policies_by_the_same_names() {
        for policy in PolicyName::ALL {
            let shown = source_policy(policy);
            assert_eq!(policy_name(shown), policy);
            assert_eq!(serde_json::to_value(shown).unwrap(), policy.as_str());
        }
    }
}
