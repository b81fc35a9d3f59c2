//! The headers that say which part of a chunk is wanted and whether it is wanted at all: Range, If-Range,
//! If-None-Match (RFC 9110). Pure text; a strange header is ignored or refused, never trusted with arithmetic.

use std::ops::Range;

use axum::http::{HeaderMap, HeaderName, header};
use vstack_api::ErrorCode;
use vstack_core::range::ByteRange;

use crate::http::{Answer, refuse};

/// What of the chunk is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// 200 with everything.
    Whole,
    /// 206 with these bytes.
    Part(Range<u64>),
    /// 416, with the reason's code.
    Nothing(ErrorCode),
}

/// Which bytes of a chunk of `size` bytes a GET asks for.
///
/// # Errors
/// More than one Range header: which one counts is anybody's guess.
pub(super) fn wanted(headers: &HeaderMap, etag: &str, size: u64) -> Answer<Wanted> {
    let mut ranges = headers.get_all(header::RANGE).iter();
    let Some(range) = ranges.next() else {
        return Ok(Wanted::Whole);
    };
    if ranges.next().is_some() {
        return Err(refuse(ErrorCode::BadRequest, "two Range headers"));
    }
    if text(headers, &header::IF_RANGE).is_some_and(|known| known != etag) {
        return Ok(Wanted::Whole);
    }
    Ok(range
        .to_str()
        .map_or(Wanted::Whole, |range| parse_range(range, size)))
}

fn parse_range(range: &str, size: u64) -> Wanted {
    match ByteRange::parse(range, size) {
        ByteRange::Whole => Wanted::Whole,
        ByteRange::Part(part) => Wanted::Part(part),
        ByteRange::OutOfReach => Wanted::Nothing(ErrorCode::RangeNotSatisfiable),
        ByteRange::Several => Wanted::Nothing(ErrorCode::SingleRangeOnly),
    }
}

/// Whether the caller has this version already.
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let lists = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|list| list.to_str().ok());
    let mut tags = lists.flat_map(|list| list.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "\"abc\"";

    fn check(range: &str, expected: &Wanted) {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().unwrap());
        let found = wanted(&headers, ETAG, 10).unwrap();
        assert_eq!(&found, expected, "{range}");
    }

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        for (range, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=-1", 9..10),
            ("bytes=5-", 5..10),
            ("bytes=2-4", 2..5),
            ("bytes=0-999999999999999999999999", 0..10),
            ("bytes=-99", 0..10),
        ] {
            check(range, &Wanted::Part(part));
        }
    }

    #[test]
    fn a_range_that_is_none_is_ignored() {
        for range in [
            "bytes=5-2",
            "abc",
            "bytes=abc",
            "bytes=",
            "items=0-1",
            "bytes=-",
            "bytes=1-2-3",
            "bytes=+1-2",
        ] {
            check(range, &Wanted::Whole);
        }
    }

    #[test]
    fn a_range_beyond_the_end_is_refused_without_overflow() {
        for range in [
            "bytes=10-",
            "bytes=999999999999-",
            "bytes=18446744073709551615-18446744073709551616",
            "bytes=-0",
        ] {
            check(range, &Wanted::Nothing(ErrorCode::RangeNotSatisfiable));
        }
    }

    #[test]
    fn many_ranges_are_refused_as_a_whole() {
        check(
            &format!("bytes={}", vec!["0-0"; 300].join(",")),
            &Wanted::Nothing(ErrorCode::SingleRangeOnly),
        );
    }

    #[test]
    fn an_old_etag_makes_the_range_void() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=0-0".parse().unwrap());
        headers.insert(header::IF_RANGE, "\"old\"".parse().unwrap());
        assert_eq!(wanted(&headers, ETAG, 10).unwrap(), Wanted::Whole);
        headers.insert(header::IF_RANGE, ETAG.parse().unwrap());
        assert_eq!(wanted(&headers, ETAG, 10).unwrap(), Wanted::Part(0..1));
    }

    #[test]
    fn two_range_headers_are_an_error() {
        let mut headers = HeaderMap::new();
        headers.append(header::RANGE, "bytes=0-0".parse().unwrap());
        headers.append(header::RANGE, "bytes=1-1".parse().unwrap());
        assert_eq!(
            wanted(&headers, ETAG, 10).unwrap_err().0.code,
            ErrorCode::BadRequest
        );
    }

    #[test]
    fn a_known_version_is_recognised_in_a_list() {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, "\"x\", W/\"abc\"".parse().unwrap());
        assert!(is_known(&headers, ETAG));
        headers.insert(header::IF_NONE_MATCH, "\"x\"".parse().unwrap());
        assert!(!is_known(&headers, ETAG));
        headers.insert(header::IF_NONE_MATCH, "*".parse().unwrap());
        assert!(is_known(&headers, ETAG));
    }
}
