//! Numbers as decimal text that reads back bit for bit. JSON numbers do not promise that: readers, the one used here
//! among them, may round the last bit otherwise.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

struct Exact(f64);

/// Writes the shortest text that reads back as this number.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{number:?}"))
}

/// Reads such a text, or a plain number.
///
/// # Errors
/// It is neither.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    deserializer.deserialize_any(Reader)
}

struct Reader;

#[expect(
    clippy::cast_precision_loss,
    reason = "a whole number without a point is as exact as its writer made it"
)]
impl Visitor<'_> for Reader {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, as text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<f64, E> {
        Ok(number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<f64, E> {
        Ok(number as f64)
    }
}

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Self)
    }
}

/// The same for several.
pub mod list {
    use std::collections::VecDeque;

    use super::{Deserialize as _, Deserializer, Exact, Serializer};

    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(numbers: &VecDeque<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(numbers.iter().map(|number| Exact(*number)))
    }

    /// # Errors
    /// One of them is no number.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VecDeque<f64>, D::Error> {
        let numbers = VecDeque::<Exact>::deserialize(deserializer)?;
        Ok(numbers.into_iter().map(|Exact(number)| number).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_number_reads_back_bit_for_bit(bits in any::<u64>()) {
            let number = f64::from_bits(bits);
            prop_assume!(!number.is_nan());
            let text = serde_json::to_string(&Exact(number)).unwrap();
            let Exact(back) = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back.to_bits(), bits, "{}", text);
        }
    }

    #[test]
    fn plain_numbers_are_read_too_and_words_are_not() {
        for (text, expected) in [("2", 2.0), ("-3", -3.0), ("0.05", 0.05), ("\"1e3\"", 1000.0)] {
            let Exact(number) = serde_json::from_str(text).unwrap();
            assert_eq!(number, expected);
        }
        assert!(serde_json::from_str::<Exact>("\"fast\"").is_err());
    }
}
