//! The base policy in virtual time, against nodes that fail at random: it always delivers, and never breaks its rules.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use vstack_client::policy::{
    Action, AttemptId, ChunkSpec, Fact, Failure, Micros, NodeIndex, NodeRecords, Seed, SeedConfig, Shape,
};

const CHUNK_MS: u64 = 10_000;
/// After this much virtual time a session that has not ended hangs.
const HANG_MS: u64 = 3_600_000;

/// How a node behaves.
#[derive(Debug, Clone)]
struct NodePlan {
    transfer_ms: u64,
    ping_ms: u64,
    /// Of 100 requests, how many fail.
    fail_percent: u64,
    /// It answers nothing in this time.
    dead_ms: (u64, u64),
    failure: Failure,
}

#[derive(Debug, Clone)]
struct Plan {
    nodes: Vec<NodePlan>,
    /// For each chunk its replicas.
    chunks: Vec<BTreeSet<u16>>,
    /// Playback time of each jump and its target.
    seeks: Vec<(u64, u64)>,
    seed: u64,
}

/// What a world does next, at a time.
#[derive(Debug, Clone, PartialEq)]
enum Event {
    Ends(AttemptId, Option<Failure>),
    ManifestRead,
    Play,
}

/// A player with virtual time around the policy.
struct World {
    plan: Plan,
    now: Micros,
    policy: Seed,
    records: NodeRecords,
    queue: BTreeMap<(Micros, u64), Event>,
    queued: u64,
    wake_at: Option<Micros>,
    requests: usize,
    random: u64,
    running: BTreeMap<AttemptId, (u32, NodeIndex)>,
    held: BTreeSet<u32>,
    delivered: BTreeSet<u32>,
    delivered_at_ms: Vec<u64>,
    played: BTreeSet<u32>,
    position_ms: u64,
    max_running: usize,
}

impl World {
    fn new(plan: Plan) -> Self {
        let specs = plan.chunks.iter().zip(0u64..).map(|(replicas, seq)| ChunkSpec {
            start: Micros::from_ms(seq * CHUNK_MS),
            end: Micros::from_ms((seq + 1) * CHUNK_MS),
            shape: Shape::copies(2_000_000, replicas.iter().map(|index| NodeIndex(*index))),
        });
        let mut records = NodeRecords::default();
        for (index, node) in (0..).zip(&plan.nodes) {
            records
                .record_mut(NodeIndex(index))
                .ping_answered(Micros(0), Micros::from_ms(node.ping_ms));
        }
        Self {
            policy: Seed::new(SeedConfig::default(), specs.collect()),
            random: plan.seed | 1,
            plan,
            now: Micros(0),
            records,
            queue: BTreeMap::new(),
            queued: 0,
            wake_at: None,
            requests: 0,
            running: BTreeMap::new(),
            held: BTreeSet::new(),
            delivered: BTreeSet::new(),
            delivered_at_ms: Vec::new(),
            played: BTreeSet::new(),
            position_ms: 0,
            max_running: 0,
        }
    }

    fn at(&mut self, time: Micros, event: Event) {
        self.queued += 1;
        self.queue.insert((time, self.queued), event);
    }

