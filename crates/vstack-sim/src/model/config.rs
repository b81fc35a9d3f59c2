//! What a run of the checker explores: how many nodes, which failures, and what is broken on purpose.

use vstack_core::paxos::OpenKind;

/// A configuration of the model.
#[derive(Clone, Debug)]
pub struct Config {
    pub nodes: usize,
    /// Ballots that the catalogue grants at most, over all its lives.
    pub ballots: usize,
    /// Copies that an OPEN chooses nodes for, and the fewest that a COMMIT needs.
    pub copies: u32,
    pub min_copies: u8,
    /// Shards that a conversion places at once (the code has five; four may be decided).
    pub shards: u32,
    pub kinds: Vec<OpenKind>,
    pub crashes: u8,
    pub losses: u8,
    pub restores: u8,
    /// PREPARE is sent too. Off, only its effect on the fence is missing, which no safety rests on.
    pub prepare: bool,
    pub inventory: bool,
    pub plain: bool,
    /// Write, sync and receipt are one step. Sound, for what is not synced gives no receipt and is not adopted; a third
    /// of the states.
    pub atomic_writes: bool,
    /// Nodes refuse what is below their promise. The rules do not need it.
    pub node_fence: bool,
    /// States that differ only by the names of nodes are one.
    pub symmetry: bool,
    pub broken: Option<Broken>,
}

/// What is broken on purpose. Each must give a counterexample, or the model shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// One object a chunk, overwritten in place; nodes do not fence.
    InPlace,
    /// The same, and nodes remember what they promised.
    InPlaceDurableFence,
    /// R1: COMMIT does not compare its ballot with the highest granted one.
    CommitIgnoresBallot,
    /// R2: receipts of a replaced disk count.
    IncarnationIgnored,
    /// R2: receipts are given for bytes that lie there under another ballot.
    AdoptWithoutNewName,
    /// R2: parts are carried over although their disk is known to be lost.
    LostPartsCarried,
    /// R3: an open ballot's objects are collected while it can still commit.
    CollectWithoutFence,
    /// R4: receipts before the sync.
    ReceiptBeforeSync,
    /// A tombstone is taken for all lower ballots, too.
    TombstoneSpansBallots,
    /// A name is written again after its tombstone.
    TombstoneForgotten,
    /// A restored catalogue collects what it does not know.
    UnknownCollected,
    /// A restored catalogue goes on with the generation of its backup.
    GenerationRepeated,
    /// A restored catalogue grants before the nodes have written its generation down.
    GenerationUnannounced,
    /// A ballot that is open in the backup may still be committed after the restore.
    OpenSurvivesRestore,
    /// INVENTORY collects plain objects at once.
    PlainCollectedYoung,
    /// A plain DELETE reaches objects of higher ballots.
    PlainDeleteReachesBallots,
    /// Exactly the shards that a read needs are decided.
    ThreeShards,
}

impl Config {
    /// Two copies on `nodes` nodes, one crash; the atomic form.
    #[must_use]
    pub fn new(nodes: usize, ballots: usize) -> Self {
        Self {
            nodes,
            ballots,
            copies: 2,
            min_copies: 2,
            shards: 4,
            kinds: vec![
                OpenKind::Upload,
                OpenKind::Repair,
                OpenKind::Delete,
                OpenKind::Abort,
            ],
            crashes: 1,
            losses: 0,
            restores: 0,
            prepare: false,
            inventory: false,
            plain: false,
            atomic_writes: true,
            node_fence: true,
            symmetry: true,
            broken: None,
        }
    }

    pub(super) fn copies(self, copies: u32) -> Self {
        Self { copies, ..self }
    }

    pub(super) fn crashes(self, crashes: u8) -> Self {
        Self { crashes, ..self }
    }

    pub(super) fn losses(self, losses: u8) -> Self {
        Self { losses, ..self }
    }

    pub(super) fn restores(self, restores: u8) -> Self {
        Self { restores, ..self }
    }

    /// Write, sync and receipt are three steps.
    pub(super) fn split(self) -> Self {
        Self {
            atomic_writes: false,
            ..self
        }
    }

    pub(super) fn unfenced(self) -> Self {
        Self {
            node_fence: false,
            ..self
        }
    }

    pub(super) fn prepare(self) -> Self {
        Self {
            prepare: true,
            ..self
        }
    }

    pub(super) fn inventory(self) -> Self {
        Self {
            inventory: true,
            ..self
        }
    }

    pub(super) fn plain(self) -> Self {
        Self { plain: true, ..self }
    }

    /// Conversions too, to so many shards, and no aborts.
    pub(super) fn conversions(self, shards: u32) -> Self {
        Self {
            shards,
            kinds: vec![
                OpenKind::Upload,
                OpenKind::Repair,
                OpenKind::Convert,
                OpenKind::Delete,
            ],
            ..self
        }
    }

    /// Nodes keep their names, so that a path can be told.
    pub(super) fn named_nodes(self) -> Self {
        Self {
            symmetry: false,
            ..self
        }
    }

    pub(super) fn broken(self, broken: Broken) -> Self {
        Self {
            broken: Some(broken),
            ..self
        }
    }

    pub(super) fn is_broken(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    pub(super) fn in_place(&self) -> bool {
        matches!(self.broken, Some(Broken::InPlace | Broken::InPlaceDurableFence))
    }

    pub(super) fn has(&self, kind: OpenKind) -> bool {
        self.kinds.contains(&kind)
    }
}
