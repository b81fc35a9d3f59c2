//! A storage node's side of ChunkPaxos: what it does with PREPARE, ACCEPT, ADOPT and DELETE_OBJ.
//!
//! Objects are write-once and named by ballot, so that the bytes are the only state that must last. The [`Fence`] is
//! what the node promised in this life of its process: it makes an overtaken proposer give up early, and no rule of
//! safety reads it. Ballot 0, what plain clients write, passes it.
//!
//! The decisions are here; signatures, bytes and disk are the caller's. Every grant and order must have been verified
//! before it comes here, and a receipt may be given only when the bytes are durable (R4).

use std::collections::BTreeMap;

use super::{DeleteOrder, Grant, Held, Promise};
use crate::ballot::Ballot;
use crate::digest::{ChunkDigest, Sha256Digest};
use crate::id::{ChunkId, NodeId};

/// Chunks whose promise is remembered. The oldest ids go first: forgetting a promise costs an overtaken proposer a
/// wasted write, and a restart forgets all of them. At 32 bytes an entry this stays under 4 MiB.
const FENCE_CHUNKS: usize = 65_536;

/// What the node holds under one (object, ballot).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    Absent,
    Stored(ChunkDigest),
    /// Its tombstone is there; that name is never written again (R5).
    Deleted,
}

/// What to do with bytes that may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Write them; answer when they are durable.
    Write,
    /// They are here already; answer as if they had just been written.
    Resend(ChunkDigest),
}

/// What to do with an order to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Write a tombstone for exactly this (object, ballot).
    Tombstone,
    /// Nothing is there; that is what was wanted.
    Nothing,
}

/// Why the node refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("ballot {promised} was promised for this chunk")]
    Fenced { promised: Ballot },
    #[error("the grant does not name this node")]
    NotGranted,
    #[error("the grant or order is for another object")]
    OtherObject,
    #[error("other bytes are stored under this name")]
    OtherBytes { stored: Sha256Digest },
    #[error("the object was deleted; its name is never written again")]
    Deleted,
    #[error("the object to adopt is not here")]
    SourceMissing,
    #[error("the object to adopt has other bytes")]
    SourceDiffers { stored: Sha256Digest },
    #[error("the chunk is not here")]
    Unknown,
    #[error("the chunk was committed to a video")]
    Committed,
}

/// Highest ballot that was promised for each chunk during this life of the process.
#[derive(Debug, Clone, Default)]
pub struct Fence {
    promised: BTreeMap<ChunkId, Ballot>,
}

impl Fence {
    /// The highest ballot promised for `chunk`, as far as it is remembered.
    #[must_use]
    pub fn promised(&self, chunk: ChunkId) -> Ballot {
        self.promised.get(&chunk.whole()).copied().unwrap_or_default()
    }

    /// Lets a verified grant for `object` pass and promises its ballot. Asked again before the bytes are appended,
    /// since they may have taken long to arrive. `stored` is the highest ballot that the node holds for the chunk.
    ///
    /// # Errors
    /// A higher ballot was promised or is stored, or the grant is for another object or node.
    pub fn admit(
        &mut self,
        grant: &Grant,
        object: ChunkId,
        me: NodeId,
        stored: Ballot,
    ) -> Result<(), Refusal> {
        if grant.chunk_id.whole() != object.whole() || grant.ballot.is_plain() {
            return Err(Refusal::OtherObject);
        }
        let target = grant.target_on(me).ok_or(Refusal::NotGranted)?;
        if target.object(grant.chunk_id) != object {
            return Err(Refusal::OtherObject);
        }
        self.promise(grant, stored)
    }

    /// Message 2, PREPARE, of a verified grant: promises its ballot and tells what is held of the chunk. It may come
    /// to a node that the grant does not name, for that node's sake alone: what an overtaken proposer still sends there
    /// is refused from now on.
    ///
    /// # Errors
    /// A higher ballot was promised or is stored.
    pub fn prepare(&mut self, grant: &Grant, me: NodeId, objects: Vec<Held>) -> Result<Promise, Refusal> {
        let of_chunk = |held: &Held| held.object.whole() == grant.chunk_id.whole();
        if grant.ballot.is_plain() || !objects.iter().all(of_chunk) {
            return Err(Refusal::OtherObject);
        }
        let stored = objects.iter().map(|held| held.ballot).max().unwrap_or_default();
        self.promise(grant, stored)?;
        Ok(Promise {
            chunk_id: grant.chunk_id,
            ballot: grant.ballot,
            node: me,
            objects,
        })
    }

