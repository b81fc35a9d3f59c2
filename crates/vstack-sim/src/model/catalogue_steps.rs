//! What the catalogue does with a message: the core's master decides about the row, the orders to delete follow.
//!
//! Mutants lie to the core about what it is shown (an older row, another incarnation); the core itself is never changed.

use vstack_core::id::{Incarnation, NodeId};
use vstack_core::paxos::OpenKind;
use vstack_core::paxos::master::{
    self, Committed, Conflict, Fate, Garbage, Knowledge, OpenRequest, Registry, ReportedObject, Row, Value,
    Witness,
};
use vstack_core::placement::Part;
use vstack_core::time::UnixMillis;

use super::config::{Broken, Config};
use super::lift::{Shape, WORLD, ballot_of, life_of, slot_of};
use super::node_steps::place;
use super::state::{Backup, Decided, Flag, Granted, LIVES, NODES, PartCode, Slot, State, WHOLE, shard_code};

fn knowledge(state: &State) -> Knowledge {
    if state.behind {
        Knowledge::Behind
    } else {
        Knowledge::Complete
    }
}

fn order_deletion(config: &Config, state: &mut State, garbage: &[Garbage]) {
    for object in garbage {
        let node = WORLD.number_of(object.node);
        state.nodes[node].orders |= 1 << place(config, slot_of(object.ballot));
    }
}

pub(super) fn open(
    config: &Config,
    state: &mut State,
    kind: OpenKind,
    parts: [PartCode; NODES],
) -> Option<()> {
    let row = WORLD.row(&state.row, &state.grants);
    let min_ack = match kind {
        OpenKind::Delete | OpenKind::Abort => 0,
        _ if parts.iter().any(|&part| part > WHOLE) => 4,
        _ => config.min_copies,
    };
    let mut granted = Granted {
        slot: 0,
        kind,
        base: state.row.accepted.as_ref().map_or(0, |accepted| accepted.0),
        parts,
        content: 0,
        min_ack,
    };
    let request = OpenRequest {
        kind,
        owner: String::new(),
        expect_epoch: None,
        nodes: WORLD.open_ballot(&granted).nodes,
        min_ack,
        generation: state.generation.into(),
        now: UnixMillis(0),
        // Leases only keep proposers from duelling; here they shall duel.
        lease_ms: 0,
        knowledge: knowledge(state),
    };
    let opened = master::open(WORLD.chunk, &row, &request).ok()?;
    granted.slot = slot_of(opened.ballot);
    granted.content = content(&state.row.accepted, kind, granted.slot);
    state.grants.push(granted);
    let index = u8::try_from(state.grants.len() - 1).ok()?;
    state.row = WORLD.lower(&opened.row, Some(index));
    debug_assert_eq!(
        WORLD.row(&state.row, &state.grants),
        opened.row,
        "a row survives its small form"
    );
    order_deletion(config, state, &opened.garbage);
    Some(())
}

/// Which bytes a proposer has. Who repairs or converts has the decided ones; the first two uploaders have the same (one
/// resumes the other), the next two others.
fn content(accepted: &Option<(Slot, Decided)>, kind: OpenKind, slot: Slot) -> u8 {
    match (accepted, kind) {
        (_, OpenKind::Delete | OpenKind::Abort) => 0,
        (Some((_, Decided::Placed { content, .. })), _) => *content,
        _ => slot.div_ceil(2).clamp(1, 2),
    }
}

/// What the catalogue knows of its nodes.
struct Nodes<'a> {
    config: &'a Config,
    state: &'a State,
    witnesses: &'a [Witness],
}

impl Registry for Nodes<'_> {
    fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        if self.config.is_broken(Broken::IncarnationIgnored) {
            let mut receipts = self.witnesses.iter().map(Witness::receipt);
            return receipts
                .find(|receipt| receipt.node == node)
                .map(|receipt| receipt.incarnation);
        }
        let number = WORLD.number_of(node);
        let small = u8::try_from(number).ok()?;
        Some(life_of(small, self.state.nodes[number].incarnation))
    }

    fn is_lost(&self, part: &Part) -> bool {
        let node = WORLD.number_of(part.node);
        !self.config.is_broken(Broken::LostPartsCarried)
            && is_lost(self.state, node, slot_of(part.object_ballot))
    }
}

/// The part was acknowledged by a disk that was replaced since.
pub(super) fn is_lost(state: &State, node: usize, slot: Slot) -> bool {
    let holder = &state.nodes[node];
    let receipts = holder.receipts[usize::from(slot)];
    receipts[usize::from(holder.incarnation)] == 0
}

