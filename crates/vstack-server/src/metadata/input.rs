//! Checks of what comes from outside: ids, titles, times, addresses. Every refusal names the field.

use std::net::IpAddr;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use vstack_api::ErrorCode;
use vstack_api::wire::IDEMPOTENCY_KEY_HEADER;
use vstack_core::id::{ChunkId, NodeId, VideoId};
use vstack_core::limits::{MAX_TITLE_CHARS, MAX_VIDEO_MS};
use vstack_core::manifest::{MediaFacts, Track, seconds_to_ms};

use crate::http::{Answer, Refusal, refuse};

/// Keyframes or fragments of one chunk: one for each frame of 10 minutes at 100 frames a second.
const MAX_ENTRIES_OF_CHUNK: usize = 60_000;
/// Longest RFC 6381 string of all tracks together.
const MAX_CODECS_CHARS: usize = 1_000;
/// Tracks of a manifest.
const MAX_TRACKS: usize = vstack_core::limits::MAX_STREAMS;

/// The video named by the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct VideoPath(pub(super) VideoId);

/// The whole chunk named by the path: shards are parts of one and have no place of their own in the catalogue.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkPath(pub(super) ChunkId);

/// The node named by the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodePath(pub(super) NodeId);

impl<S: Send + Sync> FromRequestParts<S> for VideoPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        named(parts, state, ErrorCode::BadVideoId).await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ChunkPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let chunk: ChunkId = named(parts, state, ErrorCode::BadChunkId).await?;
        match chunk.shard() {
            None => Ok(Self(chunk)),
            Some(_) => Err(refuse(ErrorCode::BadChunkId, "this is a shard; name its chunk")),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NodePath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        named(parts, state, ErrorCode::BadRequest).await.map(Self)
    }
}

async fn named<T: FromStr<Err: std::fmt::Display>>(
    parts: &mut Parts,
    state: &(impl Send + Sync),
    code: ErrorCode,
) -> Answer<T> {
    let Path(text) = Path::<String>::from_request_parts(parts, state)
        .await
        .map_err(|rejection| refuse(code, rejection.body_text()))?;
    text.parse().map_err(|error| refuse(code, format!("{error}")))
}

pub(super) fn invalid<T>(field: &str, reason: impl std::fmt::Display) -> Answer<T> {
    Err(refuse(ErrorCode::InvalidField, format!("{field}: {reason}")))
}

/// Kept as it is written, whatever script or direction.
pub(super) fn title(title: &str) -> Answer<()> {
    if title.trim().is_empty() {
        return invalid("title", "it is empty");
    }
    if title.contains('\0') {
        return invalid("title", "it contains a NUL character");
    }
    if title.chars().count() > MAX_TITLE_CHARS {
        return invalid("title", format!("it has more than {MAX_TITLE_CHARS} characters"));
    }
    Ok(())
}

fn is_token(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=64).contains(&id.len()) && id.bytes().all(plain)
}

/// Chosen by the client; kept for two days. With or without the quotes that make it a string of a structured field.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Answer<Option<String>> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY_HEADER).iter();
    let (Some(value), more) = (given.next(), given.next()) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let key = bare.unwrap_or(text);
    if is_token(key) && more.is_none() {
        Ok(Some(key.to_owned()))
    } else {
        let detail =
            format!("{IDEMPOTENCY_KEY_HEADER}: it is given once, with 1 to 64 letters, digits, - and _");
        Err(refuse(ErrorCode::BadRequest, detail))
    }
}

/// Chosen by the client; kept for two days.
pub(super) fn session_id(id: &str) -> Answer<()> {
    if is_token(id) {
        Ok(())
    } else {
        invalid("session_id", "it has 1 to 64 letters, digits, - and _")
    }
}

pub(super) fn duration_sec(seconds: f64) -> Answer<()> {
    if !seconds.is_finite() || seconds < 0.0 {
        return invalid("duration_sec", "it is not a length of time");
    }
    duration_ms("duration_sec", seconds_to_ms(seconds))
}

pub(super) fn duration_ms(field: &str, ms: u64) -> Answer<()> {
    if ms <= MAX_VIDEO_MS {
        Ok(())
    } else {
        invalid(field, "a video lasts at most 24 hours")
    }
}

pub(super) fn codecs(codecs: &str, tracks: &[Track]) -> Answer<()> {
    let too_long = |codec: &str| codec.chars().count() > MAX_CODECS_CHARS;
    if too_long(codecs) || tracks.iter().any(|track| too_long(&track.codec)) {
        return invalid("codecs", "it is too long");
    }
    if tracks.len() > MAX_TRACKS {
        return invalid("tracks", format!("there are more than {MAX_TRACKS}"));
    }
    Ok(())
}

