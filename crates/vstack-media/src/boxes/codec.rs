//! RFC 6381 codec strings, taken from the decoder configuration in a sample entry.
//!
//! A wrong string makes browsers skip a variant silently, so nothing is guessed: an entry whose configuration cannot
//! be read has no string.

use super::reader::{BoxError, Boxes, Fields, FourCc};

/// The codec string of a sample entry: its four-character code and the boxes behind its fixed fields.
#[must_use]
pub fn codec_string(entry: FourCc, config: &Boxes<'_>) -> Option<String> {
    let body = |kind: &[u8; 4]| config.find(kind).map(|found| found.fields());
    let string = match &entry.0 {
        b"avc1" | b"avc2" | b"avc3" | b"avc4" => avc(entry, body(b"avcC")?),
        b"hvc1" | b"hev1" => hevc(entry, body(b"hvcC")?),
        b"vp08" | b"vp09" => vpx(entry, body(b"vpcC")?),
        b"av01" => av1(body(b"av1C")?),
        b"mp4a" | b"mp4v" => descriptor(entry, esds(config)?),
        b"Opus" => Ok("opus".to_owned()),
        b"fLaC" => Ok("flac".to_owned()),
        b"ac-3" | b"ec-3" | b".mp3" => Ok(entry.to_string()),
        _ => return None,
    };
    string.ok()
}

/// QuickTime files keep the `esds` of sound inside `wave`.
fn esds<'a>(config: &Boxes<'a>) -> Option<Fields<'a>> {
    let direct = config.find(b"esds");
    direct
        .or_else(|| config.find(b"wave")?.children().find(b"esds"))
        .map(|found| found.fields())
}

/// `avc1.PPCCLL`: profile, constraint flags and level, as `avcC` has them.
fn avc(entry: FourCc, mut config: Fields<'_>) -> Result<String, BoxError> {
    let _version = config.u8()?;
    let (profile, constraints, level) = (config.u8()?, config.u8()?, config.u8()?);
    Ok(format!("{entry}.{profile:02x}{constraints:02x}{level:02x}"))
}

/// ISO/IEC 14496-15 annex E.3: profile space and number, reversed compatibility bits, tier and level, constraints.
fn hevc(entry: FourCc, mut config: Fields<'_>) -> Result<String, BoxError> {
    let _version = config.u8()?;
    let profile = config.u8()?;
    let compatibility = config.u32()?.reverse_bits();
    let constraints = config.take(6)?;
    let level = config.u8()?;
    let space = ["", "A", "B", "C"][usize::from(profile >> 6)];
    let tier = if profile & 0x20 == 0 { 'L' } else { 'H' };
    let mut text = format!(
        "{entry}.{space}{}.{compatibility:x}.{tier}{level}",
        profile & 0x1f
    );
    let used = constraints
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    for byte in &constraints[..used] {
        text.push_str(&format!(".{byte:x}"));
    }
    Ok(text)
}

/// `vp09.PP.LL.DD`: profile, level, bit depth.
fn vpx(entry: FourCc, mut config: Fields<'_>) -> Result<String, BoxError> {
    config.version_and_flags()?;
    let (profile, level, depth) = (config.u8()?, config.u8()?, config.u8()? >> 4);
    Ok(format!("{entry}.{profile:02}.{level:02}.{depth:02}"))
}

/// `av01.P.LLT.DD`: profile, level and tier, bit depth.
fn av1(mut config: Fields<'_>) -> Result<String, BoxError> {
    let _marker = config.u8()?;
    let (profile_level, flags) = (config.u8()?, config.u8()?);
    let (profile, level) = (profile_level >> 5, profile_level & 0x1f);
    let tier = if flags & 0x80 == 0 { 'M' } else { 'H' };
    let depth = match (flags & 0x40 != 0, flags & 0x20 != 0) {
        (true, true) if profile == 2 => 12,
        (true, _) => 10,
        (false, _) => 8,
    };
    Ok(format!("av01.{profile}.{level:02}{tier}.{depth:02}"))
}

