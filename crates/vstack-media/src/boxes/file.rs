//! The shape of an ISO media file on disk: is everything there, and may it be copied?
//!
//! Reads box headers by seeking and the `moov` box alone into memory, so that a file of many gigabytes costs nothing.

use std::io::{self, Read, Seek, SeekFrom};

use super::movie::find_protection;
use super::reader::{BoxHeader, Boxes, FourCc};

/// Largest `moov` that is read. A day of video at 60 pictures a second has tables of about 60 MB.
const MAX_MOOV_BYTES: u64 = 128 << 20;
/// Top-level boxes that are looked at; a fragmented day has two in each second.
const MAX_TOP_LEVEL_BOXES: usize = 1 << 20;

/// What the top level of a file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileShape {
    pub has_moov: bool,
    pub has_media_data: bool,
    /// A box that claims more bytes than the file has left.
    pub cut_off_in: Option<FourCc>,
    /// Encryption scheme of any track.
    pub protected: Option<String>,
}

/// Walks the top level of a file.
///
/// # Errors
/// Reading failed. What the bytes say is never an error here.
pub fn file_shape(file: &mut (impl Read + Seek)) -> io::Result<FileShape> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut shape = FileShape::default();
    let mut offset = 0;
    for _ in 0..MAX_TOP_LEVEL_BOXES {
        let Some(header) = header_at(file, offset)? else {
            break;
        };
        let size = header.size_bytes.unwrap_or(end - offset);
        if size > end - offset {
            shape.cut_off_in = Some(header.kind);
            break;
        }
        match &header.kind.0 {
            b"mdat" => shape.has_media_data = true,
            b"moov" => {
                shape.has_moov = true;
                shape.protected = protection_at(file, offset, size)?;
            }
            _ => {}
        }
        offset += size;
    }
    Ok(shape)
}

fn header_at(file: &mut (impl Read + Seek), offset: u64) -> io::Result<Option<BoxHeader>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut head = Vec::with_capacity(16);
    file.take(16).read_to_end(&mut head)?;
    Ok(BoxHeader::read(&head).unwrap_or(None))
}

fn protection_at(file: &mut (impl Read + Seek), offset: u64, size: u64) -> io::Result<Option<String>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(size.min(MAX_MOOV_BYTES)).read_to_end(&mut bytes)?;
    let moov = Boxes::new(&bytes).find(b"moov");
    Ok(moov.and_then(|moov| find_protection(&moov)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn boxed(kind: &[u8; 4], claimed: u32, body: &[u8]) -> Vec<u8> {
        [&claimed.to_be_bytes()[..], kind, body].concat()
    }

    fn shape(parts: &[Vec<u8>]) -> FileShape {
        file_shape(&mut Cursor::new(parts.concat())).unwrap()
    }

    #[test]
    fn a_file_cut_in_its_media_data_is_noticed() {
        let found = shape(&[
            boxed(b"ftyp", 12, b"isom"),
            boxed(b"moov", 8, b""),
            boxed(b"mdat", 1000, b"only this"),
        ]);
        assert_eq!(found.cut_off_in, Some(FourCc(*b"mdat")));
        assert!(found.has_moov && !found.has_media_data);
    }

    #[test]
    fn garbage_is_walked_without_harm() {
        assert_eq!(shape(&[boxed(b"ftyp", 3, b"isom")]), FileShape::default());
        assert_eq!(shape(&[vec![0, 0, 0]]), FileShape::default());
        assert!(shape(&[boxed(b"moov", 0, &[0xff; 40])]).has_moov);
    }
}
