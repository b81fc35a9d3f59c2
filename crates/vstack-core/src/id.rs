//! Identities: who a node is, which video, which stored object.
//!
//! A [`ChunkId`] names one stored object: a whole chunk, or one shard of it. On disk and in memory it is 24 bytes; on
//! the wire it is text that is parsed at the edge and never becomes part of a path.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_uuid(text).map(Self)
            }
        }
    };
}

uuid_newtype!(
    /// One uploaded title.
    VideoId
);
uuid_newtype!(
    /// A storage node, wherever its address is at the moment. Made once, kept in its `node.json`.
    NodeId
);
uuid_newtype!(
    /// The life of one data folder: a new one is made when the folder is formatted, so that a replaced disk is never
    /// taken for the old one.
    Incarnation
);

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid id: {reason}")]
pub struct ParseIdError {
    pub reason: &'static str,
}

const fn bad(reason: &'static str) -> ParseIdError {
    ParseIdError { reason }
}

/// Only the hyphenated lower-case form is accepted: one object, one text.
fn parse_uuid(text: &str) -> Result<Uuid, ParseIdError> {
    let uuid = Uuid::try_parse(text).map_err(|_| bad("not a UUID"))?;
    let mut canonical = Uuid::encode_buffer();
    if uuid.as_hyphenated().encode_lower(&mut canonical) == text {
        Ok(uuid)
    } else {
        Err(bad("a UUID is written in lower case with hyphens"))
    }
}

/// What a stored object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ChunkKind {
    Init = 0,
    Media = 1,
    Poster = 2,
    Storyboard = 3,
    Subtitle = 4,
    Catalogue = 5,
}

impl ChunkKind {
    /// The kind of a byte read from disk or the catalogue.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Init,
            1 => Self::Media,
            2 => Self::Poster,
            3 => Self::Storyboard,
            4 => Self::Subtitle,
            5 => Self::Catalogue,
            _ => return None,
        })
    }
}

/// Shard number that means "the whole chunk".
const WHOLE: u8 = 255;

/// Shards of a chunk: three data, two parity.
pub const SHARD_COUNT: u8 = 5;

/// Names one stored object. Order: by video, kind, track, sequence number, shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId {
    video: VideoId,
    kind: ChunkKind,
    track: u8,
    seq: u32,
    shard: u8,
}

impl ChunkId {
    /// Bytes of the fixed form.
    pub const LEN: usize = 24;

    /// The init segment of the main track.
    #[must_use]
    pub const fn init(video: VideoId) -> Self {
        Self {
            video,
            kind: ChunkKind::Init,
            track: 0,
            seq: 0,
            shard: WHOLE,
        }
    }

    /// Media segment `seq` (from 0) of the main track.
    #[must_use]
    pub const fn media(video: VideoId, seq: u32) -> Self {
        Self {
            video,
            kind: ChunkKind::Media,
            track: 0,
            seq,
            shard: WHOLE,
        }
    }

    /// The first poster.
    #[must_use]
    pub const fn poster(video: VideoId) -> Self {
        Self {
            video,
            kind: ChunkKind::Poster,
            track: 0,
            seq: 0,
            shard: WHOLE,
        }
    }

    /// Any whole chunk.
    ///
    /// # Errors
    /// An init segment has no number, and posters, storyboards and catalogue objects belong to no track.
    pub const fn new(video: VideoId, kind: ChunkKind, track: u8, seq: u32) -> Result<Self, ParseIdError> {
        match kind {
            ChunkKind::Init if seq != 0 => Err(bad("an init segment has no sequence number")),
            ChunkKind::Poster | ChunkKind::Storyboard | ChunkKind::Catalogue if track != 0 => {
                Err(bad("this kind of chunk has no track"))
            }
            _ => Ok(Self {
                video,
                kind,
                track,
                seq,
                shard: WHOLE,
            }),
        }
    }

    #[must_use]
    pub const fn video(self) -> VideoId {
        self.video
    }

    #[must_use]
    pub const fn kind(self) -> ChunkKind {
        self.kind
    }

    #[must_use]
    pub const fn track(self) -> u8 {
        self.track
    }

    #[must_use]
    pub const fn seq(self) -> u32 {
        self.seq
    }

    /// The shard's index, or `None` for a whole chunk.
    #[must_use]
    pub const fn shard(self) -> Option<u8> {
        if self.shard == WHOLE {
            None
        } else {
            Some(self.shard)
        }
    }

