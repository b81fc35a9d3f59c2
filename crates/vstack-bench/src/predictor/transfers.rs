//! Transfers out of a trace: what was known when each request went out, and how long it took.
//!
//! The trace is replayed, so that what the pool's two moving averages expected is what they really expected then: the
//! lane's own estimate, not a copy of it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use vstack_client::policy::trace::{Head, Replayer, Seen};
use vstack_client::policy::{Action, AttemptId, ChunkSpec, Fact, Micros, NodeIndex, Piece, Start};

use super::learned::Outlook;

const MICROS_PER_HOUR: u64 = 3_600_000_000;

/// Something that a predictor is asked, or told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Moment {
    /// A request goes out; it has this number.
    Asked { transfer: usize, outlook: Outlook },
    /// All its bytes are here.
    Came { transfer: usize, took_sec: f64 },
}

/// What happened in a trace, with the time of day in microseconds since the epoch.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    pub(super) moments: Vec<(Micros, Moment)>,
    /// Requests that were given up: nobody knows how long they would have taken.
    pub(super) given_up: usize,
}

struct Flight {
    transfer: usize,
    node: NodeIndex,
    bytes: u64,
    told_bytes: u64,
    sent_at: Micros,
}

struct Reader {
    zero_us: u64,
    chunks: Vec<ChunkSpec>,
    flights: BTreeMap<AttemptId, Flight>,
    count: usize,
    transfers: Transfers,
}

/// Reads a whole trace of the pooled policy.
pub(super) fn of_trace(lines: &[String]) -> Result<Transfers> {
    let first = lines.first().context("the trace is empty")?;
    let head: BTreeMap<String, Head> = serde_json::from_str(first)?;
    let head = head.into_values().next().context("the trace has no head")?;
    let mut reader = Reader {
        zero_us: head.zero_at.0.saturating_mul(1_000),
        chunks: head.chunks,
        flights: BTreeMap::new(),
        count: 0,
        transfers: Transfers::default(),
    };
    let mut replayer = Replayer::new(None);
    for line in lines {
        if !replayer.take_and_see(line, |seen| reader.see(seen))? {
            break;
        }
    }
    if let Some(parted) = replayer.finish()?.parted {
        bail!("the trace does not replay: {parted:?}");
    }
    Ok(reader.transfers)
}

impl Reader {
    fn see(&mut self, seen: Seen<'_>) {
        match seen.fact {
            Fact::Progress { attempt, bytes } => {
                if let Some(flight) = self.flights.get_mut(attempt) {
                    flight.told_bytes = *bytes;
                }
            }
            Fact::Done { attempt, .. } => {
                if let Some(flight) = self.flights.remove(attempt) {
                    let took_sec = (seen.at - flight.sent_at).0 as f64 / 1e6;
                    let transfer = flight.transfer;
                    self.note(seen.at, Moment::Came { transfer, took_sec });
                }
            }
            Fact::Failed { attempt, .. } => self.give_up(*attempt),
            _ => {}
        }
        for action in seen.actions {
            match action {
                Action::Start(start) => self.asked(seen, start),
                Action::Cancel { attempt, .. } => self.give_up(*attempt),
                _ => {}
            }
        }
    }

    fn asked(&mut self, seen: Seen<'_>, start: &Start) {
        let (Piece::Blocks(range), Some(chunk)) = (start.piece, self.chunks.get(start.seq as usize)) else {
            return;
        };
        let bytes = chunk.shape.bytes_of(range);
        let before = self.flights.values().filter(|flight| flight.node == start.node);
        let ahead: u64 = before
            .map(|flight| flight.bytes.saturating_sub(flight.told_bytes))
            .sum();
        let own = self
            .flights
            .values()
            .filter(|flight| flight.node == start.node)
            .count();
        let told = seen.records.record(start.node).and_then(|record| record.load());
        let outlook = Outlook {
            node: start.node,
            bytes: bytes + ahead,
            hour: self.hour(seen.at),
            load: told.map_or(u32::try_from(own).unwrap_or(u32::MAX), |load| {
                load.requests_in_flight
            }),
            averages: seen.policy.expected(start.attempt),
        };
        let transfer = self.count;
        self.count += 1;
        self.note(seen.at, Moment::Asked { transfer, outlook });
        let flight = Flight {
            transfer,
            node: start.node,
            bytes,
            told_bytes: 0,
            sent_at: seen.at,
        };
        self.flights.insert(start.attempt, flight);
    }

    fn give_up(&mut self, attempt: AttemptId) {
        if self.flights.remove(&attempt).is_some() {
            self.transfers.given_up += 1;
        }
    }

    fn note(&mut self, at: Micros, moment: Moment) {
        self.transfers.moments.push((Micros(self.zero_us) + at, moment));
    }

    fn hour(&self, at: Micros) -> f64 {
        let of_day = (self.zero_us + at.0) % (24 * MICROS_PER_HOUR);
        of_day as f64 / MICROS_PER_HOUR as f64
    }
}