/// COMMIT of a grant with the receipts of `nodes`.
pub(super) fn commit(
    config: &Config,
    state: &mut State,
    (grant, nodes): (usize, u8),
    carry: bool,
) -> Option<()> {
    let granted = state.grants[grant].clone();
    let decided = proposed(config, state, &granted, (nodes, carry))?;
    let witnesses: Vec<Witness> = (0..config.nodes)
        .filter(|node| nodes & (1 << node) != 0)
        .map(|node| {
            let small = u8::try_from(node).expect("there are few nodes");
            let receipts = state.nodes[node].receipts[usize::from(granted.slot)];
            let newest = usize::from(receipts[1] != 0);
            let life = u8::try_from(newest).expect("it is 0 or 1");
            WORLD.witness(small, life, granted.slot, receipts[newest])
        })
        .collect();
    let shown = shown_row(config, state, &granted)?;
    let registry = Nodes {
        config,
        state,
        witnesses: &witnesses,
    };
    let value = WORLD.value(&decided);
    let ballot = ballot_of(granted.slot);
    let result = master::commit(WORLD.chunk, &shown, ballot, &value, &witnesses, registry);
    let committed = match result {
        Err(Conflict::TooFewParts { .. }) if config.is_broken(Broken::ThreeShards) => {
            forced(&shown, &value, &granted)
        }
        other => other.ok()?,
    };
    if committed.replayed {
        return None;
    }
    watch(config, state, &granted, &decided);
    let promised = state.row.promised;
    state.row = WORLD.lower(&committed.row, None);
    state.row.promised = state.row.promised.max(promised);
    state.ghosts.forgotten = None;
    order_deletion(config, state, &committed.garbage);
    collect_plain(config, state, &granted);
    Some(())
}

/// The mutant that takes three shards for enough.
fn forced(row: &Row, value: &Value, granted: &Granted) -> Committed {
    let accepted = master::Accepted {
        ballot: ballot_of(granted.slot),
        value: value.clone(),
    };
    Committed {
        row: Row {
            promised: row.promised,
            accepted: Some(accepted.clone()),
            open: None,
        },
        accepted,
        replayed: false,
        garbage: Vec::new(),
        missing_parts: 0,
    }
}

/// After a plain client's chunk is decided, its objects of ballot 0 go.
fn collect_plain(config: &Config, state: &mut State, granted: &Granted) {
    if config.plain && granted.kind == OpenKind::Upload {
        for node in (0..config.nodes).filter(|&node| granted.parts[node] != 0) {
            state.nodes[node].orders |= 1;
        }
    }
}

/// The value that the proposer builds from these receipts; `None` when it would build none.
fn proposed(
    config: &Config,
    state: &State,
    granted: &Granted,
    (nodes, carry): (u8, bool),
) -> Option<Decided> {
    if granted.kind == OpenKind::Delete {
        return (nodes == 0 && !carry).then_some(Decided::Deleted);
    }
    let mut parts = [(0, 0); NODES];
    for node in (0..config.nodes).filter(|node| nodes & (1 << node) != 0) {
        if state.nodes[node].receipts[usize::from(granted.slot)] == [0; 2] {
            return None;
        }
        parts[node] = (granted.slot, granted.parts[node]);
    }
    let coded = granted.parts.iter().any(|&part| part > WHOLE);
    if carry {
        let (_, base) = state.row.accepted.as_ref()?;
        carry_over(config, state, base, coded, &mut parts)?;
    }
    let content = granted.content;
    Some(Decided::Placed {
        coded,
        content,
        parts,
    })
}

/// Takes over every part of the base that is not lost, on nodes that got no new one. `None` when that is none.
fn carry_over(
    config: &Config,
    state: &State,
    base: &Decided,
    coded: bool,
    parts: &mut [(Slot, PartCode); NODES],
) -> Option<()> {
    let Decided::Placed {
        coded: base_coded,
        parts: old,
        ..
    } = base
    else {
        return None;
    };
    if *base_coded != coded {
        return None;
    }
    let taken: Vec<PartCode> = parts
        .iter()
        .map(|part| part.1)
        .filter(|&part| part > WHOLE)
        .collect();
    let mut carried = false;
    for node in 0..config.nodes {
        let (slot, part) = old[node];
        let lost = is_lost(state, node, slot) && !config.is_broken(Broken::LostPartsCarried);
        if part != 0 && parts[node].1 == 0 && !lost && !taken.contains(&part) {
            parts[node] = (slot, part);
            carried = true;
        }
    }
    carried.then_some(())
}

/// The row that the core is shown: the real one, or the one that a catalogue without rule R1 would act upon.
fn shown_row(config: &Config, state: &State, granted: &Granted) -> Option<Row> {
    let row = WORLD.row(&state.row, &state.grants);
    let ballot = ballot_of(granted.slot);
    if !config.is_broken(Broken::CommitIgnoresBallot) || row.epoch() >= ballot {
        return Some(row);
    }
    // As if no newer ballot had been granted; the base must still be the decided epoch.
    let open = WORLD.open_ballot(granted);
    (open.base == row.epoch() && granted.kind != OpenKind::Abort).then_some(Row {
        promised: ballot,
        open: Some(open),
        accepted: row.accepted,
    })
}

