//! The pure rules of V-Stack: identities, digests, limits, the manifest, placement and ChunkPaxos.
//!
//! Nothing here does I/O, reads a clock or starts a task: facts come in, time and randomness among them, and actions
//! go out. The same code therefore runs in the roles, the player, the model checker and the simulator.

pub mod ballot;
pub mod cost;
pub mod digest;
pub mod durability;
pub mod forecast;
mod hex;
pub mod id;
pub mod keys;
pub mod limits;
pub mod manifest;
pub mod node;
pub mod node_name;
pub mod paxos;
pub mod placement;
pub mod popularity;
pub mod range;
pub mod rebalance;
pub mod redundancy;
pub mod rendezvous;
pub mod repair;
pub mod time;
pub mod trust;
