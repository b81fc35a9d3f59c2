//! The probes behind the demuxer: times after the edit list, and no frames that nobody will see.
//!
//! 1. FFmpeg delays the picture by its reordering depth and says so in the edit list, which the demuxer does not apply
//!    to pushed fragments: each track's offset is subtracted here.
//! 2. After a seek the demuxer starts at the fragment of the keyframe, and a fragment can hold frames before it. They
//!    are dropped before the decoder sees them (measured on the trial: seeks of 110-690 ms with it, 790-7400 without).
//!
//! The keyframe comes from the SEGMENT event, never from the caller of the seek: the event is in order with the data.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::prelude::*;
use gstreamer as gst;

use super::feed::Feed;

/// What a probe does to its track.
struct Trim {
    feed: Arc<Feed>,
    offset: gst::ClockTimeDiff,
    /// Frames before this keyframe are dropped; 0 drops none. Audio has no keyframes to wait for.
    keyframe_ms: AtomicU64,
    is_video: bool,
}

/// Installs the probe on each track that `demuxer` exposes.
pub(super) fn install(demuxer: &gst::Element, feed: &Arc<Feed>) {
    let feed = Arc::clone(feed);
    demuxer.connect_pad_added(move |_, pad| {
        let is_video = pad.name().starts_with("video");
        let offset_ms = if is_video {
            feed.timeline.video_offset_ms
        } else {
            feed.timeline.audio_offset_ms
        };
        let offset = offset_ms.saturating_mul(1_000_000);
        let trim = Trim {
            feed: Arc::clone(&feed),
            offset,
            keyframe_ms: AtomicU64::new(0),
            is_video,
        };
        let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(mask, move |_, info| trim.look_at(info));
    });
}

impl Trim {
    fn look_at(&self, info: &mut gst::PadProbeInfo<'_>) -> gst::PadProbeReturn {
        if let Some(event) = info.event() {
            if let gst::EventView::Segment(segment) = event.view() {
                self.note_segment(segment.segment());
            }
            return gst::PadProbeReturn::Ok;
        }
        info.buffer_mut()
            .map_or(gst::PadProbeReturn::Ok, |buffer| self.trim(buffer))
    }

    fn note_segment(&self, segment: &gst::Segment) {
        let start = segment
            .downcast_ref::<gst::ClockTime>()
            .and_then(gst::FormattedSegment::start);
        let target_ms = start.unwrap_or_default().mseconds();
        let keyframe_ms = if self.is_video {
            self.feed.timeline.keyframe_before(target_ms)
        } else {
            0
        };
        self.keyframe_ms.store(keyframe_ms, Ordering::SeqCst);
    }

    fn trim(&self, buffer: &mut gst::Buffer) -> gst::PadProbeReturn {
        let Some(pts) = buffer.pts() else {
            return gst::PadProbeReturn::Ok;
        };
        let Some(shown_at) = shifted(pts, self.offset) else {
            // Before the presentation begins. A frame is still decoded, since later ones may refer to it; sound is
            // the encoder's priming and is cut.
            if !self.is_video {
                return gst::PadProbeReturn::Drop;
            }
            buffer.make_mut().set_pts(gst::ClockTime::ZERO);
            return gst::PadProbeReturn::Ok;
        };
        let keyframe_ms = self.keyframe_ms.load(Ordering::SeqCst);
        if self.is_video
            && self
                .feed
                .timeline
                .is_before_keyframe(shown_at.mseconds(), keyframe_ms)
        {
            return gst::PadProbeReturn::Drop;
        }
        if self.offset != 0 {
            let decoded_at = buffer.dts().and_then(|dts| shifted(dts, self.offset));
            let buffer = buffer.make_mut();
            buffer.set_pts(shown_at);
            // A frame that is decoded after it is shown makes a decoder doubt both times.
            buffer.set_dts(decoded_at);
        }
        gst::PadProbeReturn::Ok
    }
}

/// A time minus an offset; `None` before 0.
fn shifted(pts: gst::ClockTime, offset: gst::ClockTimeDiff) -> Option<gst::ClockTime> {
    if offset >= 0 {
        pts.checked_sub(gst::ClockTime::from_nseconds(offset.unsigned_abs()))
    } else {
        pts.checked_add(gst::ClockTime::from_nseconds(offset.unsigned_abs()))
    }
}
