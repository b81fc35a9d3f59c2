//! What a storage node holds, page by page, for a catalogue that catches up: `GET /objects`.

use serde::{Deserialize, Serialize};
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, Incarnation, NodeId};

/// Entries that one page may have.
pub const MAX_LISTED: usize = 4_096;

/// One object, or what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedObject {
    pub object: ChunkId,
    pub ballot: Ballot,
    pub size_bytes: u64,
    pub state: ListedState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListedState {
    Stored,
    /// Known to be damaged.
    Corrupt,
    /// A tombstone: it was here and never will be again.
    Deleted,
}

/// A page, and who answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectPage {
    pub node_id: NodeId,
    /// What the catalogue called it last, so that one that is made anew can go on.
    #[serde(default)]
    pub name: Option<String>,
    pub incarnation: Incarnation,
    pub boot_epoch: u64,
    /// Highest generation of the catalogue that the node has seen.
    pub highest_generation: u64,
    pub version: String,
    /// Percent of the disk in use.
    pub disk_usage: f64,
    /// By chunk and ballot.
    pub objects: Vec<ListedObject>,
    /// Whether more follow behind the last one.
    pub more: bool,
}
