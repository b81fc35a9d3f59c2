//! The event loop: nodes, viewers and time.

mod sessions;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::sync::mpsc::channel;

use serde::Serialize;
use vstack_client::policy::{
    Action, AttemptId, BlockRange, Choice, Fact, Failure, Micros, NodeIndex, Piece, Start, rank,
};

use vstack_core::time::UnixMillis;

use crate::Random;
use crate::net::{Flow, Mark, Node, Request};
use crate::scenario::{Change, Scenario, seconds};
use crate::viewer::{Attempt, Outcome, Setup, Viewer};

const MANIFEST_READ: Micros = Micros::from_ms(50);
/// A node's bandwidth wanders once a second.
const NOISE_PERIOD: Micros = Micros::from_ms(1_000);
/// Of what the noise was, this much is left a second later.
const NOISE_MEMORY: f64 = 0.8;

/// One run, all clients of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    pub scenario: String,
    pub policy: String,
    pub seed: u64,
    pub outcomes: Vec<Outcome>,
    /// Seconds of virtual time.
    pub ended_sec: f64,
    pub sent_by_node: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Something happens at a node, by this plan.
    Node {
        node: usize,
        plan: u64,
    },
    Change {
        node: usize,
        place: usize,
    },
    Noise,
    Arrive {
        client: usize,
    },
    Wake {
        client: usize,
    },
    Play {
        client: usize,
    },
    Ping {
        client: usize,
    },
    Silence {
        client: usize,
    },
    ManifestRead {
        client: usize,
    },
    /// A connection that was refused, or was dropped.
    Refused {
        node: usize,
        flow: u64,
    },
}

struct World<'a> {
    scenario: &'a Scenario,
    /// See [`Setup::trusts`].
    trusts: bool,
    now: Micros,
    events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    event_count: u64,
    nodes: Vec<Node>,
    noise: Vec<f64>,
    viewers: Vec<Viewer>,
    next_flow: u64,
    /// Nodes whose bandwidth is to be shared anew.
    stirred: BTreeSet<usize>,
    facts: VecDeque<(usize, Fact)>,
    random: Random,
}

/// Plays `scenario` with `setup`. The seed decides chunk sizes, arrivals and noise, and is the same for every policy.
#[must_use]
pub fn run(scenario: &Scenario, setup: &Setup, seed: u64) -> Run {
    play_to_its_end(World::new(scenario, setup, seed), setup, seed)
}

/// The same, and the trace of the first viewer's policy; the run begins at this time of day.
#[must_use]
pub fn run_traced(scenario: &Scenario, setup: &Setup, seed: u64, zero_at: UnixMillis) -> (Run, Vec<String>) {
    let (lines, written) = channel();
    let mut world = World::new(scenario, setup, seed);
    if let Some(viewer) = world.viewers.first_mut() {
        // The lines are read below; nobody ends before.
        viewer.record(zero_at, move |line| drop(lines.send(line)));
    }
    let run = play_to_its_end(world, setup, seed);
    (run, written.into_iter().collect())
}