    fn promise(&mut self, grant: &Grant, stored: Ballot) -> Result<(), Refusal> {
        let promised = self.promised(grant.chunk_id).max(stored);
        if grant.ballot < promised {
            return Err(Refusal::Fenced { promised });
        }
        self.raise(grant.chunk_id, grant.ballot);
        Ok(())
    }

    /// Decides about a verified order to delete `order.ballot` of `order.chunk_id`.
    ///
    /// The order means that its ballot can never be decided for this node, so a late ACCEPT of it is fenced too and
    /// cannot bring the object back.
    ///
    /// # Errors
    /// The order is for another node.
    pub fn remove(&mut self, order: &DeleteOrder, me: NodeId, object: Object) -> Result<Removal, Refusal> {
        if order.node != me {
            return Err(Refusal::OtherObject);
        }
        if !order.ballot.is_plain() {
            self.raise(
                order.chunk_id,
                Ballot::from_number(order.ballot.number().saturating_add(1)),
            );
        }
        Ok(match object {
            Object::Stored(_) => Removal::Tombstone,
            Object::Absent | Object::Deleted => Removal::Nothing,
        })
    }

    fn raise(&mut self, chunk: ChunkId, ballot: Ballot) {
        let promised = self.promised.entry(chunk.whole()).or_default();
        *promised = ballot.max(*promised);
        if self.promised.len() > FENCE_CHUNKS {
            self.promised.pop_first();
        }
    }
}

/// Message 3, ACCEPT: what to do with bytes of `digest` under a (object, ballot) that [`Fence::admit`] let pass.
///
/// # Errors
/// Other bytes have that name, or it was deleted.
pub fn accept(object: Object, digest: &ChunkDigest) -> Result<Verdict, Refusal> {
    match object {
        Object::Absent => Ok(Verdict::Write),
        Object::Stored(stored) if stored.sha256 == digest.sha256 => Ok(Verdict::Resend(stored)),
        Object::Stored(stored) => Err(Refusal::OtherBytes {
            stored: stored.sha256,
        }),
        Object::Deleted => Err(Refusal::Deleted),
    }
}

/// Message 3', ADOPT: whether what is stored as `source` may be named under the grant's ballot too, where `target` is
/// now. The answer says which bytes the receipt is for.
///
/// # Errors
/// The source is not here or has other bytes than `expected`; or as [`accept`].
pub fn adopt(
    source: Object,
    expected: Option<Sha256Digest>,
    target: Object,
) -> Result<(ChunkDigest, Verdict), Refusal> {
    let digest = match (source, target) {
        (Object::Stored(digest), _) => digest,
        // A repeat, after the source was collected.
        (_, Object::Stored(digest)) => digest,
        _ => return Err(Refusal::SourceMissing),
    };
    if expected.is_some_and(|expected| expected != digest.sha256) {
        return Err(Refusal::SourceDiffers {
            stored: digest.sha256,
        });
    }
    Ok((digest, accept(target, &digest)?))
}

/// A PUT without a ballot. `plain` is what ballot 0 holds, `highest` the digest of the highest ballot that is stored.
///
/// # Errors
/// Other bytes are stored under the id, or its plain object was deleted.
pub fn accept_plain(
    plain: Object,
    highest: Option<&ChunkDigest>,
    digest: &ChunkDigest,
) -> Result<Verdict, Refusal> {
    match highest {
        Some(stored) if stored.sha256 != digest.sha256 => Err(Refusal::OtherBytes {
            stored: stored.sha256,
        }),
        Some(stored) if !matches!(plain, Object::Stored(_)) => Ok(Verdict::Resend(*stored)),
        _ => accept(plain, digest),
    }
}

