//! The model of ChunkPaxos: every state that a small cluster can come to, visited one by one.
//!
//! A specification in Lamport's style: proposers have no state, every ballot is one proposer's life, messages are facts
//! that stay true. What a step does is decided by `vstack_core::paxos` itself (see `catalogue_steps`, `node_steps`), so
//! that model and code cannot diverge; this module says only which steps there are and what must hold.
//!
//! Not in the model: time (leases are over at once), what a proposer decides to send (it may send anything that its
//! facts allow), more than one chunk (chunks never meet), liveness.

mod catalogue_steps;
mod config;
mod invariants;
mod lift;
mod node_steps;
mod runs;
pub mod state;
mod table;
mod tell;

use stateright::{Model, Property};
use vstack_core::paxos::OpenKind;

pub use self::config::{Broken, Config};
pub use self::runs::{Outcome, Run, Size, check, check_depth_first};
use self::state::{Decided, FIRST_SHARD, NODES, PartCode, SLOTS, Slot, WHOLE, shard_code};
pub use self::state::{State, Step};
pub use self::table::{configurations, find, mutants};

impl Model for Config {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::first()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.catalogue_steps(state, steps);
        for grant in 0..state.grants.len() {
            self.proposer_steps(state, grant, steps);
        }
        for node in 0..self.nodes {
            self.node_steps(state, node, steps);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        self.take(&mut state, step)?;
        if self.symmetry {
            self.canonical(&mut state);
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = invariants::always();
        properties.extend(invariants::reachable(self));
        properties
    }
}

impl Config {
    fn catalogue_steps(&self, state: &State, steps: &mut Vec<Step>) {
        if state.grants.len() < self.ballots {
            for &kind in &self.kinds {
                self.openings(state, kind, steps);
            }
        }
        if state.restores < self.restores {
            steps.extend([Step::Backup, Step::Restore]);
        }
        if state.behind {
            steps.push(Step::Reconcile);
        }
    }

    /// Every choice of nodes that an OPEN of this kind could make.
    fn openings(&self, state: &State, kind: OpenKind, steps: &mut Vec<Step>) {
        let placed = match &state.row.accepted {
            Some((_, Decided::Placed { coded, .. })) => Some(*coded),
            _ => None,
        };
        let mut push = |parts| steps.push(Step::Open { kind, parts });
        match (kind, placed) {
            (OpenKind::Delete, Some(_)) => push([0; NODES]),
            (OpenKind::Abort, _) if state.row.open.is_some() => push([0; NODES]),
            (OpenKind::Upload, None) | (OpenKind::Repair, Some(false)) | (OpenKind::Convert, Some(true)) => {
                self.sets(self.copies).for_each(|set| push(copies(set)));
            }
            (OpenKind::Convert, Some(false)) => self.sets(self.shards).for_each(|set| push(shards(set))),
            (OpenKind::Repair, Some(true)) => {
                for node in 0..self.nodes {
                    for shard in 0..5 {
                        let mut parts = [0; NODES];
                        parts[node] = FIRST_SHARD + shard;
                        push(parts);
                    }
                }
            }
            _ => {}
        }
    }

    /// All sets of so many nodes, as masks.
    fn sets(&self, size: u32) -> impl Iterator<Item = u8> + use<> {
        (0..1u8 << self.nodes).filter(move |mask| mask.count_ones() == size)
    }

    fn proposer_steps(&self, state: &State, grant: usize, steps: &mut Vec<Step>) {
        let granted = &state.grants[grant];
        let index = small(grant);
        for node in (0..self.nodes).filter(|&node| granted.parts[node] != 0) {
            let to = small(node);
            let code = shard_code(granted.content, granted.parts[node]);
            steps.push(Step::Accept {
                node: to,
                grant: index,
            });
            let held = &state.nodes[node].durable;
            let sources = (0..SLOTS).filter(|&from| held[from] == code && from != usize::from(granted.slot));
            steps.extend(sources.map(|from| Step::Adopt {
                node: to,
                grant: index,
                from: small(from),
            }));
            if self.prepare {
                steps.push(Step::Prepare {
                    node: to,
                    grant: index,
                });
            }
            if !self.atomic_writes {
                steps.push(Step::Receipt {
                    node: to,
                    grant: index,
                });
            }
        }
        self.commits(state, grant, steps);
        if self.is_broken(Broken::CollectWithoutFence) && granted.kind != OpenKind::Abort {
            steps.push(Step::CollectOpen { grant: index });
        }
    }

    /// COMMIT with every set of the receipts that exist.
    fn commits(&self, state: &State, grant: usize, steps: &mut Vec<Step>) {
        let granted = &state.grants[grant];
        let index = small(grant);
        match granted.kind {
            OpenKind::Abort => return,
            OpenKind::Delete => {
                return steps.push(Step::Commit {
                    grant: index,
                    nodes: 0,
                    carry: false,
                });
            }
            OpenKind::Upload | OpenKind::Repair | OpenKind::Convert => {}
        }
        let slot = usize::from(granted.slot);
        let given = |node: &usize| granted.parts[*node] != 0 && state.nodes[*node].receipts[slot] != [0; 2];
        let all: u8 = (0..self.nodes).filter(given).map(|node| 1 << node).sum();
        let mut nodes = all;
        while nodes != 0 {
            steps.push(Step::Commit {
                grant: index,
                nodes,
                carry: false,
            });
            if granted.kind == OpenKind::Repair {
                steps.push(Step::Commit {
                    grant: index,
                    nodes,
                    carry: true,
                });
            }
            nodes = (nodes - 1) & all;
        }
    }

