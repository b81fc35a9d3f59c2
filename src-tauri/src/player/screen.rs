//! The last part of the pipeline: upright, as BGRx, then shown.
//!
//! The window's sink scales each frame to its widget. Scaling here to the widget's size would take half the processor
//! time, but each new size in mid-stream could leave `gtksink` 1.22 with a picture format that no later frame fits
//! (`gst_video_frame_map_id: info->width <= meta->width`): the picture stayed black while time went on. One format from
//! the first frame to the last cannot do that.

use gst::prelude::*;
use gstreamer as gst;

use super::PlayerError;
use super::pipeline::{make, prepare};

/// The sink that the pipeline sees.
#[derive(Debug, Clone)]
pub struct Screen {
    bin: gst::Bin,
    /// What paints.
    shown: gst::Element,
}

impl Screen {
    /// Conversion in front of `sink`, which takes system-memory BGRx.
    ///
    /// # Errors
    /// An element is missing.
    pub fn around(sink: &gst::Element) -> Result<Self, PlayerError> {
        prepare()?;
        let bin = gst::Bin::with_name("screen");
        // Phones record lying pictures and say so in a tag.
        let upright = make("videoflip")?;
        upright.set_property_from_str("video-direction", "auto");
        let convert = make("videoconvertscale")?;
        convert.set_property("n-threads", 2u32);
        let format = make("capsfilter")?;
        format.set_property(
            "caps",
            gst::Caps::builder("video/x-raw").field("format", "BGRx").build(),
        );
        let broken = |_| PlayerError::Library("the screen's elements do not fit together".into());
        bin.add_many([&upright, &convert, &format, sink])
            .map_err(broken)?;
        gst::Element::link_many([&upright, &convert, &format, sink]).map_err(broken)?;
        let no_pad = || PlayerError::Library("an element has no pad".into());
        let entry = upright.static_pad("sink").ok_or_else(no_pad)?;
        let ghost = gst::GhostPad::with_target(&entry).map_err(broken)?;
        bin.add_pad(&ghost).map_err(broken)?;
        Ok(Self {
            bin,
            shown: sink.clone(),
        })
    }

    /// Width and height of the frames that are shown, of square pixels; `None` before the first one.
    #[must_use]
    pub fn picture_size(&self) -> Option<(f64, f64)> {
        let caps = self.shown.static_pad("sink")?.current_caps()?;
        let facts = gstreamer_video::VideoInfo::from_caps(&caps).ok()?;
        let pixel = facts.par();
        let stretch = f64::from(pixel.numer()) / f64::from(pixel.denom().max(1));
        Some((f64::from(facts.width()) * stretch, f64::from(facts.height())))
    }

    /// The whole as one sink.
    #[must_use]
    pub fn sink(&self) -> gst::Element {
        self.bin.clone().upcast()
    }
}