    /// Xorshift (Marsaglia 2003): enough to pick failures, and the same each time.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn apply(&mut self, fact: Fact) {
        let actions = self.policy.apply(self.now, &mut self.records, fact);
        self.wake_at = None;
        for action in actions {
            self.perform(action);
        }
        self.max_running = self.max_running.max(self.running.len());
        assert_eq!(self.policy.running_count(), self.running.len());
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Start(start) => {
                self.requests += 1;
                let twice = self.running.values().any(|(seq, _)| *seq == start.seq);
                assert!(!twice, "chunk {} runs twice", start.seq);
                assert!(
                    !self.held.contains(&start.seq),
                    "chunk {} is held and fetched again",
                    start.seq
                );
                assert!(
                    self.plan.chunks[start.seq as usize].contains(&start.node.0),
                    "no replica there"
                );
                self.running.insert(start.attempt, (start.seq, start.node));
                let (ends_ms, failure) = self.outcome(start.node);
                self.at(
                    self.now + Micros::from_ms(ends_ms),
                    Event::Ends(start.attempt, failure),
                );
            }
            Action::Cancel { attempt, .. } => {
                assert!(self.running.remove(&attempt).is_some(), "nothing to cancel")
            }
            Action::Keep { seq, .. } => assert!(self.held.insert(seq), "chunk {seq} delivered twice"),
            Action::Drop { seq, .. } => assert!(self.held.remove(&seq), "chunk {seq} was not held"),
            Action::WakeAt(at) => {
                assert!(at > self.now, "a wake-up in the past spins");
                self.wake_at = Some(at);
            }
            Action::ReadManifest => self.at(self.now + Micros::from_ms(50), Event::ManifestRead),
            Action::Unobtainable { .. } | Action::Refill { .. } => {}
            Action::Finish { .. } | Action::PrefixReady { .. } | Action::Blame { .. } => {
                unreachable!("the base policy asks for whole chunks")
            }
        }
    }

    fn outcome(&mut self, node: NodeIndex) -> (u64, Option<Failure>) {
        let plan = self.plan.nodes[usize::from(node.0)].clone();
        let now_ms = self.now.as_ms();
        if (plan.dead_ms.0..plan.dead_ms.1).contains(&now_ms) {
            return (2_000, Some(Failure::Silent { after_ms: 2_000 }));
        }
        let failure = (self.below(100) < plan.fail_percent).then(|| plan.failure.clone());
        (1 + self.below(plan.transfer_ms), failure)
    }

    fn ends(&mut self, attempt: AttemptId, failure: Option<Failure>) {
        let Some((seq, _)) = self.running.remove(&attempt) else {
            return;
        };
        let elapsed = Micros::from_ms(100);
        let fact = match failure {
            Some(failure) => Fact::Failed { attempt, failure },
            None => {
                self.delivered.insert(seq);
                self.delivered_at_ms.push(self.now.as_ms());
                Fact::Done {
                    attempt,
                    bytes: 2_000_000,
                    elapsed,
                }
            }
        };
        self.apply(fact);
    }

    /// A player's step of a quarter of a second: it waits where the chunk is missing.
    fn play(&mut self) {
        let seq = u32::try_from(self.position_ms / CHUNK_MS).expect("videos are short here");
        if self.held.contains(&seq) {
            self.played.insert(seq);
            self.position_ms += 250;
        }
        let jump = self
            .plan
            .seeks
            .first()
            .copied()
            .filter(|(at_ms, _)| self.now.as_ms() >= *at_ms);
        if let Some((_, target_ms)) = jump {
            self.plan.seeks.remove(0);
            self.position_ms = target_ms % self.duration_ms();
            self.apply(Fact::Seek(Micros::from_ms(self.position_ms)));
        } else {
            self.apply(Fact::Position(Micros::from_ms(self.position_ms)));
        }
        if self.position_ms < self.duration_ms() {
            self.at(self.now + Micros::from_ms(250), Event::Play);
        }
    }

    fn duration_ms(&self) -> u64 {
        self.plan.chunks.len() as u64 * CHUNK_MS
    }

    fn run(mut self) -> Self {
        self.apply(Fact::Tick);
        self.at(self.now, Event::Play);
        while self.position_ms < self.duration_ms() {
            let next = self.queue.first_key_value().map(|((at, _), _)| *at);
            let next = next.expect("something is always to come");
            if let Some(wake_at) = self.wake_at.filter(|wake_at| *wake_at <= next) {
                self.now = wake_at;
                self.apply(Fact::Tick);
                continue;
            }
            let ((now, _), event) = self.queue.pop_first().expect("it was there a moment ago");
            self.now = now;
            assert!(
                now.as_ms() < HANG_MS,
                "hangs at {} ms of {}",
                self.position_ms,
                self.duration_ms()
            );
            match event {
                Event::Ends(attempt, failure) => self.ends(attempt, failure),
                Event::ManifestRead => self.apply(Fact::ManifestRead),
                Event::Play => self.play(),
            }
        }
        self
    }
}

fn any_failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        Just(Failure::Connect),
        Just(Failure::WrongBytes),
        Just(Failure::NotFound),
        Just(Failure::Broken { received_bytes: 7 }),
        Just(Failure::Refused {
            status: 500,
            code: None
        }),
    ]
}

prop_compose! {
    fn any_node()(
        transfer_ms in 1u64..6_000,
        ping_ms in 1u64..300,
        fail_percent in prop_oneof![Just(0u64), 0u64..100, Just(100u64)],
        dead_from in 0u64..120_000,
        dead_for in 0u64..300_000,
        failure in any_failure(),
    ) -> NodePlan {
        NodePlan { transfer_ms, ping_ms, fail_percent, dead_ms: (dead_from, dead_from + dead_for), failure }
    }
}

prop_compose! {
    /// Five nodes, of which the last answers always in the end; every chunk has a replica on it.
    fn any_plan()(
        mut nodes in prop::collection::vec(any_node(), 5),
        replicas in prop::collection::vec(prop::collection::btree_set(0u16..4, 0..4), 1..40),
        seeks in prop::collection::vec((0u64..200_000, 0u64..400_000), 0..4),
        seed in any::<u64>(),
    ) -> Plan {
        nodes[4].fail_percent = nodes[4].fail_percent.min(80);
        let chunks = replicas.into_iter().map(|mut nodes| { nodes.insert(4); nodes }).collect();
        let mut seeks = seeks;
        seeks.sort_unstable();
        Plan { nodes, chunks, seeks, seed }
    }
}

