//! The run itself: one heap of events, one clock, one generator.

mod ambush;
mod faults;
mod queue;

use std::collections::{BTreeSet, BinaryHeap};

use vstack_core::ballot::Ballot;
use vstack_core::id::ChunkId;
use vstack_core::keys::ClusterKey;
use vstack_core::limits::HEARTBEAT_MS;
use vstack_core::paxos::master::Row;
use vstack_core::time::UnixMillis;

use super::catalogue::Catalogue;
use super::client::Client;
use super::message::{Address, Message, Payload, chunk_id};
use super::mutant::Mutant;
use super::node::Node;
use super::oracle::{Oracle, Rule, Sight, Violation};
use super::outbox::{Delay, Fact, Outbox, Timer, Undo};
use super::plan::{EPOCH_MS, Plan};
use super::random::{Fingerprint, Random};

use ambush::Siege;
pub(super) use ambush::SiegeStep;
use queue::{Entry, Event};

/// All work must end so long after the last fault: several leases, back-offs and rounds of repair.
const ENDS_WITHIN_MS: u64 = 240_000;
const CHECK_MS: u64 = 2_000;

#[derive(Debug, Clone, Copy)]
enum Work {
    Upload { client: usize, payload: Payload },
    Delete { client: usize },
    Convert { client: usize },
}

#[derive(Debug, Clone, Copy)]
struct Job {
    chunk: ChunkId,
    work: Work,
    begun: bool,
    done: bool,
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub seed: u64,
    /// The same for the same seed and the same code, bit for bit.
    pub fingerprint: u64,
    pub events: u64,
    pub chunks: u32,
    /// Decisions of the catalogue, and chunks that a client was told are stored.
    pub decisions: usize,
    pub acknowledged: usize,
    pub virtual_ms: u64,
    pub violation: Option<Violation>,
    /// One line an event, where asked for.
    pub trace: Vec<String>,
}

