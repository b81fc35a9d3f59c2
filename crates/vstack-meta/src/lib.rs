//! The catalogue: which videos there are, where every chunk lives, which nodes exist. The only place with SQL.
//!
//! `consensus_state.accepted_value` decides where a chunk lives; `chunks` and `chunk_replicas` repeat it for queries
//! and are rewritten in the same transaction. All changes go through the closed list [`Cmd`] and one writer thread with
//! group commit; an answer means that the change is durable. Time and randomness come in with the commands, so that
//! another backend can apply the same ones.
//!
//! A damaged row is reported and never used; a damaged file is not written to. What is in it can come back from a backup
//! ([`restore`]) or from the [`CatalogueObject`]s on the nodes, and is then compared with the nodes before any ballot is
//! granted ([`Behind`]).
//!
//! Left out: HTTP, signatures, the choice of nodes. A catalogue is opened by one process at a time.

mod apply;
mod backup;
mod check;
mod codec;
mod command;
mod error;
mod object;
mod read;
mod rows;
mod schema;
mod store;
mod versions;
mod writer;

pub use backup::{BackupFacts, begin_anew, known_urls, restore};
pub use check::{Finding, check_file};
pub use command::{
    Behind, Cmd, Collectable, CommitChunk, CommittedChunk, FinalizeVideo, HeartbeatReply, Imported,
    MeasuredWork, Named, NodeChange, NodeParts, NodeReport, OpenChunk, OpenParts, OpenedChunk, Reply,
};
pub use error::MetaError;
pub use object::{CatalogueObject, PlacedChunk};
pub use read::{
    AtRisk, ChunkRecord, InventoryQuery, InventoryView, Library, LibraryOrder, LibraryPage, LibraryQuery,
    Losses, ManifestSource, NodeRecord, Remembered, Spread, UnderReplicated, Unsaved, VideoRecord,
    VideoRedundancy,
};
pub use store::{MetaStore, SqliteMetaStore};
pub use versions::Version;
