//! The GStreamer element that reads `vstack-file://…`: one chunk that is a whole MP4 file, for videos that are stored as
//! such (`mp4-segments`).
//!
//! It is read like a file on disk, at any offset, so the demuxer finds an index that stands at the end and applies edit
//! lists itself. The chunk is fetched when the first byte is asked for; nothing here waits before.

use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use gst::glib;
use gst::subclass::prelude::*;
use gst_base::subclass::base_src::CreateSuccess;
use gst_base::subclass::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;

use super::feed::{Feed, lock};
use super::retime;
use super::timeline::Unit;

/// The scheme of chunks that are files.
pub(super) const SCHEME: &str = "vstack-file";

glib::wrapper! {
    /// See the module.
    pub(super) struct FileSource(ObjectSubclass<imp::FileSource>)
        @extends gst_base::BaseSrc, gst::Element, gst::Object,
        @implements gst::URIHandler;
}

impl FileSource {
    /// Makes the element known to GStreamer.
    pub(super) fn register() -> Result<(), glib::BoolError> {
        use gst::prelude::StaticType as _;
        gst::Element::register(None, "vstackfilesource", gst::Rank::PRIMARY, Self::static_type())
    }

    /// What to read; set before the element starts.
    pub(super) fn set_file(&self, feed: Arc<Feed>, unit: Unit) {
        self.imp().set_file(feed, unit);
    }
}

mod imp {
    use super::{
        Arc, BaseSrcImpl, Bytes, CreateSuccess, ElementImpl, Feed, GstObjectImpl, LazyLock, Mutex,
        ObjectImpl, ObjectSubclass, ObjectSubclassExt, SCHEME, URIHandlerImpl, Unit, glib, gst, gst_base,
        lock, retime,
    };
    use std::sync::atomic::{AtomicBool, Ordering};

    #[derive(Default)]
    pub(in crate::player) struct FileSource {
        uri: Mutex<Option<String>>,
        file: Mutex<Option<(Arc<Feed>, Unit)>>,
        bytes: Mutex<Option<Bytes>>,
        flushing: AtomicBool,
    }

    impl FileSource {
        pub(super) fn set_file(&self, feed: Arc<Feed>, unit: Unit) {
            *lock(&self.file) = Some((feed, unit));
        }

        /// The whole chunk; fetched once.
        fn bytes(&self) -> Result<Bytes, gst::FlowError> {
            if let Some(bytes) = lock(&self.bytes).clone() {
                return Ok(bytes);
            }
            let (feed, unit) = lock(&self.file).clone().ok_or(gst::FlowError::Error)?;
            let cancelled = || self.flushing.load(Ordering::SeqCst);
            let bytes = match feed.unit_bytes(&unit, &cancelled) {
                None => return Err(gst::FlowError::Flushing),
                Some(Ok(bytes)) => retime::from_zero(bytes),
                Some(Err(error)) => {
                    gst::element_imp_error!(self, gst::ResourceError::Read, ["{error}"]);
                    return Err(gst::FlowError::Error);
                }
            };
            feed.mark_handed(unit.end_ms);
            *lock(&self.bytes) = Some(bytes.clone());
            Ok(bytes)
        }
    }

    #[glib::object_subclass]
    impl ObjectSubclass for FileSource {
        const NAME: &'static str = "VStackFileSource";
        type Type = super::FileSource;
        type ParentType = gst_base::BaseSrc;
        type Interfaces = (gst::URIHandler,);
    }

    impl ObjectImpl for FileSource {}
    impl GstObjectImpl for FileSource {}

    impl ElementImpl for FileSource {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "V-Stack file source",
                    "Source/Network",
                    "One verified chunk that is a whole file",
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

    impl URIHandlerImpl for FileSource {
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

    impl BaseSrcImpl for FileSource {
        fn start(&self) -> Result<(), gst::ErrorMessage> {
            if lock(&self.file).is_none() {
                return Err(gst::error_msg!(
                    gst::ResourceError::NotFound,
                    ["no video was opened"]
                ));
            }
            Ok(())
        }

        fn is_seekable(&self) -> bool {
            true
        }

        fn size(&self) -> Option<u64> {
            lock(&self.file).as_ref().map(|(_, unit)| unit.size_bytes)
        }

        fn create(
            &self,
            offset: u64,
            _buffer: Option<&mut gst::BufferRef>,
            length: u32,
        ) -> Result<CreateSuccess, gst::FlowError> {
            let bytes = self.bytes()?;
            let start = usize::try_from(offset).map_err(|_| gst::FlowError::Eos)?;
            let wanted_end = start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
            let end = wanted_end.min(bytes.len());
            if start >= end {
                return Err(gst::FlowError::Eos);
            }
            Ok(CreateSuccess::NewBuffer(gst::Buffer::from_slice(
                bytes.slice(start..end),
            )))
        }

        fn unlock(&self) -> Result<(), gst::ErrorMessage> {
            self.flushing.store(true, Ordering::SeqCst);
            if let Some((feed, _)) = lock(&self.file).as_ref() {
                feed.chunks.wake();
            }
            Ok(())
        }

        fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
            self.flushing.store(false, Ordering::SeqCst);
            Ok(())
        }
    }
}
