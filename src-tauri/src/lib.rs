//! The desktop player: a window with a library, and native video under a transparent page.
//!
//! `player` is GStreamer and knows no page, `app` is Tauri and knows no pipeline, `dto` is what the page sees.

pub mod app;
#[cfg(test)]
mod bindings;
pub mod dto;
pub mod player;
