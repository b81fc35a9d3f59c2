//! Where the body of a message ends.

/// What is left of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked(Chunks),
    /// Until the connection ends.
    UntilEnd,
}

/// Where in a chunked body the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunks {
    /// In a line with a size; the digits so far.
    Size {
        value: u64,
        in_digits: bool,
    },
    /// In a chunk and the line break behind it.
    Data {
        left: u64,
    },
    /// In the lines behind the last chunk; an empty one ends the body.
    Trailer {
        line_bytes: u32,
    },
    Done,
}

impl Chunks {
    pub(super) const START: Self = Self::Size {
        value: 0,
        in_digits: true,
    };
}

impl Framing {
    pub(super) const fn is_done(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks::Done))
    }

    /// How many of these bytes belong to the body.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::UntilEnd => bytes.len(),
            Self::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                taken
            }
            Self::Chunked(chunks) => take_chunks(chunks, bytes),
        }
    }
}

fn take_chunks(chunks: &mut Chunks, bytes: &[u8]) -> usize {
    let mut at = 0;
    while at < bytes.len() && *chunks != Chunks::Done {
        let byte = bytes[at];
        match *chunks {
            Chunks::Data { left } => {
                let room = usize::try_from(left).unwrap_or(usize::MAX);
                let taken = room.min(bytes.len() - at);
                at += taken;
                let left = left - taken as u64;
                *chunks = if left == 0 {
                    Chunks::START
                } else {
                    Chunks::Data { left }
                };
                continue;
            }
            Chunks::Size { value, in_digits } => *chunks = after_size_byte(value, in_digits, byte),
            Chunks::Trailer { line_bytes } => *chunks = after_trailer_byte(line_bytes, byte),
            Chunks::Done => {}
        }
        at += 1;
    }
    at
}

fn after_size_byte(value: u64, in_digits: bool, byte: u8) -> Chunks {
    const LINE_BREAK_BYTES: u64 = 2;
    if byte == b'\n' {
        return match value {
            0 => Chunks::Trailer { line_bytes: 0 },
            value => Chunks::Data {
                left: value.saturating_add(LINE_BREAK_BYTES),
            },
        };
    }
    let digit = char::from(byte).to_digit(16).filter(|_| in_digits);
    Chunks::Size {
        value: digit.map_or(value, |digit| {
            value.saturating_mul(16).saturating_add(digit.into())
        }),
        in_digits: digit.is_some(),
    }
}

const fn after_trailer_byte(line_bytes: u32, byte: u8) -> Chunks {
    match (byte, line_bytes) {
        (b'\n', 0) => Chunks::Done,
        (b'\n', _) => Chunks::Trailer { line_bytes: 0 },
        (b'\r', _) => Chunks::Trailer { line_bytes },
        _ => Chunks::Trailer {
            line_bytes: line_bytes.saturating_add(1),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body's length, found with the bytes given in two pieces cut at every place.
    fn check_length(framing: Framing, bytes: &[u8], expected: usize) {
        for cut in 0..=bytes.len() {
            let mut framing = framing;
            let first = framing.take(&bytes[..cut]);
            let taken = if first < cut {
                first
            } else {
                first + framing.take(&bytes[cut..])
            };
            assert_eq!((taken, framing.is_done()), (expected, true), "cut at {cut}");
        }
    }

    #[test]
    fn a_body_ends_where_its_length_or_its_last_chunk_says() {
        check_length(Framing::Length(5), b"helloHTTP/1.1", 5);
        let chunked = b"5\r\nhello\r\nA;x=1f\r\n0123456789\r\n0\r\n\r\n";
        let more = [&chunked[..], b"HTTP/1.1"].concat();
        check_length(Framing::Chunked(Chunks::START), &more, chunked.len());
        let trailed = b"1\r\na\r\n0\r\nx-sum: 5\r\n\r\n";
        check_length(Framing::Chunked(Chunks::START), trailed, trailed.len());
    }

    #[test]
    fn sizes_out_of_this_world_overflow_nothing() {
        let mut framing = Framing::Chunked(Chunks::START);
        assert_eq!(framing.take(b"FFFFFFFFFFFFFFFFFFFFF\r\nabc"), 26);
        assert!(!framing.is_done());
    }
}
