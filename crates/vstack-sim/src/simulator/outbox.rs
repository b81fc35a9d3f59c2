//! What a machine wants done after it has handled an event.

use vstack_core::ballot::Ballot;
use vstack_core::id::ChunkId;
use vstack_core::paxos::master::{Accepted, Row};

use super::disk::Name;
use super::message::{Address, Message};
use super::world::SiegeStep;

/// An alarm. One that names a life is void in the next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Timer {
    NodeSync {
        node: usize,
        life: u64,
    },
    NodeBeat {
        node: usize,
        life: u64,
    },
    CatalogueTick {
        life: u64,
    },
    ClientTimeout {
        client: usize,
        life: u64,
        request: u64,
    },
    ClientWake {
        client: usize,
        life: u64,
        chunk: ChunkId,
    },
    /// Begin the work that was planned under this number.
    Begin {
        job: usize,
    },
    Fault,
    FaultsEnd,
    /// A siege goes on.
    Siege(SiegeStep),
    /// Undo a fault.
    Mend(Undo),
    /// Whether all is done.
    Check,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Undo {
    StartNode(usize),
    StartCatalogue,
    StartClient(usize),
    HealLink(Address, Address),
}

/// What only the oracle sees.
#[derive(Debug)]
pub(super) enum Fact {
    Granted {
        chunk: ChunkId,
        ballot: Ballot,
    },
    /// A row changed, from this one. It may be that nothing was decided.
    Row {
        chunk: ChunkId,
        before: Option<Row>,
    },
    /// An object is not on its node any more.
    Gone {
        node: usize,
        name: Name,
    },
    /// The catalogue orders that an object goes whose chunk it does not know.
    Doomed {
        node: usize,
        name: Name,
    },
    /// A client was told that this is decided.
    Acknowledged {
        client: usize,
        chunk: ChunkId,
        accepted: Accepted,
    },
    /// Undone by a restart that lost what was not synced.
    Undone {
        chunk: ChunkId,
    },
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) sends: Vec<(Address, Message)>,
    pub(super) timers: Vec<(Delay, Timer)>,
    pub(super) facts: Vec<Fact>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Delay {
    Exactly(u64),
    Within(u64),
}

impl Outbox {
    pub(super) fn send(&mut self, to: Address, message: Message) {
        self.sends.push((to, message));
    }

    pub(super) fn timer(&mut self, delay_ms: u64, timer: Timer) {
        self.timers.push((Delay::Exactly(delay_ms), timer));
    }

    /// At a random time from now until then.
    pub(super) fn timer_within(&mut self, delay_ms: u64, timer: Timer) {
        self.timers.push((Delay::Within(delay_ms), timer));
    }

    pub(super) fn fact(&mut self, fact: Fact) {
        self.facts.push(fact);
    }
}