#[derive(Debug)]
pub(super) struct World {
    seed: u64,
    plan: Plan,
    random: Random,
    now_ms: u64,
    numbers: u64,
    events: u64,
    heap: BinaryHeap<Entry>,
    catalogue: Catalogue,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    jobs: Vec<Job>,
    skews_ms: Vec<u64>,
    blocked: BTreeSet<(Address, Address)>,
    faults: bool,
    siege: Option<Siege>,
    oracle: Oracle,
    fingerprint: Fingerprint,
    trace: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(seed: u64, mutant: Option<Mutant>, trace: bool) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random, mutant);
        let key = ClusterKey::from_bytes(&[7; 32]).expect("32 bytes that are not zero");
        let nodes: Vec<Node> = (0..plan.nodes)
            .map(|index| Node::new(index, &key, mutant))
            .collect();
        let clients = (0..plan.clients + 2)
            .map(|index| Client::new(index, plan.request_timeout_ms))
            .collect();
        let skews_ms = (0..plan.clients + 3)
            .map(|_| random.below(2 * plan.skew_ms + 1))
            .collect();
        let mut world = Self {
            seed,
            catalogue: Catalogue::new(key, &plan),
            nodes,
            clients,
            jobs: Vec::new(),
            skews_ms,
            blocked: BTreeSet::new(),
            faults: true,
            siege: None,
            oracle: Oracle::default(),
            fingerprint: Fingerprint::new(),
            trace: trace.then(Vec::new),
            random,
            now_ms: 0,
            numbers: 0,
            events: 0,
            heap: BinaryHeap::new(),
            plan,
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        for node in 0..self.nodes.len() {
            self.after(0, Timer::NodeBeat { node, life: 0 });
        }
        self.after(1, Timer::CatalogueTick { life: 0 });
        self.after(self.plan.fault_pause_ms, Timer::Fault);
        self.after(self.plan.faults_ms, Timer::FaultsEnd);
        self.after(CHECK_MS, Timer::Check);
        for number in 0..self.plan.chunks {
            self.plan_chunk(number);
        }
    }

    fn plan_chunk(&mut self, number: u32) {
        let (chunk, payload) = (chunk_id(number), Payload(self.random.next()));
        let start_ms = 500 + self.random.below(self.plan.faults_ms * 3 / 4);
        let client = self.random.index(self.plan.clients);
        self.plan_job(start_ms, chunk, Work::Upload { client, payload });
        if self.random.chance(self.plan.duels) {
            let other = self.random.chance(self.plan.other_bytes);
            let payload = if other {
                Payload(self.random.next())
            } else {
                payload
            };
            let client = (client + 1) % self.plan.clients;
            let pause_ms = self.random.below(3_000);
            self.plan_job(start_ms + pause_ms, chunk, Work::Upload { client, payload });
        }
        if self.random.chance(self.plan.conversions) && self.plan.nodes >= 5 {
            let pause_ms = self.random.below(20_000);
            let client = self.plan.clients + self.random.index(2);
            self.plan_job(start_ms + pause_ms, chunk, Work::Convert { client });
        }
        if self.random.chance(self.plan.deletions) {
            let pause_ms = self.random.below(30_000);
            let client = self.random.index(self.plan.clients);
            self.plan_job(start_ms + pause_ms, chunk, Work::Delete { client });
        }
    }

    fn plan_job(&mut self, start_ms: u64, chunk: ChunkId, work: Work) {
        self.jobs.push(Job {
            chunk,
            work,
            begun: false,
            done: false,
        });
        self.after(
            start_ms,
            Timer::Begin {
                job: self.jobs.len() - 1,
            },
        );
    }

    fn push(&mut self, delay_ms: u64, event: Event) {
        self.numbers += 1;
        let entry = Entry {
            at_ms: self.now_ms + delay_ms,
            number: self.numbers,
            event,
        };
        self.heap.push(entry);
    }

    fn after(&mut self, delay_ms: u64, timer: Timer) {
        self.push(delay_ms, Event::Timer(timer));
    }

    fn clock(&self, address: Address) -> UnixMillis {
        let skew_ms = match address {
            Address::Catalogue => self.skews_ms[0],
            Address::Client(index) => self.skews_ms[1 + index],
            // Nodes use their clock for one grace alone.
            Address::Node(_) => self.plan.skew_ms,
        };
        UnixMillis(EPOCH_MS + self.now_ms + skew_ms - self.plan.skew_ms)
    }

    /// Runs until all work is done, a rule is broken, or time is up.
    pub(super) fn run(mut self) -> Report {
        let mut violation = None;
        while let Some(entry) = self.heap.pop() {
            self.now_ms = entry.at_ms;
            self.events += 1;
            self.fingerprint.add(entry.at_ms);
            let settled = self.handle(entry.event);
            violation = self.oracle.take_violation();
            if violation.is_some() || settled {
                break;
            }
        }
        self.report(violation)
    }

    fn report(mut self, violation: Option<Violation>) -> Report {
        for (chunk, row) in self.catalogue.rows() {
            for word in [
                u64::from(chunk.seq()),
                row.promised.number(),
                row.epoch().number(),
            ] {
                self.fingerprint.add(word);
            }
        }
        self.fingerprint.add(self.random.next());
        Report {
            seed: self.seed,
            fingerprint: self.fingerprint.value(),
            events: self.events,
            chunks: self.plan.chunks,
            decisions: self.oracle.decisions(),
            acknowledged: self.oracle.acknowledgements(),
            virtual_ms: self.now_ms,
            violation,
            trace: self.trace.unwrap_or_default(),
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let now_ms = self.now_ms;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now_ms:>7} ms  {}", line()));
        }
    }

    /// Gives whether the run is over.
    fn handle(&mut self, event: Event) -> bool {
        match event {
            Event::Deliver { from, to, message } => {
                for word in [from.word(), to.word()].into_iter().chain(message.words()) {
                    self.fingerprint.add(word);
                }
                self.note(|| format!("{from} -> {to}: {message:?}"));
                self.deliver(from, to, *message);
                false
            }
            Event::Timer(Timer::Check) => self.check(),
            Event::Timer(timer) => {
                self.ring(timer);
                false
            }
        }
    }

    fn deliver(&mut self, from: Address, to: Address, message: Message) {
        let (now, now_ms) = (self.clock(to), self.now_ms);
        let grants = self.catalogue.grants();
        let mut out = Outbox::default();
        match to {
            Address::Catalogue if self.catalogue.up => self.catalogue.receive(now, from, message, &mut out),
            Address::Node(index) if self.nodes[index].up => {
                self.nodes[index].receive(EPOCH_MS + now_ms, from, message, &mut out);
            }
            Address::Client(index) if self.clients[index].up => {
                self.clients[index].receive(now, message, &mut out);
            }
            _ => {}
        }
        let trap = self.trap(grants, &mut out);
        self.flush(to, out);
        if let Some(trap) = trap {
            return self.spring(trap);
        }
        let delicate = to == Address::Catalogue && self.catalogue.grants() == 1;
        let weight = if delicate { 25 } else { 1 };
        if self.faults && self.random.chance(self.plan.crash_points * weight) {
            self.crash(to);
        }
    }

    fn flush(&mut self, from: Address, out: Outbox) {
        for fact in &out.facts {
            let sight = Sight {
                now_ms: self.now_ms,
                catalogue: &self.catalogue,
                nodes: &self.nodes,
            };
            self.oracle.see(&sight, fact);
            self.mark_done(fact);
        }
        for (delay, timer) in out.timers {
            let delay_ms = match delay {
                Delay::Exactly(ms) => ms,
                Delay::Within(ms) => self.random.below(ms + 1),
            };
            self.after(delay_ms, timer);
        }
        for (to, message) in out.sends {
            self.send(from, to, message);
        }
    }

    fn mark_done(&mut self, fact: &Fact) {
        if let Fact::Acknowledged { client, chunk, .. } = fact {
            let mine = |job: &&mut Job| {
                job.chunk == *chunk
                    && matches!(job.work, Work::Upload { client: owner, .. } if owner == *client)
            };
            self.jobs.iter_mut().filter(mine).for_each(|job| job.done = true);
        }
    }

    fn send(&mut self, from: Address, to: Address, message: Message) {
        let Some(message) = self.hold(from, to, message) else {
            return;
        };
        let faulty = self.faults;
        if faulty && (self.blocked.contains(&(from, to)) || self.random.chance(self.plan.loss)) {
            self.note(|| format!("{from} -> {to}: lost: {message:?}"));
            return;
        }
        if faulty && self.random.chance(self.plan.duplication) {
            let delay_ms = self.latency_ms();
            self.push(
                delay_ms,
                Event::Deliver {
                    from,
                    to,
                    message: Box::new(message.clone()),
                },
            );
        }
        let delay_ms = self.latency_ms();
        let message = Box::new(message);
        self.push(delay_ms, Event::Deliver { from, to, message });
    }

    fn latency_ms(&mut self) -> u64 {
        let usual = 1 + self.random.below(self.plan.latency_ms);
        if self.faults && self.random.chance(self.plan.delay) {
            usual * 100
        } else {
            usual
        }
    }

    fn ring(&mut self, timer: Timer) {
        let mut out = Outbox::default();
        let from = match timer {
            Timer::NodeSync { node, life } | Timer::NodeBeat { node, life } => {
                if self.nodes[node].life == life && self.nodes[node].up {
                    self.ring_node(timer, node, &mut out);
                }
                Address::Node(node)
            }
            Timer::CatalogueTick { life } => {
                if self.catalogue.life == life && self.catalogue.up {
                    let now = self.clock(Address::Catalogue);
                    self.catalogue.tick(now, &mut out);
                }
                Address::Catalogue
            }
            Timer::ClientTimeout { client, life, .. } | Timer::ClientWake { client, life, .. } => {
                if self.clients[client].life == life && self.clients[client].up {
                    self.ring_client(timer, client, &mut out);
                }
                Address::Client(client)
            }
            Timer::Begin { job } => self.begin(job, &mut out),
            Timer::Fault => return self.fault(),
            Timer::FaultsEnd => return self.end_faults(),
            Timer::Siege(step) => return self.continue_siege(step),
            Timer::Mend(undo) => return self.undo(undo),
            Timer::Check => return,
        };
        self.flush(from, out);
    }

    fn ring_node(&mut self, timer: Timer, node: usize, out: &mut Outbox) {
        if matches!(timer, Timer::NodeSync { .. }) {
            self.nodes[node].synced(out);
            return;
        }
        out.send(Address::Catalogue, self.nodes[node].heartbeat());
        if self.random.chance(self.plan.inventories) || self.catalogue.is_reconciling() {
            out.send(Address::Catalogue, self.nodes[node].inventory());
        }
        out.timer(HEARTBEAT_MS, timer);
    }

    fn ring_client(&mut self, timer: Timer, client: usize, out: &mut Outbox) {
        let now = self.clock(Address::Client(client));
        match timer {
            Timer::ClientTimeout { request, .. } => self.clients[client].timed_out(now, request, out),
            Timer::ClientWake { chunk, .. } => self.clients[client].wake(now, chunk, out),
            _ => {}
        }
    }

    fn begin(&mut self, number: usize, out: &mut Outbox) -> Address {
        let Job { chunk, work, .. } = self.jobs[number];
        let (Work::Upload { client, .. } | Work::Delete { client } | Work::Convert { client }) = work;
        let address = Address::Client(client);
        self.jobs[number].begun = true;
        if !self.clients[client].up || self.clients[client].is_busy_with(chunk) {
            return address;
        }
        let now = self.clock(address);
        match work {
            Work::Upload { payload, .. } => {
                let seed = self.random.next();
                self.clients[client].upload(now, chunk, payload, seed, out);
            }
            Work::Delete { .. } => self.clients[client].delete(chunk, out),
            Work::Convert { .. } => {
                self.clients[client].convert(chunk, out);
                self.jobs[number].done = true;
            }
        }
        address
    }

    /// Begins again what came to nothing, elsewhere. Gives whether the run is over.
    fn check(&mut self) -> bool {
        // Not at a start: the generation of a life that has granted nothing yet is worth no backup.
        if self.plan.storm && self.faults && self.catalogue.grants() > 0 {
            self.back_up();
        }
        let mut again = Vec::new();
        for number in 0..self.jobs.len() {
            let job = self.jobs[number];
            if !job.begun || job.done && !matches!(job.work, Work::Delete { .. }) {
                continue;
            }
            self.jobs[number].done = self.is_done(&job);
            let (Work::Upload { client, .. } | Work::Delete { client } | Work::Convert { client }) = job.work;
            if !self.jobs[number].done && !self.clients[client].is_busy_with(job.chunk) {
                again.push(number);
            }
        }
        for number in again {
            self.reassign(number);
            let pause_ms = self.random.below(1_500);
            self.after(pause_ms, Timer::Begin { job: number });
        }
        if self.is_settled() {
            self.finish();
            return true;
        }
        if self.now_ms > self.plan.faults_ms + ENDS_WITHIN_MS {
            self.complain();
            return true;
        }
        self.after(CHECK_MS, Timer::Check);
        false
    }

    fn is_done(&self, job: &Job) -> bool {
        let row = self.catalogue.row(job.chunk);
        match job.work {
            Work::Upload { payload, .. } => row.is_some_and(|row| {
                let other = row
                    .placement()
                    .is_some_and(|placement| placement.digest != payload.digest());
                row.is_deleted() || other
            }),
            Work::Delete { .. } => row.is_some_and(Row::is_deleted),
            Work::Convert { .. } => true,
        }
    }

    /// Another uploader takes over what the first one did not finish.
    fn reassign(&mut self, number: usize) {
        let other = self.random.index(self.plan.clients);
        let job = &mut self.jobs[number];
        let taken = |job: &Job, client: usize| matches!(job.work, Work::Upload { client: owner, .. } if owner == client);
        if let Work::Upload { client, .. } = &mut job.work {
            let before = *client;
            *client = other;
            let (chunk, twice) = (job.chunk, before != other);
            // Two uploads of one chunk stay on two clients.
            let same = self
                .jobs
                .iter()
                .filter(|job| job.chunk == chunk && taken(job, other))
                .count();
            if twice
                && same > 1
                && let Work::Upload { client, .. } = &mut self.jobs[number].work
            {
                *client = before;
            }
        }
    }

    fn is_settled(&self) -> bool {
        let idle = self.clients.iter().all(Client::is_idle);
        let done = self.jobs.iter().all(|job| job.done) && self.garbage() == 0;
        let sight = Sight {
            now_ms: self.now_ms,
            catalogue: &self.catalogue,
            nodes: &self.nodes,
        };
        !self.faults && idle && done && self.repairs() == 0 && sight.losses_are_known()
    }

    /// Placements to complete, without those whose bytes may have gone with what a restore lost.
    fn repairs(&self) -> usize {
        let repairs = self.catalogue.to_repair();
        repairs.filter(|chunk| !self.oracle.is_forgiven(**chunk)).count()
    }

    /// Objects to delete, without those of placements that cannot be repaired for the same reason.
    fn garbage(&self) -> usize {
        let garbage = self.catalogue.garbage();
        garbage
            .filter(|garbage| !self.oracle.is_forgiven(garbage.object.whole()))
            .count()
    }

    fn complain(&mut self) {
        let unfinished = self.jobs.iter().filter(|job| !job.done).count();
        let busy = self.clients.iter().filter(|client| !client.is_idle()).count();
        let (garbage, repairs) = (self.garbage(), self.repairs());
        let detail = format!(
            "{unfinished} jobs, {busy} busy clients, {garbage} objects to delete, {repairs} placements to repair"
        );
        let sight = Sight {
            now_ms: self.now_ms,
            catalogue: &self.catalogue,
            nodes: &self.nodes,
        };
        self.oracle.violate(&sight, Rule::Ends, detail);
    }

    fn finish(&mut self) {
        let deletions = self
            .jobs
            .iter()
            .filter(|job| matches!(job.work, Work::Delete { .. }));
        let wanted_gone: BTreeSet<ChunkId> = deletions.map(|job| job.chunk).collect();
        let sight = Sight {
            now_ms: self.now_ms,
            catalogue: &self.catalogue,
            nodes: &self.nodes,
        };
        self.oracle.finish(&sight, &wanted_gone);
    }
}
