//! The ledger: what was asked of a store, what it acknowledged, and so what it must hold after whatever happens next.
//!
//! It is exact about requests under way: a crash may leave each of them done or not done, and nothing in between.

use std::collections::BTreeMap;

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_core::id::ChunkId;
use vstack_store::{ErrorKind, ObjectState, Store, StoreError};

/// An object's name.
pub(crate) type Name = (ChunkId, Ballot);

/// What was last acknowledged or found under a name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Known {
    #[default]
    Absent,
    Stored(Bytes),
    Deleted,
    /// A crash tore a put that nobody acknowledged, and the store says that its record is damaged.
    Torn,
    /// A name of the catalogue was used and acknowledged again while what was under it could not be read. The catalogue
    /// never does that; any of these bytes or nothing may be there.
    Reused(Vec<Bytes>),
}

/// A request that has no answer yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A put, or an adopt of these bytes.
    Put(Bytes),
    Delete,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    known: Known,
    open: Vec<Asked>,
    /// Its delete is confirmed everywhere, so a store may forget that it was here.
    forgettable: bool,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    names: BTreeMap<Name, Entry>,
    /// Reads fail, so that a store may have forgotten a delete.
    reads_fail: bool,
    /// The first answer that no store may give.
    broken: Option<String>,
}

/// What a check saw, beside that nothing was wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) stored: u64,
    pub(crate) deleted: u64,
    /// Nobody acknowledged them, and they are there whole.
    pub(crate) unacknowledged_kept: u64,
    /// Nobody acknowledged them, and the store says that they are damaged.
    pub(crate) unacknowledged_torn: u64,
}

impl Ledger {
    /// For a disk on which reads fail.
    pub(crate) fn with_failing_reads() -> Self {
        Self {
            reads_fail: true,
            ..Self::default()
        }
    }

    pub(crate) fn begin(&mut self, name: Name, asked: Asked) {
        self.names.entry(name).or_default().open.push(asked);
    }

    /// The store was told that the delete of this object is confirmed everywhere.
    pub(crate) fn may_be_forgotten(&mut self, name: Name) {
        self.names.entry(name).or_default().forgettable = true;
    }

    /// Notes the answer to a request that was begun. An answer of "not available" leaves it open: nobody knows.
    pub(crate) fn finish(&mut self, name: Name, asked: &Asked, answer: Result<(), ErrorKind>) {
        if answer == Err(ErrorKind::Unavailable) {
            return;
        }
        let entry = self.names.entry(name).or_default();
        if let Some(place) = entry.open.iter().position(|open| open == asked) {
            entry.open.remove(place);
        }
        match (answer, asked) {
            (Ok(()), Asked::Put(data)) if entry.contradicts(data) => {
                if name.1.is_plain() || !self.reads_fail {
                    let was = entry.known.brief();
                    let broken = format!(
                        "{} at ballot {}: {was}, and then other bytes acknowledged",
                        name.0, name.1
                    );
                    self.broken.get_or_insert(broken);
                }
                entry.known = match std::mem::take(&mut entry.known) {
                    Known::Stored(old) => Known::Reused(vec![old, data.clone()]),
                    Known::Reused(mut old) => {
                        old.push(data.clone());
                        Known::Reused(old)
                    }
                    _ => Known::Reused(vec![data.clone()]),
                };
            }
            (Ok(()), Asked::Put(data)) => entry.known = Known::Stored(data.clone()),
            (Ok(()), Asked::Delete) => entry.known = Known::Deleted,
            (Err(_), _) => {}
        }
    }

    /// What is acknowledged under a name.
    pub(crate) fn stored(&self, name: Name) -> Option<&Bytes> {
        match self.names.get(&name)?.known {
            Known::Stored(ref data) => Some(data),
            _ => None,
        }
    }

    /// Everything acknowledged that nobody asked to delete.
    pub(crate) fn all_stored(&self) -> impl Iterator<Item = (Name, &Bytes)> {
        self.names.iter().filter_map(|(name, entry)| match &entry.known {
            Known::Stored(data) if !entry.open.contains(&Asked::Delete) => Some((*name, data)),
            _ => None,
        })
    }