/// What a player relies on: keyframes ascend from the chunk's start, fragments lie inside it one behind another.
pub(super) fn media_facts(facts: &MediaFacts, size_bytes: u64) -> Answer<()> {
    duration_ms("media.start_ms", facts.start_ms)?;
    duration_ms("media.duration_ms", facts.duration_ms)?;
    if facts.keyframes_ms.len().max(facts.fragments.len()) > MAX_ENTRIES_OF_CHUNK {
        return invalid(
            "media",
            format!("it has more than {MAX_ENTRIES_OF_CHUNK} keyframes or fragments"),
        );
    }
    if !facts.keyframes_ms.is_sorted() {
        return invalid("media.keyframes_ms", "they do not ascend");
    }
    let mut end = 0;
    for span in &facts.fragments {
        if u64::from(span.offset) < end {
            return invalid("media.fragments", "they overlap");
        }
        end = u64::from(span.offset) + u64::from(span.size);
    }
    if end > size_bytes {
        return invalid("media.fragments", "they reach past the chunk's end");
    }
    Ok(())
}

/// `http://host:port` of a role, and nothing else. An address that cannot be a machine of the cluster is refused, so
/// that the catalogue is never made to call a place of the caller's choice.
pub(super) fn role_url(field: &str, url: &str) -> Answer<()> {
    let bad = |reason: &str| {
        Err(refuse(
            ErrorCode::BadRequest,
            format!("{field}: {url:?}: {reason}"),
        ))
    };
    let Some(authority) = url.strip_prefix("http://") else {
        return bad("it does not begin with http://");
    };
    if url.len() > 300 || authority.contains(['/', '@', '?', '#', '\\']) {
        return bad("it is more than http://host:port");
    }
    let Some((host, port)) = authority.rsplit_once(':') else {
        return bad("it has no port");
    };
    if !port.bytes().all(|digit| digit.is_ascii_digit()) || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return bad("its port is none");
    }
    let name = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    match name.parse::<IpAddr>() {
        Ok(address) if is_reachable(address) => Ok(()),
        Ok(_) => bad("no machine of a cluster has that address"),
        Err(_) if is_host_name(name) => Ok(()),
        Err(_) => bad("its host is none"),
    }
}

const fn is_reachable(address: IpAddr) -> bool {
    match address {
        // Link-local holds the metadata service of cloud machines, 169.254.169.254.
        IpAddr::V4(v4) => {
            !(v4.is_unspecified() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast()),
    }
}

fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vstack_core::manifest::FragmentSpan;

    #[test]
    fn titles_of_any_script_are_kept_and_senseless_ones_refused() {
        for good in ["a", "'; DROP TABLE videos", "🎬 \u{202e}abc", &"ü".repeat(200)] {
            assert!(title(good).is_ok(), "{good:?}");
        }
        for bad in ["", "  \t", "a\0b", &"ü".repeat(201)] {
            assert_eq!(title(bad).unwrap_err().0.code, ErrorCode::InvalidField, "{bad:?}");
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port_of_the_cluster() {
        for good in [
            "http://127.0.0.1:80",
            "http://[::1]:9",
            "http://node-1.lan:7410",
            "http://10.0.0.9:1",
        ] {
            assert!(role_url("url", good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "file:///etc/passwd",
            "https://a:1",
            "http://a",
            "http://a:0",
            "http://a:65536",
            "http://a:+1",
            "http://user@a:1",
            "http://a:1/x",
            "http://a:1?x",
            "http://169.254.169.254:80",
            "http://0.0.0.0:1",
            "http://224.0.0.1:1",
            "http://[fe80::1]:1",
            "http://a b:1",
            "http://-:x",
            "http://:1",
            "http://a..b:1",
        ] {
            assert_eq!(
                role_url("url", bad).unwrap_err().0.code,
                ErrorCode::BadRequest,
                "{bad}"
            );
        }
    }

    #[test]
    fn facts_that_would_mislead_a_player_are_refused() {
        let span = |offset, size| FragmentSpan {
            offset,
            size,
            start_ms: 0,
        };
        let facts = |keyframes_ms: &[u64], fragments: &[FragmentSpan]| MediaFacts {
            start_ms: 0,
            duration_ms: 1,
            keyframes_ms: keyframes_ms.to_vec(),
            fragments: fragments.to_vec(),
        };
        assert!(media_facts(&facts(&[0, 5], &[span(0, 10), span(10, 10)]), 20).is_ok());
        for bad in [
            facts(&[5, 0], &[]),
            facts(&[], &[span(0, 10), span(9, 1)]),
            facts(&[], &[span(0, 21)]),
            facts(&[], &[span(u32::MAX, u32::MAX)]),
            MediaFacts {
                start_ms: u64::MAX,
                ..MediaFacts::default()
            },
        ] {
            assert!(media_facts(&bad, 20).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lengths_that_are_no_time_are_refused() {
        for bad in [-1.0, f64::NAN, f64::INFINITY, 86_401.0] {
            assert!(duration_sec(bad).is_err(), "{bad}");
        }
        assert!(duration_sec(86_400.0).is_ok());
    }
}
