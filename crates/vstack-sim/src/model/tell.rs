//! Tells a path of the checker as a trace, one arrow a step.

use stateright::Path;
use vstack_core::paxos::OpenKind;
use vstack_core::paxos::trace::Trace;

use super::lift::ballot_of;
use super::runs::Run;
use super::state::{Decided, FIRST_SHARD, Granted, LIFE, NODES, Named, PartCode, Slot, State, Step};

/// The counterexample of `run` to `violated`.
pub(super) fn trace(run: &Run, violated: &str, path: Path<State, Step>) -> Trace {
    let mut trace = Trace::new(run.name, run.title);
    trace.violated = Some(violated.to_owned());
    let steps = path.into_vec();
    for pair in steps.windows(2) {
        if let (before, Some(step)) = &pair[0] {
            let (actors, message, effect) = arrow(*step, before, &pair[1].0);
            trace.push(actors, message, effect);
        }
    }
    trace
}

/// `1.2`: generation and number.
fn ballot(slot: Slot) -> String {
    if slot == 0 {
        return "0".to_owned();
    }
    format!("{}.{}", ballot_of(slot).generation(), (slot - 1) % LIFE + 1)
}

fn node_name(node: u8) -> String {
    format!("node {node}")
}

fn proposer(granted: &Granted) -> String {
    let role = match granted.kind {
        OpenKind::Upload => "uploader",
        OpenKind::Repair => "repairer",
        OpenKind::Convert => "converter",
        OpenKind::Delete => "deleter",
        OpenKind::Abort => "aborter",
    };
    format!("{role} {}", ballot(granted.slot))
}

fn part_name(part: PartCode) -> String {
    match part.checked_sub(FIRST_SHARD) {
        None => String::new(),
        Some(shard) => format!(" shard {shard}"),
    }
}

fn places(parts: &[PartCode; NODES]) -> String {
    let named = parts.iter().enumerate().filter(|(_, part)| **part != 0);
    let names: Vec<String> = named
        .map(|(node, &part)| format!("{node}{}", part_name(part)))
        .collect();
    if names.is_empty() {
        "no node".to_owned()
    } else {
        format!("nodes {}", names.join(", "))
    }
}

fn value(decided: &Decided) -> String {
    let Decided::Placed { parts, .. } = decided else {
        return "deleted for ever".to_owned();
    };
    let name = |(node, &(slot, part)): (usize, &Named)| {
        format!("node {node}: object {}{}", ballot(slot), part_name(part))
    };
    let named: Vec<String> = parts
        .iter()
        .enumerate()
        .filter(|(_, part)| part.1 != 0)
        .map(name)
        .collect();
    named.join("; ")
}

/// What changed among the orders to delete.
fn new_orders(before: &State, after: &State) -> String {
    let mut names = Vec::new();
    for node in 0..NODES {
        let new = after.nodes[node].orders & !before.nodes[node].orders;
        let slots = (0..LIFE * 3).filter(|slot| new & (1 << slot) != 0);
        names.extend(slots.map(|slot| format!("{} on node {node}", ballot(slot))));
    }
    if names.is_empty() {
        String::new()
    } else {
        format!("; to be deleted: {}", names.join(", "))
    }
}

type Arrow = ((String, String), String, String);

fn arrow(step: Step, before: &State, after: &State) -> Arrow {
    let catalogue = || "catalogue".to_owned();
    let operator = || "operator".to_owned();
    let granted = |grant: u8| &after.grants[usize::from(grant)];
    let to_node = |grant: u8, node: u8, word: &str, effect: &str| {
        let by = granted(grant);
        let message = format!("{word} {}", ballot(by.slot));
        ((proposer(by), node_name(node)), message, effect.to_owned())
    };
    match step {
        Step::Open { kind, parts } => {
            let by = after.grants.last().map_or_else(operator, proposer);
            let effect = format!(
                "granted {} for {}{}",
                ballot(after.row.promised),
                places(&parts),
                new_orders(before, after)
            );
            ((by, catalogue()), format!("OPEN {}", kind.as_str()), effect)
        }
        Step::Prepare { node, grant } => to_node(grant, node, "PREPARE", "promised"),
        Step::Accept { node, grant } => to_node(grant, node, "ACCEPT", "written"),
        Step::Adopt { node, grant, from } => to_node(
            grant,
            node,
            "ADOPT",
            &format!("named again; it was object {}", ballot(from)),
        ),
        Step::Receipt { node, grant } => {
            let by = granted(grant);
            (
                (node_name(node), proposer(by)),
                format!("receipt for {}", ballot(by.slot)),
                "given".to_owned(),
            )
        }
        Step::Commit { grant, .. } => {
            let by = granted(grant);
            let decided = after
                .row
                .accepted
                .as_ref()
                .map(|(_, decided)| value(decided))
                .unwrap_or_default();
            let effect = format!("decided: {decided}{}", new_orders(before, after));
            (
                (proposer(by), catalogue()),
                format!("COMMIT {}", ballot(by.slot)),
                effect,
            )
        }
        Step::Sync { node, slot } => (
            (node_name(node), node_name(node)),
            format!("sync of object {}", ballot(slot)),
            "on the disk".to_owned(),
        ),
        Step::Delete { node, slot } => (
            (catalogue(), node_name(node)),
            format!("DELETE_OBJ {}", ballot(slot)),
            "deleted".to_owned(),
        ),
        Step::Inventory { node, slot } => (
            (node_name(node), catalogue()),
            format!("INVENTORY: object {}", ballot(slot)),
            "to be deleted".to_owned(),
        ),
        Step::CollectOpen { grant } => {
            let by = granted(grant);
            (
                (catalogue(), catalogue()),
                format!("collect {}", ballot(by.slot)),
                new_orders(before, after),
            )
        }
        other => event(other),
    }
}

/// What happens to one actor without a message of the protocol.
fn event(step: Step) -> Arrow {
    let client = || "plain client".to_owned();
    let catalogue = || "catalogue".to_owned();
    let (actors, message, effect) = match step {
        Step::PlainPut { node } => ((client(), node_name(node)), "PUT", "stored as object 0"),
        Step::PlainDelete { node } => ((client(), node_name(node)), "DELETE", "deleted"),
        Step::Crash { node } => (
            (node_name(node), node_name(node)),
            "crash",
            "what is not synced and the promise are gone",
        ),
        Step::LoseDisk { node } => (
            (node_name(node), node_name(node)),
            "disk lost",
            "an empty disk, a new incarnation",
        ),
        Step::Backup => ((catalogue(), catalogue()), "backup", "the row is saved"),
        Step::Restore => (
            (catalogue(), catalogue()),
            "restore",
            "the row of the backup is back",
        ),
        _ => ((catalogue(), catalogue()), "reconcile", "every node was heard"),
    };
    (actors, message.to_owned(), effect.to_owned())
}
