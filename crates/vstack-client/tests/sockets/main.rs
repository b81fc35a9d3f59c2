//! The client over real sockets.

mod pooled;
mod sessions;
mod shards;
mod support;
mod throttled;
