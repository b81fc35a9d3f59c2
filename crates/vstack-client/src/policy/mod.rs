//! What to fetch, from whom, and when to stop: pure state machines.
//!
//! Facts go in (a transfer ended, the playhead moved, so many microseconds have passed) and actions come out (start
//! this attempt, cancel that one, wake me then). Nothing in here opens a socket, reads a clock or starts a task, and
//! every map is ordered: the same facts always give the same actions, in a session, in a simulation and in a test.
//!
//! `measure` holds what is known about each node, shared by all sessions of a client; `rank` orders the replicas of a
//! chunk; `seed` is the base policy. Cutting a chunk into ranges is not known here: an attempt is a whole chunk.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

pub mod failure;
pub mod measure;
pub mod rank;
pub mod seed;

pub use failure::Failure;
pub use measure::{NodeRecord, NodeRecords};
pub use rank::Choice;
pub use seed::{Seed, SeedConfig};

/// A point on the caller's clock, or a length of time; microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000))
    }

    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0 / 1_000
    }
}

impl Add for Micros {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// Never below zero.
impl Sub for Micros {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// A node's place in this client's list; `node-1` has index 0. Stable while the client lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeIndex(pub u16);

impl fmt::Display for NodeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node-{}", u32::from(self.0) + 1)
    }
}

/// One request for one chunk; never used twice in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptId(pub u64);

/// A chunk as the policy sees it; its sequence number is its place in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkSpec {
    /// Where it starts on the video's time line.
    pub start: Micros,
    pub end: Micros,
    pub replicas: Vec<NodeIndex>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// Only the clock moved.
    Tick,
    /// Playback is here now.
    Position(Micros),
    /// The viewer jumped here.
    Seek(Micros),
    /// Somebody waits for this chunk, in the window or not.
    Wanted {
        seq: u32,
    },
    /// Nobody waits for it any more.
    Unwanted {
        seq: u32,
    },
    /// An attempt brought the right bytes.
    Done {
        attempt: AttemptId,
        bytes: u64,
        elapsed: Micros,
    },
    Failed {
        attempt: AttemptId,
        failure: Failure,
    },
    /// The manifest was read again: this chunk lives here now.
    Placed {
        seq: u32,
        replicas: Vec<NodeIndex>,
    },
    /// Reading the manifest again has ended, well or not.
    ManifestRead,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Start(Start),
    /// Stop this attempt; its bytes are not needed.
    Cancel {
        attempt: AttemptId,
        seq: u32,
        node: NodeIndex,
        why: CancelReason,
    },
    /// Put the bytes that this attempt brought into the buffer.
    Keep {
        attempt: AttemptId,
        seq: u32,
    },
    /// Take the chunk out of the buffer.
    Drop {
        seq: u32,
        why: DropReason,
    },
    /// Come back at this time if nothing happened before.
    WakeAt(Micros),
    /// A replica was not where the manifest says.
    ReadManifest,
    /// Every replica failed in [`seed::ROUNDS_BEFORE_ERROR`] rounds: tell those who wait. The search goes on.
    Unobtainable {
        seq: u32,
    },
    /// The buffer fell below the low-water mark (true) or reached its target (false).
    Refill {
        on: bool,
        level: Micros,
    },
}

/// An attempt to make, and why so.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    pub attempt: AttemptId,
    pub seq: u32,
    pub node: NodeIndex,
    pub need: Need,
    /// The score by which the node was chosen.
    pub score: f64,
    /// All replicas were busy, so this node gets one more request.
    pub shared: bool,
    /// The attempt before this one, for the same chunk.
    pub after: Option<(NodeIndex, Failure)>,
}

/// Why a chunk is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Somebody waits for it.
    Waiting,
    /// It lies in the window ahead of the playhead.
    Ahead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// The playhead moved so that the chunk is no longer in the window.
    OutsideWindow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Played, and further back than the back-buffer reaches.
    Played,
    /// The buffer holds its limit of chunks and this one is needed last.
    TooMany,
}
