//! What to fetch, from whom, and when to stop: pure state machines.
//!
//! Facts go in (a transfer ended, the playhead moved, so many microseconds have passed) and actions come out (start
//! this attempt, cancel that one, wake me then). Nothing in here opens a socket, reads a clock or starts a task, and
//! every map is ordered: the same facts always give the same actions, in a session, in a simulation and in a test.
//!
//! `measure` holds what is known about each node, shared by all sessions of a client; `rank` orders the replicas of a
//! chunk; `chunk` says what a chunk is made from; `seed` is the base policy, whose attempts are whole chunks; `pool` asks
//! several nodes for ranges of blocks of the same chunk; `any` is whichever of them a session runs; `prefetch` plans
//! what is fetched before anybody asks; `trace` writes down all that a policy hears and answers, and plays it back.
//!
//! # The contract between a policy and the session that performs it
//!
//! The session owns bytes, sockets and hashes; the policy owns every decision. For an attempt at [`Piece::Chunk`] the
//! session answers once: [`Fact::Done`] (the chunk's SHA-256 matched; the policy answers [`Action::Keep`]) or
//! [`Fact::Failed`]. For an attempt at [`Piece::Blocks`]:
//!
//! 1. [`Action::Start`] asks for the range's bytes of the part that `node` has (the part whose ballot and leaf root the
//!    manifest names). The session sends `Range` and `x-vstack-slack-ms: {slack}`. Two attempts on one node at a time are
//!    two connections, kept alive. Leaf hashes are fetched from any node that has the same object, checked against the
//!    root, and kept while the session lives; a wrong list is blamed on who sent it ([`Fact::Failed`] of the attempt that
//!    needs it from there, with [`Failure::WrongBytes`]) and asked from the next.
//! 2. [`Fact::FirstByte`] once, when the body begins. [`Fact::Progress`] with the bytes of the body so far, whenever they
//!    have grown, at most every 10 ms and at least every 50 ms of a flowing body; and for every attempt that has grown
//!    since, before each [`Fact::Tick`]. The policy measures rates and silence by these facts and by nothing else.
//! 3. Each block that is complete and matches its leaf is stored and told as [`Fact::Verified`], in any order, once an
//!    attempt; the Progress that covers it comes before. One that does not match is dropped and told as [`Fact::BadBlock`]; that node is never asked for that
//!    block again while another has it. Blocks may be told one by one or as runs.
//! 4. The attempt ends with [`Fact::Done`] (after the verdict on its last block), with [`Fact::Failed`] (connect, broken,
//!    refused, wrong length, a `Content-Range` that was not asked for: [`Failure::NotUnderstood`]), or by
//!    [`Action::Cancel`]. However it ends, **blocks that were verified stay**; only a block that was cut in the middle is
//!    waste. After a Cancel no fact about that attempt counts: the policy ignores unknown attempts, so that a race is
//!    harmless. The policy judges silence itself ([`Failure::Silent`] in [`CancelReason::Silent`]): a session needs no
//!    read time-out for ranges.
//! 5. [`Action::Finish`] says that every block is there (of an erasure-coded chunk, three of each row). The session joins
//!    or decodes, compares the chunk's SHA-256, puts the chunk into the buffer, and answers [`Fact::Finished`]. With
//!    `right: false` (the leaves were right and the chunk is not: the manifest contradicts itself) the policy forgets the
//!    blocks, and so does the session, and the manifest is read again.
//! 6. [`Action::PrefixReady`] says that this many verified bytes from the beginning of a chunk may be played although the
//!    rest is missing; each later one for the same chunk names more. It is said only for the chunk at the playhead, or the
//!    one that follows when that is about to end; to begin with, only when the rates measured carry playback. No bytes beyond it leave the session before Finish.
//! 7. [`Action::Drop`] takes a chunk out of the buffer, or the blocks of an unfinished one out of the store.
//! 8. [`Action::WakeAt`]: the last one of an answer counts; an answer without one cancels the wake-up that was set.
//! 9. The session tells [`Fact::Starved`] when playback waits for data (start, after a seek, stall) and when it goes on;
//!    a session starts starved. A viewer's pause is not starvation.
//!
//! What a policy promises in return, for any order of facts: a block is never asked from a node that it is running at or
//! verified from; what is verified is never asked for again while it is stored; nothing is finished twice while it is held; bytes asked for twice stay within the hedging
//! budget except while playback starves; while a needed block is missing, some attempt runs or a wake-up is set.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