/// A DELETE without a ballot: it reaches ballot 0 alone.
///
/// # Errors
/// The chunk never was here, or only a committed object of it is.
pub const fn remove_plain(plain: Object, higher_stored: bool) -> Result<Removal, Refusal> {
    match plain {
        Object::Stored(_) => Ok(Removal::Tombstone),
        // Asking twice is no error.
        Object::Deleted => Ok(Removal::Nothing),
        Object::Absent if higher_stored => Err(Refusal::Committed),
        Object::Absent => Err(Refusal::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::VideoId;
    use crate::keys::ClusterKey;
    use crate::time::UnixMillis;
    use uuid::Uuid;

    const ME: NodeId = NodeId(Uuid::from_u128(1));

    fn chunk() -> ChunkId {
        ChunkId::media(VideoId(Uuid::from_u128(9)), 0)
    }

    fn grant(ballot: u64, node: NodeId) -> Grant {
        let key = ClusterKey::from_bytes(&[7; 32]).unwrap().grant_key();
        let ballots = (Ballot::from_number(ballot), Ballot::PLAIN);
        Grant::signed(&key, chunk(), ballots, vec![node], 1, UnixMillis(0))
    }

    fn order(ballot: u64) -> DeleteOrder {
        let key = ClusterKey::from_bytes(&[7; 32]).unwrap().grant_key();
        DeleteOrder::signed(&key, chunk(), Ballot::from_number(ballot), ME)
    }

    fn stored(bytes: &[u8]) -> Object {
        Object::Stored(ChunkDigest::of(bytes))
    }

    fn admit(fence: &mut Fence, ballot: u64) -> Result<(), Refusal> {
        fence.admit(&grant(ballot, ME), chunk(), ME, Ballot::PLAIN)
    }

    #[test]
    fn an_overtaken_ballot_is_fenced_and_the_same_one_passes_again() {
        let mut fence = Fence::default();
        assert_eq!(admit(&mut fence, 5), Ok(()));
        assert_eq!(admit(&mut fence, 5), Ok(()));
        assert_eq!(
            admit(&mut fence, 4),
            Err(Refusal::Fenced {
                promised: Ballot::from_number(5)
            })
        );
        assert_eq!(admit(&mut fence, 6), Ok(()));
    }

    #[test]
    fn a_promise_tells_what_is_held_and_fences_lower_ballots() {
        let mut fence = Fence::default();
        let held = Held {
            object: chunk(),
            ballot: Ballot::from_number(4),
            digest: ChunkDigest::of(b"bytes"),
        };
        let promise = fence.prepare(&grant(6, ME), ME, vec![held]).unwrap();
        assert_eq!((promise.node, promise.objects), (ME, vec![held]));
        assert!(matches!(admit(&mut fence, 5), Err(Refusal::Fenced { .. })));
        assert_eq!(admit(&mut fence, 6), Ok(()));
        // A node of the replaced ballot is fenced although the new grant does not name it.
        let elsewhere = grant(7, NodeId(Uuid::from_u128(2)));
        assert!(fence.prepare(&elsewhere, ME, Vec::new()).is_ok());
        assert!(matches!(admit(&mut fence, 6), Err(Refusal::Fenced { .. })));
        assert!(fence.prepare(&grant(6, ME), ME, Vec::new()).is_err());
    }

    #[test]
    fn a_grant_for_a_shard_admits_that_shard_alone() {
        let key = ClusterKey::from_bytes(&[7; 32]).unwrap().grant_key();
        let ballots = (Ballot::from_number(5), Ballot::PLAIN);
        let target = crate::paxos::Target::shard(ME, 3);
        let grant = Grant::signed(&key, chunk(), ballots, [target], 4, UnixMillis(0));
        let admit = |object| Fence::default().admit(&grant, object, ME, Ballot::PLAIN);
        assert_eq!(admit(chunk().with_shard(3).unwrap()), Ok(()));
        for other in [chunk(), chunk().with_shard(2).unwrap()] {
            assert_eq!(admit(other), Err(Refusal::OtherObject));
        }
    }

    #[test]
    fn what_is_stored_fences_like_a_promise() {
        let fenced = Fence::default().admit(&grant(4, ME), chunk(), ME, Ballot::from_number(5));
        assert_eq!(
            fenced,
            Err(Refusal::Fenced {
                promised: Ballot::from_number(5)
            })
        );
    }

    #[test]
    fn a_grant_for_another_chunk_or_node_is_no_permission() {
        let mut fence = Fence::default();
        let other = ChunkId::media(VideoId(Uuid::from_u128(9)), 1);
        assert_eq!(
            fence.admit(&grant(5, ME), other, ME, Ballot::PLAIN),
            Err(Refusal::OtherObject)
        );
        let foreign = grant(5, NodeId(Uuid::from_u128(2)));
        assert_eq!(
            fence.admit(&foreign, chunk(), ME, Ballot::PLAIN),
            Err(Refusal::NotGranted)
        );
        assert_eq!(fence.promised(chunk()), Ballot::PLAIN);
    }

    #[test]
    fn the_same_bytes_are_answered_again_and_others_are_refused() {
        let digest = ChunkDigest::of(b"bytes");
        assert_eq!(accept(Object::Absent, &digest), Ok(Verdict::Write));
        assert_eq!(accept(stored(b"bytes"), &digest), Ok(Verdict::Resend(digest)));
        let other = Refusal::OtherBytes {
            stored: Sha256Digest::of(b"other"),
        };
        assert_eq!(accept(stored(b"other"), &digest), Err(other));
        assert_eq!(accept(Object::Deleted, &digest), Err(Refusal::Deleted));
    }

    #[test]
    fn an_object_is_adopted_only_with_the_bytes_that_were_named() {
        let digest = ChunkDigest::of(b"bytes");
        let named = Some(digest.sha256);
        assert_eq!(
            adopt(stored(b"bytes"), named, Object::Absent),
            Ok((digest, Verdict::Write))
        );
        assert_eq!(
            adopt(stored(b"bytes"), None, stored(b"bytes")),
            Ok((digest, Verdict::Resend(digest)))
        );
        assert_eq!(
            adopt(Object::Deleted, named, stored(b"bytes")),
            Ok((digest, Verdict::Resend(digest)))
        );
        assert_eq!(
            adopt(Object::Absent, named, Object::Absent),
            Err(Refusal::SourceMissing)
        );
        let differs = Refusal::SourceDiffers {
            stored: Sha256Digest::of(b"other"),
        };
        assert_eq!(adopt(stored(b"other"), named, Object::Absent), Err(differs));
    }

    #[test]
    fn a_late_accept_cannot_bring_a_deleted_object_back() {
        let mut fence = Fence::default();
        assert_eq!(fence.remove(&order(5), ME, Object::Absent), Ok(Removal::Nothing));
        assert_eq!(
            admit(&mut fence, 5),
            Err(Refusal::Fenced {
                promised: Ballot::from_number(6)
            })
        );
        assert_eq!(admit(&mut fence, 6), Ok(()));
        assert_eq!(
            fence.remove(&order(6), ME, stored(b"bytes")),
            Ok(Removal::Tombstone)
        );
    }

    #[test]
    fn an_order_for_another_node_deletes_nothing() {
        let other = NodeId(Uuid::from_u128(2));
        assert_eq!(
            Fence::default().remove(&order(5), other, stored(b"bytes")),
            Err(Refusal::OtherObject)
        );
    }

    #[test]
    fn a_plain_put_compares_with_ballot_0_and_with_the_highest_object() {
        let digest = ChunkDigest::of(b"bytes");
        let other = ChunkDigest::of(b"other");
        assert_eq!(accept_plain(Object::Absent, None, &digest), Ok(Verdict::Write));
        assert_eq!(
            accept_plain(stored(b"bytes"), Some(&digest), &digest),
            Ok(Verdict::Resend(digest))
        );
        assert_eq!(
            accept_plain(Object::Deleted, Some(&digest), &digest),
            Ok(Verdict::Resend(digest))
        );
        assert_eq!(
            accept_plain(Object::Absent, Some(&digest), &digest),
            Ok(Verdict::Resend(digest))
        );
        let refused = Refusal::OtherBytes { stored: other.sha256 };
        assert_eq!(
            accept_plain(stored(b"bytes"), Some(&other), &digest),
            Err(refused)
        );
        assert_eq!(
            accept_plain(Object::Deleted, None, &digest),
            Err(Refusal::Deleted)
        );
    }

    #[test]
    fn a_plain_delete_reaches_ballot_0_alone() {
        assert_eq!(remove_plain(stored(b"bytes"), true), Ok(Removal::Tombstone));
        assert_eq!(remove_plain(Object::Deleted, true), Ok(Removal::Nothing));
        assert_eq!(remove_plain(Object::Absent, false), Err(Refusal::Unknown));
        assert_eq!(remove_plain(Object::Absent, true), Err(Refusal::Committed));
    }

    #[test]
    fn the_fence_forgets_before_it_grows_without_bound() {
        let mut fence = Fence::default();
        for seq in 0..70_000 {
            fence.raise(
                ChunkId::media(VideoId(Uuid::from_u128(9)), seq),
                Ballot::from_number(5),
            );
        }
        assert_eq!(fence.promised.len(), FENCE_CHUNKS);
    }
}
