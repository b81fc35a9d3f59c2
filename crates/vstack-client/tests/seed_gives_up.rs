//! When the base policy gives a chunk up: those who wait are told, and nobody is asked without end.

use vstack_client::policy::{
    Action, ChunkSpec, Fact, Failure, Micros, NodeIndex, NodeRecords, Seed, SeedConfig, Shape,
};

fn spec(replicas: &[u16]) -> ChunkSpec {
    ChunkSpec {
        start: Micros(0),
        end: Micros::from_ms(10_000),
        shape: Shape::copies(2_000_000, replicas.iter().map(|index| NodeIndex(*index))),
    }
}

/// A chunk whose every attempt fails at once, as `failure` says of the node: those who wait are told after so many.
fn check_gives_up_within(
    attempts: usize,
    spec: ChunkSpec,
    failure: impl Fn(Micros, &mut NodeRecords, u16) -> Failure,
) {
    let mut policy = Seed::new(SeedConfig::default(), vec![spec]);
    let (mut records, mut now, mut made) = (NodeRecords::default(), Micros(1), 0);
    let mut actions = policy.apply(now, &mut records, Fact::Tick);
    while !actions.contains(&Action::Unobtainable { seq: 0 }) {
        let next = actions.iter().find_map(|action| match action {
            Action::Start(start) => Some((now, Some(start.clone()))),
            Action::WakeAt(at) => Some((*at, None)),
            _ => None,
        });
        let (at, start) = next.expect("something is always to come");
        now = at;
        let fact = match start {
            None => Fact::Tick,
            Some(start) => {
                made += 1;
                assert!(
                    made <= attempts,
                    "{made} attempts, the last at {} ms",
                    now.as_ms()
                );
                Fact::Failed {
                    attempt: start.attempt,
                    failure: failure(now, &mut records, start.node.0),
                }
            }
        };
        actions = policy.apply(now, &mut records, fact);
        if actions.contains(&Action::ReadManifest) {
            actions.extend(policy.apply(now, &mut records, Fact::ManifestRead));
        }
    }
    assert!(now.as_ms() < 60_000, "told after {} ms", now.as_ms());
}

#[test]
fn a_chunk_with_too_few_shards_is_told_of_after_three_rounds_of_one_attempt() {
    let mut spec = spec(&[0, 1, 2, 3, 4]);
    spec.shape.needed = 3;
    for part in &mut spec.shape.parts {
        part.shard = u8::try_from(part.node.0).ok();
    }
    check_gives_up_within(3, spec, |now, records, _| {
        // Three nodes are dead, as each attempt finds again.
        for dead in 2..5 {
            records.record_mut(NodeIndex(dead)).failed(now, &Failure::Connect);
        }
        Failure::TooFewShards { found: 2 }
    });
}

#[test]
fn a_replica_that_lacks_the_chunk_is_not_asked_without_end_while_the_others_are_dead() {
    let spec = spec(&[0, 1, 2]);
    check_gives_up_within(30, spec, |now, records, node| {
        // Other chunks are asked for too.
        for dead in 1..3 {
            records.record_mut(NodeIndex(dead)).failed(now, &Failure::Connect);
        }
        match node {
            0 => Failure::NotFound,
            _ => Failure::Connect,
        }
    });
}
