//! One ballot's attempt: what each granted node has come to.

use std::collections::BTreeMap;

use crate::id::NodeId;
use crate::paxos::{Grant, Receipt};
use crate::time::UnixMillis;

/// The grant and a lane for each of its nodes.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) grant: Grant,
    pub(super) lanes: BTreeMap<NodeId, Lane>,
}

/// One node's part in a round.
#[derive(Debug, Clone)]
pub(super) enum Lane {
    /// PREPARE is out.
    Asked {
        tries: usize,
    },
    /// ACCEPT or ADOPT is out.
    Sent {
        tries: usize,
    },
    Waiting {
        tries: usize,
        until: UnixMillis,
    },
    Stored(Receipt),
    GivenUp,
}

impl Lane {
    pub(super) const fn is_settled(&self) -> bool {
        matches!(self, Self::Stored(_) | Self::GivenUp)
    }

    const fn until(&self) -> Option<UnixMillis> {
        match self {
            Self::Waiting { until, .. } => Some(*until),
            Self::Asked { .. } | Self::Sent { .. } | Self::Stored(_) | Self::GivenUp => None,
        }
    }
}

impl Round {
    pub(super) fn new(grant: Grant, lane: impl Fn() -> Lane) -> Self {
        let lanes = grant.nodes.iter().map(|target| (target.node, lane())).collect();
        Self { grant, lanes }
    }

    pub(super) fn receipts(&self) -> impl Iterator<Item = &Receipt> {
        self.lanes.values().filter_map(|lane| match lane {
            Lane::Stored(receipt) => Some(receipt),
            _ => None,
        })
    }

    pub(super) fn is_settled(&self) -> bool {
        self.lanes.values().all(Lane::is_settled)
    }

    pub(super) fn next_wake(&self) -> Option<UnixMillis> {
        self.lanes.values().filter_map(Lane::until).min()
    }

    /// Nodes whose pause is over, and how often they were tried.
    pub(super) fn due(&self, now: UnixMillis) -> Vec<(NodeId, usize)> {
        let due = self.lanes.iter().filter_map(|(&node, lane)| match lane {
            Lane::Waiting { tries, until } if *until <= now => Some((node, *tries)),
            _ => None,
        });
        due.collect()
    }
}
