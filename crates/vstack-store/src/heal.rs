//! A record header in which one bit has turned is turned back.
//!
//! Without its header a record has no name, and the node could only say that it does not know the object. But CRC32C
//! tells more than that something is wrong: for areas as short as a header each single wrong bit leaves its own
//! difference between the computed and the stored checksum. The bit that fits is turned back and the header must then be
//! right in every other way too, its salted position among them, so that chance cannot make a record of garbage.
//!
//! The file is not changed: the place is reported as rot, and the object's bytes are checked against the SHA-256 of the
//! header like any others.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::record::{HEADER_LEN, RecordHeader, u32_at};

/// The checksum is the last field.
const CRC_AT: usize = HEADER_LEN - 4;

/// The header at `position` of the file with `salt` if exactly one of its bits is wrong.
pub(crate) fn heal(bytes: &[u8; HEADER_LEN], position: u64, salt: u64) -> Option<RecordHeader> {
    let difference = crc32c::crc32c(&bytes[..CRC_AT]) ^ u32_at(bytes, CRC_AT);
    let bit = differences().get(&difference)?;
    let mut healed = *bytes;
    healed[bit / 8] ^= 1 << (bit % 8);
    RecordHeader::decode(&healed, position, salt).ok()
}

/// Which bit of a header leaves which difference.
fn differences() -> &'static HashMap<u32, usize> {
    static DIFFERENCES: OnceLock<HashMap<u32, usize>> = OnceLock::new();
    DIFFERENCES.get_or_init(|| {
        let intact = crc32c::crc32c(&[0; CRC_AT]);
        let of_bit = |bit: usize| {
            if bit >= CRC_AT * 8 {
                return 1 << (bit - CRC_AT * 8);
            }
            let mut bytes = [0; CRC_AT];
            bytes[bit / 8] = 1 << (bit % 8);
            crc32c::crc32c(&bytes) ^ intact
        };
        (0..HEADER_LEN * 8).map(|bit| (of_bit(bit), bit)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordKind;
    use vstack_core::time::UnixMillis;

    fn header() -> (RecordHeader, [u8; HEADER_LEN]) {
        let header = RecordHeader::mark(RecordKind::Watermark, 152, 4096, UnixMillis(77));
        (header, header.encode(8192, 99))
    }

    #[test]
    fn each_single_bit_leaves_its_own_difference_and_is_turned_back() {
        assert_eq!(differences().len(), HEADER_LEN * 8);
        let (header, bytes) = header();
        for bit in 0..HEADER_LEN * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(heal(&damaged, 8192, 99), Some(header), "bit {bit}");
        }
    }

    #[test]
    fn nothing_else_is_healed() {
        let (_, bytes) = header();
        assert_eq!(heal(&bytes, 8192, 99), None, "an intact header needs no healing");
        assert_eq!(
            heal(&bytes, 4096, 99),
            None,
            "a header of another place stays one"
        );
        assert_eq!(heal(&[0; HEADER_LEN], 8192, 99), None);
        for (first, second) in [(0, 1), (3, 700), (500, 1200), (1184, 1215)] {
            let mut damaged = bytes;
            for bit in [first, second] {
                damaged[bit / 8] ^= 1 << (bit % 8);
            }
            assert_eq!(heal(&damaged, 8192, 99), None, "bits {first} and {second}");
        }
    }
}