/// `mp4a.OO[.A]`: object type indication, and the audio object type of MPEG-4 sound.
fn descriptor(entry: FourCc, mut config: Fields<'_>) -> Result<String, BoxError> {
    config.version_and_flags()?;
    let mut es = expect_tag(&mut config, 3)?;
    es.skip(2)?;
    let flags = es.u8()?;
    if flags & 0x80 != 0 {
        es.skip(2)?;
    }
    if flags & 0x40 != 0 {
        let url_bytes = es.u8()?;
        es.skip(usize::from(url_bytes))?;
    }
    if flags & 0x20 != 0 {
        es.skip(2)?;
    }
    let mut decoder = expect_tag(&mut es, 4)?;
    let object_type = decoder.u8()?;
    decoder.skip(12)?;
    match object_type {
        0x40 => {
            let mut specific = expect_tag(&mut decoder, 5)?;
            Ok(format!("{entry}.40.{}", audio_object_type(&mut specific)?))
        }
        0x20 => Ok(match visual_profile(&mut decoder) {
            Some(profile) => format!("{entry}.20.{profile}"),
            None => format!("{entry}.20"),
        }),
        other => Ok(format!("{entry}.{other:02x}")),
    }
}

/// A descriptor with its expandable length (ISO/IEC 14496-1 section 8.3.3), at most four length bytes.
fn expect_tag<'a>(fields: &mut Fields<'a>, tag: u8) -> Result<Fields<'a>, BoxError> {
    const OWNER: FourCc = FourCc(*b"esds");
    if fields.u8()? != tag {
        return Err(BoxError::BadValue(OWNER));
    }
    let mut length = 0usize;
    for _ in 0..4 {
        let byte = fields.u8()?;
        length = length << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    // Some writers count the descriptor's length wrongly; what is there is what counts.
    let available = fields.rest().len().min(length);
    Ok(Fields::new(OWNER, fields.take(available)?))
}

/// The first five bits; 31 means that six more follow.
fn audio_object_type(specific: &mut Fields<'_>) -> Result<u8, BoxError> {
    let first = specific.u8()?;
    if first >> 3 != 31 {
        return Ok(first >> 3);
    }
    let second = specific.u8()?;
    Ok(32 + ((first & 0x07) << 3 | second >> 5))
}

/// `profile_and_level_indication` behind the start code of a visual object sequence.
fn visual_profile(decoder: &mut Fields<'_>) -> Option<u8> {
    let specific = expect_tag(decoder, 5).ok()?;
    specific.rest().strip_prefix(&[0, 0, 1, 0xb0])?.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(body.len() + 8).unwrap();
        [&size.to_be_bytes()[..], kind, body].concat()
    }

    fn check(entry: &[u8; 4], kind: &[u8; 4], body: &[u8], expected: Option<&str>) {
        let bytes = boxed(kind, body);
        assert_eq!(
            codec_string(FourCc(*entry), &Boxes::new(&bytes)).as_deref(),
            expected
        );
    }

    #[test]
    fn strings_come_from_the_configuration() {
        check(b"avc1", b"avcC", &[1, 0x64, 0, 0x1f], Some("avc1.64001f"));
        check(
            b"vp09",
            b"vpcC",
            &[1, 0, 0, 0, 0, 31, 0x82],
            Some("vp09.00.31.08"),
        );
        check(b"av01", b"av1C", &[0x81, 0x08, 0x0c, 0], Some("av01.0.08M.08"));
        let hvcc = [1, 0x01, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93];
        check(b"hvc1", b"hvcC", &hvcc, Some("hvc1.1.6.L93.90"));
        check(b"Opus", b"dOps", &[], Some("opus"));
    }

    #[test]
    fn sound_names_its_object_type() {
        let es = |object: u8, specific: &[u8]| {
            let inner = [&[5, u8::try_from(specific.len()).unwrap()], specific].concat();
            let decoder = [
                &[4, u8::try_from(13 + inner.len()).unwrap(), object][..],
                &[0; 12],
                &inner,
            ]
            .concat();
            [
                &[0, 0, 0, 0, 3, u8::try_from(3 + decoder.len()).unwrap(), 0, 1, 0][..],
                &decoder,
            ]
            .concat()
        };
        check(b"mp4a", b"esds", &es(0x40, &[0x12, 0x10]), Some("mp4a.40.2"));
        check(b"mp4a", b"esds", &es(0x6b, &[]), Some("mp4a.6b"));
        check(
            b"mp4v",
            b"esds",
            &es(0x20, &[0, 0, 1, 0xb0, 3]),
            Some("mp4v.20.3"),
        );
    }

    #[test]
    fn what_cannot_be_read_has_no_string() {
        check(b"avc1", b"avcC", &[1, 0x64], None);
        check(b"avc1", b"free", &[], None);
        check(b"mp4a", b"esds", &[0, 0, 0, 0, 9, 1, 1], None);
        check(b"wvtt", b"free", &[], None);
    }
}