proptest! {
    // Each case is up to an hour of playback; 48 of them take a few seconds.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_chunk_that_playback_needs_comes_whatever_fails(plan in any_plan()) {
        let without_seeks = plan.seeks.is_empty();
        let world = World::new(plan).run();
        prop_assert!(world.max_running <= SeedConfig::default().max_downloads);
        if without_seeks {
            prop_assert_eq!(world.played.len(), world.plan.chunks.len());
            prop_assert_eq!(world.delivered.len(), world.plan.chunks.len());
        }
    }
}

fn node(transfer_ms: u64) -> NodePlan {
    NodePlan {
        transfer_ms,
        ping_ms: 1,
        fail_percent: 0,
        dead_ms: (0, 0),
        failure: Failure::Connect,
    }
}

fn plan(nodes: Vec<NodePlan>, chunk_count: usize) -> Plan {
    let all = (0..).take(nodes.len()).collect();
    Plan {
        nodes,
        chunks: vec![all; chunk_count],
        seeks: Vec::new(),
        seed: 7,
    }
}

fn specs(count: u64, replicas: &[u16]) -> Vec<ChunkSpec> {
    let spec = |seq| ChunkSpec {
        start: Micros::from_ms(seq * CHUNK_MS),
        end: Micros::from_ms((seq + 1) * CHUNK_MS),
        shape: Shape::copies(2_000_000, replicas.iter().map(|index| NodeIndex(*index))),
    };
    (0..count).map(spec).collect()
}

fn starts(actions: &[Action]) -> Vec<(u32, u16)> {
    let start = |action: &Action| match action {
        Action::Start(start) => Some((start.seq, start.node.0)),
        _ => None,
    };
    actions.iter().filter_map(start).collect()
}

#[test]
fn a_healthy_cluster_needs_one_request_a_chunk() {
    let world = World::new(plan(vec![node(500), node(500), node(500)], 30)).run();
    assert_eq!((world.delivered.len(), world.requests), (30, 30));
    assert_eq!(world.now.as_ms() / 1_000, 300, "it stalled");
}

#[test]
fn two_of_three_dead_nodes_cost_no_stall() {
    let mut nodes = vec![node(500), node(500), node(500)];
    nodes[0].dead_ms = (40_000, u64::MAX);
    nodes[1].dead_ms = (90_000, u64::MAX);
    let world = World::new(plan(nodes, 30)).run();
    assert_eq!(world.now.as_ms() / 1_000, 300, "it stalled");
}

#[test]
fn the_first_four_chunks_start_at_once_and_spread_over_the_replicas() {
    let mut policy = Seed::new(SeedConfig::default(), specs(100, &[0, 1, 2]));
    let mut records = NodeRecords::default();
    for (index, ping_ms) in [(0, 30), (1, 10), (2, 20)] {
        records
            .record_mut(NodeIndex(index))
            .ping_answered(Micros(0), Micros::from_ms(ping_ms));
    }
    let actions = policy.apply(Micros(0), &mut records, Fact::Tick);
    // 30 s of 10 s chunks are three; each goes to the best replica that is not busy.
    assert_eq!(starts(&actions), [(0, 1), (1, 2), (2, 0)]);
    let actions = policy.apply(Micros(1), &mut records, Fact::Wanted { seq: 50 });
    assert_eq!(starts(&actions), [(50, 1)], "all are busy, so the best of all");
    let actions = policy.apply(Micros(2), &mut records, Fact::Wanted { seq: 60 });
    assert_eq!(starts(&actions), [], "four at once");
}

#[test]
fn the_three_tries_of_a_chunk_go_to_three_nodes_and_then_it_rests() {
    let mut policy = Seed::new(SeedConfig::default(), specs(1, &[0, 1, 2]));
    let mut records = NodeRecords::default();
    let now = Micros(1);
    let mut asked = BTreeSet::new();
    let mut actions = policy.apply(now, &mut records, Fact::Tick);
    for _ in 0..3 {
        let Some(Action::Start(start)) = actions.first() else {
            panic!("no try: {actions:?}")
        };
        asked.insert(start.node);
        let failed = Fact::Failed {
            attempt: start.attempt,
            failure: Failure::Connect,
        };
        actions = policy.apply(now, &mut records, failed);
    }
    assert_eq!(asked.len(), 3);
    assert_eq!(actions, [Action::WakeAt(now + Micros::from_ms(1_000))]);
}

