//! Reed-Solomon 3+2: a chunk becomes five shards, and any three of them give it back.
//!
//! Pure bytes in, bytes out: whoever calls checks hashes before, on the shards, and after, on the chunk, since the code
//! finds lost shards and no wrong ones. The code is systematic: the three data shards hold the chunk itself (see
//! [`layout`] for how). Every row decodes by itself.
//!
//! Field, matrix and generator are those of `reed-solomon-erasure` (GF(2^8), Vandermonde made systematic); the golden
//! shards in the tests keep them.

pub mod layout;

use std::ops::Range;
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

/// Bytes of a cell that are coded at a time: three inputs and two outputs of it stay in the processor's nearest cache
/// (32 KiB; `cargo xtask bench erasure` has the figures).
const BLOCK_BYTES: usize = 4 * 1024;

/// The five shards of a chunk.
///
/// # Errors
/// The chunk is empty, or the processor is too old.
pub fn encode(chunk: &[u8]) -> Result<Shards, ErasureError> {
    let mut shards = Shards::default();
    encode_into(chunk, &mut shards)?;
    Ok(shards)
}

/// The same into buffers that are there already; what was in them is gone.
///
/// # Errors
/// The chunk is empty, or the processor is too old.
pub fn encode_into(chunk: &[u8], shards: &mut Shards) -> Result<(), ErasureError> {
    let code = code()?;
    if chunk.is_empty() {
        return Err(ErasureError::Empty);
    }
    let layout = Layout::new(chunk.len());
    for shard in shards.iter_mut() {
        shard.clear();
        shard.reserve_exact(layout.shard_bytes());
    }
    for row in 0..layout.rows() {
        let cell = layout.cell(row);
        for (shard, bytes) in shards.iter_mut().enumerate() {
            bytes.extend_from_slice(chunk.get(layout.part(row, shard)).unwrap_or_default());
            bytes.resize(cell.end, 0);
        }
        // The row is coded while it is still in the cache.
        let [first, second, third, parity @ ..] = &mut *shards;
        let data = [first, second, third].map(|shard| shard.get(cell.clone()).unwrap_or_default());
        let parity = parity
            .each_mut()
            .map(|shard| shard.get_mut(cell.clone()).unwrap_or_default());
        encode_cells(code, data, parity).map_err(|_| lengths_differ(layout))?;
    }
    Ok(())
}

fn encode_cells(
    code: &ReedSolomon,
    data: [&[u8]; DATA_SHARDS],
    mut parity: [&mut [u8]; PARITY_SHARDS],
) -> Result<(), reed_solomon_erasure::Error> {
    for block in blocks(data[0].len()) {
        let data = data.map(|cell| cell.get(block.clone()).unwrap_or_default());
        let mut parity = parity
            .each_mut()
            .map(|cell| cell.get_mut(block.clone()).unwrap_or_default());
        code.encode_sep(&data, &mut parity)?;
    }
    Ok(())
}

/// A cell in pieces that fit into the cache.
fn blocks(cell_bytes: usize) -> impl Iterator<Item = Range<usize>> {
    (0..cell_bytes)
        .step_by(BLOCK_BYTES)
        .map(move |start| start..cell_bytes.min(start + BLOCK_BYTES))
}

/// The chunk, from any three of its shards (`None` for those that are missing).
///
/// # Errors
/// Fewer than three shards, or one of a wrong length.
pub fn decode(layout: Layout, shards: [Option<&[u8]>; SHARDS]) -> Result<Vec<u8>, ErasureError> {
    let mut chunk = Vec::new();
    decode_into(layout, shards, &mut chunk)?;
    Ok(chunk)
}

/// The same into a buffer that is there already; what was in it is gone.
///
/// # Errors
/// Fewer than three shards, or one of a wrong length.
pub fn decode_into(
    layout: Layout,
    shards: [Option<&[u8]>; SHARDS],
    chunk: &mut Vec<u8>,
) -> Result<(), ErasureError> {
    let shards = check(layout.shard_bytes(), shards)?;
    chunk.clear();
    // The last row is padded by less than a cell.
    chunk.reserve_exact(DATA_SHARDS * layout.shard_bytes());
    let mut scratch = Scratch::default();
    for row in 0..layout.rows() {
        let cell = layout.cell(row);
        let cells = shards.map(|shard| shard.and_then(|bytes| bytes.get(cell.clone())));
        append_row(cells, chunk, &mut scratch)?;
    }
    chunk.truncate(layout.chunk_bytes());
    Ok(())
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
    let mut bytes = Vec::with_capacity(DATA_SHARDS * layout.cell(row).len());
    append_row(cells, &mut bytes, &mut Scratch::default())?;
    bytes.truncate(layout.row(row).len());
    Ok(bytes)
}

