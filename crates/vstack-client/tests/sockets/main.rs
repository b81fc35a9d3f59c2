//! The client over real sockets.

mod sessions;
mod support;
mod throttled;
