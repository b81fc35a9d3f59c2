//! The text form in which a grant or a delete order travels in an HTTP header: its JSON, in hex.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DeleteOrder, Grant};

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
    json.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode<T: DeserializeOwned>(text: &str) -> Result<T, BadToken> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    };
    let bytes: Option<Vec<u8>> = text
        .as_bytes()
        .chunks(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?))
        .collect();
    serde_json::from_slice(&bytes.ok_or(BadToken)?).map_err(|_| BadToken)
}
