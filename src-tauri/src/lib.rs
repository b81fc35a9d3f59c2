//! The desktop player.

#[cfg(test)]
mod bindings;
pub mod dto;
pub mod player;