/// What an observer sees of a COMMIT.
fn watch(config: &Config, state: &mut State, granted: &Granted, decided: &Decided) {
    let backwards = match &state.row.accepted {
        Some((_, Decided::Deleted)) => true,
        Some((epoch, _)) => *epoch >= granted.slot,
        None => false,
    };
    if backwards {
        state.flag(Flag::Backwards);
    }
    if let Decided::Placed {
        coded,
        content,
        parts,
    } = decided
    {
        state.ghosts.acked[usize::from(granted.slot)] = *content;
        let named = parts.iter().filter(|part| part.1 != 0).count();
        if named < if *coded { 4 } else { 2 } {
            state.flag(Flag::TooFew);
        }
        let unbacked = (0..config.nodes).any(|node| {
            let (slot, part) = parts[node];
            let gone = state.ghosts.gone_before_restore[node] & (1 << slot) != 0;
            let there = state.nodes[node].durable[place(config, slot)] == shard_code(*content, part);
            part != 0 && !there && !gone
        });
        if unbacked {
            state.flag(Flag::Unbacked);
        }
    } else {
        state.ghosts.deleted = true;
    }
}

/// A node reports one object; what is garbage gets its order.
pub(super) fn inventory(config: &Config, state: &mut State, node: usize, slot: Slot) -> Option<()> {
    let code = state.nodes[node].durable[usize::from(slot)];
    if code == 0 || state.nodes[node].orders & (1 << slot) != 0 {
        return None;
    }
    let row = WORLD.row(&state.row, &state.grants);
    let part = super::lift::part_of(code).1;
    // The most dangerous age: unknown objects are old, and plain ones young, unless a mutant says otherwise.
    let young = slot == 0 && !config.is_broken(Broken::PlainCollectedYoung);
    let now = UnixMillis(30 * 24 * 3_600_000);
    let reported = ReportedObject {
        object: Shape(part.0).object(WORLD.nodes[node], WORLD.chunk),
        ballot: ballot_of(slot),
        stored_at: if young { now } else { UnixMillis(0) },
    };
    let knowledge = match config.is_broken(Broken::UnknownCollected) {
        true => Knowledge::Complete,
        false => knowledge(state),
    };
    let fate = master::fate(WORLD.chunk, &row, WORLD.nodes[node], &reported, (now, knowledge));
    (fate == Fate::Garbage).then(|| state.nodes[node].orders |= 1 << slot)
}

pub(super) fn collect_open(config: &Config, state: &mut State, grant: usize) -> Option<()> {
    let granted = state.grants[grant].clone();
    for node in (0..config.nodes).filter(|&node| granted.parts[node] != 0) {
        state.nodes[node].orders |= 1 << place(config, granted.slot);
    }
    Some(())
}

pub(super) fn back_up(state: &mut State) -> Option<()> {
    let backup = Backup {
        row: state.row.clone(),
        generation: state.generation,
    };
    let changed = state.backup.is_none();
    state.backup = Some(backup);
    changed.then_some(())
}

/// The catalogue starts from its backup, under a new generation.
pub(super) fn restore(config: &Config, state: &mut State) -> Option<()> {
    let backup = state.backup.clone()?;
    state.restores += 1;
    let lost = state.row.accepted.clone();
    let row = WORLD.row(&backup.row, &state.grants);
    state.row = match config.is_broken(Broken::OpenSurvivesRestore) {
        true => backup.row,
        false => WORLD.lower(&master::restored(&row), None),
    };
    state.behind = true;
    let seen = state.nodes[..config.nodes]
        .iter()
        .map(|node| u64::from(node.generation));
    let next = master::next_generation(backup.generation.into(), seen);
    state.generation = match config.is_broken(Broken::GenerationRepeated) {
        true => backup.generation,
        false => u8::try_from(next).ok()?,
    };
    if state.generation > LIVES {
        return None;
    }
    if !config.is_broken(Broken::GenerationUnannounced) {
        for node in &mut state.nodes[..config.nodes] {
            node.generation = state.generation.max(node.generation);
        }
    }
    note_restore(config, state, lost);
    Some(())
}

/// What an observer notes: which named objects were deleted before, and which decision the catalogue lost.
fn note_restore(config: &Config, state: &mut State, lost: Option<(Slot, Decided)>) {
    let accepted = state.row.accepted.clone();
    for node in 0..config.nodes {
        let named = accepted.as_ref().and_then(|(_, value)| value.named(node));
        if let Some((slot, _)) = named {
            let ordered = state.nodes[node].orders & (1 << slot);
            state.ghosts.gone_before_restore[node] |= ordered;
        }
    }
    state.ghosts.deleted = matches!(accepted, Some((_, Decided::Deleted)));
    let before = state.ghosts.forgotten.take();
    let lost = lost.filter(|lost| Some(lost) != accepted.as_ref()).or(before);
    state.ghosts.forgotten = lost.filter(|(_, value)| *value != Decided::Deleted);
}

/// Every node was heard, and the newest decision that they show is learned.
pub(super) fn reconcile(state: &mut State) -> Option<()> {
    if !state.behind {
        return None;
    }
    state.behind = false;
    if let Some(found) = state.ghosts.forgotten.take() {
        let row = WORLD.row(&state.row, &state.grants);
        if let Some(learned) = master::learn(&row, &WORLD.accepted(&found)) {
            state.row = WORLD.lower(&learned, None);
        }
    }
    Some(())
}
