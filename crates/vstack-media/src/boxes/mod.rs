//! Our own reader of ISO base media files: the boxes that splitting, describing and judging a video need.
//!
//! Never panics and never allocates by a number that a file claims; every loop is bounded by the bytes at hand or by a
//! limit. It leaves decoding, and everything a player needs, to FFmpeg and GStreamer.

mod codec;
mod file;
mod fragment;
mod movie;
mod reader;
mod table;

pub use codec::codec_string;
pub use file::{FileShape, file_shape};
pub use fragment::{FragmentTimes, MAX_FRAGMENT_SAMPLES, VideoTimes, read_fragment};
pub use movie::{Edits, Handler, Movie, MovieTrack, SampleDefaults, find_protection, joined_codecs};
pub use reader::{BoxError, BoxHeader, Boxes, Fields, FourCc, RawBox};
pub use table::read_sample_tables;
