//! A disk that can do everything that disks do wrong, and what a store on it must still keep.
//!
//! Only with the feature `sim`: for tests, proof runs and the simulations of other crates.
//!
//! - [`SimDisk`] is a [`Disk`](crate::disk::Disk) in memory. It loses what was not synced, tears and reorders it, flips
//!   bits, fills up, writes short, and fails chosen calls once or for ever.
//! - [`Model`] is the reference: it sends requests to a [`Store`](crate::Store), notes what was acknowledged, and compares
//!   a store with that, whatever happened to its disk in between.
//! - [`Random`] makes a run repeatable from its seed.
//!
//! The rule that the model checks: what was acknowledged is there with its bytes; what was acknowledged as deleted is
//! gone; what was under way is there whole or not at all; nothing else exists.

mod disk;
mod file;
mod memory;
mod model;

pub use disk::{Call, Fault, Repeat, SimDisk};
pub use memory::index_bytes_per_object;
pub use model::{Model, Name, Step, bytes_of, chunk, content, name, one_content_per_name};

/// The same numbers for the same seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub const fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`, which is not 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        (self.next_u64() >> 11) % bound
    }

    /// True once in `n` times.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