/// Room for a cell of each parity shard.
type Scratch = [Vec<u8>; PARITY_SHARDS];

/// The data cells of a row, one behind the other. Those that are missing are computed where they belong.
fn append_row(
    cells: [Option<&[u8]>; SHARDS],
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<(), ErasureError> {
    let start = out.len();
    let cell_bytes = cells.iter().flatten().next().map_or(0, |cell| cell.len());
    for (cell, end) in cells.iter().take(DATA_SHARDS).zip(1..) {
        out.extend_from_slice(cell.unwrap_or_default());
        out.resize(start + end * cell_bytes, 0);
    }
    if cells.iter().take(DATA_SHARDS).all(Option::is_some) || cell_bytes == 0 {
        return Ok(());
    }
    let row = out.get_mut(start..).unwrap_or_default();
    let mut data: [&mut [u8]; DATA_SHARDS] = Default::default();
    for (cell, bytes) in data.iter_mut().zip(row.chunks_exact_mut(cell_bytes)) {
        *cell = bytes;
    }
    reconstruct(data, cells, scratch)
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
    let (mut rebuilt, mut row_bytes, mut scratch) = (Vec::new(), Vec::new(), Scratch::default());
    rebuilt.reserve_exact(layout.shard_bytes());
    for row in 0..layout.rows() {
        let cell = layout.cell(row);
        let cells = shards.map(|shard| shard.and_then(|bytes| bytes.get(cell.clone())));
        row_bytes.clear();
        append_row(cells, &mut row_bytes, &mut scratch)?;
        if wanted < DATA_SHARDS {
            let at = wanted * cell.len();
            rebuilt.extend_from_slice(row_bytes.get(at..at + cell.len()).unwrap_or_default());
        } else {
            parity_cells(layout, &row_bytes, &mut scratch)?;
            rebuilt.extend_from_slice(scratch.get(wanted - DATA_SHARDS).map_or(&[][..], |cell| cell));
        }
    }
    Ok(rebuilt)
}

/// The parity cells of a whole row.
fn parity_cells(layout: Layout, row_bytes: &[u8], scratch: &mut Scratch) -> Result<(), ErasureError> {
    let cell_bytes = row_bytes.len() / DATA_SHARDS;
    let at = |shard: usize| row_bytes.get(shard * cell_bytes..(shard + 1) * cell_bytes);
    let data: [&[u8]; DATA_SHARDS] = std::array::from_fn(|shard| at(shard).unwrap_or_default());
    for cell in scratch.iter_mut() {
        cell.resize(cell_bytes, 0);
    }
    let parity = scratch.each_mut().map(Vec::as_mut_slice);
    encode_cells(code()?, data, parity).map_err(|_| lengths_differ(layout))
}

/// Fills in the data cells that `cells` lacks; the others are in `data` already.
fn reconstruct(
    mut data: [&mut [u8]; DATA_SHARDS],
    cells: [Option<&[u8]>; SHARDS],
    scratch: &mut Scratch,
) -> Result<(), ErasureError> {
    let code = code()?;
    let [first, second, third, parity @ ..] = cells;
    let is_there = [first, second, third].map(|cell| cell.is_some());
    for (copy, cell) in scratch.iter_mut().zip(parity) {
        copy.clear();
        copy.extend_from_slice(cell.unwrap_or_default());
    }
    let cell_bytes = data[0].len();
    for block in blocks(cell_bytes) {
        let mut pieces: Vec<(&mut [u8], bool)> = Vec::with_capacity(SHARDS);
        for (cell, is_there) in data.iter_mut().zip(is_there) {
            pieces.push((cell.get_mut(block.clone()).unwrap_or_default(), is_there));
        }
        for (copy, cell) in scratch.iter_mut().zip(parity) {
            pieces.push((copy.get_mut(block.clone()).unwrap_or_default(), cell.is_some()));
        }
        code.reconstruct_data(&mut pieces)
            .map_err(|_| ErasureError::WrongLength {
                shard: 0,
                actual: 0,
                expected: cell_bytes,
            })?;
    }
    Ok(())
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
