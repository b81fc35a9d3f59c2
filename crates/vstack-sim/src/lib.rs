//! ChunkPaxos put to the test: the same pure functions that the roles run, driven by machines.

pub mod model;
pub mod simulator;
pub mod stories;
