//! What the benches of the client play: random chunks of one size, the nodes that hold them, and a catalogue that says so.
//!
//! The nodes are real processes, ours or nginx; the catalogue is a few answers from memory, since a session reads two
//! pages of it and nothing of it is measured here.

mod catalogue;
mod content;
mod node;

pub(crate) use catalogue::Catalogue;
pub(crate) use content::{Content, Holder};
pub(crate) use node::StorageNode;
