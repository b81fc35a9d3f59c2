//! The pipeline on real bytes: a clip made by FFmpeg and cut by the product's own splitter, shown to an `appsink` that
//! reads the bar code of each frame.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use rand::{Rng as _, SeedableRng as _};
use vstack_media::barcode::{Area, Picture, read_frame_number};

use super::feed::Feed;
use super::screen::Screen;
use super::testing::{Clip, Supply};
use super::{AudioOutput, Player, PlayerCommand, PlayerError, PlayerEvent, PlayerPhase, PlayerStatus};

/// Longest wait for anything: the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// 34 s at 30 pictures a second: four chunks.
static CLIP: LazyLock<Clip> = LazyLock::new(|| Clip::generated(34));

/// The frames that reached the screen, newest last.
#[derive(Default)]
struct Frames {
    seen: Mutex<Vec<u16>>,
    changed: Condvar,
}

impl Frames {
    fn add(&self, sample: &gst::Sample) {
        let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        let frame =
            gst_video::VideoFrameRef::from_buffer_ref_readable(sample.buffer().unwrap(), &info).unwrap();
        let picture = Picture {
            width: info.width(),
            height: info.height(),
            channels: 4,
            pixels: frame.plane_data(0).unwrap(),
        };
        let number = read_frame_number(&picture, Area::whole(&picture));
        self.seen
            .lock()
            .unwrap()
            .push(number.expect("every frame of the clip carries its number"));
        self.changed.notify_all();
    }

    fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    /// Waits until `enough` says so of the frames since the last [`Frames::forget`].
    fn wait(&self, what: &str, enough: impl Fn(&[u16]) -> bool) -> Vec<u16> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.seen.lock().unwrap();
        while !enough(&seen) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {what}; seen: {seen:?}");
            seen = self.changed.wait_timeout(seen, left).unwrap().0;
        }
        seen.clone()
    }
}

/// A player with a screen that can be read.
struct Stage {
    player: Player,
    events: Receiver<PlayerEvent>,
    frames: Arc<Frames>,
}

impl Stage {
    fn new() -> Self {
        super::prepare().unwrap();
        let frames = Arc::new(Frames::default());
        let sink = gst_app::AppSink::builder().sync(true).max_buffers(2).build();
        let (prerolled, shown) = (Arc::clone(&frames), Arc::clone(&frames));
        let callbacks = gst_app::AppSinkCallbacks::builder()
            .new_preroll(move |sink| {
                prerolled.add(&sink.pull_preroll().map_err(|_| gst::FlowError::Eos)?);
                Ok(gst::FlowSuccess::Ok)
            })
            .new_sample(move |sink| {
                shown.add(&sink.pull_sample().map_err(|_| gst::FlowError::Eos)?);
                Ok(gst::FlowSuccess::Ok)
            });
        sink.set_callbacks(callbacks.build());
        let screen = Screen::around(sink.upcast_ref()).unwrap();
        let (tell, events) = channel();
        let player = Player::start(&screen.sink(), AudioOutput::Silent, move |event| {
            let _ = tell.send(event);
        });
        Self {
            player: player.unwrap(),
            events,
            frames,
        }
    }

    /// A stage with the clip on it, at its first picture.
    fn with_clip(play: bool) -> (Self, Arc<Supply>) {
        let stage = Self::new();
        let (feed, supply) = CLIP.feed();
        stage.open(feed, 0, play);
        stage.expect("the first picture", |event| {
            matches!(event, PlayerEvent::FirstFrame { .. })
        });
        (stage, supply)
    }

    fn open(&self, feed: Arc<Feed>, start_ms: u64, play: bool) {
        self.player.send(PlayerCommand::Open {
            id: "clip".into(),
            feed,
            start_ms,
            play,
        });
    }

    fn expect(&self, what: &str, wanted: impl Fn(&PlayerEvent) -> bool) -> PlayerEvent {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self
                .events
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("waited in vain for {what}"));
            if wanted(&event) {
                return event;
            }
        }
    }

    /// Seeks; returns the first frame of the target and how long it took.
    fn seek(&self, position_ms: u64) -> (u16, u64) {
        self.seek_within(position_ms, 1)
    }

    /// The same where the frame is known to within `tolerance` frames.
    fn seek_within(&self, position_ms: u64, tolerance: u16) -> (u16, u64) {
        // Events of earlier seeks are of no interest.
        while self.events.try_recv().is_ok() {}
        self.frames.forget();
        self.player.send(PlayerCommand::Seek { position_ms });
        let event = self.expect(
            "the seek's picture",
            |event| matches!(event, PlayerEvent::Sought { position_ms: at, .. } if *at == position_ms),
        );
        let PlayerEvent::Sought { took_ms, .. } = event else {
            unreachable!("the event was matched above")
        };
        let wanted = frame_at(position_ms);
        let seen = self.frames.wait("a frame of the target", |seen| {
            seen.iter().any(|&frame| frame.abs_diff(wanted) <= tolerance)
        });
        (
            *seen
                .iter()
                .find(|frame| frame.abs_diff(wanted) <= tolerance)
                .unwrap(),
            took_ms,
        )
    }

    fn wait_for_phase(&self, phase: PlayerPhase) {
        self.wait_for_status(&format!("{phase:?}"), |status| status.phase == phase);
    }

    fn wait_for_status(&self, what: &str, wanted: impl FnMut(&PlayerStatus) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut watch = self.player.watch();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let reached = watch.wait_for(wanted);
            let reached = tokio::time::timeout_at(deadline.into(), reached).await;
            assert!(
                reached.is_ok(),
                "waited in vain for {what}: {:?}",
                self.player.status()
            );
        });
    }
}

