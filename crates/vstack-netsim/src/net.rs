//! The fluid: nodes, connections, and the answers that flow through them.
//!
//! A node's bandwidth is filled like a basin: each flow gets its weighted share, flows that slow start holds back leave
//! theirs to the others. A connection's window doubles each round trip while it is what holds the flow back.

use std::collections::BTreeMap;

use vstack_api::slack::Weights;
use vstack_client::policy::{AttemptId, BLOCK_BYTES, BlockRange, Micros};

use crate::scenario::{Change, seconds};

/// Ten segments (RFC 6928).
pub(crate) const INITIAL_WINDOW_BYTES: f64 = 14_600.0;
/// The shortest path: loopback.
const SHORTEST_RTT_SEC: f64 = 0.000_5;
/// Rounding of times to microseconds may leave this much of a block.
const NEARLY_BYTES: f64 = 0.5;

/// How a node shares its bandwidth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sharing {
    /// Evenly, whatever the requests say: as the kernel does it, or nginx.
    Even,
    /// By the slack that requests tell and by what is left of the answers, as our nodes do it behind a limit.
    ByNeed(Weights),
}

/// Whoever waits gets at least this: 256 bytes every 350 ms (`vstack-server`, egress).
const SIGN_BYTES_PER_SEC: f64 = 256.0 / 0.35;

impl Sharing {
    fn weight(self, now: Micros, flow: &Flow) -> f64 {
        let Self::ByNeed(weights) = self else {
            return 1.0;
        };
        let slack = flow.request.slack - (now - flow.sent_at);
        let left_bytes = flow.request.bytes.saturating_sub(seconds(flow.got / 1e6).0);
        f64::from(weights.of(Some(slack.as_ms()))) * weights.factor(flow.request.bytes, left_bytes)
    }
}

/// Who asked, and for what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Request {
    pub(crate) client: usize,
    pub(crate) attempt: AttemptId,
    pub(crate) node: usize,
    /// `None`: the whole part in one piece.
    pub(crate) range: Option<BlockRange>,
    pub(crate) bytes: u64,
    pub(crate) slack: Micros,
}

#[derive(Debug, Clone)]
pub(crate) struct Flow {
    pub(crate) request: Request,
    connection: usize,
    opens_at: Micros,
    pub(crate) is_open: bool,
    got: f64,
    rate: f64,
    window: f64,
    grows_at: Micros,
    /// Blocks that were told of.
    pub(crate) told: u32,
    pub(crate) last_byte_at: Micros,
    pub(crate) sent_at: Micros,
    /// Some of its bytes are wrong.
    pub(crate) is_corrupt: bool,
}

impl Flow {
    pub(crate) fn got_at(&self, now: Micros, advanced_at: Micros) -> f64 {
        let more = self.rate * (now - advanced_at).0 as f64 / 1e6;
        (self.got + more).min(self.request.bytes as f64)
    }

    pub(crate) const fn flows_now(&self) -> bool {
        self.rate > 0.0
    }

    /// Bytes at which there is something to tell: a whole block, or the end.
    fn next_mark(&self) -> f64 {
        let all = self.request.bytes as f64;
        match self.request.range {
            None => all,
            Some(_) => (f64::from(self.told + 1) * BLOCK_BYTES as f64).min(all),
        }
    }
}

#[derive(Debug, Clone)]
struct Connection {
    window: f64,
    is_warm: bool,
    is_busy: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    bytes_per_sec: f64,
    noise: f64,
    pub(crate) rtt: f64,
    pub(crate) is_stalled: bool,
    pub(crate) is_dead: bool,
    pub(crate) is_corrupt: bool,
    pub(crate) flows: BTreeMap<u64, Flow>,
    /// For each client.
    connections: BTreeMap<usize, Vec<Connection>>,
    pub(crate) advanced_at: Micros,
    pub(crate) sent_bytes: f64,
    /// Counts its plans, so that an event of an older plan is known.
    pub(crate) plan: u64,
    sharing: Sharing,
}

/// What became of a flow at an event of its node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mark {
    FirstByte,
    Block { block: u32, right: bool },
    Done { right: bool },
}

impl Node {
    pub(crate) const fn new(mbps: f64, rtt_ms: f64, sharing: Sharing) -> Self {
        Self {
            bytes_per_sec: mbps * 125_000.0,
            noise: 1.0,
            rtt: (rtt_ms / 1_000.0).max(SHORTEST_RTT_SEC),
            is_stalled: false,
            is_dead: false,
            is_corrupt: false,
            flows: BTreeMap::new(),
            connections: BTreeMap::new(),
            advanced_at: Micros(0),
            sent_bytes: 0.0,
            plan: 0,
            sharing,
        }
    }

    pub(crate) const fn change(&mut self, change: Change) {
        match change {
            Change::Bandwidth(mbps) => self.bytes_per_sec = mbps * 125_000.0,
            Change::Stalled(stalled) => self.is_stalled = stalled,
            Change::Dead(dead) => self.is_dead = dead,
            Change::Corrupt(corrupt) => self.is_corrupt = corrupt,
        }
    }

    pub(crate) const fn set_noise(&mut self, noise: f64) {
        self.noise = noise;
    }

    pub(crate) fn round_trip(&self) -> Micros {
        seconds(self.rtt)
    }

