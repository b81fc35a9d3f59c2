//! INVENTORY: what a node holds, page by page, and what the catalogue answers.
//!
//! A page covers a span of names in their order. The catalogue answers with signed orders for what nothing can name any
//! more, and with two questions: about parts that it expects in the span and that the page lacks, and about objects that
//! it does not know or that a plain client wrote, whose age decides. The node looks again and answers both in a second
//! message: what it lacks *then* was lost, since a part is expected only after its receipt was given.

use serde::{Deserialize, Serialize};
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, Incarnation, NodeId};
use vstack_core::keys::{Canonical, DerivedKey, Mac};
use vstack_core::paxos::DeleteOrder;
use vstack_core::time::UnixMillis;

/// Entries of a page: at 100 bytes each well below the limit of a JSON body.
pub const PAGE_OBJECTS: usize = 4096;

/// The name of one stored object. Order: that of a node's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectName {
    /// A whole chunk, or a shard.
    pub object: ChunkId,
    pub ballot: Ballot,
}

/// Body of `POST /nodes/{node_id}/inventory`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventoryPage {
    pub incarnation: Incarnation,
    /// The span begins behind this name; absent on the first page.
    pub after: Option<ObjectName>,
    /// The span ends with this name; absent on the last page.
    pub upto: Option<ObjectName>,
    /// Everything readable in the span, in order. Tombstones are not told, and damaged objects are not there.
    pub objects: Vec<ObjectName>,
    pub mac: Mac,
}

impl InventoryPage {
    #[must_use]
    pub fn signed(
        key: &DerivedKey,
        (node, incarnation): (NodeId, Incarnation),
        (after, upto): (Option<ObjectName>, Option<ObjectName>),
        objects: Vec<ObjectName>,
    ) -> Self {
        let message = Self::canonical((node, incarnation), (after, upto), &objects);
        Self {
            incarnation,
            after,
            upto,
            objects,
            mac: key.sign(&message),
        }
    }

    /// Whether `key`, the receipt key of `node`, signed it.
    #[must_use]
    pub fn verifies(&self, node: NodeId, key: &DerivedKey) -> bool {
        let message = Self::canonical((node, self.incarnation), (self.after, self.upto), &self.objects);
        key.verifies(&message, &self.mac)
    }

    fn canonical(
        (node, incarnation): (NodeId, Incarnation),
        (after, upto): (Option<ObjectName>, Option<ObjectName>),
        objects: &[ObjectName],
    ) -> Canonical {
        let head = Canonical::new("vstack.inventory.1")
            .uuid(node.0)
            .uuid(incarnation.0);
        let bounds = [after, upto]
            .into_iter()
            .fold(head, |message, bound| match bound {
                Some(name) => message.chunk(name.object).ballot(name.ballot),
                None => message.bytes(b""),
            });
        names(bounds, objects)
    }
}

fn names(message: Canonical, objects: &[ObjectName]) -> Canonical {
    let counted = message.number(objects.len() as u64);
    objects.iter().fold(counted, |message, name| {
        message.chunk(name.object).ballot(name.ballot)
    })
}

/// Answer to a page.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InventoryAnswer {
    /// To be carried out.
    pub orders: Vec<DeleteOrder>,
    /// Expected in the span, and not in the page.
    pub missing: Vec<ObjectName>,
    /// Kept or deleted by their age.
    pub ages_of: Vec<ObjectName>,
}

/// Body of `POST /nodes/{node_id}/inventory/details`: the second look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventoryDetails {
    pub incarnation: Incarnation,
    /// Of the missing ones, those that are really not here or not readable.
    pub lost: Vec<ObjectName>,
    pub ages: Vec<ObjectAge>,
    pub mac: Mac,
}

/// When a node wrote an object, by its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectAge {
    pub object: ChunkId,
    pub ballot: Ballot,
    pub stored_at_ms: UnixMillis,
}

impl InventoryDetails {
    #[must_use]
    pub fn signed(
        key: &DerivedKey,
        (node, incarnation): (NodeId, Incarnation),
        lost: Vec<ObjectName>,
        ages: Vec<ObjectAge>,
    ) -> Self {
        let mac = key.sign(&Self::canonical((node, incarnation), &lost, &ages));
        Self {
            incarnation,
            lost,
            ages,
            mac,
        }
    }

    /// Whether `key`, the receipt key of `node`, signed it.
    #[must_use]
    pub fn verifies(&self, node: NodeId, key: &DerivedKey) -> bool {
        let message = Self::canonical((node, self.incarnation), &self.lost, &self.ages);
        key.verifies(&message, &self.mac)
    }

    fn canonical(
        (node, incarnation): (NodeId, Incarnation),
        lost: &[ObjectName],
        ages: &[ObjectAge],
    ) -> Canonical {
        let head = Canonical::new("vstack.inventory-details.1")
            .uuid(node.0)
            .uuid(incarnation.0);
        let counted = names(head, lost).number(ages.len() as u64);
        ages.iter().fold(counted, |message, age| {
            message
                .chunk(age.object)
                .ballot(age.ballot)
                .number(age.stored_at_ms.0)
        })
    }
}

/// What one inventory came to, as the node tells whoever ordered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InventorySummary {
    /// Objects that were told.
    pub objects: u64,
    pub pages: u64,
    /// Objects that were deleted by the catalogue's order.
    pub deleted: u64,
    /// Parts that the catalogue expected and that are not here.
    pub lost: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use vstack_core::id::VideoId;
    use vstack_core::keys::ClusterKey;

    fn name(seq: u32) -> ObjectName {
        ObjectName {
            object: ChunkId::media(VideoId(Uuid::from_u128(1)), seq),
            ballot: Ballot::from_number(7),
        }
    }

    #[test]
    fn a_page_with_any_field_changed_is_refused() {
        let node = NodeId(Uuid::from_u128(2));
        let life = (node, Incarnation(Uuid::from_u128(3)));
        let key = ClusterKey::from_bytes(&[7; 32]).unwrap().receipt_key(node);
        let page = InventoryPage::signed(&key, life, (None, Some(name(9))), vec![name(1), name(2)]);
        assert!(page.verifies(node, &key));
        let changes: [fn(&mut InventoryPage); 4] = [
            |page| page.incarnation = Incarnation(Uuid::nil()),
            |page| page.after = Some(name(0)),
            |page| page.upto = None,
            |page| page.objects.truncate(1),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut forged = page.clone();
            change(&mut forged);
            assert!(!forged.verifies(node, &key), "change {number} went unnoticed");
        }
    }

    #[test]
    fn a_lost_part_is_not_an_age() {
        let node = NodeId(Uuid::from_u128(2));
        let life = (node, Incarnation(Uuid::from_u128(3)));
        let key = ClusterKey::from_bytes(&[7; 32]).unwrap().receipt_key(node);
        let details = InventoryDetails::signed(&key, life, vec![name(1)], Vec::new());
        assert!(details.verifies(node, &key));
        let none_lost = InventoryDetails {
            lost: Vec::new(),
            ..details
        };
        assert!(!none_lost.verifies(node, &key));
    }
}
