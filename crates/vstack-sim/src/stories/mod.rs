//! Stories: scripted runs of ChunkPaxos with the real core, told as a [`Trace`] that terminals and pages draw.
//!
//! What stands in a story is what the core decided while it was told. Two stories are of protocols that are wrong, so
//! that one can see why ours is as it is.

mod draw;
mod quorum_alone;
mod scripts;
mod stage;

use vstack_core::paxos::trace::Trace;

pub use draw::{WIDTH, draw, draw_steps};

/// All stories, in the order in which they are best told.
#[must_use]
pub fn all() -> Vec<Trace> {
    vec![
        scripts::duel(),
        scripts::lost_messages(),
        scripts::crashed_uploader(),
        scripts::disjoint_sets(),
        quorum_alone::quorum_alone(),
        scripts::delete_against_repair(),
        scripts::repair(),
        scripts::restore(true),
        scripts::restore(false),
    ]
}

/// The story of that name.
#[must_use]
pub fn find(name: &str) -> Option<Trace> {
    all().into_iter().find(|story| story.name == name)
}
