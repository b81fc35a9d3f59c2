//! Proof runs: what a storage node keeps when power, disk or process fail.
//!
//! Each module is one run with an oracle of its own; `cargo xtask prove NAME` starts them, and the tests of this crate
//! run a short form of each. Every run is repeatable: it prints the seed of what failed, and the same seed does the same
//! again.
//!
//! | run | what fails | what is checked |
//! |---|---|---|
//! | [`crash_points`] | the power, before each disk call of random scripts | nothing acknowledged is lost, nothing deleted is back |
//! | [`flips`] | each bit and each length of a superblock of 64 records | torn tail, rot and corrupt are told apart |
//! | [`nth_call`] | each single disk call, once and for ever | nothing is lost, nothing panics, the error says why |
//! | [`kill`] | the process | as `crash_points`, on the real disk |
//! | [`power_cut`] | the power of a real file system | as `kill`, and that the harness notices a store that does not sync |

pub mod crash_points;
pub mod flips;
pub mod fuzzing;
pub mod kill;
mod ledger;
mod meddling;
pub mod nth_call;
pub mod power_cut;
mod report;
mod script;
mod session;
pub mod writer_process;

pub use report::{Failure, Report, Settings};
