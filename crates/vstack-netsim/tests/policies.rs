//! The policies in simulated clusters whose nodes fail at random: everything comes, nothing twice, nothing for nothing.
//!
//! The simulator itself panics when a chunk is delivered twice, or a block that is stored comes again from the same node.

use std::path::Path;

use proptest::prelude::*;
use vstack_api::slack::Weights;
use vstack_client::policy::trace::Replayer;
use vstack_client::policy::{PolicyConfig, PoolConfig, SeedConfig};
use vstack_core::time::UnixMillis;
use vstack_netsim::{Change, NodePlan, Outcome, Scenario, Setup, Sharing, run, run_traced};

fn setup(policy: PolicyConfig) -> Setup {
    Setup {
        name: "test".to_owned(),
        policy,
        sharing: Sharing::Even,
        trusts: false,
    }
}

fn pool() -> Setup {
    setup(PolicyConfig::Pool(PoolConfig::default()))
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0.05f64..20.0).prop_map(Change::Bandwidth),
        any::<bool>().prop_map(Change::Stalled),
        any::<bool>().prop_map(Change::Dead),
        any::<bool>().prop_map(Change::Corrupt),
    ]
}

prop_compose! {
    fn any_node()(
        mbps in 0.3f64..40.0,
        rtt_ms in 1.0f64..200.0,
        changes in prop::collection::vec((0.0f64..120.0, any_change()), 0..5),
    ) -> NodePlan {
        let mut changes = changes;
        changes.sort_by(|a, b| a.0.total_cmp(&b.0));
        NodePlan { mbps, rtt_ms, changes }
    }
}

prop_compose! {
    /// Copies on three of some nodes, or shards on five; as many as are needed are well from 150 s on.
    fn any_scenario()(
        nodes in prop::collection::vec(any_node(), 5..8),
        coded in any::<bool>(),
        bulk in any::<bool>(),
        chunks in 1u32..8,
        seeks in prop::collection::vec((1.0f64..60.0, 0u32..8), 0..3),
    ) -> Scenario {
        let mut seeks: Vec<_> = seeks.into_iter().map(|(at, seq)| (at, seq % chunks)).collect();
        seeks.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut nodes = nodes;
        for node in &mut nodes {
            node.changes.extend([
                (150.0, Change::Stalled(false)),
                (150.0, Change::Dead(false)),
                (150.0, Change::Corrupt(false)),
                (150.0, Change::Bandwidth(4.0)),
            ]);
        }
        Scenario {
            chunks,
            bulk,
            needed: if coded { 3 } else { 1 },
            parts: if coded { 5 } else { 3 },
            seeks: if bulk { Vec::new() } else { seeks },
            limit_sec: 1_200.0,
            ..Scenario::new("P", "drawn by lot", nodes)
        }
    }
}

fn check_whole(outcome: &Outcome, scenario: &Scenario, ended_sec: f64) {
    assert_eq!(outcome.wrong_chunks_delivered, 0);
    assert!(ended_sec < scenario.limit_sec - 1.0, "hangs: {outcome:?}");
    if scenario.seeks.is_empty() {
        assert_eq!(outcome.chunks, scenario.chunks, "{outcome:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn whatever_fails_the_pool_gets_everything_in_the_end(scenario in any_scenario(), seed in any::<u64>()) {
        let run = run(&scenario, &pool(), seed);
        check_whole(&run.outcomes[0], &scenario, run.ended_sec);
    }

    #[test]
    fn the_base_policy_gets_everything_too(scenario in any_scenario(), seed in any::<u64>()) {
        let run = run(&scenario, &setup(PolicyConfig::Seed(SeedConfig::default())), seed);
        check_whole(&run.outcomes[0], &scenario, run.ended_sec);
    }

    #[test]
    fn what_is_asked_for_twice_stays_within_the_budget(scenario in any_scenario(), seed in any::<u64>()) {
        let scenario = Scenario { bulk: true, seeks: Vec::new(), ..scenario };
        let run = run(&scenario, &pool(), seed);
        let outcome = &run.outcomes[0];
        let config = PoolConfig::default();
        // A range of at most 16 blocks may go over it, and the first chunk, which playback waits for, does not count.
        let budget = config.hedge_share * outcome.received_bytes
            + config.hedge_bytes as f64
            + f64::from(config.max_range_blocks) * 65_536.0
            + 2.5 * scenario.chunk_bytes as f64;
        prop_assert!(outcome.hedged_bytes as f64 <= budget, "{} of {budget}", outcome.hedged_bytes);
    }

    #[test]
    fn any_facts_in_any_order_leave_the_pools_promises_whole(data in prop::collection::vec(any::<u8>(), 0..1_500)) {
        vstack_netsim::fuzzing::policy(&data);
    }

    #[test]
    fn the_same_seed_gives_the_same_run(scenario in any_scenario(), seed in any::<u64>()) {
        prop_assert_eq!(run(&scenario, &pool(), seed), run(&scenario, &pool(), seed));
    }
}

#[test]
fn wrong_bytes_are_counted_when_a_client_hands_them_out() {
    let scenario = three(Some(Change::Corrupt(true)));
    for policy in [
        PolicyConfig::Seed(SeedConfig::default()),
        PolicyConfig::Pool(PoolConfig::default()),
    ] {
        let wrong = |trusts| {
            let setup = Setup {
                trusts,
                ..setup(policy)
            };
            run(&scenario, &setup, 1).outcomes[0].wrong_chunks_delivered
        };
        assert_eq!(wrong(false), 0, "{policy:?}");
        assert!(
            wrong(true) > 0,
            "{policy:?} was sent wrong bytes and believed them"
        );
    }
}

/// `VSTACK_WRITE_CORPUS=1` writes them.
#[test]
#[expect(clippy::disallowed_methods, reason = "the corpus lies in files")]
fn the_fuzzers_seeds_lie_in_its_corpus_and_break_no_promise() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/policy");
    let seeds = vstack_netsim::fuzzing::seeds();
    for (name, bytes) in &seeds {
        if std::env::var_os("VSTACK_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(&folder).expect("a folder");
            std::fs::write(folder.join(name), bytes).expect("a file");
        }
        vstack_netsim::fuzzing::policy(bytes);
        let kept = std::fs::read(folder.join(name)).expect("a seed that lies there");
        assert!(kept == *bytes, "{name} is another one");
    }
    let files = std::fs::read_dir(&folder).expect("a corpus");
    assert_eq!(files.count(), seeds.len());
}

