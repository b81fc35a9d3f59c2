//! What people call a node.
//!
//! A node's id is its identity and goes into every promise; its name is what tables, charts and reports show. Its operator
//! gives it, or the catalogue numbers it. Within a cluster no two nodes have the same.

use crate::id::NodeId;
use crate::limits::MAX_LABEL_BYTES;

/// What the catalogue calls nodes that nobody named, with their number behind it.
const PREFIX: &str = "node-";
/// Letters of an id that stand for a node without a name: as many as people compare, and no two nodes of one cluster share.
const SHORT_ID_LETTERS: usize = 8;

/// What [`is_node_name`] asks for, in words.
pub const NODE_NAME_RULE: &str =
    "a node is called by one word of at most 64 lower-case letters, digits, -, _ and ., and not by an id";

/// Whether a node may be called so: lower-case letters, digits, `-`, `_` and `.`, the first a letter or digit. So no name is
/// an address, or another one written differently; and none is an id.
#[must_use]
pub fn is_node_name(text: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    text.len() <= MAX_LABEL_BYTES
        && text.chars().next().is_some_and(plain)
        && text
            .chars()
            .all(|letter| plain(letter) || matches!(letter, '-' | '_' | '.'))
        && text.parse::<NodeId>().is_err()
}

/// `node-7`.
#[must_use]
pub fn numbered(number: u64) -> String {
    format!("{PREFIX}{number}")
}

/// The number of a name that [`numbered`] makes.
#[must_use]
pub fn number_of(name: &str) -> Option<u64> {
    let number: u64 = name.strip_prefix(PREFIX)?.parse().ok()?;
    (numbered(number) == name).then_some(number)
}

/// The name, or the beginning of the id for a node that has none: its catalogue is older than names, or has not heard of it
/// since it was restored.
#[must_use]
pub fn label(name: Option<&str>, node: NodeId) -> String {
    name.map_or_else(
        || node.to_string().chars().take(SHORT_ID_LETTERS).collect(),
        ToOwned::to_owned,
    )
}

/// The order in which people count names: `node-2` before `node-10`.
#[must_use]
pub fn order(name: &str) -> (&str, u64, &str) {
    let word = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    // Digits that are no number of ours (there are too many) come last, and still in one order.
    (word, name[word.len()..].parse().unwrap_or(u64::MAX), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_word_that_is_no_address_and_no_id() {
        for good in ["node-1", "nas", "7", "attic.lan", "a_b", "cafe"] {
            assert!(is_node_name(good), "{good}");
        }
        let id = "7d444840-9dc0-11d1-b245-5ffdce74fad2";
        let long = "a".repeat(MAX_LABEL_BYTES + 1);
        for bad in [
            "",
            "-a",
            ".a",
            "Node-1",
            "in the attic",
            "http://a",
            "a:1",
            "n\u{f6}",
            id,
            &long,
        ] {
            assert!(!is_node_name(bad), "{bad}");
        }
    }

    #[test]
    fn numbers_are_read_back_from_their_own_names_alone() {
        assert_eq!(number_of(&numbered(12)), Some(12));
        for other in [
            "node-",
            "node-01",
            "node-+1",
            "node-1a",
            "nas-1",
            "node-99999999999999999999",
        ] {
            assert_eq!(number_of(other), None, "{other}");
        }
    }

    #[test]
    fn names_stand_in_the_order_in_which_people_count() {
        let mut names = ["node-10", "nas", "node-2", "node-1", "attic-3", "node-02"];
        names.sort_by(|a, b| order(a).cmp(&order(b)));
        assert_eq!(
            names,
            ["attic-3", "nas", "node-1", "node-02", "node-2", "node-10"]
        );
    }

    #[test]
    fn a_node_without_a_name_is_called_by_the_beginning_of_its_id() {
        let node = NodeId(uuid::Uuid::from_u128(0x7d44_4840_9dc0_11d1_b245_5ffd_ce74_fad2));
        assert_eq!(label(None, node), "7d444840");
        assert_eq!(label(Some("nas"), node), "nas");
    }
}