#[test]
fn filling_stops_at_the_target_and_starts_again_below_the_low_water_mark() {
    let mut policy = Seed::new(SeedConfig::default(), specs(100, &[0]));
    let mut records = NodeRecords::default();
    let mut running: Vec<_> = attempts(&policy.apply(Micros(0), &mut records, Fact::Tick));
    while let Some(attempt) = running.pop() {
        let done = Fact::Done {
            attempt,
            bytes: 1,
            elapsed: Micros(1),
        };
        running.extend(attempts(&policy.apply(Micros(0), &mut records, done)));
    }
    assert_eq!(policy.level(), Micros::from_ms(30_000));
    for position_ms in [5_000, 10_000, 15_000] {
        let actions = policy.apply(
            Micros(0),
            &mut records,
            Fact::Position(Micros::from_ms(position_ms)),
        );
        assert_eq!(starts(&actions), [], "at {position_ms} ms");
    }
    let actions = policy.apply(Micros(0), &mut records, Fact::Position(Micros::from_ms(15_250)));
    assert_eq!(
        starts(&actions).iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
        [3, 4]
    );
}

fn attempts(actions: &[Action]) -> Vec<AttemptId> {
    let attempt = |action: &Action| match action {
        Action::Start(start) => Some(start.attempt),
        _ => None,
    };
    actions.iter().filter_map(attempt).collect()
}

#[test]
fn a_seek_cancels_what_is_outside_and_asks_for_what_is_inside() {
    let mut policy = Seed::new(SeedConfig::default(), specs(100, &[0, 1, 2]));
    let mut records = NodeRecords::default();
    policy.apply(Micros(0), &mut records, Fact::Tick);
    let actions = policy.apply(Micros(1), &mut records, Fact::Seek(Micros::from_ms(505_000)));
    let cancelled = actions
        .iter()
        .filter(|action| matches!(action, Action::Cancel { .. }))
        .count();
    assert_eq!(cancelled, 3);
    assert_eq!(
        starts(&actions).iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
        [50, 51, 52, 53]
    );
}

#[test]
fn an_error_is_reported_after_three_rounds_and_the_search_goes_on() {
    let mut policy = Seed::new(SeedConfig::default(), specs(1, &[0, 1]));
    let mut records = NodeRecords::default();
    let (mut now, mut reports, mut tries) = (Micros(0), 0, 0);
    let mut actions = policy.apply(now, &mut records, Fact::Wanted { seq: 0 });
    while reports < 2 {
        reports += actions
            .iter()
            .filter(|action| matches!(action, Action::Unobtainable { .. }))
            .count();
        actions = match actions.last() {
            Some(Action::Start(start)) => {
                tries += 1;
                let failed = Fact::Failed {
                    attempt: start.attempt,
                    failure: Failure::Connect,
                };
                policy.apply(now, &mut records, failed)
            }
            Some(Action::WakeAt(at)) => {
                now = *at;
                policy.apply(now, &mut records, Fact::Tick)
            }
            other => panic!("the search ended with {other:?}"),
        };
    }
    assert!(tries >= 12, "{tries} tries in six rounds over two replicas");
    assert!(now < Micros::from_ms(60_000), "{} ms", now.as_ms());
}

#[test]
fn a_chunk_without_replicas_asks_for_a_new_manifest_and_comes_when_it_is_placed() {
    let mut policy = Seed::new(SeedConfig::default(), specs(1, &[]));
    let mut records = NodeRecords::default();
    let actions = policy.apply(Micros(0), &mut records, Fact::Wanted { seq: 0 });
    assert!(actions.contains(&Action::ReadManifest), "{actions:?}");
    let placed = Fact::Placed {
        seq: 0,
        shape: Shape::copies(2_000_000, [NodeIndex(3)]),
    };
    assert_eq!(starts(&policy.apply(Micros(9), &mut records, placed)), [(0, 3)]);
}

#[test]
fn after_an_outage_of_everything_the_search_goes_on_within_four_seconds() {
    let mut nodes = vec![node(500), node(500), node(500)];
    for node in &mut nodes {
        node.dead_ms = (30_000, 150_000);
    }
    let world = World::new(plan(nodes, 30)).run();
    let back_ms = world
        .delivered_at_ms
        .iter()
        .copied()
        .find(|at_ms| *at_ms >= 150_000)
        .unwrap();
    // A rest of 4 s, an attempt of 2 s that began before the end, and the transfer.
    assert!(back_ms < 156_500, "the first chunk came at {back_ms} ms");
}

/// The policy must stay usable in a simulator: no clock, no I/O, no tasks, no maps of random order.
#[test]
fn the_policy_is_pure() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/policy");
    let mut left = vec![std::path::PathBuf::from(folder)];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(
                std::fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for word in [
            "Instant",
            "SystemTime",
            "tokio",
            "HashMap",
            "HashSet",
            "async ",
            "std::fs",
            "std::net",
            "rand",
        ] {
            let used = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .any(|line| line.contains(word));
            assert!(!used, "{} uses {word}", path.display());
        }
    }
}
