//! Between rows and values: ballots as integers, JSON columns, and the checksum of a row.
//!
//! SQLite keeps no page checksums: of 60 flipped bits its own check saw 30. Every row that decides something carries a
//! checksum over its deciding columns, and a row that does not fit it is reported as damaged, never used.

use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use vstack_core::ballot::Ballot;
use vstack_core::digest::Sha256Digest;

use crate::error::MetaError;

/// A row being read: where it is, for the report when it is damaged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) table: &'static str,
    pub(crate) key: &'a str,
}

impl Place<'_> {
    pub(crate) fn corrupt(self, reason: impl Into<String>) -> MetaError {
        MetaError::Corrupt {
            table: self.table,
            key: self.key.to_owned(),
            reason: reason.into(),
        }
    }

    pub(crate) fn unsigned(self, value: i64) -> Result<u64, MetaError> {
        u64::try_from(value).map_err(|_| self.corrupt("a number is negative"))
    }

    pub(crate) fn small<T: TryFrom<i64>>(self, value: i64) -> Result<T, MetaError> {
        T::try_from(value).map_err(|_| self.corrupt(format!("{value} is out of range")))
    }

    pub(crate) fn ballot(self, value: i64) -> Result<Ballot, MetaError> {
        self.unsigned(value).map(Ballot::from_number)
    }

    pub(crate) fn parsed<T: FromStr<Err: std::fmt::Display>>(self, text: &str) -> Result<T, MetaError> {
        text.parse()
            .map_err(|error| self.corrupt(format!("{text:?}: {error}")))
    }

    pub(crate) fn json<T: DeserializeOwned>(self, text: &str) -> Result<T, MetaError> {
        serde_json::from_str(text).map_err(|error| self.corrupt(error.to_string()))
    }

    pub(crate) fn check_sum(self, stored: i64, sum: RowSum) -> Result<(), MetaError> {
        if sum.finish() == stored {
            Ok(())
        } else {
            Err(self.corrupt("its checksum does not fit"))
        }
    }
}

/// The column form of a number that is far below 2^63.
pub(crate) fn signed(value: u64) -> Result<i64, MetaError> {
    i64::try_from(value).map_err(|_| MetaError::Database {
        reason: format!("{value} does not fit a column"),
    })
}

/// The column form of a ballot.
pub(crate) fn ballot_column(ballot: Ballot) -> Result<i64, MetaError> {
    signed(ballot.number())
}

/// The column form of a value kept as JSON.
pub(crate) fn json_column(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the catalogue's JSON columns have string keys and finite numbers")
}

/// The word that an enum of plain words has in JSON and in its column.
pub(crate) fn word(value: &impl Serialize) -> String {
    json_column(value).trim_matches('"').to_owned()
}

/// Reads what [`word`] wrote.
pub(crate) fn from_word<T: DeserializeOwned>(place: Place<'_>, text: &str) -> Result<T, MetaError> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|error| place.corrupt(error.to_string()))
}

/// 64 bits of SHA-256 over the fields of a row, each behind its length.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowSum(Vec<u8>);

impl RowSum {
    pub(crate) fn text(mut self, field: &str) -> Self {
        self.0.extend_from_slice(&(field.len() as u64).to_be_bytes());
        self.0.extend_from_slice(field.as_bytes());
        self
    }

    pub(crate) fn number(mut self, field: i64) -> Self {
        self.0.extend_from_slice(&field.to_be_bytes());
        self
    }

    /// An absent field differs from an empty one.
    pub(crate) fn optional(self, field: Option<&str>) -> Self {
        match field {
            Some(text) => self.number(1).text(text),
            None => self.number(0),
        }
    }

    pub(crate) fn finish(self) -> i64 {
        let [a, b, c, d, e, f, g, h, ..] = Sha256Digest::of(&self.0).0;
        i64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}
