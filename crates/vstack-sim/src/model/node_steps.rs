//! What a storage node does with a message: the core's acceptor decides, the node's disk follows.

use vstack_core::digest::{ChunkDigest, Sha256Digest};
use vstack_core::id::NodeId;
use vstack_core::keys::Mac;
use vstack_core::paxos::DeleteOrder;
use vstack_core::paxos::acceptor::{self, Fence, Object, Removal, Verdict};

use super::config::{Broken, Config};
use super::lift::{WORLD, ballot_of};
use super::state::{Code, Flag, NodeState, SLOTS, Slot, State, shard_code};

/// Where the bytes of a ballot lie.
pub(super) fn place(config: &Config, slot: Slot) -> usize {
    if config.in_place() { 1 } else { usize::from(slot) }
}

/// What the node holds under a name, synced or not.
fn held(node: &NodeState, place: usize) -> Code {
    if node.volatile[place] == 0 {
        node.durable[place]
    } else {
        node.volatile[place]
    }
}

fn stored(code: Code) -> Option<ChunkDigest> {
    (code != 0).then(|| WORLD.digest(code))
}

fn object(config: &Config, node: &NodeState, place: usize) -> Object {
    let deleted = node.tombs & (1 << place) != 0 && !config.is_broken(Broken::TombstoneForgotten);
    match stored(held(node, place)) {
        Some(digest) => Object::Stored(digest),
        None if deleted => Object::Deleted,
        None => Object::Absent,
    }
}

/// Highest slot that holds something, as the store tells the fence.
fn highest(node: &NodeState) -> Slot {
    let found = (0..SLOTS).rev().find(|&place| held(node, place) != 0);
    found.and_then(|slot| u8::try_from(slot).ok()).unwrap_or(0)
}

/// Lets a grant pass the node's fence.
fn admit(config: &Config, state: &mut State, node: usize, grant: usize) -> Option<()> {
    let granted = &state.grants[grant];
    if granted.parts[node] == 0 {
        return None;
    }
    let lifted = WORLD.grant(granted);
    let target = lifted.target_on(WORLD.nodes[node])?;
    let object = target.object(WORLD.chunk);
    let generation = u8::try_from(lifted.ballot.generation()).ok()?;
    if config.node_fence && !config.in_place() {
        let mut fence = WORLD.fence(node, state.nodes[node].fence);
        let highest = ballot_of(highest(&state.nodes[node]));
        fence.admit(&lifted, object, WORLD.nodes[node], highest).ok()?;
        state.nodes[node].fence = WORLD.lower_fence(&fence);
    } else if config.is_broken(Broken::InPlaceDurableFence) {
        let fence = &mut state.nodes[node].fence;
        if 2 * granted.slot < *fence {
            return None;
        }
        *fence = 2 * granted.slot;
    }
    let seen = &mut state.nodes[node].generation;
    *seen = generation.max(*seen);
    Some(())
}

pub(super) fn prepare(state: &mut State, node: usize, grant: usize) -> Option<()> {
    let lifted = WORLD.grant(&state.grants[grant]);
    let mut fence: Fence = WORLD.fence(node, state.nodes[node].fence);
    fence.prepare(&lifted, WORLD.nodes[node], Vec::new()).ok()?;
    state.nodes[node].fence = WORLD.lower_fence(&fence);
    Some(())
}

pub(super) fn accept(config: &Config, state: &mut State, node: usize, grant: usize) -> Option<()> {
    admit(config, state, node, grant)?;
    let granted = &state.grants[grant];
    let (place, code) = (
        place(config, granted.slot),
        shard_code(granted.content, granted.parts[node]),
    );
    if config.in_place() {
        let unchanged = held(&state.nodes[node], place) == code;
        return if unchanged {
            None
        } else {
            write(config, state, (node, grant), place, code)
        };
    }
    let object = object(config, &state.nodes[node], place);
    match acceptor::accept(object, &WORLD.digest(code)).ok()? {
        Verdict::Write => write(config, state, (node, grant), place, code),
        Verdict::Resend(_) => None,
    }
}

pub(super) fn adopt(
    config: &Config,
    state: &mut State,
    (node, grant): (usize, usize),
    from: Slot,
) -> Option<()> {
    if config.in_place() {
        return None;
    }
    admit(config, state, node, grant)?;
    let granted = &state.grants[grant];
    let (place, code) = (
        usize::from(granted.slot),
        shard_code(granted.content, granted.parts[node]),
    );
    // What is not synced cannot be adopted.
    let source = state.nodes[node].durable[usize::from(from)];
    let source = stored(source).map_or(Object::Absent, Object::Stored);
    let target = object(config, &state.nodes[node], place);
    let wanted = Some(WORLD.digest(code).sha256);
    match acceptor::adopt(source, wanted, target).ok()? {
        (_, Verdict::Write) => write(config, state, (node, grant), place, code),
        (_, Verdict::Resend(_)) => None,
    }
}

