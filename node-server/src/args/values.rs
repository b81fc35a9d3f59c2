//! Values that several options take, checked where they are read.

use vstack_core::limits::MAX_LABEL_BYTES;
use vstack_core::node_name::{NODE_NAME_RULE, is_node_name};
use vstack_core::rendezvous::is_label;

/// A rack.
pub(super) fn label(text: &str) -> Result<String, String> {
    match is_label(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "a rack is called by one word of at most {MAX_LABEL_BYTES} bytes"
        )),
    }
}

/// What a node is called.
pub(super) fn node_name(text: &str) -> Result<String, String> {
    match is_node_name(text) {
        true => Ok(text.to_owned()),
        false => Err(NODE_NAME_RULE.to_owned()),
    }
}

/// A finite number above 0.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if number.is_finite() && number > 0.0 {
        Ok(number)
    } else {
        Err("it has to be above 0".to_owned())
    }
}

/// A finite number, 0 or above.
pub(super) fn not_negative(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if number.is_finite() && number >= 0.0 {
        Ok(number)
    } else {
        Err("it must not be below 0".to_owned())
    }
}

/// A share above 0 and below 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    match positive(text)? {
        share if share < 1.0 => Ok(share),
        _ => Err("it is a share below 1; 5 % is 0.05".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(read: fn(&str) -> Result<f64, String>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(read(text), Ok(text.parse().unwrap()), "{text}");
        }
        for text in bad {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_taken_within_their_limits() {
        check(
            positive,
            &["0.5", "7", "1e3"],
            &["0", "-1", "inf", "NaN", "a", ""],
        );
        check(not_negative, &["0", "0.5"], &["-0.1", "inf", "NaN", "a"]);
        check(share, &["0.05", "0.999"], &["0", "1", "5", "-0.1", "NaN"]);
    }

    #[test]
    fn a_rack_is_one_word() {
        assert_eq!(label("attic"), Ok("attic".to_owned()));
        assert!(label("in the attic").is_err());
        assert!(label("").is_err());
    }

    #[test]
    fn a_node_name_is_a_word_in_lower_case() {
        assert_eq!(node_name("node-7"), Ok("node-7".to_owned()));
        assert!(node_name("Node 7").is_err());
    }
}