    pub(crate) fn begin(&mut self, now: Micros, id: u64, request: Request) {
        let pool = self.connections.entry(request.client).or_default();
        let found = (0..pool.len()).find(|index| !pool[*index].is_busy);
        let connection = found.unwrap_or(pool.len());
        if connection == pool.len() {
            pool.push(Connection {
                window: INITIAL_WINDOW_BYTES,
                is_warm: false,
                is_busy: false,
            });
        }
        let taken = &mut pool[connection];
        taken.is_busy = true;
        let setup = if taken.is_warm { self.rtt } else { 2.0 * self.rtt };
        let opens_at = now + seconds(setup);
        let flow = Flow {
            request,
            connection,
            opens_at,
            is_open: false,
            got: 0.0,
            rate: 0.0,
            window: taken.window,
            grows_at: opens_at + seconds(self.rtt),
            told: 0,
            last_byte_at: now,
            sent_at: now,
            is_corrupt: false,
        };
        self.flows.insert(id, flow);
    }

    /// A flow ends. Its connection lives on after a whole answer, else the next one is new.
    pub(crate) fn end(&mut self, now: Micros, id: u64, whole: bool) -> Option<Flow> {
        let mut flow = self.flows.remove(&id)?;
        flow.got = flow.got_at(now, self.advanced_at);
        self.sent_bytes += flow.got;
        let pool = self.connections.get_mut(&flow.request.client);
        if let Some(connection) = pool.and_then(|pool| pool.get_mut(flow.connection)) {
            connection.is_busy = false;
            connection.is_warm = whole;
            connection.window = if whole { flow.window } else { INITIAL_WINDOW_BYTES };
        }
        Some(flow)
    }

    /// Moves the fluid to `now`.
    pub(crate) fn advance(&mut self, now: Micros) {
        let (before, corrupt) = (self.advanced_at, self.is_corrupt);
        for flow in self.flows.values_mut().filter(|flow| flow.rate > 0.0) {
            flow.got = flow.got_at(now, before);
            flow.last_byte_at = now;
            flow.is_corrupt |= corrupt;
        }
        self.advanced_at = now;
    }

    /// What there is to tell at this time, in the order of the flows.
    pub(crate) fn marks(&mut self, now: Micros) -> Vec<(u64, Mark)> {
        let mut marks = Vec::new();
        let (rtt, silent, corrupt) = (self.rtt, self.is_stalled || self.is_dead, self.is_corrupt);
        for (id, flow) in self.flows.iter_mut().filter(|_| !silent) {
            if !flow.is_open && flow.opens_at <= now {
                flow.is_open = true;
                flow.last_byte_at = now;
                marks.push((*id, Mark::FirstByte));
            }
            while flow.is_open && flow.got + NEARLY_BYTES >= flow.next_mark() {
                let done = flow.next_mark() >= flow.request.bytes as f64;
                if let Some(range) = flow.request.range {
                    let block = range.first + flow.told;
                    flow.told += 1;
                    marks.push((
                        *id,
                        Mark::Block {
                            block,
                            right: !corrupt,
                        },
                    ));
                }
                if done {
                    let right = !flow.is_corrupt;
                    marks.push((*id, Mark::Done { right }));
                    break;
                }
            }
            if flow.is_open && flow.grows_at <= now {
                if flow.rate >= 0.999 * flow.window / rtt {
                    flow.window *= 2.0;
                }
                flow.grows_at = now + seconds(rtt);
            }
        }
        marks
    }

    /// Shares the bandwidth anew. When something will happen next, if anything will.
    pub(crate) fn share(&mut self, now: Micros) -> Option<Micros> {
        self.plan += 1;
        let silent = self.is_stalled || self.is_dead;
        self.flows.values_mut().for_each(|flow| flow.rate = 0.0);
        if silent {
            return None;
        }
        let (rtt, sharing) = (self.rtt, self.sharing);
        let mut left = self.bytes_per_sec * self.noise;
        let open = self.flows.values_mut().filter(|flow| flow.is_open);
        let mut open: Vec<(f64, &mut Flow)> = open.map(|flow| (sharing.weight(now, flow), flow)).collect();
        let sum: f64 = open.iter().map(|(weight, _)| weight).sum();
        for (weight, _) in &mut open {
            *weight = weight.max(sum * SIGN_BYTES_PER_SEC / left.max(SIGN_BYTES_PER_SEC));
        }
        let fullness = |(weight, flow): &(f64, &mut Flow)| flow.window / rtt / weight;
        open.sort_by(|a, b| fullness(a).total_cmp(&fullness(b)));
        let mut weights: f64 = open.iter().map(|(weight, _)| weight).sum();
        for (weight, flow) in open {
            flow.rate = (left * weight / weights).min(flow.window / rtt);
            left -= flow.rate;
            weights -= weight;
        }
        self.flows
            .values()
            .filter_map(|flow| next_of(flow, now, rtt))
            .min()
    }
}

/// The first block, end, opening or growth of a flow.
fn next_of(flow: &Flow, now: Micros, rtt: f64) -> Option<Micros> {
    if !flow.is_open {
        return Some(flow.opens_at.max(now + Micros(1)));
    }
    if flow.rate <= 0.0 {
        return None;
    }
    let missing = (flow.next_mark() - flow.got).max(0.0);
    let mark = now + seconds(missing / flow.rate) + Micros(1);
    let is_held_back = flow.rate >= 0.999 * flow.window / rtt;
    Some(if is_held_back {
        mark.min(flow.grows_at.max(now + Micros(1)))
    } else {
        mark
    })
}
