//! A state of the model: small, hashable, and turned into the core's own types for every step (see [`super::lift`]).
//!
//! A ballot is a [`Slot`]: its place in the arrays of a node. Messages are facts that stay true, so that each may be
//! delivered never, once or often, at any later time and in any order; loss, repeats, reordering and proposers that
//! crash or resume need no step of their own.

use vstack_core::paxos::OpenKind;

/// Most nodes of a configuration.
pub const NODES: usize = 5;
/// Ballots that fit into one life of the catalogue.
pub const LIFE: u8 = 5;
/// Lives of the catalogue that the arrays have room for.
pub const LIVES: u8 = 3;
/// Names of objects: ballot 0, and those of all lives.
pub const SLOTS: usize = 1 + (LIFE as usize) * (LIVES as usize);

/// A ballot: 0 is the plain one, `(generation - 1) * LIFE + n` the others.
pub type Slot = u8;
/// Stored bytes: 0 none, 1 and 2 two different chunks, [`shard_code`] their shards.
pub type Code = u8;
/// A part: 0 none, 1 a full copy, 2 and above a shard.
pub type PartCode = u8;

/// A full copy.
pub const WHOLE: PartCode = 1;
/// Shard 0; the others follow.
pub const FIRST_SHARD: PartCode = 2;

/// The bytes of a part of `content`.
pub const fn shard_code(content: Code, part: PartCode) -> Code {
    match part {
        0 => 0,
        WHOLE => content,
        shard => 10 + (content - 1) * 5 + (shard - FIRST_SHARD),
    }
}

/// What a grant gave: a fact that stays.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Granted {
    pub slot: Slot,
    pub kind: OpenKind,
    pub base: Slot,
    /// For each node the part that it may take.
    pub parts: [PartCode; NODES],
    /// Which chunk's bytes its proposer has.
    pub content: Code,
    pub min_ack: u8,
}

/// A part of a decided value: the object's ballot, and which part it is. `(0, 0)` for none.
pub type Named = (Slot, PartCode);

/// A decided value.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub enum Decided {
    Deleted,
    Placed {
        coded: bool,
        content: Code,
        parts: [Named; NODES],
    },
}

impl Decided {
    /// What it names on `node`.
    pub const fn named(&self, node: usize) -> Option<Named> {
        match self {
            Self::Placed { parts, .. } if parts[node].1 != 0 => Some(parts[node]),
            _ => None,
        }
    }
}

/// The catalogue's row.
#[derive(Clone, Debug, Hash, PartialEq, Eq, Default)]
pub struct RowState {
    pub promised: Slot,
    pub accepted: Option<(Slot, Decided)>,
    /// The grant that is open.
    pub open: Option<u8>,
}

/// One storage node.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct NodeState {
    /// What lies on the disk, by the ballot that names it.
    pub durable: [Code; SLOTS],
    /// Written and not yet synced.
    pub volatile: [Code; SLOTS],
    /// Objects with a tombstone, a bit for each slot.
    pub tombs: u16,
    /// Twice the promised slot; one more when everything up to and including the slot is fenced.
    pub fence: u8,
    pub incarnation: u8,
    /// Highest generation of the catalogue that was seen, on disk.
    pub generation: u8,
    /// Receipts that exist, by slot and incarnation: the bytes that they are for.
    pub receipts: [[Code; 2]; SLOTS],
    /// Orders to delete that exist, a bit for each slot.
    pub orders: u16,
    /// The plain object was acknowledged to its client.
    pub plain_acked: bool,
}

/// What only an observer sees; no step reads it.
#[derive(Clone, Debug, Hash, PartialEq, Eq, Default)]
pub struct Ghosts {
    /// Bytes that COMMIT acknowledged, by slot.
    pub acked: [Code; SLOTS],
    pub deleted: bool,
    /// A violation that a step itself shows, named by [`Flag`].
    pub flags: u8,
    /// Objects that the restored value names and that were given to deletion before, a mask of slots for each node.
    pub gone_before_restore: [u16; NODES],
    /// Acknowledged before the restore and unknown to the restored catalogue.
    pub forgotten: Option<(Slot, Decided)>,
}

/// A violation that one step shows.
#[derive(Clone, Copy, Debug)]
pub enum Flag {
    /// An epoch went back, or a deletion was undone.
    Backwards = 1,
    /// A COMMIT counted what is not on a disk.
    Unbacked = 2,
    /// A name got other bytes, or was used again after its tombstone.
    Reused = 4,
    /// A COMMIT decided fewer parts than its scheme demands.
    TooFew = 8,
}

/// The backup of the catalogue.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Backup {
    pub row: RowState,
    pub generation: u8,
}

/// The whole cluster, as far as one chunk sees it.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct State {
    pub row: RowState,
    pub generation: u8,
    /// The catalogue may lack decisions.
    pub behind: bool,
    pub grants: Vec<Granted>,
    pub nodes: [NodeState; NODES],
    pub backup: Option<Backup>,
    pub crashes: u8,
    pub losses: u8,
    pub restores: u8,
    pub ghosts: Ghosts,
}

impl State {
    pub fn first() -> Self {
        Self {
            row: RowState::default(),
            generation: 1,
            behind: false,
            grants: Vec::new(),
            nodes: Default::default(),
            backup: None,
            crashes: 0,
            losses: 0,
            restores: 0,
            ghosts: Ghosts::default(),
        }
    }

    pub const fn flag(&mut self, flag: Flag) {
        self.ghosts.flags |= flag as u8;
    }

    pub const fn has(&self, flag: Flag) -> bool {
        self.ghosts.flags & flag as u8 != 0
    }
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The catalogue grants the next ballot for these parts.
    Open {
        kind: OpenKind,
        parts: [PartCode; NODES],
    },
    /// PREPARE of a grant arrives.
    Prepare {
        node: u8,
        grant: u8,
    },
    /// ACCEPT of a grant arrives with its bytes.
    Accept {
        node: u8,
        grant: u8,
    },
    /// ADOPT of what is stored under `from`.
    Adopt {
        node: u8,
        grant: u8,
        from: Slot,
    },
    /// An object reaches the disk.
    Sync {
        node: u8,
        slot: Slot,
    },
    /// The receipt exists from now on.
    Receipt {
        node: u8,
        grant: u8,
    },
    /// COMMIT with the receipts of these nodes, a mask; what else the base names is carried over or dropped.
    Commit {
        grant: u8,
        nodes: u8,
        carry: bool,
    },
    /// An order to delete arrives.
    Delete {
        node: u8,
        slot: Slot,
    },
    /// A node reports one object and gets the answer.
    Inventory {
        node: u8,
        slot: Slot,
    },
    /// A plain client's bytes arrive.
    PlainPut {
        node: u8,
    },
    PlainDelete {
        node: u8,
    },
    /// The process dies: what is not synced, and the promise, are gone.
    Crash {
        node: u8,
    },
    /// The disk is gone; an empty one takes its place.
    LoseDisk {
        node: u8,
    },
    /// A backup of the catalogue is taken.
    Backup,
    /// The catalogue starts again from its backup.
    Restore,
    /// Every node was heard; what they showed is learned.
    Reconcile,
    /// Mutant: orders to delete an open ballot's objects, without a newer ballot.
    CollectOpen {
        grant: u8,
    },
}
