//! The wire: bodies, error codes and a typed client for each role.
//!
//! Servers and clients share these types, so that they cannot disagree about a name. What a call means, what is
//! durable on return and which codes it answers with stands in `docs/api.md`.

pub mod client;
pub mod consensus;
pub mod error;
pub mod inventory;
pub mod listing;
pub mod policy;
pub mod redundancy;
pub mod roles;
pub mod slack;
mod sse;
pub mod transport;
pub mod wire;

pub use client::{ApiError, Endpoint};
pub use error::{ErrorCode, Problem};
pub use roles::{MetadataClient, Pong, StorageClient, UploaderClient};
pub use transport::{HttpTransport, Transport, TransportError};