/// The middle of a frame: at its edges, rounding to milliseconds decides.
fn middle_of(frame: u16) -> u64 {
    u64::from(frame) * 1000 / 30 + 17
}

fn frame_at(position_ms: u64) -> u16 {
    u16::try_from(position_ms * 30 / 1000).unwrap()
}

#[test]
fn of_a_video_that_is_on_its_way_nothing_is_said_that_was_true_of_the_one_before() {
    let (stage, _supply) = Stage::with_clip(false);
    stage.seek(20_000);
    stage.wait_for_status("the place", |status| status.position_ms >= 19_000);
    let (feed, _supply) = CLIP.feed();
    stage.open(feed, 0, false);
    let status = stage.player.status();
    assert!(
        status.position_ms < 1_000 && status.startup_ms.is_none(),
        "{status:?}"
    );
    stage.expect("the first picture", |event| {
        matches!(event, PlayerEvent::FirstFrame { .. })
    });
    assert!(stage.player.status().startup_ms.is_some());
}

#[test]
fn a_video_starts_at_its_first_frame_and_plays_every_frame_in_order() {
    let (stage, _) = Stage::with_clip(true);
    let seen = stage.frames.wait("a second of frames", |seen| seen.len() > 30);
    assert_eq!(seen[0], 0, "{seen:?}");
    assert!(
        seen.windows(2)
            .all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1),
        "{seen:?}"
    );
    let status = stage.player.status();
    assert!(status.startup_ms.is_some() && status.stalls == 0, "{status:?}");
}

#[test]
fn a_paused_video_shows_exactly_the_frame_it_was_sent_to() {
    let (stage, _) = Stage::with_clip(false);
    // In, before and after a keyframe, at the edges of fragments and chunks, backwards, twice the same.
    for frame in [1, 59, 60, 61, 100, 299, 300, 301, 317, 899, 900, 5, 5, 1000] {
        let (shown, took_ms) = stage.seek(middle_of(frame));
        assert_eq!(shown, frame, "after {took_ms} ms");
    }
    assert_eq!(stage.player.status().phase, PlayerPhase::Paused);
}