pub mod any;
pub mod chunk;
pub mod failure;
pub mod measure;
pub mod pool;
pub mod prefetch;
pub mod rank;
pub mod seed;
pub mod trace;

pub use any::{Policy, PolicyConfig};
pub use chunk::{BLOCK_BYTES, BlockRange, ChunkSpec, Part, Piece, Shape};
pub use failure::Failure;
pub use measure::{NodeLoad, NodeRecord, NodeRecords, Prior};
pub use pool::{Pool, PoolConfig};
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

/// A node's place in this client's list, from 0. Stable while the client lives; what people call the node is the catalogue's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeIndex(pub u16);

/// By its place, as traces have it: the policy knows no names.
impl fmt::Display for NodeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node [{}]", self.0)
    }
}

/// One request; its number is never used twice in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptId(pub u64);

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// Playback waits for data (true), or goes on (false). A session starts starved.
    Starved(bool),
    /// The answer to an attempt at blocks has begun: its body's first byte is here.
    FirstByte {
        attempt: AttemptId,
    },
    /// Bytes of the body so far.
    Progress {
        attempt: AttemptId,
        bytes: u64,
    },
    /// These blocks of the attempt's range match their leaf hashes and are stored.
    Verified {
        attempt: AttemptId,
        blocks: BlockRange,
    },
    /// This block does not match its leaf hash; its bytes are dropped.
    BadBlock {
        attempt: AttemptId,
        block: u32,
    },
    /// The answer to [`Action::Finish`]: whether the chunk has the SHA-256 that the manifest names.
    Finished {
        seq: u32,
        right: bool,
    },
    /// An attempt brought all its bytes. Of a whole chunk: the right ones.
    Done {
        attempt: AttemptId,
        bytes: u64,
        elapsed: Micros,
    },
    Failed {
        attempt: AttemptId,
        failure: Failure,
    },
    /// This chunk was fetched in advance and is in the buffer now, whole and verified. Nothing is decided by it: the fact
    /// that playback is there follows.
    Supplied {
        seq: u32,
    },
    /// The manifest was read again: this chunk is made from this now.
    Placed {
        seq: u32,
        shape: Shape,
    },
    /// Reading the manifest again has ended, well or not.
    ManifestRead,
    /// Another policy is to take over (true): nothing is begun that can wait, and what has begun comes to its end. With
    /// false it goes on.
    Leaving(bool),
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Start(Start),
    /// Stop this attempt. What it has brought verified stays.
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
    /// Every block of the chunk is verified: join or decode it, and answer with [`Fact::Finished`].
    Finish {
        seq: u32,
    },
    /// Verified bytes from the beginning of the chunk that may be played now, while the rest is still to come.
    PrefixReady {
        seq: u32,
        bytes: u64,
    },
    /// This node sent wrong bytes for this block: worth a complaint to the catalogue, which looks for itself.
    Blame {
        node: NodeIndex,
        seq: u32,
        block: u32,
    },
    /// Take the chunk, finished or not, out of the buffer.
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
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Start {
    pub attempt: AttemptId,
    pub seq: u32,
    pub node: NodeIndex,
    pub piece: Piece,
    pub need: Need,
    /// The bytes are asked for although this attempt is already running for them.
    pub hedges: Option<AttemptId>,
    /// Until playback needs the piece's first byte; 0 while playback waits.
    pub slack: Micros,
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
    /// No byte came for too long; the node rests.
    Silent,
    /// Far slower than planned: the rest goes to others, without blame.
    Overdue,
    /// Another attempt brought the rest of it first.
    Overtaken,
    /// The node has just sent wrong bytes.
    Distrusted,
    /// The manifest was read again and its part is elsewhere.
    Moved,
    /// Another policy took over.
    PolicyChanged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Played, and further back than the back-buffer reaches.
    Played,
    /// The buffer holds its limit of chunks and this one is needed last.
    TooMany,
    /// Unfinished, and another policy took over.
    PolicyChanged,
    /// Unfinished, and made from other parts now: copies became shards, or shards copies.
    Reshaped,
}
