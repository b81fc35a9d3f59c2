//! The simulator: whole clusters in one thread, decided by one seed.

mod mutant;

pub use mutant::{Mutant, UnknownMutant};
