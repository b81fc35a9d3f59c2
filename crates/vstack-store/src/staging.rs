//! The writer's own memory: a batch is laid out here as it will lie on the disk, and goes there in large aligned pieces.
//!
//! Requests' bytes arrive in pieces of any length at any address; a disk that is written past the page cache wants
//! addresses, lengths and positions in whole blocks. One copy (0.1 s of processor time a GB) buys that, and memory that
//! is never handed back and fetched again, which costs several times as much a GB. Batches begin and end at multiples of
//! a block by their format, so nothing has to be filled up here.

use std::io::{self, IoSlice};

use crate::disk::{DiskFile, write_all};
use crate::record::BATCH_ALIGN;

const BLOCK: usize = 4096;
const _: () = assert!(BLOCK as u64 == BATCH_ALIGN);
/// Written at once. The system splits it into as many requests as the disk takes at a time.
const STAGING_BYTES: usize = 4 << 20;

/// Memory for one piece of a batch. Grows to what batches need, up to [`STAGING_BYTES`], and stays.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    /// One block more than is used, so that a block's boundary is in it.
    memory: Vec<u8>,
}

impl Staging {
    /// Writes `pieces`, together a multiple of 4096 bytes, at `offset`, which is one, too.
    pub(crate) fn write(
        &mut self,
        file: &dyn DiskFile,
        pieces: &[IoSlice<'_>],
        mut offset: u64,
    ) -> io::Result<()> {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        let room = self.aligned(total.min(STAGING_BYTES));
        let mut filled = 0;
        for piece in pieces {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(room.len() - filled));
                room[filled..filled + now.len()].copy_from_slice(now);
                filled += now.len();
                rest = later;
                if filled == room.len() {
                    write_blocks(file, room, offset)?;
                    offset += filled as u64;
                    filled = 0;
                }
            }
        }
        write_blocks(file, &room[..filled], offset)
    }

    /// `len` bytes, rounded up to whole blocks, that begin at a block's boundary.
    fn aligned(&mut self, len: usize) -> &mut [u8] {
        let len = len.next_multiple_of(BLOCK);
        if self.memory.len() < len + BLOCK {
            self.memory = vec![0; len + BLOCK];
        }
        let start = self.memory.as_ptr().align_offset(BLOCK);
        &mut self.memory[start..start + len]
    }
}

/// Writes whole blocks, however short the single writes are.
fn write_blocks(file: &dyn DiskFile, mut blocks: &[u8], mut offset: u64) -> io::Result<()> {
    while !blocks.is_empty() {
        match file.pwrite_blocks(blocks, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                blocks = &blocks[written..];
                offset += written as u64;
                if !written.is_multiple_of(BLOCK) {
                    // The rest begins inside a block.
                    return write_all(file, &mut [IoSlice::new(blocks)], offset);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk as _, OpenMode, RealDisk, read_exact};

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
    }

    #[test]
    fn pieces_of_any_length_land_one_after_another_on_a_real_disk() {
        // Beside the test itself: a temporary folder may lie in memory, where blocks have no meaning.
        let here = std::env::current_exe().unwrap();
        let folder = tempfile::tempdir_in(here.parent().unwrap()).unwrap();
        let file = RealDisk
            .open(&folder.path().join("file"), OpenMode::CreateEmpty)
            .unwrap();
        let mut staging = Staging::default();
        let bytes = pattern(2 * STAGING_BYTES + 3 * BLOCK);
        let (one, rest) = bytes.split_at(152);
        let (two, three) = rest.split_at(STAGING_BYTES + 17);
        let pieces = [IoSlice::new(one), IoSlice::new(two), IoSlice::new(three)];
        staging.write(&*file, &pieces, 4096).unwrap();
        file.fdatasync().unwrap();
        let mut found = vec![0; bytes.len()];
        read_exact(&*file, &mut found, 4096).unwrap();
        assert!(found == bytes);
    }

    /// Takes so many bytes a call.
    #[derive(Debug)]
    struct Short(usize, std::sync::Mutex<Vec<u8>>);

    impl DiskFile for Short {
        fn size(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn pread(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            Ok(0)
        }
        fn pwritev(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
            let mut written = self.1.lock().unwrap();
            assert_eq!(written.len() as u64, offset);
            let piece = &pieces[0][..pieces[0].len().min(self.0)];
            written.extend_from_slice(piece);
            Ok(piece.len())
        }
        fn fdatasync(&self) -> io::Result<()> {
            Ok(())
        }
        fn fsync(&self) -> io::Result<()> {
            Ok(())
        }
        fn fallocate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn truncate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn drop_cache(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn try_lock(&self) -> io::Result<bool> {
            Ok(true)
        }
    }

    #[test]
    fn short_writes_are_gone_on_with_inside_a_block_or_not() {
        for step in [BLOCK, 512, 1000, 1] {
            let file = Short(step, std::sync::Mutex::default());
            let bytes = pattern(3 * BLOCK);
            Staging::default()
                .write(&file, &[IoSlice::new(&bytes)], 0)
                .unwrap();
            assert!(*file.1.lock().unwrap() == bytes, "in steps of {step}");
        }
        let full = Short(0, std::sync::Mutex::default());
        let refused = Staging::default().write(&full, &[IoSlice::new(&[0; BLOCK])], 0);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::WriteZero);
    }
}
