//! B1 to B14 of the design, and the policies that play them.

use vstack_api::slack::Weights;
use vstack_client::policy::{Choice, PolicyConfig, PoolConfig, SeedConfig};
use vstack_netsim::{Change, NodePlan, Scenario, Setup, Sharing};

/// The ones the design keeps: 20, 8 and 2 Mbit/s at 20, 40 and 80 ms. What happens, happens to the best.
fn three(changes: &[(f64, Change)]) -> Vec<NodePlan> {
    vec![
        struck(NodePlan::new(20.0, 20.0), changes),
        NodePlan::new(8.0, 40.0),
        NodePlan::new(2.0, 80.0),
    ]
}

fn five(changes: &[(f64, Change)], second: &[(f64, Change)]) -> Vec<NodePlan> {
    vec![
        struck(NodePlan::new(20.0, 20.0), changes),
        struck(NodePlan::new(8.0, 40.0), second),
        NodePlan::new(8.0, 30.0),
        NodePlan::new(4.0, 60.0),
        NodePlan::new(2.0, 80.0),
    ]
}

fn struck(node: NodePlan, changes: &[(f64, Change)]) -> NodePlan {
    changes
        .iter()
        .fold(node, |node, (at, change)| node.with(*at, *change))
}

fn bulk(scenario: Scenario) -> Scenario {
    Scenario {
        name: format!("{}, bulk", scenario.name),
        bulk: true,
        ..scenario
    }
}

fn coded(scenario: Scenario) -> Scenario {
    Scenario {
        parts: 5,
        needed: 3,
        ..scenario
    }
}

const COLLAPSE: Change = Change::Bandwidth(0.2);
const STALL: Change = Change::Stalled(true);
const DIE: Change = Change::Dead(true);
const CORRUPT: Change = Change::Corrupt(true);

/// Each played, and fetched as fast as possible.
pub(crate) fn single() -> Vec<Scenario> {
    let named = |id, name: &str, nodes| Scenario::new(id, name, nodes);
    let flap: Vec<_> = (0..40)
        .map(|turn| {
            let mbps = if turn % 2 == 0 { 0.2 } else { 20.0 };
            (f64::from(turn) * 7.0 + 3.0, Change::Bandwidth(mbps))
        })
        .collect();
    let both = vec![
        named("B1", "steady 20/8/2 Mbit/s", three(&[])),
        named("B1a", "steady 20/8", three(&[]).into_iter().take(2).collect()),
        named("B1b", "steady 20/8 and a slow third, 0.5", {
            let mut nodes = three(&[]);
            nodes[2] = NodePlan::new(0.5, 120.0);
            nodes
        }),
        named("B2", "five nodes 20/8/8/4/2", five(&[], &[])),
        named("B3", "equal nodes 10/10/10", vec![NodePlan::new(10.0, 30.0); 3]),
        named("B4", "best collapses to 1 % at 5 s", three(&[(5.0, COLLAPSE)])),
        named("B5", "best stalls at 5 s", three(&[(5.0, STALL)])),
        named("B6", "best dies at 5 s", three(&[(5.0, DIE)])),
        named("B7", "best sends wrong bytes from 5 s", three(&[(5.0, CORRUPT)])),
        coded(named("B13", "shards 20/8/8/4/2", five(&[], &[]))),
        coded(named(
            "B13a",
            "shards, best stalls at 5 s",
            five(&[(5.0, STALL)], &[]),
        )),
        coded(named(
            "B13b",
            "shards, two best die at 5 s",
            five(&[(5.0, DIE)], &[(5.0, DIE)]),
        )),
    ];
    let wan = vec![
        NodePlan::new(6.0, 25.0),
        NodePlan::new(4.0, 60.0),
        NodePlan::new(3.0, 120.0),
    ];
    let lies = vec![
        NodePlan::new(2.0, 5.0),
        NodePlan::new(20.0, 80.0),
        NodePlan::new(8.0, 60.0),
    ];
    let tight = vec![
        NodePlan::new(0.75, 30.0),
        NodePlan::new(0.65, 40.0),
        NodePlan::new(0.6, 50.0),
    ];
    let seeks = vec![(20.0, 10), (30.0, 3), (40.0, 20), (50.0, 15), (60.0, 24)];
    let played = vec![
        named("B4a", "best collapses at 0.3 s", three(&[(0.3, COLLAPSE)])),
        named("B5a", "best stalls from the start", three(&[(0.0, STALL)])),
        named(
            "B7a",
            "best sends wrong bytes from the start",
            three(&[(0.0, CORRUPT)]),
        ),
        named("B8", "best flaps every 7 s", three(&flap)),
        named("B9", "pings lie: 2 at 5 ms, 20 at 80 ms, 8 at 60 ms", lies),
        named("B10", "tight: 2.0 for 1.6 Mbit/s", tight),
        Scenario {
            noise: 0.5,
            ..named("B11", "noise, 6/4/3 Mbit/s", wan)
        },
        Scenario {
            seeks: seeks.clone(),
            ..named("B12", "five seeks", three(&[]))
        },
        Scenario {
            seeks,
            ..named("B12a", "five seeks, best stalls at 25 s", three(&[(25.0, STALL)]))
        },
    ];
    let fetched: Vec<_> = both.iter().cloned().map(bulk).collect();
    both.into_iter().chain(played).chain(fetched).collect()
}

