//! Memory for bytes on their way from the disk to a reader, or from a writer to the disk: pieces of one size that are
//! used again and again. Fresh memory for every request would cost 0.2 to 0.5 s of processor time a GB.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Two leaves: what a reader gets at a time, and what a writer's bytes are gathered in. Small enough that a piece is
/// still in the processor's cache when it is sent, and that a hundred readers with two pieces each need 25 MiB.
pub(super) const PIECE_BYTES: usize = 128 * 1024;
/// Pieces that are kept for the next request, 16 MiB: what a hundred readers use most of the time.
const KEEP: usize = 128;

/// Pieces that nobody uses. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers {
    free: Arc<Mutex<Vec<Box<[u8]>>>>,
}

/// A piece in use; goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    used: Range<usize>,
    home: Buffers,
}

impl Buffers {
    pub(super) fn take(&self) -> Buffer {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Buffer {
            bytes: free.unwrap_or_else(|| vec![0; PIECE_BYTES].into_boxed_slice()),
            used: 0..0,
            home: self.clone(),
        }
    }
}

impl Buffer {
    /// All of its memory, with whatever it held before.
    pub(super) fn memory(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Hands out the bytes of `used` without copying them; the piece goes back when the last of them is dropped.
    pub(super) fn freeze(mut self, used: Range<usize>) -> Bytes {
        self.used = used;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.used.clone()]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEEP {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_used_again_when_its_last_bytes_are_gone() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.memory()[..5].copy_from_slice(b"hello");
        let bytes = buffer.freeze(1..5);
        let part = bytes.slice(1..3);
        drop(bytes);
        assert_eq!((&part[..], buffers.free.lock().unwrap().len()), (&b"ll"[..], 0));
        drop(part);
        assert_eq!(buffers.free.lock().unwrap().len(), 1);
        drop((buffers.take(), buffers.take()));
        assert_eq!(buffers.free.lock().unwrap().len(), 2);
    }
}
