//! The closed list of what can be done to the catalogue.
//!
//! A command carries everything that decides its result, time and random ids among it, so that the same commands give
//! the same catalogue again on any backend. Placement choice, signatures and bytes are the caller's.

use serde::{Deserialize, Serialize};
use vstack_core::ballot::Ballot;
use vstack_core::durability::Measured;
use vstack_core::id::{ChunkId, Incarnation, NodeId, VideoId};
use vstack_core::manifest::{Container, MediaFacts, Track};
use vstack_core::node::{NodeHealth, NodeState};
use vstack_core::paxos::master::{Accepted, Knowledge, Value, Witness};
use vstack_core::paxos::{OpenKind, Replaced, Target};
use vstack_core::placement::Scheme;
use vstack_core::rebalance::BalanceState;
use vstack_core::time::UnixMillis;

use crate::object::CatalogueObject;

/// One change of the catalogue.
#[derive(Debug, Clone)]
pub enum Cmd {
    /// A node says that it lives; the first one registers it.
    Heartbeat {
        report: NodeReport,
        now: UnixMillis,
    },
    /// Brings the column `status` of all nodes up to date.
    JudgeNodes {
        now: UnixMillis,
    },
    /// With a key, a repeat answers with the first one's video.
    CreateVideo {
        key: Option<String>,
        video: VideoId,
        title: String,
        duration_sec: f64,
        now: UnixMillis,
    },
    Open(OpenChunk),
    /// OPEN for certain parts: what repair and conversion ask for.
    OpenParts(OpenParts),
    Commit(Box<CommitChunk>),
    /// Keeps the bytes of the init segment for the manifest.
    StoreInit {
        video: VideoId,
        data: Vec<u8>,
    },
    Finalize(Box<FinalizeVideo>),
    RenameVideo {
        video: VideoId,
        title: String,
    },
    /// Tombstones every chunk and queues every part for collection.
    DeleteVideo {
        video: VideoId,
        now: UnixMillis,
    },
    /// As deletion, and nothing of the video stays in the library. Only while it is uploading.
    AbortVideo {
        video: VideoId,
        now: UnixMillis,
    },
    /// As an abort, unless something was added to the video since `before`.
    AbandonVideo {
        video: VideoId,
        before: UnixMillis,
        now: UnixMillis,
    },
    /// Counts a view; with a session, once for each.
    RecordView {
        video: VideoId,
        session: Option<String>,
        half_life_ms: u64,
        now: UnixMillis,
    },
    /// Fixes the scheme of a video's media chunks; `None` leaves it to the policy.
    PinRedundancy {
        video: VideoId,
        pin: Option<Scheme>,
    },
    /// All media chunks of the video have one scheme again.
    Converted {
        video: VideoId,
        now: UnixMillis,
    },
    /// A verified read of a part of this node found other bytes than the placement names.
    Lied {
        node: NodeId,
        now: UnixMillis,
    },
    /// What the operator wants of the rebalance worker, or that it has done that.
    SetBalance {
        balance: BalanceState,
    },
    /// How fast work of a kind was so far.
    Measure {
        work: MeasuredWork,
        measured: Measured,
    },
    /// What the operator wants of a node.
    ChangeNode {
        node: NodeId,
        change: NodeChange,
        now: UnixMillis,
    },
    /// Takes over what a catalogue object says that is newer than what is known.
    Import {
        object: Box<CatalogueObject>,
        /// Its number.
        seq: u32,
        now: UnixMillis,
    },
    /// The video as it was at `unsaved` changes is on the nodes as the object `chunk`; earlier objects end.
    CatalogueSaved {
        chunk: ChunkId,
        unsaved: u64,
        now: UnixMillis,
    },
    /// Catching up with the nodes has come this far. It never goes back.
    CaughtUp {
        to: Behind,
    },
    /// This life of a node says that these objects are not there.
    LoseParts {
        node: NodeId,
        incarnation: Incarnation,
        objects: Vec<(ChunkId, Ballot)>,
    },
    /// These objects are gone from their nodes.
    CollectDone {
        objects: Vec<Collectable>,
    },
    /// These could not be deleted now; they come again at `not_before`.
    CollectLater {
        objects: Vec<Collectable>,
        not_before: UnixMillis,
    },
}

/// Work whose speed is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MeasuredWork {
    Repairs,
    Conversions,
}

/// A change of a node's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeChange {
    /// Sets the state; `Removed` is not set like this.
    State(NodeState),
    /// Takes it out of the cluster: its parts count as lost. Refused while it is the only holder of a chunk, unless
    /// `force`.
    Remove { force: bool },
    /// Its disk is gone: its parts count as lost, and the next data folder with this identity is welcome.
    Replace { force: bool },
    /// Trusts a node that was removed, or that started from an older copy of its folder.
    Readopt,
}

/// How far a catalogue that was restored or rebuilt may be behind its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behind {
    /// It knows all there is.
    No = 0,
    /// Some node has not been read yet: objects that nobody knows must stay.
    Objects = 1,
    /// Most nodes have not yet written down this life's generation: no ballot is granted, or a life that is restored
    /// after this one might grant it again.
    Ballots = 2,
    /// Some node may have seen later generations: none is announced and no ballot granted.
    Generations = 3,
}

impl Behind {
    /// What it means for an inventory.
    #[must_use]
    pub const fn knowledge(self) -> Knowledge {
        match self {
            Self::No => Knowledge::Complete,
            Self::Objects | Self::Ballots | Self::Generations => Knowledge::Behind,
        }
    }
}

