//! Faults that wait for their worst moment. Chance alone meets these once in thousands of runs:
//!
//! - a catalogue that is lost and restored just after it granted its first ballot, the grant still on its way;
//! - a COMMIT that is held on its way while another uploader takes the chunk over and the first one's objects are
//!   deleted, and that arrives after the catalogue was restored to the time before;
//! - the same, and the catalogue loses its power together with the OPEN that took over.

use super::*;

/// A siege ends after so long, whatever came of it.
const SIEGE_MS: u64 = 9_000;

/// What happens to the catalogue while a COMMIT is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It is restored to a backup of the moment when the siege began.
    Restore,
    /// It forgets the next OPEN of the chunk.
    ForgottenOpen,
}

/// All that one client says to the catalogue is held.
#[derive(Debug)]
pub(super) struct Siege {
    number: u64,
    client: Address,
    chunk: ChunkId,
    ending: Ending,
    held: Vec<Message>,
}

/// What ends a life of the catalogue at a bad moment.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trap {
    LosesItsFirstGrant,
    ForgetsTheOpen,
}

/// Steps of the siege with this number.
#[derive(Debug, Clone, Copy)]
pub(in crate::simulator) enum SiegeStep {
    Restore(u64),
    Release(u64),
}

impl World {
    /// Gives the message back if it is to go on.
    pub(super) fn hold(&mut self, from: Address, to: Address, message: Message) -> Option<Message> {
        if to != Address::Catalogue || !self.faults {
            return Some(message);
        }
        self.besiege(from, &message);
        match &mut self.siege {
            Some(siege) if siege.client == from => {
                siege.held.push(message);
                None
            }
            _ => Some(message),
        }
    }

    /// Begins a siege with this COMMIT, if it could still succeed and another uploader wants the chunk.
    fn besiege(&mut self, client: Address, message: &Message) {
        let Message::Commit { chunk, ballot, .. } = message else {
            return;
        };
        if self.siege.is_some() || self.plan.ambushes == 0 || !self.is_contested(*chunk, *ballot) {
            return;
        }
        if !self.catalogue.up || !self.random.chance(self.plan.ambushes) {
            return;
        }
        let ending = if self.random.chance(500) {
            Ending::Restore
        } else {
            Ending::ForgottenOpen
        };
        self.note(|| format!("{client} is cut off with its COMMIT of {chunk}: {ending:?}"));
        if ending == Ending::Restore {
            self.back_up();
            let pause_ms = self.random.between(3_000, 5_000);
            self.after(pause_ms, Timer::Siege(SiegeStep::Restore(self.numbers)));
        }
        self.siege = Some(Siege {
            number: self.numbers,
            client,
            chunk: *chunk,
            ending,
            held: Vec::new(),
        });
        self.after(SIEGE_MS, Timer::Siege(SiegeStep::Release(self.numbers)));
    }

    fn is_contested(&self, chunk: ChunkId, ballot: Ballot) -> bool {
        let row = self.catalogue.row(chunk);
        let open = row.is_some_and(|row| row.promised == ballot && row.epoch() < ballot);
        let uploads = self.jobs.iter().filter(|job| job.chunk == chunk && !job.done);
        open && uploads
            .filter(|job| matches!(job.work, Work::Upload { .. }))
            .count()
            > 1
    }

    /// No backup is newer than the siege that is to be restored to.
    pub(super) fn is_besieged(&self) -> bool {
        let restores = |siege: &Siege| siege.ending == Ending::Restore;
        self.siege.as_ref().is_some_and(restores)
    }

    pub(super) fn continue_siege(&mut self, step: SiegeStep) {
        let (SiegeStep::Restore(number) | SiegeStep::Release(number)) = step;
        let Some(siege) = self.siege.take_if(|siege| siege.number == number) else {
            return;
        };
        match step {
            SiegeStep::Restore(_) => {
                self.siege = Some(siege);
                self.stop_catalogue(0, true, 300);
            }
            SiegeStep::Release(_) => self.release(siege),
        }
    }

    fn release(&mut self, siege: Siege) {
        self.note(|| format!("{} is connected again", siege.client));
        for message in siege.held {
            self.send(siege.client, Address::Catalogue, message);
        }
    }

    pub(super) fn end_siege(&mut self) {
        if let Some(siege) = self.siege.take() {
            self.release(siege);
        }
    }

    /// What the catalogue walks into after the message that it has just handled; before, it had granted `grants` ballots
    /// in this life.
    pub(super) fn trap(&mut self, grants: u64, out: &mut Outbox) -> Option<Trap> {
        let granted = self.catalogue.grants() > grants;
        if !self.faults || self.plan.ambushes == 0 || !granted {
            return None;
        }
        if self.is_taken_over(out) {
            return Some(Trap::ForgetsTheOpen);
        }
        if grants == 0 && self.random.chance(self.plan.ambushes) {
            self.note(|| "the first grant is slow".to_owned());
            for (to, message) in out.sends.drain(..) {
                let delay_ms = self.random.between(4_000, 16_000);
                let (from, message) = (Address::Catalogue, Box::new(message));
                self.push(delay_ms, Event::Deliver { from, to, message });
            }
            return Some(Trap::LosesItsFirstGrant);
        }
        None
    }

    pub(super) fn spring(&mut self, trap: Trap) {
        match trap {
            Trap::LosesItsFirstGrant => self.stop_catalogue(0, true, 1_000),
            Trap::ForgetsTheOpen => {
                self.stop_catalogue(self.catalogue.unsynced(), false, 200);
                let number = self.siege.as_ref().map_or(0, |siege| siege.number);
                let pause_ms = self.random.between(300, 1_200);
                self.after(pause_ms, Timer::Siege(SiegeStep::Release(number)));
            }
        }
    }

    /// Whether this grant is one of the besieged chunk, to another client, and can still be forgotten.
    fn is_taken_over(&self, out: &Outbox) -> bool {
        let Some(siege) = self
            .siege
            .as_ref()
            .filter(|siege| siege.ending == Ending::ForgottenOpen)
        else {
            return false;
        };
        let grants = |(to, message): &(Address, Message)| {
            *to != siege.client
                && matches!(message, Message::Granted { grant, .. } if grant.chunk_id == siege.chunk)
        };
        self.catalogue.unsynced() > 0 && out.sends.iter().any(grants)
    }
}
