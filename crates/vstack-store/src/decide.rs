//! Whether a request needs a record: the rules of names and bytes.
//!
//! A name is written once. The same bytes again are a success without a record, other bytes a conflict, a deleted name
//! is used up. What is decided here rests on the index alone, which shows only what is durable; the writer holds back
//! a second request about a chunk until the first is.

use vstack_core::ballot::Ballot;
use vstack_core::digest::{ChunkDigest, Sha256Digest};
use vstack_core::id::ChunkId;

use crate::error::StoreError;
use crate::index::{Location, ObjectState};
use crate::read::refuse_corrupt;
use crate::record::{ObjectName, Reference};
use crate::request::{Answer, Content, DeleteDone, Done, Pending, PutDone, Request};
use crate::shared::Shared;

impl Shared {
    /// Answers a request that needs no record, or says which record it needs.
    pub(crate) fn decide(&self, request: Request) -> Option<Pending> {
        match request {
            Request::Put {
                name,
                digest,
                data,
                leaf_crcs,
                done,
            } => match self.decide_put(name, &digest) {
                Ok(PutDecision::Write) => {
                    let content = Content::Data {
                        digest,
                        data,
                        leaf_crcs,
                    };
                    Some(Pending {
                        name,
                        content,
                        answer: Answer::Put {
                            done,
                            already_stored: false,
                        },
                    })
                }
                Ok(PutDecision::Refer(content)) => Some(Pending {
                    name,
                    content,
                    answer: Answer::Put {
                        done,
                        already_stored: true,
                    },
                }),
                Ok(PutDecision::SameAs(digest)) => answer_put(name, digest, done),
                Err(refused) => answer(done, Err(refused)),
            },
            Request::Adopt {
                name,
                from,
                sha256,
                done,
            } => match self.decide_adopt(name, from, sha256) {
                Ok(AdoptDecision::Refer(content)) => Some(Pending {
                    name,
                    content,
                    answer: Answer::Put {
                        done,
                        already_stored: false,
                    },
                }),
                Ok(AdoptDecision::SameAs(digest)) => answer_put(name, digest, done),
                Err(refused) => answer(done, Err(refused)),
            },
            Request::Delete { name, reason, done } => match self.decide_delete(name) {
                Ok(None) => Some(Pending {
                    name,
                    content: Content::Tombstone { reason },
                    answer: Answer::Delete { done },
                }),
                Ok(Some(already)) => answer(done, Ok(already)),
                Err(refused) => answer(done, Err(refused)),
            },
            Request::Rebury { name, reason, done } => Some(Pending {
                name,
                content: Content::Tombstone { reason },
                answer: Answer::Delete { done },
            }),
            Request::Between(work) => {
                work();
                None
            }
        }
    }

    fn decide_put(&self, name: ObjectName, digest: &ChunkDigest) -> Result<PutDecision, StoreError> {
        let write = || self.check_room(digest.size_bytes).map(|()| PutDecision::Write);
        if let Some(stored) = self.stored_under(name)? {
            let recorded = self.compare(name, stored, digest.sha256)?;
            let damaged = stored.state == ObjectState::Corrupt;
            // A damaged object is written again: these are the bytes that it is known to have had.
            return if damaged {
                write()
            } else {
                Ok(PutDecision::SameAs(recorded))
            };
        }
        let highest = self
            .index()
            .highest(name.chunk)
            .filter(|_| name.ballot.is_plain());
        let Some((ballot, location)) = highest else {
            return write();
        };
        // A plain client's bytes must be those that readers get who name no ballot.
        let recorded = self.compare(ObjectName { ballot, ..name }, location, digest.sha256)?;
        if location.state == ObjectState::Corrupt {
            return write();
        }
        self.reference(ballot, location, recorded).map(PutDecision::Refer)
    }