/// What a node reports of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeReport {
    pub node: NodeId,
    pub url: String,
    pub incarnation: Incarnation,
    pub boot_epoch: u64,
    pub version: String,
    pub disk_usage_percent: f64,
    pub chunk_count: u64,
    pub read_only: bool,
    /// Highest generation of the catalogue that it saw in a grant.
    pub highest_generation: u64,
    /// Bytes of parts that it may hold in all; 0 when it does not say.
    pub capacity_bytes: u64,
    /// What fails together with it, in its operator's words.
    pub rack: Option<String>,
    /// What it wants to be called.
    pub name: Option<String>,
}

/// OPEN of one chunk for full copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenChunk {
    pub chunk: ChunkId,
    pub kind: OpenKind,
    pub owner: String,
    pub expect_epoch: Option<Ballot>,
    /// Chosen by the caller among healthy nodes.
    pub nodes: Vec<NodeId>,
    pub min_ack: u8,
    pub now: UnixMillis,
}

/// OPEN of one chunk for certain parts of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenParts {
    pub chunk: ChunkId,
    pub kind: OpenKind,
    pub owner: String,
    pub expect_epoch: Option<Ballot>,
    /// Chosen by the caller among healthy nodes.
    pub targets: Vec<Target>,
    pub min_ack: u8,
    pub now: UnixMillis,
}

impl From<&OpenChunk> for OpenParts {
    fn from(open: &OpenChunk) -> Self {
        Self {
            chunk: open.chunk,
            kind: open.kind,
            owner: open.owner.clone(),
            expect_epoch: open.expect_epoch,
            targets: open.nodes.iter().copied().map(Target::whole).collect(),
            min_ack: open.min_ack,
            now: open.now,
        }
    }
}

/// COMMIT of one chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct CommitChunk {
    pub chunk: ChunkId,
    pub ballot: Ballot,
    pub value: Value,
    pub witnesses: Vec<Witness>,
    /// Of a media chunk, where they are known already.
    pub media: Option<MediaFacts>,
    /// Nodes whose ballot-0 object was adopted or tried: it is collected once this is decided.
    pub plain_nodes: Vec<NodeId>,
    pub now: UnixMillis,
}

/// Everything that makes an uploaded video active.
#[derive(Debug, Clone, PartialEq)]
pub struct FinalizeVideo {
    pub video: VideoId,
    /// What the uploader counted; `None` takes what is committed.
    pub total_chunks: Option<u32>,
    pub duration_ms: u64,
    pub container: Container,
    pub codecs: String,
    pub tracks: Vec<Track>,
    /// Facts that the commits did not bring, by sequence number of the main track.
    pub facts: Vec<(u32, MediaFacts)>,
    pub now: UnixMillis,
}

/// An object that its node may delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Collectable {
    pub node: NodeId,
    pub object: ChunkId,
    pub ballot: Ballot,
}

/// What a command answers. Durable when it arrives.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Done,
    /// The video that was made, now or by an earlier command under the same key.
    Created(VideoId),
    Heartbeat(HeartbeatReply),
    Node(NodeParts),
    Imported(Imported),
    Opened(OpenedChunk),
    Committed(CommittedChunk),
    /// Parts that count as lost now and did not before.
    Lost(u64),
}

/// The catalogue's view of the node that reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// What it was thought to be until now; `None` when it registers.
    pub before: Option<NodeHealth>,
    /// Its disk was replaced: parts that it held are lost.
    pub lost_parts: u64,
    /// It was down, or was started again since: what it holds is to be compared.
    pub returned: bool,
    /// What the node writes down, so that no later life of the catalogue can have the same; `None` while nothing is
    /// granted.
    pub generation: Option<u64>,
    pub named: Named,
}

/// What a node is called from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    /// It asked for another one, which a node that lives has.
    pub refused: bool,
}

/// What lies on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeParts {
    /// Parts of committed chunks that count.
    pub live: u64,
    /// Chunks that could not be read without this node.
    pub only_holder_of: u64,
    /// Parts that this command declared lost.
    pub lost: u64,
}

/// What an import changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Imported {
    /// The video was not known.
    pub new_video: bool,
    /// Chunks whose placement was not known, or an older one was.
    pub chunks: u32,
}

/// An opened ballot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedChunk {
    pub chunk: ChunkId,
    pub ballot: Ballot,
    pub base: Option<Accepted>,
    /// The ballot that this one killed.
    pub replaced: Option<Replaced>,
    pub until: UnixMillis,
}

/// A decided value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedChunk {
    pub chunk: ChunkId,
    pub accepted: Accepted,
    /// It had been decided before.
    pub replayed: bool,
    pub missing_parts: usize,
}

impl Reply {
    /// The reply of a creation.
    #[must_use]
    pub const fn created(&self) -> Option<VideoId> {
        match self {
            Self::Created(video) => Some(*video),
            _ => None,
        }
    }

    /// The reply of an OPEN.
    #[must_use]
    pub fn opened(self) -> Option<OpenedChunk> {
        match self {
            Self::Opened(opened) => Some(opened),
            _ => None,
        }
    }

    /// The reply of a change of a node.
    #[must_use]
    pub const fn node(&self) -> Option<NodeParts> {
        match self {
            Self::Node(parts) => Some(*parts),
            _ => None,
        }
    }

    /// The reply of an import.
    #[must_use]
    pub const fn imported(&self) -> Option<Imported> {
        match self {
            Self::Imported(imported) => Some(*imported),
            _ => None,
        }
    }

    /// The reply of a COMMIT.
    #[must_use]
    pub fn committed(self) -> Option<CommittedChunk> {
        match self {
            Self::Committed(committed) => Some(committed),
            _ => None,
        }
    }
}
