//! Playback in virtual time: the client's own policies over a model of nodes, paths and viewers.
//!
//! The network is a fluid: a node's bandwidth is shared by the answers it is sending, in proportion to their weights, and
//! each connection is held back by TCP's slow start until its share is smaller. What a client sees are round trips, bytes
//! and failures, never the truth about a node. Time is a number that jumps from event to event, so that a run of five
//! minutes takes milliseconds, and the same scenario, policy and seed give the same run.
//!
//! `scenario` says what there is and what happens to it; `net` moves bytes; `viewer` is one client: policy, buffer and
//! playhead; `world` runs them; `bound` computes what no policy can beat; `fuzzing`
//! tells a policy any facts in any order. Left out: loss (it shows as rate), queues in routers,
//! the processor's time, and the fetching of leaf hashes (one kilobyte a chunk, beside the first range).

mod bound;
pub mod fuzzing;
mod net;
mod random;
mod scenario;
mod viewer;
mod world;

pub use bound::Bound;
pub use net::Sharing;
pub use random::Random;
pub use scenario::{Change, NodePlan, Scenario};
pub use viewer::{Outcome, Setup};
pub use world::{Run, run, run_traced};
