//! What each client does by itself: it arrives, pings, looks at its transfers, plays on, and leaves.

use vstack_client::policy::{AttemptId, Fact, Failure, Micros, NodeIndex, Policy};

use super::{Event, World};
use crate::scenario::seconds;

/// Pings of a client (base policy).
const PING_PERIOD: Micros = Micros::from_ms(3_000);
/// No byte for this long ends an attempt at a whole chunk (contracts, section 8).
const SILENCE_LIMIT: Micros = Micros::from_ms(2_000);
/// How often that is looked at.
const SILENCE_LOOK: Micros = Micros::from_ms(250);

impl World<'_> {
    pub(super) fn arrive(&mut self, client: usize) {
        self.ping(client);
        if matches!(self.viewers[client].policy, Policy::Seed(_)) {
            self.at(self.now + SILENCE_LOOK, Event::Silence { client });
        }
        self.facts.push_back((client, Fact::Tick));
    }

    pub(super) fn ping(&mut self, client: usize) {
        if self.viewers[client].is_over {
            return;
        }
        for node in 0..self.nodes.len() {
            let wobble = 1.0 + 0.1 * self.random.unit();
            let state = &self.nodes[node];
            let index = NodeIndex(u16::try_from(node).unwrap_or(0));
            let record = self.viewers[client].records.record_mut(index);
            if state.is_dead || state.is_stalled {
                record.ping_unanswered(self.now);
            } else {
                record.ping_answered(self.now, seconds(state.rtt * wobble));
            }
        }
        self.at(self.now + PING_PERIOD, Event::Ping { client });
    }

    pub(super) fn tick(&mut self, client: usize) {
        let mut progress = Vec::new();
        for (id, attempt) in &self.viewers[client].attempts {
            for (flow, node) in attempt.flows.iter().filter(|_| attempt.range.is_some()) {
                let node = &self.nodes[*node];
                if let Some(flow) = node.flows.get(flow).filter(|flow| flow.is_open) {
                    let bytes = flow.got_at(self.now, node.advanced_at);
                    progress.push((*id, seconds(bytes / 1e6).0));
                }
            }
        }
        for (attempt, bytes) in progress {
            self.facts.push_back((client, Fact::Progress { attempt, bytes }));
        }
        self.facts.push_back((client, Fact::Tick));
    }

    pub(super) fn play_on(&mut self, client: usize) {
        if let Some(jump) = self.viewers[client].jump(self.now) {
            self.facts.push_back((client, jump));
            self.facts.push_back((client, Fact::Starved(true)));
        } else {
            self.let_play(client);
        }
    }

    pub(super) fn let_play(&mut self, client: usize) {
        let viewer = &mut self.viewers[client];
        if viewer.is_over || !viewer.may_look(self.now) {
            return;
        }
        let (facts, next) = viewer.play(self.now);
        if let Some(at) = next {
            viewer.look_at = at;
            self.at(at, Event::Play { client });
        }
        for fact in facts {
            self.facts.push_back((client, fact));
        }
        if self.viewers[client].is_over {
            self.leave(client);
        }
    }

    pub(super) fn leave(&mut self, client: usize) {
        let attempts: Vec<AttemptId> = self.viewers[client].attempts.keys().copied().collect();
        for attempt in attempts {
            self.cancel(client, attempt);
        }
    }

    /// Whole chunks: a flow that brings nothing for 2 s has failed.
    pub(super) fn look_for_silence(&mut self, client: usize) {
        if self.viewers[client].is_over {
            return;
        }
        let mut silent = Vec::new();
        for (id, attempt) in &self.viewers[client].attempts {
            for (flow, node) in &attempt.flows {
                let state = &self.nodes[*node];
                let quiet = state.flows.get(flow).is_some_and(|flow| {
                    let since = flow.last_byte_at.max(flow.sent_at);
                    !flow.flows_now() && self.now - since >= SILENCE_LIMIT
                });
                if quiet {
                    silent.push((*id, *flow, *node));
                }
            }
        }
        for (id, flow, node) in silent {
            self.end_flow(node, flow, false);
            self.note_detection(client, node);
            if let Some(attempt) = self.viewers[client].attempts.get_mut(&id) {
                attempt.flows.retain(|(other, _)| *other != flow);
            }
            let after_ms = SILENCE_LIMIT.as_ms();
            self.part_failed(client, id, Failure::Silent { after_ms }, node);
        }
        self.at(self.now + SILENCE_LOOK, Event::Silence { client });
    }
}