    fn node_steps(&self, state: &State, node: usize, steps: &mut Vec<Step>) {
        let at = &state.nodes[node];
        let node = small(node);
        for slot in 0..SLOTS {
            let slot_number = small(slot);
            if at.volatile[slot] != 0 {
                steps.push(Step::Sync {
                    node,
                    slot: slot_number,
                });
            }
            if at.orders & (1 << slot) != 0 {
                steps.push(Step::Delete {
                    node,
                    slot: slot_number,
                });
            }
            if self.inventory && at.durable[slot] != 0 {
                steps.push(Step::Inventory {
                    node,
                    slot: slot_number,
                });
            }
        }
        if self.plain {
            steps.extend([Step::PlainPut { node }, Step::PlainDelete { node }]);
        }
        let forgets = at.fence > 0 || at.volatile.iter().any(|code| *code != 0);
        if state.crashes < self.crashes && forgets {
            steps.push(Step::Crash { node });
        }
        if state.losses < self.losses && at.durable.iter().any(|code| *code != 0) {
            steps.push(Step::LoseDisk { node });
        }
    }

    /// Takes the step; `None` when it is refused or changes nothing.
    fn take(&self, state: &mut State, step: Step) -> Option<()> {
        let wide = usize::from;
        match step {
            Step::Open { kind, parts } => catalogue_steps::open(self, state, kind, parts),
            Step::Prepare { node, grant } => node_steps::prepare(state, wide(node), wide(grant)),
            Step::Accept { node, grant } => node_steps::accept(self, state, wide(node), wide(grant)),
            Step::Adopt { node, grant, from } => {
                node_steps::adopt(self, state, (wide(node), wide(grant)), from)
            }
            Step::Sync { node, slot } => node_steps::sync(state, wide(node), slot),
            Step::Receipt { node, grant } => node_steps::receipt(self, state, wide(node), wide(grant)),
            Step::Commit { grant, nodes, carry } => {
                catalogue_steps::commit(self, state, (wide(grant), nodes), carry)
            }
            Step::Delete { node, slot } => node_steps::delete(self, state, wide(node), slot),
            Step::Inventory { node, slot } => catalogue_steps::inventory(self, state, wide(node), slot),
            Step::PlainPut { node } => node_steps::plain_put(self, state, wide(node)),
            Step::PlainDelete { node } => node_steps::plain_delete(self, state, wide(node)),
            Step::Crash { node } => node_steps::crash(self, state, wide(node)),
            Step::LoseDisk { node } => node_steps::lose_disk(state, wide(node)),
            Step::Backup => catalogue_steps::back_up(state),
            Step::Restore => catalogue_steps::restore(self, state),
            Step::Reconcile => catalogue_steps::reconcile(state),
            Step::CollectOpen { grant } => catalogue_steps::collect_open(self, state, wide(grant)),
        }
    }

    /// One state stands for all that differ only by the names of their nodes: the nodes are sorted by all that any
    /// part of the state says of them.
    fn canonical(&self, state: &mut State) {
        let column = |node: usize| {
            let granted: Vec<PartCode> = state.grants.iter().map(|grant| grant.parts[node]).collect();
            let named = |value: Option<&(Slot, Decided)>| value.and_then(|(_, value)| value.named(node));
            let backup = state
                .backup
                .as_ref()
                .and_then(|backup| backup.row.accepted.as_ref());
            let values = (
                named(state.row.accepted.as_ref()),
                named(backup),
                named(state.ghosts.forgotten.as_ref()),
            );
            (
                granted,
                values,
                state.ghosts.gone_before_restore[node],
                state.nodes[node].clone(),
            )
        };
        let mut columns: Vec<_> = (0..self.nodes).map(|node| (column(node), node)).collect();
        columns.sort();
        let order: Vec<usize> = columns.into_iter().map(|(_, node)| node).collect();
        if order.iter().enumerate().any(|(to, from)| to != *from) {
            state.renumber(&order);
        }
    }
}

impl State {
    /// Gives every node the place that `order` says.
    fn renumber(&mut self, order: &[usize]) {
        let before = self.clone();
        let move_parts = |parts: &mut [PartCode; NODES]| {
            let old = *parts;
            order
                .iter()
                .enumerate()
                .for_each(|(to, from)| parts[to] = old[*from]);
        };
        self.grants
            .iter_mut()
            .for_each(|grant| move_parts(&mut grant.parts));
        let move_value = |value: &mut Option<(Slot, Decided)>| {
            if let Some((_, Decided::Placed { parts, .. })) = value {
                let old = *parts;
                order
                    .iter()
                    .enumerate()
                    .for_each(|(to, from)| parts[to] = old[*from]);
            }
        };
        move_value(&mut self.row.accepted);
        move_value(&mut self.ghosts.forgotten);
        if let Some(backup) = &mut self.backup {
            move_value(&mut backup.row.accepted);
        }
        for (to, from) in order.iter().enumerate() {
            self.nodes[to] = before.nodes[*from].clone();
            self.ghosts.gone_before_restore[to] = before.ghosts.gone_before_restore[*from];
        }
    }
}

/// Full copies on the nodes of a mask.
fn copies(set: u8) -> [PartCode; NODES] {
    std::array::from_fn(|node| if set & (1 << node) != 0 { WHOLE } else { 0 })
}

/// Shards on the nodes of a mask, in their order.
fn shards(set: u8) -> [PartCode; NODES] {
    let mut next = FIRST_SHARD;
    std::array::from_fn(|node| {
        let part = if set & (1 << node) != 0 { next } else { 0 };
        next += u8::from(part != 0);
        part
    })
}

/// Numbers of nodes, slots and grants are below 20.
fn small(number: usize) -> u8 {
    u8::try_from(number).expect("nodes, slots and grants are few")
}

#[cfg(test)]
mod tests;
