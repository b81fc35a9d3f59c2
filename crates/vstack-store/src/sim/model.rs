//! The reference model: what a store must hold after everything that was done to it and to its disk.

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, VideoId};

use super::Random;
use crate::{AdoptRequest, DeleteReason, ErrorKind, ObjectEntry, ObjectState, PutRequest, Store, StoreError};

/// An object's name.
pub type Name = (ChunkId, Ballot);

/// One request of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Puts (sequence number, ballot, size) that are sent together, so that they share a batch.
    Puts(Vec<(u32, u64, usize)>),
    Adopt {
        seq: u32,
        from: u64,
        to: u64,
    },
    Delete {
        seq: u32,
        ballot: u64,
    },
    /// The caller closes the store and opens it again.
    Reopen,
    /// The caller compacts what can be compacted, whatever little it saves.
    Compact,
    /// The caller has all bytes checked.
    Scrub,
    /// Long enough for the idle watermark of 2 ms.
    Idle,
}

/// What may be read under a name.
#[derive(Debug, Clone, Default)]
struct Allowed {
    /// Acknowledged: these bytes, unless a delete is under way.
    stored: Option<Vec<u8>>,
    /// A request without an answer may have stored these.
    maybe_stored: Option<Vec<u8>>,
    maybe_deleted: bool,
    deleted: bool,
}

/// What was asked of a store, and what it said.
#[derive(Debug, Clone, Default)]
pub struct Model {
    names: BTreeMap<Name, Allowed>,
}

/// The chunk with a sequence number.
#[must_use]
pub fn chunk(seq: u32) -> ChunkId {
    ChunkId::media(VideoId(Uuid::from_u128(0x3b24_1101)), seq)
}

#[must_use]
pub fn name(seq: u32, ballot: u64) -> Name {
    (chunk(seq), Ballot::from_number(ballot))
}

/// The same bytes for the same seed.
#[must_use]
pub fn bytes_of(seed: u32, len: usize) -> Vec<u8> {
    let mut random = Random::new(u64::from(seed));
    (0..len).map(|_| random.next_u64().to_le_bytes()[3]).collect()
}

/// The bytes that the model puts under a name. All ballots but 7 have the same, so that adopting and conflicting both
/// happen.
#[must_use]
pub fn content(seq: u32, ballot: u64, size: usize) -> Vec<u8> {
    bytes_of(seq * 10 + u32::from(ballot == 7), size)
}

/// Puts under one name must have one content in a script, whatever their sizes: the first one's.
#[must_use]
pub fn one_content_per_name(mut script: Vec<Step>) -> Vec<Step> {
    let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
    for step in &mut script {
        if let Step::Puts(puts) = step {
            puts.iter_mut()
                .for_each(|(seq, _, size)| *size = *sizes.entry(*seq).or_insert(*size));
        }
    }
    script
}

impl Model {
    /// Does one step and notes the outcome; [`Step::Reopen`], [`Step::Compact`] and [`Step::Scrub`] are the caller's.
    pub fn run(&mut self, store: &Store, step: &Step) {
        match step {
            Step::Puts(puts) => self.put(store, puts),
            Step::Adopt { seq, from, to } => self.adopt(store, *seq, *from, *to),
            Step::Delete { seq, ballot } => self.delete(store, name(*seq, *ballot)),
            Step::Idle => std::thread::sleep(Duration::from_millis(5)),
            Step::Reopen | Step::Compact | Step::Scrub => {}
        }
    }

    /// Sends puts together and waits for all of them.
    pub fn put(&mut self, store: &Store, puts: &[(u32, u64, usize)]) {
        let (sender, outcomes) = channel();
        for (seq, ballot, size) in puts.iter().copied() {
            let data = content(seq, ballot, size);
            let (chunk, ballot) = name(seq, ballot);
            let sender = sender.clone();
            let request = PutRequest::new(chunk, ballot, Bytes::from(data.clone()));
            store.put(request, move |result| {
                drop(sender.send(((chunk, ballot), data, result)))
            });
        }
        drop(sender);
        for (name, data, result) in outcomes {
            self.note_put(name, data, result.map(drop));
        }
    }

    /// Notes the outcome of a put that somebody else sent.
    pub fn note_put(&mut self, name: Name, data: Vec<u8>, result: Result<(), StoreError>) {
        let allowed = self.names.entry(name).or_default();
        match result.map_err(|error| error.kind()) {
            Ok(()) => allowed.stored = Some(data),
            Err(ErrorKind::Unavailable) => allowed.maybe_stored = Some(data),
            Err(_) => {}
        }
    }

    pub fn adopt(&mut self, store: &Store, seq: u32, from: u64, to: u64) {
        let source = self.names.get(&name(seq, from));
        let Some(data) = source.and_then(|from| from.stored.clone()) else {
            return;
        };
        let ((chunk, from), (_, ballot)) = (name(seq, from), name(seq, to));
        let result = store.adopt_blocking(AdoptRequest {
            chunk,
            ballot,
            from,
            sha256: None,
        });
        self.note_put((chunk, ballot), data, result.map(drop));
    }

