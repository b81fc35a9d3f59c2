//! The server roles as libraries: storage, metadata, uploader, and the development cluster.
//!
//! Each role is a thin HTTP shell (axum) around a crate that knows nothing of HTTP: `vstack-store`, `vstack-meta`,
//! `vstack-media`. A role is started with [`Running`] as the result: it listens, says where, and drains when stopped.

mod accept;
mod ask_node;
mod connection;
pub mod dev;
pub mod emulator;
pub mod gateway;
mod head;
pub mod http;
pub mod metadata;
pub mod metrics;
pub mod platform;
pub mod process;
pub mod role;
pub mod storage;
mod unread;
pub mod uploader;

pub use accept::Listening;
pub use connection::ConnectionLimits;
pub use metrics::Metrics;
pub use platform::Platform;
pub use role::{Running, StartError};
