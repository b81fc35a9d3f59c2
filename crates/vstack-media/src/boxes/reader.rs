//! Walking ISO base media boxes (ISO/IEC 14496-12) in a byte slice.
//!
//! Invariants: nothing here panics or allocates by a number that the file claims; a box never reaches beyond its
//! parent. What it leaves out: the meaning of any box.

use std::fmt;

/// Four-character code of a box, handler or sample entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourCc(pub [u8; 4]);

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FourCc({self})")
    }
}

/// Why a file's boxes cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoxError {
    #[error("the box `{0}` ends too early")]
    Truncated(FourCc),
    #[error("the box `{kind}` claims {size} bytes, which cannot be")]
    BadSize { kind: FourCc, size: u64 },
    #[error("there is no `{0}` box")]
    Missing(FourCc),
    #[error("the box `{0}` holds a value that cannot be")]
    BadValue(FourCc),
    #[error("more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
}

/// Size and kind of a box, from its first 8 or 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoxHeader {
    pub kind: FourCc,
    pub header_bytes: usize,
    /// Whole size with header; `None`: it reaches to the end of the file.
    pub size_bytes: Option<u64>,
}

impl BoxHeader {
    /// Reads a header from the start of `bytes`; `None` while there are too few of them.
    ///
    /// # Errors
    /// The size is smaller than the header.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, BoxError> {
        let mut fields = Fields::new(FourCc(*b"box "), bytes);
        let (Ok(short), Ok(kind)) = (fields.u32(), fields.four_cc()) else {
            return Ok(None);
        };
        let (size, header_bytes) = match short {
            0 => {
                return Ok(Some(Self {
                    kind,
                    header_bytes: 8,
                    size_bytes: None,
                }));
            }
            1 => match fields.u64() {
                Ok(large) => (large, 16),
                Err(_) => return Ok(None),
            },
            short => (u64::from(short), 8),
        };
        if size < header_bytes as u64 {
            return Err(BoxError::BadSize { kind, size });
        }
        Ok(Some(Self {
            kind,
            header_bytes,
            size_bytes: Some(size),
        }))
    }
}

/// A box whose bytes are all there.
#[derive(Debug, Clone, Copy)]
pub struct RawBox<'a> {
    pub kind: FourCc,
    /// Where the box begins in the slice that was walked.
    pub offset: usize,
    /// Header and body.
    pub whole_bytes: usize,
    pub body: &'a [u8],
}

impl<'a> RawBox<'a> {
    /// The fields of its body.
    #[must_use]
    pub fn fields(&self) -> Fields<'a> {
        Fields::new(self.kind, self.body)
    }

    /// The boxes in its body.
    #[must_use]
    pub fn children(&self) -> Boxes<'a> {
        Boxes::new(self.body)
    }
}

/// Iterates over the boxes that lie one after another in a slice. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Boxes<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Boxes<'a> {
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// The first box of a kind; an error before it counts as its absence.
    #[must_use]
    pub fn find(&self, kind: &[u8; 4]) -> Option<RawBox<'a>> {
        self.clone()
            .map_while(Result::ok)
            .find(|found| &found.kind.0 == kind)
    }

    /// The first box of a kind.
    ///
    /// # Errors
    /// There is none.
    pub fn require(&self, kind: &[u8; 4]) -> Result<RawBox<'a>, BoxError> {
        self.find(kind).ok_or(BoxError::Missing(FourCc(*kind)))
    }

    /// All boxes of a kind, in order.
    pub fn all(&self, kind: &'static [u8; 4]) -> impl Iterator<Item = RawBox<'a>> + use<'a> {
        self.clone()
            .map_while(Result::ok)
            .filter(move |found| &found.kind.0 == kind)
    }

    fn step(&mut self) -> Result<Option<RawBox<'a>>, BoxError> {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let Some(header) = BoxHeader::read(rest)? else {
            // Up to seven stray bytes at the end (QuickTime writes a 32-bit zero terminator) are not a box.
            return Ok(None);
        };
        let whole_bytes = match header.size_bytes {
            None => rest.len(),
            Some(size) => usize::try_from(size).unwrap_or(usize::MAX),
        };
        let body = rest
            .get(header.header_bytes..whole_bytes)
            .ok_or(BoxError::Truncated(header.kind))?;
        let found = RawBox {
            kind: header.kind,
            offset: self.offset,
            whole_bytes,
            body,
        };
        self.offset += whole_bytes;
        Ok(Some(found))
    }
}

impl<'a> Iterator for Boxes<'a> {
    type Item = Result<RawBox<'a>, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.offset = self.bytes.len();
        }
        step.transpose()
    }
}

/// Big-endian fields of one box, read in order.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    owner: FourCc,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[must_use]
    pub fn new(owner: FourCc, bytes: &'a [u8]) -> Self {
        Self { owner, rest: bytes }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], BoxError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(BoxError::Truncated(self.owner))?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn skip(&mut self, count: usize) -> Result<(), BoxError> {
        self.take(count).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BoxError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(BoxError::Truncated(self.owner))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, BoxError> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, BoxError> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, BoxError> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, BoxError> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, BoxError> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, BoxError> {
        self.array().map(i64::from_be_bytes)
    }

    pub fn four_cc(&mut self) -> Result<FourCc, BoxError> {
        self.array().map(FourCc)
    }

    /// Version and flags of a full box.
    pub fn version_and_flags(&mut self) -> Result<(u8, u32), BoxError> {
        let word = self.u32()?;
        Ok((word.to_be_bytes()[0], word & 0x00ff_ffff))
    }

    /// 32 bits in version 0, 64 in version 1.
    pub fn versioned(&mut self, version: u8) -> Result<u64, BoxError> {
        if version == 0 {
            self.u32().map(u64::from)
        } else {
            self.u64()
        }
    }
}
