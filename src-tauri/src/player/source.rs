//! The GStreamer element that reads `vstack://video/{id}`: verified fragments out, one buffer each.
//!
//! Segments are in TIME, so a seek names a moment and never a byte: it maps to the fragment of the keyframe that the
//! moment needs, and the init segment goes first again. Every seek and flush has a number; bytes that a wait brings
//! after its number has passed are dropped. Fixed caps keep the stack's type finders away from the bytes. Files of
//! their own (`mp4-segments`) are read through [`super::file_source`].

use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::subclass::base_src::CreateSuccess;
use gst_base::subclass::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;

use super::feed::{Feed, lock};

/// The scheme of the player's own videos.
pub(super) const SCHEME: &str = "vstack";

glib::wrapper! {
    /// See the module.
    pub(super) struct VideoSource(ObjectSubclass<imp::VideoSource>)
        @extends gst_base::PushSrc, gst_base::BaseSrc, gst::Element, gst::Object,
        @implements gst::URIHandler;
}

impl VideoSource {
    /// Makes the element known to GStreamer, so that `playbin` finds it by the scheme.
    pub(super) fn register() -> Result<(), glib::BoolError> {
        gst::Element::register(None, "vstackvideosource", gst::Rank::PRIMARY, Self::static_type())
    }

    /// What to play; set before the element starts.
    pub(super) fn set_feed(&self, feed: Arc<Feed>) {
        self.imp().set_feed(feed);
    }
}

/// What the streaming thread does next.
#[derive(Default)]
struct Cursor {
    next_unit: usize,
    init_due: bool,
    discont: bool,
    flushing: bool,
    /// Grows with each seek and flush.
    number: u64,
}

/// One step of the cursor, copied out so that no lock is held while waiting for bytes.
struct Step {
    unit: Option<usize>,
    discont: bool,
    number: u64,
}

mod imp {
    use super::{
        Arc, BaseSrcImpl, BaseSrcImplExt, Bytes, CreateSuccess, Cursor, ElementImpl, Feed, GstObjectImpl,
        LazyLock, Mutex, ObjectImpl, ObjectImplExt, ObjectSubclass, ObjectSubclassExt, PushSrcImpl, SCHEME,
        Step, URIHandlerImpl, glib, gst, gst_base, lock,
    };
    use gst_base::prelude::*;

    #[derive(Default)]
    pub(in crate::player) struct VideoSource {
        uri: Mutex<Option<String>>,
        feed: Mutex<Option<Arc<Feed>>>,
        cursor: Mutex<Cursor>,
    }

    impl VideoSource {
        pub(super) fn set_feed(&self, feed: Arc<Feed>) {
            *lock(&self.feed) = Some(feed);
        }

        fn feed(&self) -> Option<Arc<Feed>> {
            lock(&self.feed).clone()
        }

        /// What comes next. The cursor itself moves on only when the bytes are there.
        fn step(&self) -> Step {
            let cursor = lock(&self.cursor);
            let unit = (!cursor.init_due).then_some(cursor.next_unit);
            Step {
                unit,
                discont: cursor.discont,
                number: cursor.number,
            }
        }

        /// Moves on, unless a seek came in between: then the bytes belong to the past.
        fn finish(&self, step: &Step) -> Result<(), gst::FlowError> {
            let mut cursor = lock(&self.cursor);
            if cursor.flushing || cursor.number != step.number {
                return Err(gst::FlowError::Flushing);
            }
            cursor.discont = false;
            match step.unit {
                None => cursor.init_due = false,
                Some(unit) => cursor.next_unit = unit + 1,
            }
            Ok(())
        }

        fn unit_bytes(&self, feed: &Feed, index: usize, number: u64) -> Result<Bytes, gst::FlowError> {
            let unit = feed.timeline.units().get(index).ok_or(gst::FlowError::Eos)?;
            let cancelled = || {
                let cursor = lock(&self.cursor);
                cursor.flushing || cursor.number != number
            };
            match feed.unit_bytes(unit, &cancelled) {
                None => Err(gst::FlowError::Flushing),
                Some(Ok(bytes)) => Ok(bytes),
                Some(Err(error)) => {
                    gst::element_imp_error!(self, gst::ResourceError::Read, ["{error}"]);
                    Err(gst::FlowError::Error)
                }
            }
        }
    }

    #[glib::object_subclass]
    impl ObjectSubclass for VideoSource {
        const NAME: &'static str = "VStackVideoSource";
        type Type = super::VideoSource;
        type ParentType = gst_base::PushSrc;
        type Interfaces = (gst::URIHandler,);
    }

