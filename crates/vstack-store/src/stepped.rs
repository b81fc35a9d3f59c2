//! A store without a thread: its writer works when it is told to.
//!
//! For simulations, in which a seed must always give the same batches and the same disk operations in the same order,
//! and for crash tests, which need hundreds of thousands of starts a minute. It is the same writer: only who calls it
//! differs. The `_blocking` calls of [`Store`] would wait for ever here, since nobody works meanwhile.

use std::fmt;
use std::path::Path;

use crate::error::StoreError;
use crate::recover::RecoveryReport;
use crate::shared::StoreOptions;
use crate::store::Store;
use crate::writer::Writer;

/// An open data folder whose writer the caller works.
pub struct SteppedStore {
    // Before the store, which holds the folder's lock.
    writer: Writer,
    store: Store,
}

impl fmt::Debug for SteppedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteppedStore")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl SteppedStore {
    /// As [`Store::open`].
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(folder: &Path, options: StoreOptions) -> Result<(Self, RecoveryReport), StoreError> {
        let (store, writer, report) = Store::open_with_writer(folder, options)?;
        Ok((Self { writer, store }, report))
    }

    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Writes and answers one batch of what waits; false if nothing does.
    pub fn write_batch(&mut self) -> bool {
        self.writer.write_batch()
    }

    /// Writes and answers everything that waits.
    pub fn write_all(&mut self) {
        while self.write_batch() {}
    }

    /// What a store does by itself after [`StoreOptions::idle_watermark`] of silence, and before it closes.
    pub fn idle(&mut self) {
        self.writer.write_watermark();
    }
}
