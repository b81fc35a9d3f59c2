//! Ballots: what orders the attempts to decide a placement, and fences the older ones on the storage nodes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `generation x 2^40 + n`; 0 is what plain clients write. JSON: a decimal string, since it passes 2^53.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ballot(u64);

/// Attempts within one generation of the catalogue.
const ATTEMPT_BITS: u32 = 40;

impl Ballot {
    /// The ballot of a plain client's object, which no grant opened.
    pub const PLAIN: Self = Self(0);

    /// The ballot with this number, read from disk, a query or a column.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    #[must_use]
    pub const fn is_plain(self) -> bool {
        self.0 == 0
    }

    /// The generation of the catalogue that issued this ballot.
    #[must_use]
    pub const fn generation(self) -> u64 {
        self.0 >> ATTEMPT_BITS
    }

    /// The next ballot that a catalogue of `generation` may grant: above this one and within its own generation, so
    /// that what an earlier life of the catalogue granted and forgot is never granted again.
    #[must_use]
    pub const fn next(self, generation: u64) -> Self {
        let first = generation << ATTEMPT_BITS;
        Self(if self.0 < first { first + 1 } else { self.0 + 1 })
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Ballot({}.{})",
            self.generation(),
            self.0 & ((1 << ATTEMPT_BITS) - 1)
        )
    }
}

impl std::str::FromStr for Ballot {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Serialize for Ballot {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Ballot {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballots_grow_and_a_new_generation_starts_above_all_earlier_ones() {
        let first = Ballot::PLAIN.next(1);
        assert_eq!(first.number(), (1 << 40) + 1);
        assert_eq!(first.next(1).number(), (1 << 40) + 2);
        let after_restart = first.next(2);
        assert_eq!(
            (after_restart.generation(), after_restart.number()),
            (2, (2 << 40) + 1)
        );
        assert!(after_restart.next(2) > after_restart);
    }

    #[test]
    fn json_carries_a_decimal_string() {
        let ballot = Ballot::from_number(u64::MAX);
        assert_eq!(
            serde_json::to_string(&ballot).unwrap(),
            "\"18446744073709551615\""
        );
        assert_eq!(
            serde_json::from_str::<Ballot>("\"18446744073709551615\"").unwrap(),
            ballot
        );
        assert!(serde_json::from_str::<Ballot>("12").is_err());
    }
}
