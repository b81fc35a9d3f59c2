//! SHA-256 of a chunk and the Merkle root over its 64 KiB leaves, computed in one pass while the bytes arrive.
//!
//! The root lets a reader check any run of leaves on its own (a bad range is blamed on its node at once) while the
//! manifest stays small. Tree: a leaf's hash is SHA-256(0x00, bytes), a node's SHA-256(0x01, left, right), an odd node
//! at the end of a row moves up unchanged: the construction of RFC 6962 section 2.1.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::hex;

/// Bytes of one leaf; the last leaf of a chunk may be shorter.
pub const LEAF_BYTES: usize = 64 * 1024;

/// A SHA-256 value. Text: 64 lower-case hex digits; `sha256:` in front is accepted when read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest(pub [u8; 32]);

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 is 64 hex digits")]
pub struct ParseDigestError;

impl Sha256Digest {
    /// SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The hex digits, written into `room`.
    fn hex<'a>(&self, room: &'a mut [u8; 64]) -> &'a str {
        for (digits, byte) in room.chunks_exact_mut(2).zip(self.0) {
            digits.copy_from_slice(&hex::digits(byte));
        }
        std::str::from_utf8(room).expect("hex digits are ASCII")
    }

    /// The manifest's form, `sha256:` and hex.
    #[must_use]
    pub fn prefixed(&self) -> String {
        format!("sha256:{self}")
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hex(&mut [0; 64]))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256Digest({self})")
    }
}

impl FromStr for Sha256Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        if hex.len() != 64 {
            return Err(ParseDigestError);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |digit| hex::value(digit).ok_or(ParseDigestError);
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Sha256Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.hex(&mut [0; 64]))
    }
}

impl<'de> Deserialize<'de> for Sha256Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What identifies the bytes of a chunk or shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkDigest {
    pub size_bytes: u64,
    pub sha256: Sha256Digest,
    pub leaf_root: Sha256Digest,
}

impl ChunkDigest {
    /// Digest of bytes that are in memory already.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = ChunkHasher::new();
        hasher.update(bytes);
        hasher.finish().0
    }
}

/// SHA-256 of bytes that arrive in pieces; for callers that hash the leaves elsewhere at the same time.
#[derive(Clone, Default)]
pub struct WholeHasher(Sha256);

impl fmt::Debug for WholeHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WholeHasher").finish_non_exhaustive()
    }
}

impl WholeHasher {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of a chunk of `size_bytes` with these leaf hashes.
    #[must_use]
    pub fn finish(self, size_bytes: u64, leaves: &[Sha256Digest]) -> ChunkDigest {
        ChunkDigest {
            size_bytes,
            sha256: self.sha256(),
            leaf_root: merkle_root(leaves),
        }
    }

    /// The hash alone.
    #[must_use]
    pub fn sha256(self) -> Sha256Digest {
        Sha256Digest(self.0.finalize().into())
    }
}

/// Computes a [`ChunkDigest`] and the leaf hashes while bytes arrive in pieces of any length.
#[derive(Clone)]
pub struct ChunkHasher {
    whole: Sha256,
    leaf: Sha256,
    leaf_filled: usize,
    leaves: Vec<Sha256Digest>,
    size_bytes: u64,
}

impl fmt::Debug for ChunkHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkHasher")
            .field("size_bytes", &self.size_bytes)
            .finish_non_exhaustive()
    }
}

impl Default for ChunkHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkHasher {
    #[must_use]
    pub fn new() -> Self {
        Self {
            whole: Sha256::new(),
            leaf: leaf_start(),
            leaf_filled: 0,
            leaves: Vec::new(),
            size_bytes: 0,
        }
    }

    /// Adds the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.whole.update(bytes);
        self.size_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(LEAF_BYTES - self.leaf_filled));
            self.leaf.update(now);
            self.leaf_filled += now.len();
            if self.leaf_filled == LEAF_BYTES {
                self.close_leaf();
            }
            bytes = later;
        }
    }

    /// The digest and the hash of every leaf, in order. No bytes at all make one empty leaf.
    #[must_use]
    pub fn finish(mut self) -> (ChunkDigest, Vec<Sha256Digest>) {
        if self.leaf_filled > 0 || self.leaves.is_empty() {
            self.close_leaf();
        }
        let digest = ChunkDigest {
            size_bytes: self.size_bytes,
            sha256: Sha256Digest(self.whole.finalize().into()),
            leaf_root: merkle_root(&self.leaves),
        };
        (digest, self.leaves)
    }

    fn close_leaf(&mut self) {
        let leaf = std::mem::replace(&mut self.leaf, leaf_start());
        self.leaves.push(Sha256Digest(leaf.finalize().into()));
        self.leaf_filled = 0;
    }
}

fn leaf_start() -> Sha256 {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher
}

/// Hash of one leaf, for a reader that checks a range.
#[must_use]
pub fn leaf_hash(bytes: &[u8]) -> Sha256Digest {
    let mut hasher = leaf_start();
    hasher.update(bytes);
    Sha256Digest(hasher.finalize().into())
}

/// Root over leaf hashes; of no leaves it is the hash of an empty leaf.
#[must_use]
pub fn merkle_root(leaves: &[Sha256Digest]) -> Sha256Digest {
    let mut row = leaves.to_vec();
    while row.len() > 1 {
        row = row.chunks(2).map(merkle_parent).collect();
    }
    row.first().copied().unwrap_or_else(|| leaf_hash(&[]))
}

fn merkle_parent(pair: &[Sha256Digest]) -> Sha256Digest {
    let [left, right] = pair else { return pair[0] };
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left.0);
    hasher.update(right.0);
    Sha256Digest(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len)
            .map(|index| (index * 31 % 251).to_le_bytes()[0])
            .collect()
    }

    proptest! {
        #[test]
        fn the_digest_does_not_depend_on_how_the_bytes_arrive(len in 0usize..200_000, step in 1usize..70_000) {
            let bytes = pattern(len);
            let mut hasher = ChunkHasher::new();
            bytes.chunks(step).for_each(|piece| hasher.update(piece));
            let (digest, leaves) = hasher.finish();
            prop_assert_eq!(digest, ChunkDigest::of(&bytes));
            let mut whole = WholeHasher::default();
            bytes.chunks(step).for_each(|piece| whole.update(piece));
            prop_assert_eq!(whole.finish(len as u64, &leaves), digest);
            prop_assert_eq!(digest.sha256, Sha256Digest::of(&bytes));
            prop_assert_eq!(leaves.len(), len.div_ceil(LEAF_BYTES).max(1));
            for (leaf, piece) in leaves.iter().zip(bytes.chunks(LEAF_BYTES)) {
                prop_assert_eq!(*leaf, leaf_hash(piece));
            }
        }
    }

    #[test]
    fn the_root_of_three_leaves_is_the_known_one() {
        let leaves: Vec<_> = pattern(2 * LEAF_BYTES + 5)
            .chunks(LEAF_BYTES)
            .map(leaf_hash)
            .collect();
        let left = merkle_parent(&leaves[..2]);
        assert_eq!(merkle_root(&leaves), merkle_parent(&[left, leaves[2]]));
    }

    #[test]
    fn a_digest_is_read_bare_and_prefixed_in_either_case() {
        let digest = Sha256Digest::of(b"abc");
        assert_eq!(
            digest.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(digest.prefixed().parse(), Ok(digest));
        assert_eq!(digest.to_string().to_uppercase().parse(), Ok(digest));
        assert_eq!("sha256:zz".parse::<Sha256Digest>(), Err(ParseDigestError));
    }
}
