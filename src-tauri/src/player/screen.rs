//! The last part of the pipeline: upright, scaled to the size at which it is seen, then shown.
//!
//! The window's sink would scale each frame on the main thread (70 % of a core for 720p30 shown at 960x540; scaling
//! here takes half of that, measured). The size follows the widget, in device pixels, and keeps the picture's
//! proportions; what is left of the widget stays black.
//!
//! A new size is put to use by the thread that carries the frames, between two of them. Set from the main thread it could
//! fall between the negotiation of caps and that of buffers: every later frame then failed to map, and the picture
//! stayed black (seen with GStreamer 1.22).

use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;

use super::PlayerError;
use super::feed::lock;
use super::pipeline::{make, prepare};

/// Smallest side worth scaling to. A widget is 1x1 before its first layout.
const MIN_SIDE_PX: u32 = 16;

/// The sink that the pipeline sees, and the handle to its size.
#[derive(Debug, Clone)]
pub struct Screen {
    bin: gst::Bin,
    size: gst::Element,
    fit: Arc<Mutex<Fit>>,
}

/// What the size depends on.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Fit {
    /// The picture as it wants to be seen: square pixels, upright.
    picture: Option<(u32, u32)>,
    /// Device pixels of the widget.
    area: Option<(u32, u32)>,
    /// What the scaler was last told.
    applied: Option<(u32, u32)>,
}

impl Fit {
    /// The largest size with the picture's proportions inside the area.
    fn target(self) -> Option<(u32, u32)> {
        let ((width, height), (area_width, area_height)) = (self.picture?, self.area?);
        if area_width < MIN_SIDE_PX || area_height < MIN_SIDE_PX || width == 0 || height == 0 {
            return None;
        }
        let by_width = u64::from(area_width) * u64::from(height) / u64::from(width);
        let (fitted_width, fitted_height) = if by_width <= u64::from(area_height) {
            (u64::from(area_width), by_width)
        } else {
            (
                u64::from(area_height) * u64::from(width) / u64::from(height),
                u64::from(area_height),
            )
        };
        let side = |side: u64| u32::try_from(side).ok().map(|side| side.max(1));
        Some((side(fitted_width)?, side(fitted_height)?))
    }
}

impl Screen {
    /// Scaling in front of `sink`, which takes system-memory BGRx.
    ///
    /// # Errors
    /// An element is missing.
    pub fn around(sink: &gst::Element) -> Result<Self, PlayerError> {
        prepare()?;
        let bin = gst::Bin::with_name("screen");
        // Phones record lying pictures and say so in a tag.
        let upright = make("videoflip")?;
        upright.set_property_from_str("video-direction", "auto");
        let scale = make("videoconvertscale")?;
        scale.set_property("n-threads", 2u32);
        let size = make("capsfilter")?;
        size.set_property("caps", caps(None));
        let broken = |_| PlayerError::Library("the screen's elements do not fit together".into());
        bin.add_many([&upright, &scale, &size, sink]).map_err(broken)?;
        gst::Element::link_many([&upright, &scale, &size, sink]).map_err(broken)?;
        let no_pad = || PlayerError::Library("an element has no pad".into());
        let entry = upright.static_pad("sink").ok_or_else(no_pad)?;
        let ghost = gst::GhostPad::with_target(&entry).map_err(broken)?;
        bin.add_pad(&ghost).map_err(broken)?;
        let screen = Self {
            bin,
            size,
            fit: Arc::default(),
        };
        screen.follow_picture(&scale.static_pad("sink").ok_or_else(no_pad)?);
        Ok(screen)
    }

    /// The whole as one sink.
    #[must_use]
    pub fn sink(&self) -> gst::Element {
        self.bin.clone().upcast()
    }

    /// The widget's size in device pixels.
    pub fn set_area(&self, width_px: u32, height_px: u32) {
        lock(&self.fit).area = Some((width_px, height_px));
    }

    /// Proportions of the picture that is shown, where one is.
    #[must_use]
    pub fn picture(&self) -> Option<(u32, u32)> {
        lock(&self.fit).picture
    }

    fn follow_picture(&self, pad: &gst::Pad) {
        let (size, fit) = (self.size.downgrade(), Arc::clone(&self.fit));
        let what = gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::BUFFER;
        pad.add_probe(what, move |_, info| {
            if let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view())
                && let Ok(video) = gst_video::VideoInfo::from_caps(event.caps())
            {
                lock(&fit).picture = seen_size(&video);
            }
            if let Some(size) = size.upgrade() {
                apply(&size, &fit);
            }
            gst::PadProbeReturn::Ok
        });
    }
}

/// Tells the scaler a size that is new. Without the lock, since setting caps can call back into this module.
fn apply(size: &gst::Element, fit: &Mutex<Fit>) {
    let target = {
        let mut fit = lock(fit);
        let target = fit.target();
        if target == fit.applied {
            return;
        }
        fit.applied = target;
        target
    };
    size.set_property("caps", caps(target));
}

fn caps(target: Option<(u32, u32)>) -> gst::Caps {
    let caps = gst::Caps::builder("video/x-raw").field("format", "BGRx");
    match target.map(|(width, height)| (i32::try_from(width), i32::try_from(height))) {
        Some((Ok(width), Ok(height))) => {
            let square = gst::Fraction::new(1, 1);
            caps.field("width", width)
                .field("height", height)
                .field("pixel-aspect-ratio", square)
                .build()
        }
        _ => caps.build(),
    }
}

/// A picture's size with square pixels.
fn seen_size(video: &gst_video::VideoInfo) -> Option<(u32, u32)> {
    let par = video.par();
    let (numer, denom) = (u64::try_from(par.numer()).ok()?, u64::try_from(par.denom()).ok()?);
    let width = (u64::from(video.width()) * numer).checked_div(denom)?;
    Some((u32::try_from(width).ok()?, video.height()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_keeps_its_proportions_in_any_area() {
        for (picture, area, target) in [
            ((1280, 720), (960, 540), Some((960, 540))),
            ((1280, 720), (1000, 540), Some((960, 540))),
            ((1280, 720), (960, 800), Some((960, 540))),
            ((720, 1280), (960, 540), Some((303, 540))),
            ((1280, 720), (1, 1), None),
            ((0, 0), (960, 540), None),
            ((1, 8000), (960, 540), Some((1, 540))),
        ] {
            let fit = Fit {
                picture: Some(picture),
                area: Some(area),
                applied: None,
            };
            assert_eq!(fit.target(), target, "{picture:?} in {area:?}");
        }
    }
}