/// B14: many viewers of one library.
pub(crate) fn crowds() -> Vec<Scenario> {
    let crowd = |name: &str, nodes: Vec<NodePlan>, clients: usize, arrivals_sec: f64| Scenario {
        clients,
        arrivals_sec,
        chunks: 12,
        limit_sec: 400.0,
        ..Scenario::new("B14", name, nodes)
    };
    let nodes = |figures: &[(f64, f64)]| {
        figures
            .iter()
            .map(|(mbps, rtt)| NodePlan::new(*mbps, *rtt))
            .collect()
    };
    let mixed: Vec<NodePlan> = nodes(&[(120.0, 20.0), (60.0, 40.0), (40.0, 60.0)]);
    let overload = vec![
        NodePlan::new(120.0, 20.0).with(40.0, Change::Bandwidth(1.2)),
        NodePlan::new(80.0, 40.0),
        NodePlan::new(60.0, 60.0),
    ];
    let restarted = |number: u8, rtt_ms: f64| {
        let down_sec = 15.0 + 10.0 * f64::from(number);
        NodePlan::new(133.0, rtt_ms)
            .with(down_sec, Change::Dead(true))
            .with(down_sec + 4.0, Change::Dead(false))
    };
    vec![
        crowd("100 viewers in 10 s, 120/60/40 Mbit/s", mixed.clone(), 100, 10.0),
        crowd("100 viewers in 60 s, 120/60/40 Mbit/s", mixed, 100, 60.0),
        Scenario {
            chunk_bytes: 125_000,
            chunk_sec: 4.0,
            ..crowd(
                "100 viewers of 0.25 Mbit/s in 10 s, 18.75/9.4/6.25 Mbit/s",
                nodes(&[(18.75, 20.0), (9.375, 40.0), (6.25, 60.0)]),
                100,
                10.0,
            )
        },
        crowd(
            "overload 0.9x: best of 120/80/60 collapses at 40 s",
            overload,
            100,
            10.0,
        ),
        crowd(
            "200 viewers in 20 s, 3 x 133 Mbit/s",
            nodes(&[(133.0, 20.0), (133.0, 30.0), (133.0, 40.0)]),
            200,
            20.0,
        ),
        crowd(
            "each of 3 x 133 Mbit/s restarted, 4 s long, under 100 viewers",
            vec![restarted(0, 20.0), restarted(1, 30.0), restarted(2, 40.0)],
            100,
            10.0,
        ),
    ]
}

fn setup(name: &str, policy: PolicyConfig, sharing: Sharing) -> Setup {
    Setup {
        name: name.to_owned(),
        policy,
        sharing,
        trusts: false,
    }
}

fn base(choice: Choice) -> PolicyConfig {
    PolicyConfig::Seed(SeedConfig {
        choice,
        ..SeedConfig::default()
    })
}

/// The pool without start from a prefix, so that its first chunk can be compared with the others'.
fn whole_start() -> PoolConfig {
    PoolConfig {
        prefix_bytes: u64::MAX / 4,
        ..PoolConfig::default()
    }
}

pub(crate) const POOL: &str = "pool";
pub(crate) const POOL_WHOLE: &str = "pool, whole first chunk";
pub(crate) const SEED: &str = "seed";
/// What nodes and clients do where nothing is set.
pub(crate) const CROWD: &str = "pool, pace 2, 24:8:2:1";

pub(crate) fn policies() -> Vec<Setup> {
    let equal = Sharing::Even;
    vec![
        setup("single", base(Choice::Single), equal),
        setup("round-robin", base(Choice::RoundRobin), equal),
        setup("random", base(Choice::Random { seed: 7 }), equal),
        setup(SEED, base(Choice::Score), equal),
        setup(POOL_WHOLE, PolicyConfig::Pool(whole_start()), equal),
        setup(POOL, PolicyConfig::Pool(PoolConfig::default()), equal),
    ]
}

/// What the nodes may make of the slack, and how much the clients pace themselves.
pub(crate) fn crowd_policies() -> Vec<Setup> {
    let by_need = Weights::default();
    let weights = |waiting, urgent, soon| {
        Sharing::ByNeed(Weights {
            waiting,
            urgent,
            soon,
            ..by_need
        })
    };
    let unfinished = Sharing::ByNeed(Weights { begun: 0, ..by_need });
    let paced = |pace| {
        PolicyConfig::Pool(PoolConfig {
            pace,
            ..PoolConfig::default()
        })
    };
    vec![
        setup(SEED, base(Choice::Score), Sharing::Even),
        setup("pool, no pace", paced(0.0), Sharing::Even),
        setup("pool, pace 2", paced(2.0), Sharing::Even),
        setup(
            "pool, pace 2, 24:8:2:1, what is begun counts the same",
            paced(2.0),
            unfinished,
        ),
        setup("pool, pace 2, 8:8:2:1", paced(2.0), weights(8, 8, 2)),
        setup("pool, pace 2, 16:8:2:1", paced(2.0), weights(16, 8, 2)),
        setup(CROWD, paced(2.0), Sharing::ByNeed(by_need)),
        setup("pool, pace 2, 64:8:2:1", paced(2.0), weights(64, 8, 2)),
        setup("pool, pace 1.5, 24:8:2:1", paced(1.5), Sharing::ByNeed(by_need)),
    ]
}
