//! Counts memory, for targets that bound it.

use peak_alloc::PeakAlloc;
use std::sync::atomic::{AtomicUsize, Ordering};
use vstack_proof::fuzzing::Meter;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;
static BEFORE: AtomicUsize = AtomicUsize::new(0);

pub const METER: Meter = Meter {
    reset: || {
        MEMORY.reset_peak_usage();
        BEFORE.store(MEMORY.current_usage(), Ordering::Relaxed);
    },
    peak_bytes: || MEMORY.peak_usage().saturating_sub(BEFORE.load(Ordering::Relaxed)),
};
