//! What a file is, by its first bytes: the allow-list in front of FFmpeg.
//!
//! FFmpeg guesses by content, and some contents (playlists, session descriptions) make it open other files and
//! addresses. Only containers named here ever reach it; everything else is refused by a name that a user understands.

/// Bytes of the file's start that [`sniff`] wants to see: enough for three MPEG-TS packets with a Blu-ray prefix, and
/// for a large ID3 tag's header.
pub const SNIFF_BYTES: usize = 4096;

/// A container that ingest accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// MP4, MOV, M4V, 3GP.
    IsoMedia,
    /// Matroska and WebM.
    Matroska,
    MpegTs,
    MpegPs,
    /// A bare MPEG-1/2 picture stream.
    MpegVideo,
    Avi,
    Flv,
    Ogg,
    Asf,
    Mxf,
    /// Sound only; accepted here so that the refusal says "no picture" and not "unknown".
    Sound(&'static str),
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniffed {
    Accepted(Container),
    Empty,
    /// In the words of the answer: "a ZIP archive", "text", "data of an unknown kind".
    Refused(&'static str),
}

/// Judges the first [`SNIFF_BYTES`] bytes of a file (fewer only if the file is shorter).
#[must_use]
pub fn sniff(head: &[u8]) -> Sniffed {
    if head.is_empty() {
        return Sniffed::Empty;
    }
    match accepted(head) {
        Some(container) => Sniffed::Accepted(container),
        None => Sniffed::Refused(name_of(head)),
    }
}

fn accepted(head: &[u8]) -> Option<Container> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let iso = [
        &b"ftyp"[..],
        b"moov",
        b"mdat",
        b"moof",
        b"wide",
        b"free",
        b"skip",
        b"styp",
        b"pnot",
    ];
    if iso.iter().any(|kind| at(4, kind)) && !is_still_picture(head) {
        return Some(Container::IsoMedia);
    }
    if at(0, b"RIFF") {
        return at(8, b"AVI ")
            .then_some(Container::Avi)
            .or_else(|| at(8, b"WAVE").then_some(Container::Sound("WAV")));
    }
    let magics: [(&[u8], Container); 11] = [
        (&[0x1a, 0x45, 0xdf, 0xa3], Container::Matroska),
        (&[0, 0, 1, 0xba], Container::MpegPs),
        (&[0, 0, 1, 0xb3], Container::MpegVideo),
        (b"FLV\x01", Container::Flv),
        (b"OggS", Container::Ogg),
        (&[0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11], Container::Asf),
        (&[0x06, 0x0e, 0x2b, 0x34, 0x02, 0x05, 0x01, 0x01], Container::Mxf),
        (b"ID3", Container::Sound("MP3")),
        (b"fLaC", Container::Sound("FLAC")),
        (&[0xff, 0xf1], Container::Sound("AAC")),
        (&[0xff, 0xf9], Container::Sound("AAC")),
    ];
    let by_magic = magics
        .iter()
        .find(|(magic, _)| at(0, magic))
        .map(|(_, container)| *container);
    let transport = is_transport_stream(head).then_some(Container::MpegTs);
    by_magic
        .or(transport)
        .or_else(|| is_mpeg_sound(head).then_some(Container::Sound("MP3")))
}

/// HEIF and AVIF pictures share the container with video and are no video.
fn is_still_picture(head: &[u8]) -> bool {
    let brands = [&b"heic"[..], b"heix", b"mif1", b"avif", b"crx "];
    head.get(4..8) == Some(b"ftyp") && head.get(8..12).is_some_and(|brand| brands.contains(&brand))
}

/// 0x47 at the start of each of the first packets: of 188 bytes, or of 192 with a time stamp in front (M2TS).
fn is_transport_stream(head: &[u8]) -> bool {
    let synced = |start: usize, step: usize| {
        let packets = (0..5)
            .map(|packet| head.get(start + packet * step))
            .take_while(Option::is_some);
        let marks: Vec<bool> = packets.map(|byte| byte == Some(&0x47)).collect();
        !marks.is_empty() && marks.iter().all(|mark| *mark) && head.len() >= start + step
    };
    synced(0, 188) || synced(4, 192)
}

/// An MPEG-1/2 layer III frame header whose fields are all legal.
fn is_mpeg_sound(head: &[u8]) -> bool {
    let [0xff, second, third, ..] = head else {
        return false;
    };
    let (version, layer) = (second >> 3 & 3, second >> 1 & 3);
    let (bitrate, rate) = (third >> 4, third >> 2 & 3);
    second & 0xe0 == 0xe0 && version != 1 && layer != 0 && (1..15).contains(&bitrate) && rate != 3
}

fn name_of(head: &[u8]) -> &'static str {
    let named: [(&[u8], &'static str); 19] = [
        (b"PK\x03\x04", "a ZIP archive (or a document that is one)"),
        (b"\x89PNG", "a PNG picture"),
        (b"\xff\xd8\xff", "a JPEG picture"),
        (b"GIF8", "a GIF picture"),
        (b"BM", "a BMP picture"),
        (b"II*\0", "a TIFF picture"),
        (b"MM\0*", "a TIFF picture"),
        (b"%PDF", "a PDF document"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"Rar!", "a RAR archive"),
        (b"\x1f\x8b", "gzip data"),
        (b"\x28\xb5\x2f\xfd", "zstd data"),
        (b"\xfd7zXZ", "xz data"),
        (b"\x7fELF", "a program"),
        (b"MZ", "a program"),
        (b"#EXTM3U", "a playlist (M3U)"),
        (b"ffconcat", "a playlist (ffconcat)"),
        (b"v=0", "a session description (SDP)"),
        (b"WEBVTT", "subtitles (WebVTT)"),
    ];
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    if is_still_picture(head) {
        return "a HEIF or AVIF picture";
    }
    if let Some((_, name)) = named.iter().find(|(magic, _)| head.starts_with(magic)) {
        return name;
    }
    match text_kind(head) {
        Some(name) => name,
        None => "data of an unknown kind",
    }
}

fn text_kind(head: &[u8]) -> Option<&'static str> {
    let printable = |byte: &u8| !byte.is_ascii_control() || matches!(byte, b'\n' | b'\r' | b'\t');
    if !head.iter().all(printable) {
        return None;
    }
    let text = String::from_utf8_lossy(head).trim_start().to_ascii_lowercase();
    let kinds = [
        ("<?xml", "an XML document"),
        ("<mpd", "a playlist (DASH)"),
        ("<!doctype html", "a web page"),
        ("<html", "a web page"),
        ("{", "JSON text"),
    ];
    let kind = kinds
        .iter()
        .find(|(start, _)| text.starts_with(start))
        .map(|(_, name)| *name);
    Some(if text.contains("<mpd") {
        "a playlist (DASH)"
    } else {
        kind.unwrap_or("text")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_video_are_named() {
        let refused = |head: &[u8]| match sniff(head) {
            Sniffed::Refused(name) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(b"hello, I am not a video"), "text");
        assert_eq!(refused(b"#EXTM3U\n#EXT-X-MEDIA"), "a playlist (M3U)");
        assert_eq!(refused(b"\xef\xbb\xbf#EXTM3U\n"), "a playlist (M3U)");
        assert_eq!(
            refused(b"ffconcat version 1.0\nfile secret.ts"),
            "a playlist (ffconcat)"
        );
        assert_eq!(refused(b"<?xml version=\"1.0\"?><MPD xmlns"), "a playlist (DASH)");
        assert_eq!(refused(b"v=0\r\no=- 0 0 IN IP4"), "a session description (SDP)");
        assert_eq!(
            refused(b"PK\x03\x04\x14\0"),
            "a ZIP archive (or a document that is one)"
        );
        assert_eq!(refused(b"\0\0\0\x1cftypavif\0\0\0\0"), "a HEIF or AVIF picture");
        assert_eq!(refused(b"RIFF\0\0\0\0WEBP"), "data of an unknown kind");
        assert_eq!(refused(&[0; 16]), "data of an unknown kind");
        assert_eq!(sniff(b""), Sniffed::Empty);
    }

    #[test]
    fn containers_are_recognised() {
        let check = |head: &[u8], expected| assert_eq!(sniff(head), Sniffed::Accepted(expected));
        check(b"\0\0\0\x20ftypisom", Container::IsoMedia);
        check(b"\0\0\0\x08wide\0\0\0\0mdat", Container::IsoMedia);
        check(&[0x1a, 0x45, 0xdf, 0xa3, 1], Container::Matroska);
        check(&[0, 0, 1, 0xba, 0x44], Container::MpegPs);
        check(b"RIFF\0\0\0\0AVI LIST", Container::Avi);
        check(&[0xff, 0xf3, 0x60, 0x54], Container::Sound("MP3"));
        check(b"ID3\x04", Container::Sound("MP3"));
        let packet: Vec<u8> = std::iter::once(0x47).chain(std::iter::repeat_n(0, 187)).collect();
        check(&packet.repeat(6), Container::MpegTs);
    }

    #[test]
    fn a_text_that_starts_with_g_is_no_transport_stream() {
        assert_eq!(
            sniff(b"Good morning, this is a letter."),
            Sniffed::Refused("text")
        );
    }
}