#[test]
fn thirty_seeks_in_a_row_all_arrive() {
    let seed: u64 = std::env::var("VSTACK_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(rand::random);
    println!("VSTACK_SEED={seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let (stage, _) = Stage::with_clip(true);
    let mut times: Vec<u64> = (0..30)
        .map(|_| {
            let frame = random.random_range(0..1010);
            let (shown, took_ms) = stage.seek(middle_of(frame));
            assert!(shown.abs_diff(frame) <= 1, "asked for {frame}, saw {shown}");
            took_ms
        })
        .collect();
    times.sort_unstable();
    println!(
        "seeks: median {} ms, 90 % {} ms, longest {} ms",
        times[15], times[27], times[29]
    );
    assert_eq!(stage.player.status().stalls, 0);
}

#[test]
fn the_last_of_many_hasty_seeks_is_where_playback_goes_on() {
    let (stage, _) = Stage::with_clip(true);
    for position_ms in (1..20).map(|step| step * 1_500) {
        stage.player.send(PlayerCommand::Seek { position_ms });
    }
    let (shown, _) = stage.seek(middle_of(450));
    assert_eq!(shown, 450);
}

#[test]
fn playback_waits_for_a_missing_chunk_and_goes_on_without_losing_a_frame() {
    let (stage, supply) = Stage::with_clip(true);
    supply.hold_from(1);
    stage.seek(middle_of(270));
    stage.expect("a stall", |event| {
        matches!(event, PlayerEvent::StallStarted { .. })
    });
    stage.wait_for_phase(PlayerPhase::Buffering);
    let shown_before = stage.frames.wait("some frames", |seen| !seen.is_empty());
    assert!(shown_before.iter().all(|&frame| frame < 300), "{shown_before:?}");
    supply.release();
    stage.expect("the end of the stall", |event| {
        matches!(event, PlayerEvent::StallEnded { .. })
    });
    let seen = stage.frames.wait("frames of the next chunk", |seen| {
        seen.last().is_some_and(|&last| last > 330)
    });
    let from_target = seen.iter().skip_while(|&&frame| frame < 270);
    let shown: Vec<u16> = from_target.copied().collect();
    assert!(
        shown
            .windows(2)
            .all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1),
        "{shown:?}"
    );
    assert_eq!(
        (supply.stalls(), stage.player.status().stalls),
        (vec![true, false], 1)
    );
}

#[test]
fn one_can_seek_away_from_a_chunk_that_never_comes() {
    let (stage, supply) = Stage::with_clip(true);
    supply.hold_from(2);
    stage.player.send(PlayerCommand::Seek { position_ms: 25_000 });
    stage.wait_for_phase(PlayerPhase::Buffering);
    let (shown, took_ms) = stage.seek(middle_of(90));
    println!("seek away from a missing chunk: {took_ms} ms");
    assert_eq!(shown, 90);
    assert_eq!(stage.player.status().stalls, 0, "waiting for a seek is no stall");
}

#[test]
fn a_video_ends_and_starts_again_from_the_beginning() {
    let (stage, _) = Stage::with_clip(true);
    stage.seek(33_000);
    stage.expect("the end", |event| *event == PlayerEvent::Ended);
    stage.wait_for_phase(PlayerPhase::Ended);
    let status = stage.player.status();
    assert_eq!(status.position_ms, status.duration_ms);
    stage.frames.forget();
    stage.player.send(PlayerCommand::Play);
    let seen = stage
        .frames
        .wait("the beginning", |seen| seen.len() > 10 && seen.contains(&5));
    assert!(seen.contains(&0), "{seen:?}");
}

#[test]
fn a_video_can_start_in_the_middle_without_reading_its_beginning() {
    let stage = Stage::new();
    let (feed, supply) = CLIP.feed();
    stage.open(feed, middle_of(700), false);
    stage.expect("the first picture", |event| {
        matches!(event, PlayerEvent::FirstFrame { .. })
    });
    assert_eq!(stage.frames.wait("a frame", |seen| !seen.is_empty()), [700]);
    assert!(!supply.asked().contains(&0), "{:?}", supply.asked());
}

#[test]
fn one_pipeline_shows_one_video_after_another() {
    let stage = Stage::new();
    for _ in 0..6 {
        stage.player.send(PlayerCommand::Close);
        stage.wait_for_phase(PlayerPhase::Idle);
        stage.frames.forget();
        let (feed, _) = CLIP.feed();
        stage.open(feed, 0, true);
        let first = stage.expect("the first picture", |event| {
            matches!(event, PlayerEvent::FirstFrame { .. })
        });
        println!("{first:?}");
        assert_eq!(stage.frames.wait("frames", |seen| seen.len() > 3)[0], 0);
    }
    stage.player.send(PlayerCommand::Close);
    stage.wait_for_phase(PlayerPhase::Idle);
}

#[test]
fn a_feed_that_gives_up_ends_playback_with_its_own_words() {
    let (stage, supply) = Stage::with_clip(true);
    supply.fail();
    stage.player.send(PlayerCommand::Seek { position_ms: 25_000 });
    let event = stage.expect("the failure", |event| matches!(event, PlayerEvent::Failed(_)));
    let expected = PlayerError::Feed {
        message: "all nodes are gone".into(),
    };
    assert_eq!(event, PlayerEvent::Failed(expected));
    stage.wait_for_phase(PlayerPhase::Failed);
}

#[test]
fn a_pipeline_that_fails_is_restarted_where_it_was_and_given_up_after_a_few_times() {
    let stage = Stage::new();
    let (feed, _) = CLIP.with_damaged_chunk(2).feed();
    stage.open(feed, 0, true);
    stage.expect("the first picture", |event| {
        matches!(event, PlayerEvent::FirstFrame { .. })
    });
    stage.player.send(PlayerCommand::Seek { position_ms: 25_000 });
    stage.expect("a restart", |event| {
        matches!(
            event,
            PlayerEvent::Restarted {
                position_ms: 25_000,
                ..
            }
        )
    });
    let event = stage.expect("the failure", |event| matches!(event, PlayerEvent::Failed(_)));
    assert!(
        matches!(event, PlayerEvent::Failed(PlayerError::Broken { .. })),
        "{event:?}"
    );
}

#[test]
fn a_video_of_whole_files_plays_across_their_borders_and_seeks_in_each() {
    for own_times in [true, false] {
        let stage = Stage::new();
        let (feed, _) = Clip::as_files(24, own_times).feed();
        stage.open(feed, 0, false);
        stage.expect("the first picture", |event| {
            matches!(event, PlayerEvent::FirstFrame { .. })
        });
        assert_eq!(stage.player.status().duration_ms, 24_000);
        // FFmpeg shifts a file's times by its reordering depth, two frames, when it sets them anew.
        for frame in [15, 317, 700, 295, 100] {
            let (shown, _) = stage.seek_within(middle_of(frame), 2);
            assert!(
                shown.abs_diff(frame) <= 2,
                "asked for {frame}, saw {shown}, own times: {own_times}"
            );
        }
        stage.seek_within(middle_of(285), 2);
        stage.player.send(PlayerCommand::Play);
        let seen = stage.frames.wait("the second file", |seen| {
            seen.last().is_some_and(|&last| last > 330)
        });
        assert!(
            seen.windows(2)
                .all(|pair| pair[1] >= pair[0] && pair[1] - pair[0] <= 2),
            "{seen:?}"
        );
        stage.seek_within(23_000, 2);
        stage.expect("the end", |event| *event == PlayerEvent::Ended);
        assert_eq!(stage.player.status().stalls, 0);
    }
}
