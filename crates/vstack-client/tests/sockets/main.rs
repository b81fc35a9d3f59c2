//! The client over real sockets.

mod changes;
mod history;
mod joins;
mod pooled;
mod prefix;
mod sessions;
mod shards;
mod support;
mod throttled;