    pub fn delete(&mut self, store: &Store, name: Name) {
        let result = store.delete_blocking(name.0, name.1, DeleteReason::Client);
        self.note_delete(name, result.map(drop));
    }

    /// Notes the outcome of a delete that somebody else sent.
    pub fn note_delete(&mut self, name: Name, result: Result<(), StoreError>) {
        let allowed = self.names.entry(name).or_default();
        match result.map_err(|error| error.kind()) {
            Ok(()) => allowed.deleted = true,
            Err(ErrorKind::Unavailable) => allowed.maybe_deleted = true,
            Err(_) => {}
        }
    }

    /// Whether a put under this name was acknowledged.
    #[must_use]
    pub fn is_stored(&self, name: Name) -> bool {
        self.names
            .get(&name)
            .is_some_and(|allowed| allowed.stored.is_some())
    }

    /// Names whose put was acknowledged.
    #[must_use]
    pub fn stored_count(&self) -> usize {
        let names = self.names.values();
        names.filter(|allowed| allowed.stored.is_some()).count()
    }

    /// Whether any request has no answer.
    #[must_use]
    pub fn has_open_requests(&self) -> bool {
        self.names
            .values()
            .any(|allowed| allowed.maybe_stored.is_some() || allowed.maybe_deleted)
    }

    /// Compares every name with the store.
    ///
    /// # Errors
    /// The first name that is not what it must be, in words.
    pub fn check(&self, store: &Store) -> Result<(), String> {
        for ((chunk, ballot), allowed) in &self.names {
            let found = store.get(*chunk, Some(*ballot));
            if !allowed.fits(&found) {
                return Err(format!(
                    "{chunk} {ballot}: allowed {}, found {}",
                    allowed.brief(),
                    brief(&found)
                ));
            }
        }
        let known = |entry: &ObjectEntry| self.names.contains_key(&(entry.chunk, entry.ballot));
        match store.objects(None, usize::MAX).iter().find(|entry| !known(entry)) {
            Some(stranger) => Err(format!("{} {}: nobody wrote it", stranger.chunk, stranger.ballot)),
            None => Ok(()),
        }
    }

    /// After a restart each name is what it was found to be, and must stay that.
    pub fn settle(&mut self, store: &Store) {
        for ((chunk, ballot), allowed) in &mut self.names {
            let ballots = store.ballots(*chunk);
            let found = ballots.iter().find(|entry| entry.ballot == *ballot);
            allowed.deleted |= found.is_some_and(|entry| entry.state == ObjectState::Deleted);
            allowed.stored = store.get(*chunk, Some(*ballot)).ok();
            // Damage of what was never acknowledged may be found again.
            let damaged = found.is_some_and(|entry| entry.state == ObjectState::Corrupt);
            allowed.maybe_stored = allowed.maybe_stored.take().filter(|_| damaged);
            allowed.maybe_deleted = false;
        }
    }
}

impl Allowed {
    fn fits(&self, found: &Result<Vec<u8>, StoreError>) -> bool {
        match (found.as_ref().map_err(StoreError::kind), self) {
            (Err(kind), Self { deleted: true, .. }) => kind == ErrorKind::NotFound,
            (Ok(_), Self { deleted: true, .. }) => false,
            (
                Ok(data),
                Self {
                    stored: Some(stored), ..
                },
            ) => data == stored,
            (Ok(data), Self { maybe_stored, .. }) => maybe_stored.as_ref() == Some(data),
            (
                Err(kind),
                Self {
                    stored: Some(_),
                    maybe_deleted,
                    ..
                },
            ) => *maybe_deleted && kind == ErrorKind::NotFound,
            // A record that tore in the middle of its batch may be known to be damaged.
            (
                Err(kind),
                Self {
                    maybe_stored: Some(_),
                    ..
                },
            ) => {
                matches!(kind, ErrorKind::NotFound | ErrorKind::Corrupt)
            }
            (Err(kind), _) => kind == ErrorKind::NotFound,
        }
    }

    fn brief(&self) -> String {
        let len = |data: &Option<Vec<u8>>| data.as_ref().map(Vec::len);
        let Self {
            maybe_deleted,
            deleted,
            ..
        } = self;
        format!(
            "stored {:?}, maybe stored {:?}, maybe deleted {maybe_deleted}, deleted {deleted}",
            len(&self.stored),
            len(&self.maybe_stored)
        )
    }
}

fn brief(found: &Result<Vec<u8>, StoreError>) -> String {
    match found {
        Ok(data) => format!("{} bytes", data.len()),
        Err(error) => error.to_string(),
    }
}