fn write(
    config: &Config,
    state: &mut State,
    (node, grant): (usize, usize),
    place: usize,
    code: Code,
) -> Option<()> {
    let to = &mut state.nodes[node];
    let reused = to.tombs & (1 << place) != 0 || (held(to, place) != 0 && held(to, place) != code);
    if config.atomic_writes {
        to.durable[place] = code;
        receipt(config, state, node, grant)?;
    } else {
        to.volatile[place] = code;
    }
    // Overwriting in place is that mutant's very nature; its harm shall show elsewhere.
    if reused && !config.in_place() {
        state.flag(Flag::Reused);
    }
    Some(())
}

/// R4: the receipt exists once the bytes are durable.
pub(super) fn receipt(config: &Config, state: &mut State, node: usize, grant: usize) -> Option<()> {
    let granted = &state.grants[grant];
    let code = shard_code(granted.content, granted.parts[node]);
    let is_there = |place: usize| {
        let holder = &state.nodes[node];
        let early = config.is_broken(Broken::ReceiptBeforeSync) && holder.volatile[place] == code;
        code != 0 && (holder.durable[place] == code || early)
    };
    let elsewhere = config.is_broken(Broken::AdoptWithoutNewName) && (0..SLOTS).any(is_there);
    if !is_there(place(config, granted.slot)) && !elsewhere {
        return None;
    }
    let slot = usize::from(granted.slot);
    let life = usize::from(state.nodes[node].incarnation);
    state.nodes[node].receipts[slot][life] = code;
    Some(())
}

pub(super) fn sync(state: &mut State, node: usize, slot: Slot) -> Option<()> {
    let node = &mut state.nodes[node];
    let written = std::mem::take(&mut node.volatile[usize::from(slot)]);
    if written == 0 {
        return None;
    }
    node.durable[usize::from(slot)] = written;
    Some(())
}

/// DELETE_OBJ.
pub(super) fn delete(config: &Config, state: &mut State, node: usize, slot: Slot) -> Option<()> {
    let to = &state.nodes[node];
    let place = usize::from(slot);
    if to.orders & (1 << place) == 0 {
        return None;
    }
    let order = order(WORLD.nodes[node], slot);
    let mut fence = WORLD.fence(node, to.fence);
    let removal = fence
        .remove(&order, WORLD.nodes[node], object(config, to, place))
        .expect("the order is for this node");
    let fenced = WORLD.lower_fence(&fence);
    let to = &mut state.nodes[node];
    if config.node_fence && !config.in_place() {
        to.fence = fenced;
    }
    if removal == Removal::Tombstone {
        entomb(config, to, place);
    }
    Some(())
}

fn entomb(config: &Config, node: &mut NodeState, place: usize) {
    let lowest = if config.is_broken(Broken::TombstoneSpansBallots) {
        0
    } else {
        place
    };
    for gone in lowest..=place {
        (node.durable[gone], node.volatile[gone]) = (0, 0);
    }
    if !config.in_place() {
        node.tombs |= 1 << place;
    }
}

fn order(node: NodeId, slot: Slot) -> DeleteOrder {
    DeleteOrder {
        chunk_id: WORLD.chunk,
        ballot: ballot_of(slot),
        node,
        mac: Mac(Sha256Digest([0; 32])),
    }
}

/// A plain client's bytes, durable before the answer.
pub(super) fn plain_put(config: &Config, state: &mut State, node: usize) -> Option<()> {
    let to = &state.nodes[node];
    let highest = stored(held(to, usize::from(highest(to))));
    let verdict = acceptor::accept_plain(object(config, to, 0), highest.as_ref(), &WORLD.digest(1)).ok()?;
    if verdict != Verdict::Write {
        return None;
    }
    let reused = to.tombs & 1 != 0;
    let to = &mut state.nodes[node];
    (to.durable[0], to.plain_acked) = (1, true);
    if reused {
        state.flag(Flag::Reused);
    }
    Some(())
}

pub(super) fn plain_delete(config: &Config, state: &mut State, node: usize) -> Option<()> {
    let to = &mut state.nodes[node];
    let higher_stored = (1..SLOTS).any(|place| held(to, place) != 0);
    let removal = acceptor::remove_plain(object(config, to, 0), higher_stored);
    if config.is_broken(Broken::PlainDeleteReachesBallots) && higher_stored {
        let place = usize::from(highest(to));
        entomb(config, to, place);
        return Some(());
    }
    if removal.ok()? == Removal::Tombstone {
        entomb(config, to, 0);
    }
    // The client took its word back.
    to.plain_acked = false;
    Some(())
}

pub(super) fn crash(config: &Config, state: &mut State, node: usize) -> Option<()> {
    state.crashes += 1;
    let node = &mut state.nodes[node];
    node.volatile = [0; SLOTS];
    if !config.is_broken(Broken::InPlaceDurableFence) {
        node.fence = 0;
    }
    Some(())
}

/// The node comes back with an empty disk, and the catalogue is told its new incarnation.
pub(super) fn lose_disk(state: &mut State, node: usize) -> Option<()> {
    state.losses += 1;
    let node = &mut state.nodes[node];
    *node = NodeState {
        incarnation: node.incarnation + 1,
        receipts: node.receipts,
        orders: node.orders,
        ..NodeState::default()
    };
    Some(())
}
