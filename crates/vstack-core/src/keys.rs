//! Keys and MACs: how a grant of the catalogue and a receipt of a node prove where they come from.
//!
//! Every key is derived from the cluster key by HKDF-SHA-256 with a label of its own, so that a key for one purpose
//! says nothing about another. What is signed is one canonical encoding: a label and then each field behind its length,
//! so that no two different messages have the same bytes. Test vectors below fix both for ever.

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::ballot::Ballot;
use crate::digest::Sha256Digest;
use crate::id::{ChunkId, NodeId};

/// The secret that all roles of a cluster share: 32 random bytes of `cluster.key`.
#[derive(Clone)]
pub struct ClusterKey([u8; 32]);

/// A key for one purpose.
#[derive(Clone)]
pub struct DerivedKey([u8; 32]);

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(***)")
    }
}

impl fmt::Debug for DerivedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DerivedKey(***)")
    }
}

/// The cluster key has another length than 32 bytes, or is all zero.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a cluster key is 32 random bytes")]
pub struct BadClusterKey;

impl ClusterKey {
    /// The key from the bytes of its file.
    ///
    /// # Errors
    /// The bytes cannot be a key that `vstack` made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadClusterKey> {
        let key: [u8; 32] = bytes.try_into().map_err(|_| BadClusterKey)?;
        if key == [0; 32] {
            Err(BadClusterKey)
        } else {
            Ok(Self(key))
        }
    }

    /// Signs grants of the catalogue and its orders to delete objects; storage nodes check with it.
    #[must_use]
    pub fn grant_key(&self) -> DerivedKey {
        self.derive(&[b"grant"])
    }

    /// Signs what `node` says: receipts and heartbeats. A node holds only its own.
    #[must_use]
    pub fn receipt_key(&self, node: NodeId) -> DerivedKey {
        self.derive(&[b"receipt", node.0.as_bytes()])
    }

    fn derive(&self, label: &[&[u8]]) -> DerivedKey {
        let mut key = [0; 32];
        Hkdf::<Sha256>::new(None, &self.0)
            .expand_multi_info(label, &mut key)
            .expect("32 bytes are within HKDF's limit of 255 blocks");
        DerivedKey(key)
    }
}

/// HMAC-SHA-256 over a [`Canonical`] encoding. Text: hex.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mac(pub Sha256Digest);

impl DerivedKey {
    /// The MAC of a message.
    #[must_use]
    pub fn sign(&self, message: &Canonical) -> Mac {
        let tag = self.hmac(message).finalize().into_bytes();
        Mac(Sha256Digest(tag.into()))
    }

    /// Whether `mac` is this key's MAC of `message`; takes the same time wherever they differ.
    #[must_use]
    pub fn verifies(&self, message: &Canonical, mac: &Mac) -> bool {
        self.hmac(message).verify_slice(&mac.0.0).is_ok()
    }

    fn hmac(&self, message: &Canonical) -> Hmac<Sha256> {
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        hmac.update(&message.0);
        hmac
    }
}

/// The canonical encoding of a signed message: a label, then each field behind its length (u32, big endian).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canonical(Vec<u8>);

impl Canonical {
    #[must_use]
    pub fn new(label: &str) -> Self {
        Self(Vec::with_capacity(256)).bytes(label.as_bytes())
    }

    #[must_use]
    pub fn bytes(mut self, field: &[u8]) -> Self {
        let len = u32::try_from(field.len()).expect("a signed field is far shorter than 4 GiB");
        self.0.extend_from_slice(&len.to_be_bytes());
        self.0.extend_from_slice(field);
        self
    }

    #[must_use]
    pub fn number(self, field: u64) -> Self {
        self.bytes(&field.to_be_bytes())
    }

    #[must_use]
    pub fn chunk(self, field: ChunkId) -> Self {
        self.bytes(&field.to_bytes())
    }

    #[must_use]
    pub fn ballot(self, field: Ballot) -> Self {
        self.number(field.number())
    }

    #[must_use]
    pub fn uuid(self, field: uuid::Uuid) -> Self {
        self.bytes(field.as_bytes())
    }

    #[must_use]
    pub fn digest(self, field: &Sha256Digest) -> Self {
        self.bytes(&field.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ClusterKey {
        ClusterKey::from_bytes(&[7; 32]).unwrap()
    }

    #[test]
    fn fields_cannot_flow_into_each_other() {
        let one = Canonical::new("x").bytes(b"ab").bytes(b"c");
        let other = Canonical::new("x").bytes(b"a").bytes(b"bc");
        assert_ne!(one, other);
        assert_ne!(key().grant_key().sign(&one), key().grant_key().sign(&other));
    }

    // The expected values were computed by another implementation (Python's hmac and hashlib).
    #[test]
    fn the_encoding_and_the_keys_are_the_ones_of_the_first_version() {
        let message = Canonical::new("test").number(1).bytes(b"field");
        assert_eq!(
            message.0,
            b"\0\0\0\x04test\0\0\0\x08\0\0\0\0\0\0\0\x01\0\0\0\x05field"
        );
        let node = NodeId(uuid::Uuid::from_u128(1));
        let macs = [
            key().grant_key().sign(&message),
            key().receipt_key(node).sign(&message),
        ]
        .map(|mac| mac.0.to_string());
        assert_eq!(
            macs,
            [
                "ed1e99afa87a30e4b5f89fbc9a06ff1e91beec303551b0e6a7828703c3a0d5de",
                "b199eb88e2b75645abd0a3bab4111d680e925dca0823cdcb9a3e6691cf33db52"
            ]
        );
    }

    #[test]
    fn a_mac_holds_for_its_key_and_message_only() {
        let message = Canonical::new("test").number(1);
        let mac = key().grant_key().sign(&message);
        assert!(key().grant_key().verifies(&message, &mac));
        assert!(
            !key()
                .grant_key()
                .verifies(&Canonical::new("test").number(2), &mac)
        );
        assert!(
            !key()
                .receipt_key(NodeId(uuid::Uuid::nil()))
                .verifies(&message, &mac)
        );
    }

    #[test]
    fn an_empty_or_short_key_is_refused() {
        assert!(ClusterKey::from_bytes(&[]).is_err());
        assert!(ClusterKey::from_bytes(&[1; 31]).is_err());
        assert!(ClusterKey::from_bytes(&[0; 32]).is_err());
    }
}
