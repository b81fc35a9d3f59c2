//! What must hold in every state, and what some state must show.
//!
//! I1 to I5 are the invariants of `vstack_core::paxos`; the others say what the rulings on names, schemes, plain clients
//! and restored catalogues promise.

use stateright::Property;
use vstack_core::paxos::OpenKind;

use super::catalogue_steps::is_lost;
use super::config::Config;
use super::node_steps::place;
use super::state::{Decided, Flag, LIFE, State, shard_code};

type Invariant = Property<Config>;

pub(super) fn always() -> Vec<Invariant> {
    vec![
        Property::always("I1 what is committed is durable", committed_is_durable),
        Property::always("I2 epochs grow and a deletion is final", epochs_grow),
        Property::always("I3 no order names a committed part", orders_spare_the_committed),
        Property::always("I4 a value has the bytes that were acknowledged", bytes_stay),
        Property::always(
            "I5 a COMMIT counts only durable parts",
            |_: &Config, state: &State| !state.has(Flag::Unbacked),
        ),
        Property::always("I6 no name is written twice", |_: &Config, state: &State| {
            !state.has(Flag::Reused)
        }),
        Property::always(
            "I7 no placement is below its scheme's floor",
            |_: &Config, state: &State| !state.has(Flag::TooFew),
        ),
        Property::always(
            "I8 what a plain client was promised stays until it is committed",
            plain_stays,
        ),
        Property::always("I9 what a restored catalogue forgot stays", forgotten_stays),
    ]
}

/// Without these a model that does nothing would hold.
pub(super) fn reachable(config: &Config) -> Vec<Invariant> {
    let mut properties = vec![Property::sometimes(
        "an upload commits",
        |_: &Config, state: &State| is_placed(state),
    )];
    if config.has(OpenKind::Repair) {
        properties.push(Property::sometimes(
            "a second epoch commits",
            |_: &Config, state: &State| commits(state) >= 2,
        ));
    }
    if config.has(OpenKind::Delete) {
        properties.push(Property::sometimes(
            "a deletion commits",
            |_: &Config, state: &State| state.ghosts.deleted,
        ));
    }
    if config.has(OpenKind::Abort) && config.ballots >= 3 {
        properties.push(Property::sometimes(
            "an upload commits after an abort",
            |_: &Config, state: &State| {
                is_placed(state) && state.grants.iter().any(|grant| grant.kind == OpenKind::Abort)
            },
        ));
    }
    if config.has(OpenKind::Convert) {
        properties.push(Property::sometimes(
            "a conversion to shards commits",
            |_: &Config, state: &State| {
                matches!(state.row.accepted, Some((_, Decided::Placed { coded: true, .. })))
            },
        ));
    }
    if config.restores > 0 {
        properties.push(Property::sometimes(
            "a restored catalogue has forgotten a decision",
            |_: &Config, state: &State| state.ghosts.forgotten.is_some(),
        ));
        properties.push(Property::sometimes(
            "an upload commits after a restore",
            |_: &Config, state: &State| matches!(&state.row.accepted, Some((epoch, Decided::Placed { .. })) if *epoch > LIFE),
        ));
    }
    properties
}

const fn is_placed(state: &State) -> bool {
    matches!(state.row.accepted, Some((_, Decided::Placed { .. })))
}

fn commits(state: &State) -> usize {
    state.ghosts.acked.iter().filter(|code| **code != 0).count()
}

/// Unless the disk that acknowledged it was lost since, or the restored value names what was deleted before.
fn committed_is_durable(config: &Config, state: &State) -> bool {
    state
        .row
        .accepted
        .as_ref()
        .is_none_or(|(_, decided)| is_durable(config, state, decided))
}

fn is_durable(config: &Config, state: &State, decided: &Decided) -> bool {
    let Decided::Placed { content, parts, .. } = decided else {
        return true;
    };
    (0..config.nodes).all(|node| {
        let (slot, part) = parts[node];
        let at = &state.nodes[node];
        let there = at.durable[place(config, slot)] == shard_code(*content, part);
        let excused = state.ghosts.gone_before_restore[node] & (1 << slot) != 0;
        part == 0 || there || excused || is_lost(state, node, slot)
    })
}

fn orders_spare_the_committed(config: &Config, state: &State) -> bool {
    let Some((_, decided)) = &state.row.accepted else {
        return true;
    };
    (0..config.nodes).all(|node| {
        decided.named(node).is_none_or(|(slot, _)| {
            let excused = state.ghosts.gone_before_restore[node] & (1 << slot) != 0;
            excused || state.nodes[node].orders & (1 << place(config, slot)) == 0
        })
    })
}

fn plain_stays(_: &Config, state: &State) -> bool {
    let committed = state.ghosts.acked.iter().any(|code| *code != 0);
    committed
        || state
            .nodes
            .iter()
            .all(|node| !node.plain_acked || node.durable[0] != 0)
}

fn forgotten_stays(config: &Config, state: &State) -> bool {
    state
        .ghosts
        .forgotten
        .as_ref()
        .is_none_or(|(_, decided)| is_durable(config, state, decided))
}

fn epochs_grow(_: &Config, state: &State) -> bool {
    let deleted = matches!(state.row.accepted, Some((_, Decided::Deleted)));
    !state.has(Flag::Backwards) && (deleted || !state.ghosts.deleted)
}

fn bytes_stay(_: &Config, state: &State) -> bool {
    match &state.row.accepted {
        Some((epoch, Decided::Placed { content, .. })) => state.ghosts.acked[usize::from(*epoch)] == *content,
        _ => true,
    }
}
