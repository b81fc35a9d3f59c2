//! The client over real sockets.

mod sessions;
mod shards;
mod support;
mod throttled;
