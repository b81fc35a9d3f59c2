//! How busy the node is: requests for chunks that are open, and bits a second that left.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// The rate is that of the last second, in steps of this.
const SLOT_MS: u64 = 100;
const SLOTS: usize = 10;
/// Before each piece of 128 KiB: a repair that viewers hold back all the time still reads 0.6 MB/s on each connection.
const LONGEST_WAIT: Duration = Duration::from_millis(200);
const WAIT_STEP: Duration = Duration::from_millis(5);

#[derive(Debug, Clone)]
pub(super) struct Load {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    in_flight: AtomicU32,
    sent: Mutex<Sent>,
    started: Instant,
}

/// Bytes sent in each of the last slots, with the number of the slot they belong to.
#[derive(Debug, Default)]
struct Sent {
    slots: [(u64, u64); SLOTS],
}

impl Default for Load {
    fn default() -> Self {
        let shared = Shared {
            in_flight: AtomicU32::new(0),
            sent: Mutex::default(),
            started: Instant::now(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl Load {
    /// Counts a request until the guard goes: for a read, when the last byte was handed to the connection.
    pub(super) fn enter(&self) -> InFlight {
        self.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight {
            load: self.clone(),
            counts: true,
        }
    }

    /// The same for a request that waits for viewers: what it sends counts, it itself does not.
    pub(super) fn enter_behind(&self) -> InFlight {
        InFlight {
            load: self.clone(),
            counts: false,
        }
    }

    /// Lets viewers go first: returns when no request of theirs is open, or after a while, since repair has to end too.
    pub(super) async fn behind_viewers(&self) {
        let waits = async {
            while self.in_flight() > 0 {
                sleep(WAIT_STEP).await;
            }
        };
        // Both ends are good.
        let _ = timeout(LONGEST_WAIT, waits).await;
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.shared.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn sent(&self, bytes: usize) {
        let slot = self.slot();
        self.shared
            .sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(slot, bytes as u64);
    }

    pub(super) fn egress_bps(&self) -> u64 {
        let slot = self.slot();
        8 * self
            .shared
            .sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last_second(slot)
    }

    fn slot(&self) -> u64 {
        u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX) / SLOT_MS
    }
}

impl Sent {
    fn add(&mut self, slot: u64, bytes: u64) {
        let entry = &mut self.slots[usize::try_from(slot % SLOTS as u64).unwrap_or(0)];
        if entry.0 == slot {
            entry.1 += bytes;
        } else {
            *entry = (slot, bytes);
        }
    }

    fn last_second(&self, slot: u64) -> u64 {
        let recent = self
            .slots
            .iter()
            .filter(|(number, _)| number + SLOTS as u64 > slot);
        recent.map(|(_, bytes)| bytes).sum()
    }
}

/// An open request.
#[derive(Debug)]
pub(super) struct InFlight {
    load: Load,
    counts: bool,
}

impl InFlight {
    pub(super) fn sent(&self, bytes: usize) {
        self.load.sent(bytes);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.counts {
            self.load.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_forgets_what_is_older_than_a_second() {
        let mut sent = Sent::default();
        sent.add(100, 5);
        sent.add(100, 5);
        sent.add(105, 1);
        assert_eq!(sent.last_second(105), 11);
        assert_eq!(sent.last_second(109), 11);
        assert_eq!(sent.last_second(110), 1);
        sent.add(110, 7);
        assert_eq!(sent.last_second(110), 8);
        assert_eq!(sent.last_second(200), 0);
    }

    #[tokio::test]
    async fn what_goes_behind_viewers_waits_for_them_and_not_for_ever() {
        let load = Load::default();
        let (_repair, viewer) = (load.enter_behind(), load.enter());
        assert_eq!(load.in_flight(), 1);
        let waits = load.behind_viewers();
        let ended = async {
            sleep(WAIT_STEP * 4).await;
            drop(viewer);
        };
        tokio::join!(waits, ended);
        assert_eq!(load.in_flight(), 0);
        let _stays = load.enter();
        let began = Instant::now();
        load.behind_viewers().await;
        assert!(began.elapsed() >= LONGEST_WAIT);
    }

    #[test]
    fn requests_count_while_their_guard_lives() {
        let load = Load::default();
        let (one, two) = (load.enter(), load.enter());
        assert_eq!(load.in_flight(), 2);
        drop((one, two));
        assert_eq!(load.in_flight(), 0);
    }
}
