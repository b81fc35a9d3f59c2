//! Which of the machine's GStreamer plug-ins may touch a video.
//!
//! Videos are made by others, and every demuxer, parser and decoder on the machine would otherwise be tried on them.
//! Ingest writes one container and copies a known set of codecs, so all other elements of those classes lose their
//! rank in this process: `playbin` does not plug what has no rank. Software decoders only.

use gst::prelude::*;
use gstreamer as gst;

/// The container of ingest, and the codecs that MP4 carries.
const ALLOWED: &[&str] = &[
    "qtdemux",
    // Video
    "h264parse",
    "avdec_h264",
    "h265parse",
    "avdec_h265",
    "vp9parse",
    "vp9dec",
    "avdec_vp9",
    "av1parse",
    "dav1ddec",
    "av1dec",
    "mpeg4videoparse",
    "avdec_mpeg4",
    "mpegvideoparse",
    "avdec_mpeg2video",
    // Sound
    "aacparse",
    "avdec_aac",
    "mpegaudioparse",
    "mpg123audiodec",
    "avdec_mp3",
    "opusparse",
    "opusdec",
    "avdec_opus",
    "ac3parse",
    "avdec_ac3",
    "avdec_eac3",
    "flacparse",
    "flacdec",
    "avdec_flac",
    "avdec_alac",
];

/// Words of an element's class that make it one that reads foreign bytes.
const READS_BYTES: &[&str] = &["Demuxer", "Decoder", "Parser", "Depayloader"];

/// Takes the rank of every reader of bytes that is not allowed.
pub(super) fn restrict() {
    let registry = gst::Registry::get();
    for feature in registry.features(gst::ElementFactory::static_type()) {
        let Some(factory) = feature.downcast_ref::<gst::ElementFactory>() else {
            continue;
        };
        let class = factory.metadata(gst::ELEMENT_METADATA_KLASS).unwrap_or_default();
        let reads_bytes = READS_BYTES.iter().any(|word| class.contains(word));
        if reads_bytes && !ALLOWED.contains(&factory.name().as_str()) && !is_plumbing(&factory.name()) {
            feature.set_rank(gst::Rank::NONE);
        }
    }
}

/// `playbin` builds itself from these by name; they read no bytes themselves.
fn is_plumbing(name: &str) -> bool {
    name.starts_with("decodebin") || name.starts_with("uridecodebin") || name.starts_with("parsebin")
}
