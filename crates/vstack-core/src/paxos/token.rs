//! The text form in which a grant or a delete order travels in an HTTP header: its JSON, in hex.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DeleteOrder, Grant};
use crate::hex;

/// A header that is no token of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a token that the catalogue made")]
pub struct BadToken;

impl Grant {
    /// The value of the header `x-vstack-grant`.
    #[must_use]
    pub fn to_token(&self) -> String {
        encode(self)
    }

    /// Reads the header. The MAC is not checked here; see [`Grant::verifies`].
    ///
    /// # Errors
    /// The text is no token.
    pub fn from_token(text: &str) -> Result<Self, BadToken> {
        decode(text)
    }
}

impl DeleteOrder {
    /// The value of the header `x-vstack-order`.
    #[must_use]
    pub fn to_token(&self) -> String {
        encode(self)
    }

    /// Reads the header. The MAC is not checked here; see [`DeleteOrder::verifies`].
    ///
    /// # Errors
    /// The text is no token.
    pub fn from_token(text: &str) -> Result<Self, BadToken> {
        decode(text)
    }
}

fn encode(value: &impl Serialize) -> String {
    let json = serde_json::to_vec(value).expect("plain structs with string keys always serialize");
    hex::encode(&json)
}

fn decode<T: DeserializeOwned>(text: &str) -> Result<T, BadToken> {
    let json = hex::decode(text).ok_or(BadToken)?;
    serde_json::from_slice(&json).map_err(|_| BadToken)
}
