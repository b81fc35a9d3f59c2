//! Reed-Solomon 3+2: a chunk becomes five shards, and any three of them give it back.
//!
//! Pure bytes in, bytes out: whoever calls checks hashes before, on the shards, and after, on the chunk, since the code
//! finds lost shards and no wrong ones. The code is systematic: the three data shards hold the chunk itself (see
//! [`layout`] for how). Every row decodes by itself.
//!
//! Field, matrix and generator are those of `reed-solomon-erasure` (GF(2^8), Vandermonde made systematic); the golden
//! shards in the tests keep them.

pub mod layout;

use std::sync::LazyLock;

use reed_solomon_erasure::galois_8::ReedSolomon;

pub use layout::{CELL_BYTES, Layout, ROW_BYTES};

/// Shards that hold the chunk.
pub const DATA_SHARDS: usize = 3;
/// Shards that may be lost.
pub const PARITY_SHARDS: usize = 2;
/// Nodes of a placement.
pub const SHARDS: usize = DATA_SHARDS + PARITY_SHARDS;

/// All shards of a chunk, the data shards first.
pub type Shards = [Vec<u8>; SHARDS];

/// Why shards cannot be made or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ErasureError {
    #[error("an empty chunk has no shards")]
    Empty,
    #[error("{given} shards were given, {DATA_SHARDS} are needed")]
    TooFew { given: usize },
    #[error("shard {shard} has {actual} bytes instead of {expected}")]
    WrongLength {
        shard: usize,
        actual: usize,
        expected: usize,
    },
    #[error("a chunk has no shard {0}")]
    NoSuchShard(usize),
    #[error("this processor lacks AVX2, which erasure coding is built for here")]
    Processor,
}

static CODE: LazyLock<Option<ReedSolomon>> = LazyLock::new(|| {
    is_supported()
        .then(|| ReedSolomon::new(DATA_SHARDS, PARITY_SHARDS).ok())
        .flatten()
});

/// Whether this processor runs the code: its inner loops are compiled for AVX2 on x86-64.
#[must_use]
pub fn is_supported() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx2")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        true
    }
}

fn code() -> Result<&'static ReedSolomon, ErasureError> {
    CODE.as_ref().ok_or(ErasureError::Processor)
}

/// The five shards of a chunk.
///
/// # Errors
/// The chunk is empty, or the processor is too old.
pub fn encode(chunk: &[u8]) -> Result<Shards, ErasureError> {
    let code = code()?;
    if chunk.is_empty() {
        return Err(ErasureError::Empty);
    }
    let layout = Layout::new(chunk.len());
    let mut shards: Shards = std::array::from_fn(|_| Vec::with_capacity(layout.shard_bytes()));
    for row in 0..layout.rows() {
        let end = layout.cell(row).end;
        for (shard, bytes) in shards.iter_mut().enumerate() {
            bytes.extend_from_slice(chunk.get(layout.part(row, shard)).unwrap_or_default());
            bytes.resize(end, 0);
        }
    }
    let (data, parity) = shards.split_at_mut(DATA_SHARDS);
    code.encode_sep(data, parity)
        .map_err(|_| lengths_differ(layout))?;
    Ok(shards)
}

/// The chunk, from any three of its shards (`None` for those that are missing).
///
/// # Errors
/// Fewer than three shards, or one of a wrong length.
pub fn decode(layout: Layout, shards: [Option<&[u8]>; SHARDS]) -> Result<Vec<u8>, ErasureError> {
    let mut chunk = Vec::with_capacity(layout.chunk_bytes());
    let shards = check(layout.shard_bytes(), shards)?;
    for row in 0..layout.rows() {
        let cell = layout.cell(row);
        let cells = shards.map(|shard| shard.and_then(|bytes| bytes.get(cell.clone())));
        chunk.extend_from_slice(&decode_row(layout, row, cells)?);
    }
    Ok(chunk)
}

/// The bytes of the chunk in one row, from any three cells of it.
///
/// # Errors
/// Fewer than three cells, or one of a wrong length.
pub fn decode_row(
    layout: Layout,
    row: usize,
    cells: [Option<&[u8]>; SHARDS],
) -> Result<Vec<u8>, ErasureError> {
    let cells = check(layout.cell(row).len(), cells)?;
    let bytes = layout.row(row).len();
    let mut data: Vec<u8> = Vec::with_capacity(DATA_SHARDS * layout.cell(row).len());
    match cells {
        [Some(first), Some(second), Some(third), ..] => [first, second, third]
            .iter()
            .for_each(|cell| data.extend_from_slice(cell)),
        _ => {
            let whole = reconstruct(layout, cells, true)?;
            whole
                .iter()
                .take(DATA_SHARDS)
                .flatten()
                .for_each(|cell| data.extend_from_slice(cell));
        }
    }
    data.truncate(bytes);
    Ok(data)
}

/// One lost shard, data or parity, from any three others.
///
/// # Errors
/// There is no such shard, fewer than three are given, or one has a wrong length.
pub fn rebuild(
    layout: Layout,
    wanted: usize,
    shards: [Option<&[u8]>; SHARDS],
) -> Result<Vec<u8>, ErasureError> {
    if wanted >= SHARDS {
        return Err(ErasureError::NoSuchShard(wanted));
    }
    let mut shards = check(layout.shard_bytes(), shards)?;
    if let Some(slot) = shards.get_mut(wanted) {
        *slot = None;
    }
    let shards = check(layout.shard_bytes(), shards)?;
    let mut whole = reconstruct(layout, shards, wanted < DATA_SHARDS)?;
    whole
        .get_mut(wanted)
        .and_then(Option::take)
        .ok_or(ErasureError::NoSuchShard(wanted))
}

fn reconstruct(
    layout: Layout,
    pieces: [Option<&[u8]>; SHARDS],
    data_only: bool,
) -> Result<[Option<Vec<u8>>; SHARDS], ErasureError> {
    let mut whole = pieces.map(|piece| piece.map(<[u8]>::to_vec));
    let done = if data_only {
        code()?.reconstruct_data(&mut whole)
    } else {
        code()?.reconstruct(&mut whole)
    };
    done.map_err(|_| lengths_differ(layout)).map(|()| whole)
}

/// Three pieces at least, all of one length.
fn check(expected: usize, pieces: [Option<&[u8]>; SHARDS]) -> Result<[Option<&[u8]>; SHARDS], ErasureError> {
    for (shard, piece) in pieces.iter().enumerate() {
        if let Some(actual) = piece.map(<[u8]>::len).filter(|actual| *actual != expected) {
            return Err(ErasureError::WrongLength {
                shard,
                actual,
                expected,
            });
        }
    }
    let given = pieces.iter().flatten().count();
    if given < DATA_SHARDS {
        return Err(ErasureError::TooFew { given });
    }
    Ok(pieces)
}

/// What the code's own complaint would mean: every length was checked before.
const fn lengths_differ(layout: Layout) -> ErasureError {
    ErasureError::WrongLength {
        shard: 0,
        actual: 0,
        expected: layout.shard_bytes(),
    }
}
