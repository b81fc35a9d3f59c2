//! The value of a `Range` header (RFC 9110, section 14.2): pure text, never trusted with arithmetic.

use std::fmt;
use std::ops::Range;

/// Which bytes of an object of known size are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ByteRange {
    /// All of them: the header is none that we must heed (another unit, or malformed).
    Whole,
    /// These, at least one, all of them within the object.
    Part(Range<u64>),
    /// The range lies behind the object's end, or is empty.
    OutOfReach,
    /// Several ranges, which is more work than any reader needs (CVE-2011-3192).
    Several,
}

impl ByteRange {
    /// Reads a header's value for an object of `size` bytes.
    #[must_use]
    pub fn parse(header: &str, size: u64) -> Self {
        let Some(set) = header.trim().strip_prefix("bytes=") else {
            return Self::Whole;
        };
        if set.contains(',') {
            return Self::Several;
        }
        let Some((first, last)) = set.trim().split_once('-') else {
            return Self::Whole;
        };
        let bounds = match (first, last) {
            ("", suffix) => number(suffix).map(|len| (size.saturating_sub(len), size)),
            (first, "") => number(first).map(|first| (first, size)),
            (first, last) => number(first)
                .zip(number(last))
                .filter(|(first, last)| first <= last)
                .map(|(first, last)| (first, last.saturating_add(1).min(size))),
        };
        match bounds {
            None => Self::Whole,
            Some((start, end)) if start < end && start < size => Self::Part(start..end),
            Some(_) => Self::OutOfReach,
        }
    }
}

/// The header's value that asks for this; empty for what no header says.
impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part(range) => write!(f, "bytes={}-{}", range.start, range.end.saturating_sub(1)),
            Self::Whole | Self::OutOfReach | Self::Several => Ok(()),
        }
    }
}

/// A decimal number; one that no u64 holds is as large as any.
fn number(digits: &str) -> Option<u64> {
    let decimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    decimal.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expected: &ByteRange) {
        assert_eq!(&ByteRange::parse(header, 10), expected, "{header}");
    }

    #[test]
    fn a_part_is_printed_as_the_header_that_asks_for_it() {
        check("bytes=2-4", &ByteRange::Part(2..5));
        assert_eq!(ByteRange::Part(2..5).to_string(), "bytes=2-4");
    }

    #[test]
    fn numbers_that_no_machine_holds_do_not_overflow() {
        check("bytes=0-18446744073709551616", &ByteRange::Part(0..10));
        check(
            "bytes=18446744073709551615-18446744073709551616",
            &ByteRange::OutOfReach,
        );
        check("bytes=-18446744073709551616", &ByteRange::Part(0..10));
        check("bytes=-0", &ByteRange::OutOfReach);
        assert_eq!(ByteRange::parse("bytes=0-", 0), ByteRange::OutOfReach);
    }

    #[test]
    fn several_ranges_are_told_apart_from_a_malformed_one() {
        check("bytes=0-0,2-3", &ByteRange::Several);
        check("bytes=5-2", &ByteRange::Whole);
        check("items=0-1", &ByteRange::Whole);
    }
}