    fn decide_adopt(
        &self,
        name: ObjectName,
        from: Ballot,
        sha256: Option<Sha256Digest>,
    ) -> Result<AdoptDecision, StoreError> {
        let source = ObjectName { ballot: from, ..name };
        let location = self
            .index()
            .get(source)
            .filter(|source| source.state != ObjectState::Deleted);
        let location = location.ok_or_else(|| self.absent(name.chunk, from))?;
        refuse_corrupt(source, location)?;
        let digest = self.recorded_digest(source, location)?;
        if sha256.is_some_and(|sha256| sha256 != digest.sha256) {
            return Err(StoreError::Conflict {
                chunk: name.chunk,
                ballot: from,
                stored: digest.sha256,
            });
        }
        match self.stored_under(name)? {
            Some(stored) if stored.state != ObjectState::Corrupt => self
                .compare(name, stored, digest.sha256)
                .map(AdoptDecision::SameAs),
            Some(stored) => {
                self.compare(name, stored, digest.sha256)?;
                self.reference(from, location, digest).map(AdoptDecision::Refer)
            }
            None => self.reference(from, location, digest).map(AdoptDecision::Refer),
        }
    }

    fn decide_delete(&self, name: ObjectName) -> Result<Option<DeleteDone>, StoreError> {
        let location = self
            .index()
            .get(name)
            .ok_or_else(|| self.absent(name.chunk, name.ballot))?;
        Ok((location.state == ObjectState::Deleted).then_some(DeleteDone::AlreadyDeleted))
    }

    /// The object under exactly this name; a name that was deleted is refused.
    ///
    /// The catalogue never gives a ballot out twice, but a plain client may come back with a name that was deleted. If the
    /// tombstone may be in a file that cannot be read, what is acknowledged now would be gone once it can.
    fn stored_under(&self, name: ObjectName) -> Result<Option<Location>, StoreError> {
        if name.ballot.is_plain() && self.unread_files > 0 {
            return Err(self.absent(name.chunk, name.ballot));
        }
        match self.index().get(name) {
            Some(location) if location.state == ObjectState::Deleted => Err(StoreError::Deleted {
                chunk: name.chunk,
                ballot: name.ballot,
            }),
            stored => Ok(stored),
        }
    }

    /// The error for an object that the index does not have: unknown, unless it may be in a file that cannot be read.
    fn absent(&self, chunk: ChunkId, ballot: Ballot) -> StoreError {
        if self.unread_files == 0 {
            StoreError::NotFound {
                chunk,
                ballot: Some(ballot),
            }
        } else {
            StoreError::Unsure {
                chunk,
                files: self.unread_files,
            }
        }
    }

    /// The digest of a stored object, if its bytes are the ones with `sha256`.
    fn compare(
        &self,
        name: ObjectName,
        stored: Location,
        sha256: Sha256Digest,
    ) -> Result<ChunkDigest, StoreError> {
        let digest = self.recorded_digest(name, stored)?;
        if digest.sha256 == sha256 {
            Ok(digest)
        } else {
            Err(StoreError::Conflict {
                chunk: name.chunk,
                ballot: name.ballot,
                stored: digest.sha256,
            })
        }
    }

    /// The record that shares the bytes at `target`. Since a location is always that of the bytes, a reference to a
    /// reference names the bytes too.
    fn reference(&self, from: Ballot, target: Location, digest: ChunkDigest) -> Result<Content, StoreError> {
        let superblock = self
            .superblock(target.superblock)
            .ok_or(StoreError::Stopped)?
            .header
            .uuid;
        let reference = Reference {
            from_ballot: from,
            superblock,
            position: target.offset(),
            size_bytes: digest.size_bytes,
            sha256: digest.sha256,
        };
        Ok(Content::Reference {
            digest,
            reference,
            target,
        })
    }
}

enum PutDecision {
    Write,
    /// The same bytes are there under this very name.
    SameAs(ChunkDigest),
    /// The same bytes are there under another ballot.
    Refer(Content),
}

enum AdoptDecision {
    SameAs(ChunkDigest),
    Refer(Content),
}

/// Calls back at once: nothing has to be written.
fn answer<T>(done: Done<T>, result: Result<T, StoreError>) -> Option<Pending> {
    done(result);
    None
}

fn answer_put(name: ObjectName, digest: ChunkDigest, done: Done<PutDone>) -> Option<Pending> {
    answer(
        done,
        Ok(PutDone {
            chunk: name.chunk,
            ballot: name.ballot,
            digest,
            already_stored: true,
        }),
    )
}
