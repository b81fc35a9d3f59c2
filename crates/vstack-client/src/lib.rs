//! The smart client: it measures every node, chooses the source of each chunk, verifies what comes, and keeps playback
//! going while nodes slow down, hang, lie or die.
//!
//! `policy` decides and does nothing; `monitor` pings; `fetch` makes one verified download, `shards` an erasure-coded chunk
//! out of several, `ranges` brings blocks that are verified one by one; `session` owns the state of one playback and performs what the policy decides; `headless` plays without a decoder; `trace` writes down what the policy hears and answers. No bytes leave this crate
//! before their SHA-256 matched the manifest. It knows neither GStreamer nor Tauri.

mod clock;
mod cluster;
mod config;
mod error;
mod event;
mod fetch;
pub mod headless;
mod history;
mod journal;
mod monitor;
mod node;
pub mod policy;
mod ranges;
mod report;
mod session;
mod shards;
mod snapshot;
mod source;
mod trace;

pub use cluster::Cluster;
pub use config::{ClientConfig, PolicyName};
pub use error::ClientError;
pub use event::{EventKind, SessionEvent};
pub use headless::{HeadlessOptions, Pace};
pub use node::{Measurements, NodeRef, NodeView};
pub use report::{Fault, FaultSummary, Prefetched, SessionReport, share_percent};
pub use session::Session;
pub use snapshot::{Lane, LaneBar, LogLine, NodeCount, Outcome, SessionSnapshot, Span, SpanState};
pub use trace::{TraceSink, TraceWriting};
