//! `playbin`, with our source in front and our sink behind, in the four states that the worker needs of it.
//!
//! One pipeline lives as long as the player; videos are loaded into it one after another. Classic `playbin`, not
//! `playbin3`: the latter hung in preroll in 28 of 145 starts on GStreamer 1.22.0, the former in none.

use std::sync::atomic::AtomicU64;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gst::prelude::*;
use gstreamer as gst;

use super::feed::{Feed, lock};
use super::file_source::FileSource;
use super::source::VideoSource;
use super::worker::Input;
use super::{PlayerError, allowed, bus, file_source, source, trim};

/// Tracks shown, volume in software, interlaced pictures woven. No subtitles, visualisations or network buffering:
/// those are not the pipeline's business here.
const PLAY_FLAGS: &str = "video+audio+soft-volume+deinterlace";

/// Where sound goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioOutput {
    /// The desktop's output; none where no device opens.
    Desktop,
    /// A sink that keeps time and makes no sound: tests.
    Silent,
}

/// Makes the library and our element ready; once a process.
pub(super) fn prepare() -> Result<(), PlayerError> {
    static PREPARED: Mutex<bool> = Mutex::new(false);
    let mut prepared = lock(&PREPARED);
    if !*prepared {
        gst::init().map_err(|error| PlayerError::Library(error.to_string()))?;
        VideoSource::register().map_err(|error| PlayerError::Library(error.to_string()))?;
        FileSource::register().map_err(|error| PlayerError::Library(error.to_string()))?;
        allowed::restrict();
        *prepared = true;
    }
    Ok(())
}

/// The element that `name` makes, or the package that is missing.
pub(super) fn make(name: &'static str) -> Result<gst::Element, PlayerError> {
    gst::ElementFactory::make(name)
        .build()
        .map_err(|_| PlayerError::MissingElement { name })
}

pub(super) struct Pipeline {
    playbin: gst::Element,
    loaded: Slot,
    /// The desktop's sound is wanted and was not found yet.
    needs_sound: bool,
}

/// What the next source element reads.
#[derive(Clone)]
struct Loaded {
    feed: Arc<Feed>,
    /// Which file of a video that is stored as files.
    file: usize,
    /// The time that it starts with; files start with their beginning.
    start_ms: u64,
}

type Slot = Arc<Mutex<Option<Loaded>>>;

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").finish_non_exhaustive()
    }
}

impl Pipeline {
    /// A pipeline that shows pictures in `video_sink` and tells `inbox` what happens.
    pub(super) fn new(
        video_sink: &gst::Element,
        audio: AudioOutput,
        inbox: Sender<Input>,
        number: Arc<AtomicU64>,
    ) -> Result<Self, PlayerError> {
        let playbin = make("playbin")?;
        playbin.set_property_from_str("flags", PLAY_FLAGS);
        playbin.set_property("video-sink", video_sink);
        playbin.set_property("audio-sink", silent_sink()?);
        let loaded = Slot::default();
        install_hooks(&playbin, &loaded);
        let bus = playbin
            .bus()
            .ok_or(PlayerError::Library("the pipeline has no bus".into()))?;
        bus::forward(&bus, inbox, number);
        Ok(Self {
            playbin,
            loaded,
            needs_sound: audio == AudioOutput::Desktop,
        })
    }

    /// Loads the plug-ins that nearly every video needs. Without it the first video waits for them: half a second and
    /// more on a cold machine.
    pub(super) fn warm_up(&self) {
        for name in ["qtdemux", "h264parse", "avdec_h264", "aacparse", "avdec_aac"] {
            // One that is missing is told when a video needs it.
            drop(make(name));
        }
    }

    /// Looks for an output of the desktop while none is found. Opening devices takes up to seconds: call it while
    /// nothing plays and nobody waits.
    pub(super) fn find_sound(&mut self) {
        if !self.needs_sound {
            return;
        }
        match desktop_sink() {
            Ok((sink, audible)) => {
                self.playbin.set_property("audio-sink", &sink);
                self.needs_sound = !audible;
            }
            Err(error) => tracing::warn!(%error, "there is no sound"),
        }
    }

    /// Starts to load a video, into a pipeline that is stopped, so that its picture at `start_ms` comes first; the
    /// pipeline pauses there. A file of a video that is stored as files is shown from its beginning.
    pub(super) fn load(
        &self,
        id: &str,
        feed: &Arc<Feed>,
        file: usize,
        start_ms: u64,
    ) -> Result<(), PlayerError> {
        let uri = if feed.timeline.whole_files {
            format!("{}://video/{id}/{file}", file_source::SCHEME)
        } else {
            format!("{}://video/{id}", source::SCHEME)
        };
        *lock(&self.loaded) = Some(Loaded {
            feed: Arc::clone(feed),
            file,
            start_ms,
        });
        self.playbin.set_property("uri", uri);
        self.set_state(gst::State::Paused)
    }