    /// The chunk that this object is, or is a shard of.
    #[must_use]
    pub const fn whole(self) -> Self {
        Self { shard: WHOLE, ..self }
    }

    /// Shard `index` of this chunk.
    ///
    /// # Errors
    /// `index` is not below [`SHARD_COUNT`].
    pub const fn with_shard(self, index: u8) -> Result<Self, ParseIdError> {
        if index < SHARD_COUNT {
            Ok(Self { shard: index, ..self })
        } else {
            Err(bad("no such shard"))
        }
    }

    /// The fixed form: video 16, kind, track, shard, zero, sequence number (big endian).
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(self.video.0.as_bytes());
        bytes[16] = self.kind as u8;
        bytes[17] = self.track;
        bytes[18] = self.shard;
        bytes[20..].copy_from_slice(&self.seq.to_be_bytes());
        bytes
    }

    /// Reads the fixed form.
    ///
    /// # Errors
    /// Any byte pattern that [`ChunkId::to_bytes`] cannot have written.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self, ParseIdError> {
        let [video @ .., _, _, _, _, _, _, _, _] = bytes;
        let kind = ChunkKind::from_byte(bytes[16]).ok_or(bad("unknown kind of chunk"))?;
        let seq = u32::from_be_bytes([bytes[20], bytes[21], bytes[22], bytes[23]]);
        if bytes[19] != 0 {
            return Err(bad("reserved byte is set"));
        }
        let whole = Self::new(VideoId(Uuid::from_bytes(*video)), kind, bytes[17], seq)?;
        if bytes[18] == WHOLE {
            Ok(whole)
        } else {
            whole.with_shard(bytes[18])
        }
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            video, seq, track, ..
        } = self;
        match (self.kind, track) {
            (ChunkKind::Init, 0) => write!(f, "{video}-init")?,
            (ChunkKind::Init, _) => write!(f, "{video}-a{track}-init")?,
            (ChunkKind::Media, 0) => write!(f, "{video}-chunk-{seq:03}")?,
            (ChunkKind::Media, _) => write!(f, "{video}-a{track}-chunk-{seq:03}")?,
            (ChunkKind::Poster, _) => write!(f, "{video}-poster-{seq:03}")?,
            (ChunkKind::Storyboard, _) => write!(f, "{video}-story-{seq:03}")?,
            (ChunkKind::Subtitle, _) => write!(f, "{video}-sub{track}-{seq:03}")?,
            (ChunkKind::Catalogue, _) => write!(f, "{video}-catalogue-{seq:03}")?,
        }
        match self.shard() {
            Some(index) => write!(f, ".s{index}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkId({self})")
    }
}

/// Characters of a hyphenated UUID.
const UUID_TEXT_LEN: usize = 36;

impl FromStr for ChunkId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (video, rest) = text.split_at_checked(UUID_TEXT_LEN).ok_or(bad("too short"))?;
        let video = video.parse()?;
        let rest = rest.strip_prefix('-').ok_or(bad("no kind after the video id"))?;
        let (name, shard) = match rest.split_once('.') {
            Some((name, shard)) => (name, Some(shard)),
            None => (rest, None),
        };
        let whole = parse_name(video, name)?;
        match shard {
            None => Ok(whole),
            Some(shard) => whole.with_shard(parse_shard(shard)?),
        }
    }
}

fn parse_name(video: VideoId, name: &str) -> Result<ChunkId, ParseIdError> {
    let parts: Vec<&str> = name.split('-').collect();
    let track_after = |prefix: &str, text: &str| -> Result<u8, ParseIdError> {
        match text.strip_prefix(prefix).map(parse_number) {
            Some(Ok(track)) if track >= 1 => u8::try_from(track).map_err(|_| bad("no such track")),
            _ => Err(bad("unknown kind of chunk")),
        }
    };
    match parts.as_slice() {
        ["init"] => ChunkId::new(video, ChunkKind::Init, 0, 0),
        ["chunk", seq] => ChunkId::new(video, ChunkKind::Media, 0, parse_seq(seq)?),
        ["poster", seq] => ChunkId::new(video, ChunkKind::Poster, 0, parse_seq(seq)?),
        ["story", seq] => ChunkId::new(video, ChunkKind::Storyboard, 0, parse_seq(seq)?),
        ["catalogue", seq] => ChunkId::new(video, ChunkKind::Catalogue, 0, parse_seq(seq)?),
        [track, "init"] => ChunkId::new(video, ChunkKind::Init, track_after("a", track)?, 0),
        [track, "chunk", seq] => {
            ChunkId::new(video, ChunkKind::Media, track_after("a", track)?, parse_seq(seq)?)
        }
        [track, seq] => ChunkId::new(
            video,
            ChunkKind::Subtitle,
            track_after("sub", track)?,
            parse_seq(seq)?,
        ),
        _ => Err(bad("unknown kind of chunk")),
    }
}

