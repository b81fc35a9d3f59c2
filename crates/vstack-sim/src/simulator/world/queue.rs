//! Events to come, in the order of their times.

use std::cmp::Ordering;

use crate::simulator::message::{Address, Message};
use crate::simulator::outbox::Timer;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at_ms: u64,
    pub(super) number: u64,
    pub(super) event: Event,
}

#[derive(Debug)]
pub(super) enum Event {
    Deliver {
        from: Address,
        to: Address,
        message: Box<Message>,
    },
    Timer(Timer),
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest: a heap gives its greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ms, other.number).cmp(&(self.at_ms, self.number))
    }
}
