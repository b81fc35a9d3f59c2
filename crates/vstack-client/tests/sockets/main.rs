//! The client over real sockets.

mod pooled;
mod sessions;
mod support;
mod throttled;