fn parse_shard(text: &str) -> Result<u8, ParseIdError> {
    match text.as_bytes() {
        [b's', digit @ b'0'..=b'9'] => Ok(digit - b'0'),
        _ => Err(bad("a shard is written .s0 to .s4")),
    }
}

/// At least three digits, and no more zeros in front than that needs: one object, one text.
fn parse_seq(text: &str) -> Result<u32, ParseIdError> {
    if text.len() < 3 || (text.len() > 3 && text.starts_with('0')) {
        return Err(bad(
            "a sequence number has three digits, or more without a leading zero",
        ));
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad("a sequence number is decimal"));
    }
    text.parse().map_err(|_| bad("sequence number too large"))
}

fn parse_number(text: &str) -> Result<u32, ParseIdError> {
    if text.is_empty() || text.starts_with('0') || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad("a number is decimal, without leading zeros"));
    }
    text.parse().map_err(|_| bad("number too large"))
}

impl Serialize for ChunkId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChunkId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VIDEO: &str = "3b241101-e2bb-4255-8caf-4136c566a962";

    fn any_chunk() -> impl Strategy<Value = ChunkId> {
        (
            any::<u128>(),
            0u8..6,
            any::<u8>(),
            any::<u32>(),
            prop::option::of(0u8..SHARD_COUNT),
        )
            .prop_filter_map("no such chunk", |(video, kind, track, seq, shard)| {
                let kind = ChunkKind::from_byte(kind)?;
                let track = if kind == ChunkKind::Subtitle {
                    track.max(1)
                } else {
                    track
                };
                let whole = ChunkId::new(VideoId(Uuid::from_u128(video)), kind, track, seq).ok()?;
                shard.map_or(Some(whole), |index| whole.with_shard(index).ok())
            })
    }

    proptest! {
        #[test]
        fn every_chunk_id_survives_its_text_and_its_bytes(id in any_chunk()) {
            prop_assert_eq!(id.to_string().parse::<ChunkId>().unwrap(), id);
            prop_assert_eq!(ChunkId::from_bytes(&id.to_bytes()).unwrap(), id);
        }

        #[test]
        fn a_text_that_parses_is_the_only_text_of_its_chunk(tail in "-(init|chunk|poster|a[0-9]{1,2}|sub[0-9])(-[a-z0-9]{0,6}){0,2}(\\.s[0-9])?") {
            let text = format!("{VIDEO}{tail}");
            if let Ok(id) = text.parse::<ChunkId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn the_texts_of_the_contract_are_read() {
        for tail in [
            "init",
            "chunk-000",
            "chunk-1000",
            "poster-000",
            "story-000",
            "sub1-000",
            "a1-init",
            "a1-chunk-000",
            "chunk-000.s4",
            "catalogue-012",
        ] {
            let text = format!("{VIDEO}-{tail}");
            assert_eq!(text.parse::<ChunkId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn hostile_texts_are_refused() {
        let upper = VIDEO.to_uppercase();
        for text in [
            "",
            "../../etc/passwd",
            VIDEO,
            &format!("{upper}-init"),
            &format!("{VIDEO}-chunk-1"),
            &format!("{VIDEO}-chunk-0001"),
            &format!("{VIDEO}-chunk-000.s5"),
            &format!("{VIDEO}-chunk-000.s"),
            &format!("{VIDEO}-chunk-99999999999"),
            &format!("{VIDEO}-a0-init"),
            &format!("{VIDEO}-chunk-000\0"),
            &format!("{VIDEO}-chunk-٣٣٣"),
            &format!("{VIDEO}-sub0-000"),
            "é3b241101-e2bb-4255-8caf-4136c566a962",
        ] {
            assert!(text.parse::<ChunkId>().is_err(), "{text:?} was accepted");
        }
    }
}