    impl ObjectImpl for VideoSource {
        fn constructed(&self) {
            self.parent_constructed();
            let element = self.obj();
            element.set_format(gst::Format::Time);
            // The end is where the units end, not where a byte count does.
            element.set_automatic_eos(false);
        }
    }

    impl GstObjectImpl for VideoSource {}

    impl ElementImpl for VideoSource {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "V-Stack video source",
                    "Source/Network",
                    "Verified fragments from the smart client",
                    "V-Stack",
                )
            });
            Some(&METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                let caps = gst::Caps::builder("video/quicktime").build();
                let template =
                    gst::PadTemplate::new("src", gst::PadDirection::Src, gst::PadPresence::Always, &caps);
                template.into_iter().collect()
            });
            &TEMPLATES
        }
    }

    impl URIHandlerImpl for VideoSource {
        const URI_TYPE: gst::URIType = gst::URIType::Src;

        fn protocols() -> &'static [&'static str] {
            &[SCHEME]
        }

        fn uri(&self) -> Option<String> {
            lock(&self.uri).clone()
        }

        fn set_uri(&self, uri: &str) -> Result<(), glib::Error> {
            *lock(&self.uri) = Some(uri.to_owned());
            Ok(())
        }
    }

    impl BaseSrcImpl for VideoSource {
        fn start(&self) -> Result<(), gst::ErrorMessage> {
            if self.feed().is_none() {
                return Err(gst::error_msg!(
                    gst::ResourceError::NotFound,
                    ["no video was opened"]
                ));
            }
            let number = lock(&self.cursor).number + 1;
            *lock(&self.cursor) = Cursor {
                init_due: true,
                discont: true,
                number,
                ..Cursor::default()
            };
            Ok(())
        }

        fn is_seekable(&self) -> bool {
            true
        }

        fn do_seek(&self, segment: &mut gst::Segment) -> bool {
            let (Some(feed), Some(segment)) = (self.feed(), segment.downcast_mut::<gst::ClockTime>()) else {
                return false;
            };
            let target = segment.start().unwrap_or_default();
            segment.set_time(target);
            segment.set_position(target);
            let next_unit = feed.timeline.unit_for(target.mseconds());
            let handed = feed
                .timeline
                .units()
                .get(next_unit)
                .map_or(0, |unit| unit.start_ms);
            feed.mark_handed(handed);
            let mut cursor = lock(&self.cursor);
            let number = cursor.number + 1;
            let flushing = cursor.flushing;
            *cursor = Cursor {
                next_unit,
                init_due: true,
                discont: true,
                flushing,
                number,
            };
            true
        }

        fn query(&self, query: &mut gst::QueryRef) -> bool {
            if let gst::QueryViewMut::Duration(query) = query.view_mut()
                && query.format() == gst::Format::Time
                && let Some(feed) = self.feed()
            {
                query.set(gst::ClockTime::from_mseconds(feed.timeline.duration_ms));
                return true;
            }
            BaseSrcImplExt::parent_query(self, query)
        }

        fn unlock(&self) -> Result<(), gst::ErrorMessage> {
            {
                let mut cursor = lock(&self.cursor);
                cursor.flushing = true;
                cursor.number += 1;
            }
            if let Some(feed) = self.feed() {
                feed.chunks.wake();
            }
            Ok(())
        }

        fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
            lock(&self.cursor).flushing = false;
            Ok(())
        }
    }

    impl PushSrcImpl for VideoSource {
        fn create(&self, _buffer: Option<&mut gst::BufferRef>) -> Result<CreateSuccess, gst::FlowError> {
            let feed = self.feed().ok_or(gst::FlowError::Error)?;
            let step = self.step();
            let bytes = match step.unit {
                None => feed.init.clone().unwrap_or_default(),
                Some(index) => self.unit_bytes(&feed, index, step.number)?,
            };
            self.finish(&step)?;
            if let Some(unit) = step.unit.and_then(|index| feed.timeline.units().get(index)) {
                feed.mark_handed(unit.end_ms);
            }
            let mut buffer = gst::Buffer::from_slice(bytes);
            if step.discont
                && let Some(buffer) = buffer.get_mut()
            {
                buffer.set_flags(gst::BufferFlags::DISCONT);
            }
            Ok(CreateSuccess::NewBuffer(buffer))
        }
    }
}
