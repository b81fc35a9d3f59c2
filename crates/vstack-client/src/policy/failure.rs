//! How an attempt can fail, in words that a viewer's log shows.

use std::fmt;

use serde::{Deserialize, Serialize};
use vstack_api::ErrorCode;

/// Why an attempt brought no usable bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Failure {
    /// No connection within the limit, or it was refused.
    Connect,
    /// No byte came for this long.
    Silent { after_ms: u64 },
    /// The connection broke, or ended early.
    Broken { received_bytes: u64 },
    /// More bytes, or another announced length, than the manifest says.
    WrongLength {
        announced_bytes: u64,
        expected_bytes: u64,
    },
    /// The length is right and the SHA-256 is not.
    WrongBytes,
    /// The node does not have the chunk: the manifest is older than the placement.
    NotFound,
    /// Fewer than three shards of an erasure-coded chunk could be read.
    TooFewShards { found: u8 },
    /// Any other answer than the chunk.
    Refused { status: u16, code: Option<String> },
    /// Something answered that is no storage node.
    NotUnderstood { reason: String },
}

impl Failure {
    /// One word for each kind, as JSON names it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Silent { .. } => "silent",
            Self::Broken { .. } => "broken",
            Self::WrongLength { .. } => "wrong_length",
            Self::WrongBytes => "wrong_bytes",
            Self::NotFound => "not_found",
            Self::TooFewShards { .. } => "too_few_shards",
            Self::Refused { .. } => "refused",
            Self::NotUnderstood { .. } => "not_understood",
        }
    }

    /// Whether the node is to be left alone for a while. A missing chunk says something about the manifest, and missing
    /// shards about other nodes.
    #[must_use]
    pub const fn blames_node(&self) -> bool {
        !self.doubts_manifest()
    }

    /// Whether the node's bytes are bad: worth telling the catalogue, which looks for itself.
    #[must_use]
    pub fn doubts_bytes(&self) -> bool {
        match self {
            Self::WrongBytes | Self::WrongLength { .. } => true,
            Self::Refused { code, .. } => code.as_deref() == Some(ErrorCode::ChunkCorrupt.as_str()),
            _ => false,
        }
    }

    /// Whether the node has answered, and will not bring it however often it is asked: it does not have it, or has it wrong.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::NotFound) || self.doubts_bytes()
    }

    /// Whether the manifest may be older than the placement.
    #[must_use]
    pub const fn doubts_manifest(&self) -> bool {
        matches!(self, Self::NotFound | Self::TooFewShards { .. })
    }
}

/// The second half of a sentence that starts with the node's name.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("cannot be reached"),
            Self::Silent { after_ms } => {
                write!(f, "silent for {}.{} s", after_ms / 1_000, after_ms % 1_000 / 100)
            }
            Self::Broken { received_bytes } => write!(f, "broke off after {received_bytes} bytes"),
            Self::WrongLength {
                announced_bytes,
                expected_bytes,
            } => {
                write!(f, "sent {announced_bytes} bytes instead of {expected_bytes}")
            }
            Self::WrongBytes => f.write_str("sent wrong bytes"),
            Self::NotFound => f.write_str("does not have it"),
            Self::TooFewShards { found } => write!(f, "found {found} of the 3 shards it takes"),
            Self::Refused {
                status,
                code: Some(code),
            } => write!(f, "answered {status} {code}"),
            Self::Refused { status, code: None } => write!(f, "answered {status}"),
            Self::NotUnderstood { reason } => write!(f, "gave an answer that is not understood ({reason})"),
        }
    }
}
