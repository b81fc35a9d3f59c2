//! The superblock store: the files in which one storage node keeps its chunks.
//!
//! A [`Store`] appends every object as a record to a superblock file, syncs it, and only then lets readers see it and
//! tells the writer that it is stored. One thread does all writing (group commit); any number of threads read.
//!
//! What holds at every moment:
//! - nothing is acknowledged before `fdatasync` said yes, and nothing is visible before it is acknowledged;
//! - an object, named by [`ChunkId`](vstack_core::id::ChunkId) and [`Ballot`](vstack_core::ballot::Ballot), is written
//!   once and never changes; a tombstone names exactly one object;
//! - *not found*, *corrupt* and *unavailable* are three different answers ([`ErrorKind`]);
//! - a file that failed a write or a sync is never written or synced again.
//!
//! Synchronous, without an async runtime; time and randomness come in by [`StoreOptions`]. The housekeeping (compaction,
//! scrub, snapshots) is made of small steps that the caller paces.

mod batch;
mod close;
mod compact;
mod decide;
pub mod disk;
mod error;
mod footer;
mod fsck;
mod heal;
mod identity;
mod index;
mod read;
pub mod record;
mod recover;
mod request;
mod scan;
mod shared;
#[cfg(feature = "sim")]
pub mod sim;
mod snapshot;
mod staging;
mod stepped;
mod store;
pub mod superblock;
mod upkeep;
mod verify;
mod writer;

pub use compact::{Compacted, Compaction, CompactionStep, Forgettable};
pub use error::{DiskFault, ErrorKind, StoreError};
pub use fsck::{CheckDepth, Checkup, Damaged, IndexLine, fsck, read_index};
pub use identity::Identity;
pub use index::{ObjectEntry, ObjectState};
pub use read::{ObjectReader, ObjectStat};
pub use recover::{BadRange, RecoveryReport, SkipReason, SkippedFile, TornTail};
pub use request::{DeleteDone, DeleteReason, PutDone};
pub use shared::{Reserve, StoreOptions, StoreStats};
pub use stepped::SteppedStore;
pub use store::{AdoptRequest, PutRequest, Store};
pub use upkeep::{
    CompactionReport, Compactor, Finding, MayForget, Pace, Pacer, Scrub, ScrubReport, Snapshots, Work,
    Worker, run_workers,
};