fn three(change: Option<Change>) -> Scenario {
    let mut best = NodePlan::new(20.0, 20.0);
    best.changes.extend(change.map(|change| (5.0, change)));
    Scenario::new(
        "T",
        "three",
        vec![best, NodePlan::new(8.0, 40.0), NodePlan::new(2.0, 80.0)],
    )
}

#[test]
fn no_single_fault_costs_the_pool_a_stall_or_much_waste() {
    let faults = [
        None,
        Some(Change::Bandwidth(0.2)),
        Some(Change::Stalled(true)),
        Some(Change::Dead(true)),
        Some(Change::Corrupt(true)),
    ];
    for fault in faults {
        let outcome = run(&three(fault).permuted(3), &pool(), 3).outcomes.remove(0);
        assert_eq!(outcome.stalls, 0, "{fault:?}: {outcome:?}");
        assert!(
            outcome.startup_sec.is_some_and(|startup| startup < 0.5),
            "{outcome:?}"
        );
        assert!(
            outcome.wasted_bytes < 0.03 * outcome.received_bytes,
            "{fault:?}: {outcome:?}"
        );
        assert!(outcome.avg_buffer_sec > 20.0, "{outcome:?}");
    }
}

#[test]
fn whole_chunks_lose_to_ranges_when_the_best_node_stalls() {
    let stalled = Scenario {
        bulk: true,
        ..three(Some(Change::Stalled(true)))
    };
    let done = |setup: &Setup| run(&stalled, setup, 1).outcomes[0].done_sec;
    let (seed, pool) = (
        done(&setup(PolicyConfig::Seed(SeedConfig::default()))),
        done(&pool()),
    );
    assert!(pool < seed, "pool {pool:?}, seed {seed:?}");
}

#[test]
fn the_trace_of_a_simulated_session_plays_back_whatever_happens_to_the_best_node() {
    for fault in [
        Change::Stalled(true),
        Change::Corrupt(true),
        Change::Bandwidth(0.1),
    ] {
        let (run, lines) = run_traced(&three(Some(fault)), &pool(), 5, UnixMillis(0));
        let mut replayer = Replayer::new(None);
        for line in &lines {
            replayer.take(line).unwrap();
        }
        let replay = replayer.finish().unwrap();
        assert_eq!(replay.parted, None, "{fault:?}");
        assert!(
            replay.complete && replay.actions > run.outcomes[0].requests,
            "{replay:?}"
        );
    }
}

/// A block of 64 KiB is two seconds of such a video, and everybody's line is short while all arrive.
#[test]
fn a_crowd_that_watches_a_small_video_is_not_in_its_own_way() {
    let crowd = Scenario {
        clients: 100,
        arrivals_sec: 10.0,
        chunks: 12,
        chunk_bytes: 125_000,
        chunk_sec: 4.0,
        ..Scenario::new(
            "test",
            "test",
            vec![
                NodePlan::new(18.75, 20.0),
                NodePlan::new(9.375, 40.0),
                NodePlan::new(6.25, 60.0),
            ],
        )
    };
    let by_need = Setup {
        sharing: Sharing::ByNeed(Weights::default()),
        ..pool()
    };
    let outcomes = run(&crowd, &by_need, 1).outcomes;
    let stalled_sec = outcomes.iter().map(|outcome| outcome.stall_sec).sum::<f64>() / 100.0;
    assert!(stalled_sec < 0.05, "{stalled_sec:.2} s a viewer");
    let mut startups: Vec<f64> = outcomes
        .iter()
        .map(|outcome| outcome.startup_sec.expect("everybody starts"))
        .collect();
    startups.sort_by(f64::total_cmp);
    assert!(startups[94] < 2.0, "{:.2} s for 95 of 100", startups[94]);
}