    /// Compares every name with the store.
    pub(crate) fn check(&self, store: &Store) -> Result<Seen, String> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let mut seen = Seen::default();
        for (name, entry) in &self.names {
            let found = store.get(name.0, Some(name.1));
            entry.judge(found.as_ref(), &mut seen).map_err(|allowed| {
                let found = match &found {
                    Ok(data) => format!("{} bytes", data.len()),
                    Err(error) => error.to_string(),
                };
                format!("{} at ballot {}: {allowed}; found: {found}", name.0, name.1)
            })?;
        }
        let objects = store.objects(None, usize::MAX);
        match objects
            .iter()
            .find(|object| !self.names.contains_key(&(object.chunk, object.ballot)))
        {
            Some(stranger) => Err(format!(
                "{} at ballot {}: nobody wrote it",
                stranger.chunk, stranger.ballot
            )),
            None => Ok(seen),
        }
    }

    /// While a store runs, readers see exactly what was acknowledged: not less, and not what a crash could take away.
    pub(crate) fn check_visible(&self, store: &Store) -> Result<(), String> {
        for (name, entry) in &self.names {
            let ballots = store.ballots(name.0);
            let state = ballots
                .iter()
                .find(|object| object.ballot == name.1)
                .map(|object| object.state);
            let fits = matches!(
                (&entry.known, state),
                (Known::Absent, None)
                    | (Known::Deleted, Some(ObjectState::Deleted))
                    | (
                        Known::Stored(_),
                        Some(ObjectState::Checked | ObjectState::Unchecked)
                    )
                    | (Known::Torn, Some(ObjectState::Corrupt))
            ) || (entry.known == Known::Deleted && entry.forgettable && state.is_none());
            if !fits {
                return Err(format!(
                    "{} at ballot {}: readers see {state:?} while {} is acknowledged",
                    name.0,
                    name.1,
                    entry.known.brief()
                ));
            }
        }
        Ok(())
    }

    /// After a restart each name is what it was found to be, and must stay that. Call after [`Ledger::check`].
    pub(crate) fn settle(&mut self, store: &Store) {
        for (name, entry) in &mut self.names {
            entry.open.clear();
            let ballots = store.ballots(name.0);
            let state = ballots
                .iter()
                .find(|object| object.ballot == name.1)
                .map(|object| object.state);
            entry.known = match state {
                None => Known::Absent,
                Some(ObjectState::Deleted) => Known::Deleted,
                Some(ObjectState::Corrupt) => Known::Torn,
                Some(ObjectState::Checked | ObjectState::Unchecked) => store
                    .get(name.0, Some(name.1))
                    .map_or(Known::Torn, |data| Known::Stored(Bytes::from(data))),
            };
        }
    }
}

impl Known {
    fn brief(&self) -> String {
        match self {
            Self::Absent => "nothing".to_owned(),
            Self::Stored(data) => format!("{} bytes", data.len()),
            Self::Deleted => "a delete".to_owned(),
            Self::Torn => "a torn put".to_owned(),
            Self::Reused(_) => "a put after a delete".to_owned(),
        }
    }
}

impl Entry {
    /// Whether a put of `data` may not be acknowledged, since the name is used up.
    fn contradicts(&self, data: &Bytes) -> bool {
        match &self.known {
            Known::Deleted => !self.forgettable,
            Known::Stored(old) => old != data,
            Known::Reused(_) => true,
            Known::Absent | Known::Torn => false,
        }
    }

    /// The error says what would have been allowed.
    fn judge(&self, found: Result<&Vec<u8>, &StoreError>, seen: &mut Seen) -> Result<(), String> {
        let deleting = self.open.contains(&Asked::Delete);
        let putting = |data: &[u8]| {
            self.open
                .iter()
                .any(|open| matches!(open, Asked::Put(bytes) if bytes == data))
        };
        let may_be_torn = self.open.iter().any(|open| matches!(open, Asked::Put(_)));
        // A name that may be forgotten may be used again, as if it never was.
        let known = match &self.known {
            Known::Deleted if self.forgettable && may_be_torn => &Known::Absent,
            known => known,
        };
        let fits = match (known, found.map_err(StoreError::kind)) {
            (Known::Stored(stored), Ok(data)) if stored == data => {
                seen.stored += 1;
                true
            }
            (Known::Stored(_), Err(ErrorKind::NotFound)) => deleting,
            (Known::Deleted, Err(ErrorKind::NotFound)) => {
                seen.deleted += 1;
                true
            }
            (Known::Absent | Known::Torn, Ok(data)) if putting(data) => {
                seen.unacknowledged_kept += 1;
                true
            }
            (Known::Absent | Known::Torn, Err(ErrorKind::NotFound)) => true,
            (Known::Absent, Err(ErrorKind::Corrupt)) if may_be_torn => {
                seen.unacknowledged_torn += 1;
                true
            }
            (Known::Torn, Err(ErrorKind::Corrupt)) | (Known::Reused(_), Err(ErrorKind::NotFound)) => true,
            (Known::Reused(put), Ok(data)) => put.iter().any(|put| put == data),
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let open: Vec<&str> = self
            .open
            .iter()
            .map(|open| {
                if *open == Asked::Delete {
                    "a delete"
                } else {
                    "a put"
                }
            })
            .collect();
        Err(format!(
            "{} is acknowledged, under way: [{}]",
            self.known.brief(),
            open.join(", ")
        ))
    }
}