fn play_to_its_end(mut world: World<'_>, setup: &Setup, seed: u64) -> Run {
    let scenario = world.scenario;
    let limit = seconds(scenario.limit_sec);
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        if at > limit || world.viewers.iter().all(|viewer| viewer.is_over) {
            break;
        }
        world.now = at;
        world.happen(event);
        world.settle();
    }
    world.conclude(setup, seed)
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, setup: &Setup, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let arrival = |random: &mut Random| seconds(random.unit() * scenario.arrivals_sec);
        let viewers: Vec<Viewer> = (0..scenario.clients)
            .map(|client| Viewer::new(scenario, setup, seed, client, arrival(&mut random)))
            .collect();
        let node = |plan: &crate::NodePlan| Node::new(plan.mbps, plan.rtt_ms, setup.sharing);
        let mut world = Self {
            scenario,
            trusts: setup.trusts,
            now: Micros(0),
            events: BinaryHeap::new(),
            event_count: 0,
            nodes: scenario.nodes.iter().map(node).collect(),
            noise: vec![0.0; scenario.nodes.len()],
            viewers,
            next_flow: 0,
            stirred: BTreeSet::new(),
            facts: VecDeque::new(),
            random,
        };
        for (node, plan) in scenario.nodes.iter().enumerate() {
            for (place, (at, _)) in plan.changes.iter().enumerate() {
                world.at(seconds(*at), Event::Change { node, place });
            }
        }
        if scenario.noise > 0.0 {
            world.at(Micros(0), Event::Noise);
        }
        for client in 0..scenario.clients {
            let arrives_at = world.viewers[client].arrives_at;
            world.at(arrives_at, Event::Arrive { client });
        }
        world
    }

    fn at(&mut self, time: Micros, event: Event) {
        self.event_count += 1;
        self.events.push(Reverse((time, self.event_count, event)));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Node { node, plan } if self.nodes[node].plan == plan => self.flow(node),
            Event::Node { .. } => {}
            Event::Change { node, place } => self.change(node, place),
            Event::Noise => self.wander(),
            Event::Arrive { client } => self.arrive(client),
            Event::Wake { client } => {
                if self.viewers[client].wake_at.is_some_and(|at| at <= self.now) {
                    self.tick(client);
                }
            }
            Event::Play { client } => self.play_on(client),
            Event::Ping { client } => self.ping(client),
            Event::Silence { client } => self.look_for_silence(client),
            Event::ManifestRead { client } => self.facts.push_back((client, Fact::ManifestRead)),
            Event::Refused { node, flow } => self.refuse(node, flow),
        }
    }

    /// Facts to the policies until none is left, then new shares where something changed.
    fn settle(&mut self) {
        while let Some((client, fact)) = self.facts.pop_front() {
            self.tell(client, fact);
        }
        for node in std::mem::take(&mut self.stirred) {
            self.nodes[node].advance(self.now);
            if let Some(at) = self.nodes[node].share(self.now) {
                let plan = self.nodes[node].plan;
                self.at(at, Event::Node { node, plan });
            }
        }
    }

    fn tell(&mut self, client: usize, fact: Fact) {
        if self.viewers[client].is_over {
            return;
        }
        self.viewers[client].note(&fact);
        let actions = self.viewers[client].apply(self.now, fact);
        for action in actions {
            self.perform(client, action);
        }
        self.let_play(client);
        if let Some(at) = self.viewers[client].wake_at {
            self.at(at.max(self.now + Micros(1)), Event::Wake { client });
        }
    }

    fn perform(&mut self, client: usize, action: Action) {
        match action {
            Action::Start(start) => self.start(client, &start),
            Action::Cancel {
                attempt, node, why, ..
            } => {
                self.cancel(client, attempt);
                if why != vstack_client::policy::CancelReason::Overtaken {
                    self.note_detection(client, usize::from(node.0));
                }
            }
            Action::Finish { seq } => {
                self.viewers[client].finish(self.now, seq);
                self.facts
                    .push_back((client, Fact::Finished { seq, right: true }));
            }
            Action::ReadManifest => self.at(self.now + MANIFEST_READ, Event::ManifestRead { client }),
            Action::Keep { .. }
            | Action::Drop { .. }
            | Action::WakeAt(_)
            | Action::PrefixReady { .. }
            | Action::Blame { .. }
            | Action::Unobtainable { .. }
            | Action::Refill { .. } => {}
        }
    }

    /// The first thing that a policy does about the node that the fault hit.
    fn note_detection(&mut self, client: usize, node: usize) {
        let Some(fault_sec) = self.scenario.fault_sec else {
            return;
        };
        let hit = !self.scenario.nodes[node].changes.is_empty();
        let since = self.now.0 as f64 / 1e6 - fault_sec;
        let detect = &mut self.viewers[client].outcome.detect_sec;
        if hit && since >= 0.0 && detect.is_none() {
            *detect = Some(since);
        }
    }

    fn start(&mut self, client: usize, start: &Start) {
        let viewer = &mut self.viewers[client];
        viewer.outcome.requests += 1;
        let node = usize::from(start.node.0);
        let range = match start.piece {
            Piece::Chunk => None,
            Piece::Blocks(range) => Some(range),
        };
        let shape = &viewer.specs[start.seq as usize].shape;
        if let (Some(range), Some(_)) = (range, start.hedges) {
            viewer.outcome.hedged_bytes += shape.bytes_of(range);
        }
        let attempt = Attempt {
            seq: start.seq,
            range,
            started_at: self.now,
            flows: Vec::new(),
            asked: BTreeSet::new(),
            whole_parts: 0,
            is_right: true,
            done_bytes: 0,
        };
        let more = if range.is_none() { shape.needed - 1 } else { 0 };
        viewer.attempts.insert(start.attempt, attempt);
        self.begin_flow(client, start.attempt, node, start.slack);
        for _ in 0..more {
            self.begin_another(client, start.attempt);
        }
    }

    fn begin_flow(&mut self, client: usize, id: AttemptId, node: usize, slack: Micros) {
        let viewer = &mut self.viewers[client];
        let Some(attempt) = viewer.attempts.get_mut(&id) else {
            return;
        };
        let shape = &viewer.specs[attempt.seq as usize].shape;
        let flow = self.next_flow;
        self.next_flow += 1;
        attempt.flows.push((flow, node));
        attempt.asked.insert(node);
        let request = Request {
            client,
            attempt: id,
            node,
            range: attempt.range,
            bytes: attempt
                .range
                .map_or(shape.part_bytes, |range| shape.bytes_of(range)),
            slack,
        };
        self.nodes[node].begin(self.now, flow, request);
        self.stirred.insert(node);
        if self.nodes[node].is_dead {
            let at = self.now + self.nodes[node].round_trip();
            self.at(at, Event::Refused { node, flow });
        }
    }

    /// A whole shard from the best-scored node that was not asked for one yet. Whether there is one.
    fn begin_another(&mut self, client: usize, id: AttemptId) -> bool {
        let viewer = &self.viewers[client];
        let Some(attempt) = viewer.attempts.get(&id) else {
            return false;
        };
        let shape = &viewer.specs[attempt.seq as usize].shape;
        let others = shape
            .nodes()
            .filter(|node| !attempt.asked.contains(&usize::from(node.0)));
        let others: Vec<NodeIndex> = others.collect();
        let (idle, tried) = (Default::default(), Default::default());
        let ranked = rank::rank(
            Choice::Score,
            0,
            &others,
            &viewer.records,
            &idle,
            &tried,
            self.now,
        );
        let Some(next) = ranked.first().map(|candidate| usize::from(candidate.node.0)) else {
            return false;
        };
        self.begin_flow(client, id, next, Micros(0));
        true
    }

    fn cancel(&mut self, client: usize, id: AttemptId) {
        if let Some(attempt) = self.viewers[client].attempts.remove(&id) {
            for (flow, node) in attempt.flows {
                self.end_flow(node, flow, false);
            }
        }
    }

    fn end_flow(&mut self, node: usize, id: u64, whole: bool) -> Option<Flow> {
        let now = self.now;
        let flow = self.nodes[node].end(now, id, whole)?;
        let got = flow.got_at(now, now);
        let outcome = &mut self.viewers[flow.request.client].outcome;
        outcome.received_bytes += got;
        outcome.bytes_by_node[node] += got;
        self.stirred.insert(node);
        Some(flow)
    }

    /// What happens at a node: blocks and ends of its flows.
    fn flow(&mut self, node: usize) {
        self.nodes[node].advance(self.now);
        self.stirred.insert(node);
        let mut progress: BTreeSet<u64> = BTreeSet::new();
        for (id, mark) in self.nodes[node].marks(self.now) {
            let Some(flow) = self.nodes[node].flows.get(&id) else {
                continue;
            };
            let (request, bytes) = (flow.request, flow.got_at(self.now, self.now));
            let (client, attempt) = (request.client, request.attempt);
            if request.range.is_none() {
                if let Mark::Done { right } = mark {
                    self.end_flow(node, id, true);
                    self.part_done(client, attempt, node, id, right);
                }
                continue;
            }
            if mark != Mark::FirstByte && progress.insert(id) {
                let bytes = seconds(bytes / 1e6).0;
                self.facts.push_back((client, Fact::Progress { attempt, bytes }));
            }
            match mark {
                Mark::FirstByte => self.facts.push_back((client, Fact::FirstByte { attempt })),
                Mark::Block { block, right } if right || self.trusts => {
                    let viewer = &mut self.viewers[client];
                    if let Some(attempt) = viewer.attempts.get(&attempt) {
                        viewer.arrived(attempt.seq, block, node, right);
                    }
                    let blocks = BlockRange {
                        first: block,
                        end: block + 1,
                    };
                    // A block of an attempt that is over by now counts for nothing.
                    self.facts.push_back((client, Fact::Verified { attempt, blocks }));
                }
                Mark::Block { block, .. } => {
                    self.viewers[client].outcome.wrong_pieces_refused += 1;
                    self.facts.push_back((client, Fact::BadBlock { attempt, block }));
                    self.note_detection(client, node);
                }
                Mark::Done { .. } => {
                    self.end_flow(node, id, true);
                    self.range_done(client, attempt, request.bytes);
                }
            }
        }
    }

    fn range_done(&mut self, client: usize, id: AttemptId, bytes: u64) {
        if let Some(attempt) = self.viewers[client].attempts.get(&id) {
            let elapsed = self.now - attempt.started_at;
            let fact = Fact::Done {
                attempt: id,
                bytes,
                elapsed,
            };
            self.facts.push_back((client, fact));
        }
    }

    /// A whole copy or shard came.
    fn part_done(&mut self, client: usize, id: AttemptId, node: usize, flow: u64, right: bool) {
        let viewer = &mut self.viewers[client];
        let Some(attempt) = viewer.attempts.get_mut(&id) else {
            return;
        };
        attempt.flows.retain(|(other, _)| *other != flow);
        let shape = &viewer.specs[attempt.seq as usize].shape;
        if !right && !self.trusts {
            viewer.outcome.wrong_pieces_refused += 1;
            self.note_detection(client, node);
            self.part_failed(client, id, Failure::WrongBytes, node);
            return;
        }
        attempt.whole_parts += 1;
        attempt.is_right &= right;
        attempt.done_bytes = shape.part_bytes;
        if attempt.whole_parts >= shape.needed {
            let elapsed = self.now - attempt.started_at;
            let fact = Fact::Done {
                attempt: id,
                bytes: attempt.done_bytes,
                elapsed,
            };
            let (seq, is_right) = (attempt.seq, attempt.is_right);
            viewer.attempts.remove(&id);
            if !is_right {
                viewer.delivered_wrong(seq);
            }
            self.facts.push_back((client, fact));
        }
    }

    /// A copy or shard will not come: another shard, or the end of the attempt.
    fn part_failed(&mut self, client: usize, id: AttemptId, failure: Failure, node: usize) {
        let viewer = &mut self.viewers[client];
        let Some(attempt) = viewer.attempts.get(&id) else {
            return;
        };
        let coded = viewer.specs[attempt.seq as usize].shape.needed > 1;
        if coded && attempt.range.is_none() {
            let index = NodeIndex(u16::try_from(node).unwrap_or(0));
            viewer.records.record_mut(index).failed(self.now, &failure);
            if self.begin_another(client, id) {
                return;
            }
        }
        self.cancel(client, id);
        self.facts
            .push_back((client, Fact::Failed { attempt: id, failure }));
    }

    fn refuse(&mut self, node: usize, id: u64) {
        if !self.nodes[node].is_dead {
            return;
        }
        let Some(flow) = self.end_flow(node, id, false) else {
            return;
        };
        let request = flow.request;
        self.note_detection(request.client, node);
        let failure = if flow.is_open {
            Failure::Broken {
                received_bytes: seconds(flow.got_at(self.now, self.now) / 1e6).0,
            }
        } else {
            Failure::Connect
        };
        if let Some(attempt) = self.viewers[request.client].attempts.get_mut(&request.attempt) {
            attempt.flows.retain(|(other, _)| *other != id);
            self.part_failed(request.client, request.attempt, failure, node);
        }
    }

    fn change(&mut self, node: usize, place: usize) {
        self.nodes[node].advance(self.now);
        let (_, change) = self.scenario.nodes[node].changes[place];
        self.nodes[node].change(change);
        self.stirred.insert(node);
        if change == Change::Dead(true) {
            let dropped: Vec<u64> = self.nodes[node].flows.keys().copied().collect();
            let at = self.now + self.nodes[node].round_trip();
            for flow in dropped {
                self.at(at, Event::Refused { node, flow });
            }
        }
    }

    fn wander(&mut self) {
        for node in 0..self.nodes.len() {
            let step =
                (1.0 - NOISE_MEMORY * NOISE_MEMORY).sqrt() * self.scenario.noise * self.random.normal();
            self.noise[node] = NOISE_MEMORY * self.noise[node] + step;
            self.nodes[node].advance(self.now);
            self.nodes[node].set_noise(self.noise[node].exp().clamp(0.1, 3.0));
            self.stirred.insert(node);
        }
        self.at(self.now + NOISE_PERIOD, Event::Noise);
    }

    fn conclude(mut self, setup: &Setup, seed: u64) -> Run {
        for client in 0..self.viewers.len() {
            self.leave(client);
        }
        Run {
            scenario: self.scenario.id.to_owned(),
            policy: setup.name.clone(),
            seed,
            ended_sec: self.now.0 as f64 / 1e6,
            sent_by_node: self.nodes.iter().map(|node| node.sent_bytes).collect(),
            outcomes: self
                .viewers
                .into_iter()
                .map(|viewer| viewer.conclude(self.now))
                .collect(),
        }
    }
}
