//! Media: from any uploaded file to chunks, and what chunks contain.
//!
//! FFmpeg and ffprobe run as subprocesses (a crash or a hostile file stays outside); cutting, describing and judging
//! are ours and pure: `boxes`, `split`, `describe`, `sniff`, `plan`, `barcode` do no I/O. The way of an upload is
//! [`ingest`]: sniff, probe, plan, convert, split, check. It knows nothing of nodes, chunks' ids or HTTP.

pub mod barcode;
pub mod boxes;
pub mod clip;
pub mod describe;
mod error;
pub mod ffmpeg;
pub mod ingest;
pub mod likeness;
pub mod plan;
pub mod poster;
pub mod probe;
pub mod sniff;
pub mod split;

pub use error::MediaError;
