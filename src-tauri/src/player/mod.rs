//! Playback: a video of the smart client in, a moving picture and sound out. Commands in, events out.
//!
//! Nothing outside this folder touches GStreamer, and nothing inside it knows the window's page. [`Player`] is a
//! handle; the pipeline lives on a thread of its own ([`worker`]). The picture goes to whatever sink the caller gives:
//! the window's ([`surface`]), or a test's.

mod allowed;
mod bus;
mod feed;
mod file_source;
mod pipeline;
mod retime;
pub mod screen;
mod source;
pub mod surface;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod timeline;
mod trim;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::watch;

pub use feed::{ChunkFeed, Feed, FeedError};
pub use pipeline::AudioOutput;
pub use timeline::{Timeline, Unit};

use pipeline::Pipeline;
use worker::{Input, Worker};

/// What the player is told.
#[derive(Debug)]
pub enum PlayerCommand {
    /// Show `feed` from `start_ms`; `play` false stops at its first picture. `id` is for messages.
    Open {
        id: String,
        feed: Arc<Feed>,
        start_ms: u64,
        play: bool,
    },
    Close,
    Play,
    Pause,
    Seek {
        position_ms: u64,
    },
    SetVolume {
        volume: f64,
        muted: bool,
    },
    Shutdown,
}

/// What happened, once each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlayerEvent {
    FirstFrame {
        startup_ms: u64,
    },
    /// A seek is done.
    Sought {
        position_ms: u64,
        took_ms: u64,
    },
    StallStarted {
        position_ms: u64,
    },
    StallEnded {
        position_ms: u64,
    },
    Restarted {
        reason: String,
        position_ms: u64,
    },
    Ended,
    Failed(PlayerError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlayerPhase {
    #[default]
    Idle,
    Loading,
    Playing,
    Paused,
    Buffering,
    Ended,
    Failed,
}

/// How things are now.
#[derive(Debug, Clone, PartialEq)]
pub struct PlayerStatus {
    /// Times that a video was opened, the one that this is about included.
    pub opened: u64,
    pub phase: PlayerPhase,
    pub position_ms: u64,
    pub duration_ms: u64,
    /// From opening to the first picture.
    pub startup_ms: Option<u64>,
    pub stalls: u32,
    /// 0 to 1, as heard.
    pub volume: f64,
    pub muted: bool,
    pub error: Option<PlayerError>,
}

impl Default for PlayerStatus {
    fn default() -> Self {
        Self {
            opened: 0,
            phase: PlayerPhase::Idle,
            position_ms: 0,
            duration_ms: 0,
            startup_ms: None,
            stalls: 0,
            volume: 1.0,
            muted: false,
            error: None,
        }
    }
}

/// Why there is no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlayerError {
    #[error("GStreamer cannot be used: {0}")]
    Library(String),
    #[error("GStreamer has no element called {name}")]
    MissingElement { name: &'static str },
    #[error("no decoder for this video is installed: {detail}")]
    MissingDecoder { detail: String },
    #[error("the video's data cannot be fetched: {message}")]
    Feed { message: String },
    #[error("playback failed again and again: {detail}")]
    Broken { detail: String },
    #[error("the pipeline refused to change its state")]
    State,
    #[error("the pipeline refused to seek to {position_ms} ms")]
    Seek { position_ms: u64 },
}

/// A running player. Dropping it stops the pipeline.
#[derive(Debug)]
pub struct Player {
    inbox: Sender<Input>,
    status: watch::Receiver<PlayerStatus>,
    /// Videos that it was told to open.
    opened: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

impl Player {
    /// Starts a player that shows pictures in `video_sink`. `events` is called on the player's thread.
    ///
    /// # Errors
    /// GStreamer, or an element that playback needs, is missing.
    pub fn start(
        video_sink: &gstreamer::Element,
        audio: AudioOutput,
        events: impl Fn(PlayerEvent) + Send + 'static,
    ) -> Result<Self, PlayerError> {
        pipeline::prepare()?;
        let (inbox, outbox) = channel();
        let number = Arc::new(AtomicU64::new(0));
        let pipeline = Pipeline::new(video_sink, audio, inbox.clone(), Arc::clone(&number))?;
        let (status, watcher) = watch::channel(PlayerStatus::default());
        let worker = Worker {
            pipeline,
            inbox: outbox,
            number,
            status,
            events: Box::new(events),
            open: None,
        };
        let thread = std::thread::Builder::new()
            .name("player".into())
            .spawn(move || worker.run());
        let thread = thread.map_err(|error| PlayerError::Library(error.to_string()))?;
        Ok(Self {
            inbox,
            status: watcher,
            opened: AtomicU64::new(0),
            thread: Some(thread),
        })
    }

    /// Tells the player to do something; it does so in order.
    pub fn send(&self, command: PlayerCommand) {
        if matches!(command, PlayerCommand::Open { .. }) {
            self.opened.fetch_add(1, Ordering::SeqCst);
        }
        // After a shutdown there is nobody to obey, and nothing to do.
        let _ = self.inbox.send(Input::Command(command));
    }

    /// The newest status. While a video is on its way to the player nothing is said of the one before it.
    #[must_use]
    pub fn status(&self) -> PlayerStatus {
        let status = self.status.borrow().clone();
        if status.opened == self.opened.load(Ordering::SeqCst) {
            return status;
        }
        PlayerStatus {
            volume: status.volume,
            muted: status.muted,
            ..PlayerStatus::default()
        }
    }

    /// For those who wait for changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<PlayerStatus> {
        self.status.clone()
    }

    /// Whether the pipeline's thread has ended after [`PlayerCommand::Shutdown`].
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.send(PlayerCommand::Shutdown);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the player's thread panicked");
        }
    }
}

/// Makes GStreamer ready without a player: for those who make a sink first.
///
/// # Errors
/// GStreamer cannot be used.
pub fn prepare() -> Result<(), PlayerError> {
    pipeline::prepare()
}