    pub(super) fn play(&self) -> Result<(), PlayerError> {
        self.set_state(gst::State::Playing)
    }

    pub(super) fn pause(&self) -> Result<(), PlayerError> {
        self.set_state(gst::State::Paused)
    }

    /// Back to nothing: threads ended, devices closed.
    pub(super) fn stop(&self) {
        if self.playbin.set_state(gst::State::Null).is_err() {
            tracing::warn!("the pipeline did not stop cleanly");
        }
        *lock(&self.loaded) = None;
    }

    fn set_state(&self, state: gst::State) -> Result<(), PlayerError> {
        match self.playbin.set_state(state) {
            Ok(_) => Ok(()),
            Err(_) => Err(PlayerError::State),
        }
    }

    /// A flushing, exact seek. Returns when the old data is gone; [`bus::BusEvent::Prerolled`] says when the new
    /// picture is there.
    pub(super) fn seek(&self, position_ms: u64) -> Result<(), PlayerError> {
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
        let position = gst::ClockTime::from_mseconds(position_ms);
        self.playbin
            .seek_simple(flags, position)
            .map_err(|_| PlayerError::Seek { position_ms })
    }

    /// Time of the picture that is shown, where there is one.
    pub(super) fn position_ms(&self) -> Option<u64> {
        self.playbin
            .query_position::<gst::ClockTime>()
            .map(gst::ClockTime::mseconds)
    }

    pub(super) fn set_volume(&self, volume: f64, muted: bool) {
        // Loudness is heard on a cubic scale; the page's slider is linear in what is heard.
        let amplitude = volume.clamp(0.0, 1.0).powi(3);
        self.playbin.set_property("volume", amplitude);
        self.playbin.set_property("mute", muted);
    }

    pub(super) fn redistribute_latency(&self) {
        if let Some(bin) = self.playbin.downcast_ref::<gst::Bin>() {
            let _ = bin.recalculate_latency();
        }
    }

    /// Waits until the last change of state is over; for the end of the process.
    pub(super) fn settle(&self) {
        let _ = self
            .playbin
            .state(gst::ClockTime::from_mseconds(SETTLE.as_secs() * 1000));
    }
}

/// Longest wait for the pipeline to end.
const SETTLE: Duration = Duration::from_secs(3);

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.stop();
        self.settle();
    }
}

/// Gives each new source what it reads, and each new demuxer its probes.
fn install_hooks(playbin: &gst::Element, loaded: &Slot) {
    let for_source = Arc::clone(loaded);
    playbin.connect("source-setup", false, move |values| {
        let source = values.get(1)?.get::<gst::Element>().ok()?;
        let Loaded { feed, file, start_ms } = lock(&for_source).clone()?;
        if let Some(source) = source.downcast_ref::<VideoSource>() {
            source.set_feed(feed);
            start_at(source, start_ms);
        } else if let Some(source) = source.downcast_ref::<FileSource>() {
            let unit = feed.timeline.units().get(file)?.clone();
            source.set_file(feed, unit);
        }
        None
    });
    let for_probes = Arc::clone(loaded);
    playbin.connect("deep-element-added", false, move |values| {
        let element = values.get(2)?.get::<gst::Element>().ok()?;
        let is_demuxer = element
            .factory()
            .is_some_and(|factory| factory.name() == "qtdemux");
        // In whole files the demuxer applies edit lists and finds keyframes itself.
        let loaded = lock(&for_probes)
            .clone()
            .filter(|loaded| !loaded.feed.timeline.whole_files);
        if is_demuxer && let Some(loaded) = loaded {
            trim::install(&element, &loaded.feed);
        }
        None
    });
}

/// A seek that a source keeps until it is activated: the pipeline prerolls at that time and reads nothing before it.
fn start_at(source: &VideoSource, start_ms: u64) {
    if start_ms == 0 {
        return;
    }
    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
    let start = gst::ClockTime::from_mseconds(start_ms);
    let seek = gst::event::Seek::new(
        1.0,
        flags,
        gst::SeekType::Set,
        start,
        gst::SeekType::None,
        gst::ClockTime::NONE,
    );
    source.send_event(seek);
}

/// The first output that opens, by the order of what desktops have; a silent one where none does.
fn desktop_sink() -> Result<(gst::Element, bool), PlayerError> {
    for name in ["pulsesink", "alsasink"] {
        let Ok(sink) = make(name) else { continue };
        let opens = sink.set_state(gst::State::Ready).is_ok();
        // Nothing was opened yet that could fail to close.
        let _ = sink.set_state(gst::State::Null);
        if opens {
            return Ok((sink, true));
        }
    }
    Ok((silent_sink()?, false))
}

/// Keeps time and makes no sound.
fn silent_sink() -> Result<gst::Element, PlayerError> {
    let sink = make("fakesink")?;
    sink.set_property("sync", true);
    Ok(sink)
}
