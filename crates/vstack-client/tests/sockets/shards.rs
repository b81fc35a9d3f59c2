//! Any three good shards of five give the chunk, whatever the others do; fewer give an error; wrong bytes never come.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vstack_client::policy::seed::ROUNDS_BEFORE_ERROR;
use vstack_client::{ClientError, PolicyName};
use vstack_core::digest::ChunkDigest;
use vstack_core::id::ChunkId;
use vstack_core::manifest::{ManifestChunk, ManifestPart, Redundancy};
use vstack_erasure::{CELL_BYTES, DATA_SHARDS, ROW_BYTES, SHARDS, encode};

use crate::support::{Behaviour, TestCluster, TestNode};

/// Patterns that are tried at the same time.
const AT_ONCE: usize = 64;

/// A chunk of `size` bytes whose shard `i` lies on node `i`, which does `behaviours[i]` with it.
fn coded(
    cluster: &TestCluster,
    seq: u32,
    size: usize,
    behaviours: [Behaviour; SHARDS],
) -> (ManifestChunk, Bytes) {
    let id = ChunkId::media(cluster.video, seq);
    let bytes: Bytes = (0..size)
        .map(|at| u8::try_from((at * 31 + at / 251 + seq as usize) % 256).expect("below 256"))
        .collect::<Vec<u8>>()
        .into();
    let shards = encode(&bytes).expect("a chunk that is not empty");
    let mut chunk = cluster.manifest.lock().expect("no test panicked with it").chunks[0].clone();
    let template = chunk.placement.parts[0].clone();
    let mut parts = Vec::new();
    for (index, (shard, behaviour)) in (0..).zip(shards.into_iter().zip(behaviours)) {
        let node = &cluster.nodes[usize::from(index)];
        let digest = ChunkDigest::of(&shard);
        node.hold(id.with_shard(index).expect("a shard"), shard.into(), behaviour);
        parts.push(ManifestPart {
            node_id: node.id,
            node_url: node.url().to_owned(),
            shard: Some(index),
            checksum: digest.sha256,
            leaf_root: digest.leaf_root,
            ..template.clone()
        });
    }
    let digest = ChunkDigest::of(&bytes);
    chunk.chunk_id = id;
    chunk.sequence_num = seq;
    (chunk.size_bytes, chunk.checksum, chunk.leaf_root) =
        (digest.size_bytes, digest.sha256, digest.leaf_root);
    chunk.redundancy = Redundancy::coded(3, 2, &parts);
    chunk.placement.parts = parts;
    (chunk, bytes)
}

/// A client that knows nothing yet gets the right bytes, or an error that names the chunk where too few are good.
async fn check(cluster: &TestCluster, seq: u32, size: usize, behaviours: [Behaviour; SHARDS]) {
    let (chunk, bytes) = coded(cluster, seq, size, behaviours);
    let good = behaviours.iter().filter(|one| **one == Behaviour::Serve).count();
    let client = cluster.connect(PolicyName::default()).await;
    let before = requests(cluster, chunk.chunk_id);
    match client.fetch_verified(&chunk).await {
        Ok(found) => {
            assert!(found == bytes, "wrong bytes: {size} bytes, {behaviours:?}");
            assert!(
                good >= DATA_SHARDS,
                "{good} good shards gave a chunk: {behaviours:?}"
            );
        }
        Err(ClientError::Unobtainable { chunk_id, .. }) => {
            assert_eq!(chunk_id, chunk.chunk_id);
            assert!(good < DATA_SHARDS, "{size} bytes were not found: {behaviours:?}");
            let asked = requests(cluster, chunk_id) - before;
            let most = ROUNDS_BEFORE_ERROR as usize * SHARDS;
            assert!(
                (SHARDS..=most).contains(&asked),
                "{asked} requests for what cannot be had: {behaviours:?}"
            );
        }
        Err(other) => unreachable!("{behaviours:?}: {other}"),
    }
}

/// Requests for any shard of the chunk so far.
fn requests(cluster: &TestCluster, chunk: ChunkId) -> usize {
    let asked = |node: &TestNode| node.asked().iter().filter(|id| id.whole() == chunk).count();
    cluster.nodes.iter().map(asked).sum()
}

/// Every way to give each of five shards one of `kinds`.
fn patterns(kinds: &[Behaviour]) -> Vec<[Behaviour; SHARDS]> {
    let count = kinds.len().pow(u32::try_from(SHARDS).expect("five"));
    (0..count)
        .map(|mut number| {
            std::array::from_fn(|_| {
                let kind = kinds[number % kinds.len()];
                number /= kinds.len();
                kind
            })
        })
        .collect()
}

async fn check_all(patterns: Vec<[Behaviour; SHARDS]>) {
    use futures::stream::{self, StreamExt as _};
    let cluster = TestCluster::start(SHARDS, 1, |_| vec![0]);
    stream::iter((0..).zip(patterns))
        .for_each_concurrent(AT_ONCE, |(seq, pattern)| {
            // Lengths around nothing, a row of three bytes and a cell, each with many patterns.
            let sizes = [1, 2, 3, 4, 5, 100, 3_001, CELL_BYTES + 1];
            check(&cluster, seq, sizes[seq as usize % sizes.len()], pattern)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mixture_of_good_missing_and_corrupt_shards_gives_the_chunk_or_an_error() {
    check_all(patterns(&[
        Behaviour::Serve,
        Behaviour::NotFound,
        Behaviour::Corrupt,
    ]))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_set_of_shards_that_are_cut_off_too_long_or_refused_is_got_along_with() {
    let mut all = Vec::new();
    for kind in [Behaviour::Truncate, Behaviour::TooLong, Behaviour::Fail] {
        all.extend(patterns(&[Behaviour::Serve, kind]));
    }
    check_all(all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_two_nodes_may_hang_or_never_answer() {
    for kind in [Behaviour::Hang, Behaviour::Mute] {
        let two = |pattern: &[Behaviour; SHARDS]| pattern.iter().filter(|one| **one == kind).count() == 2;
        check_all(
            patterns(&[Behaviour::Serve, kind])
                .into_iter()
                .filter(two)
                .collect(),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_around_every_edge_of_the_layout_survive_the_loss_of_two() {
    let cluster = TestCluster::start(SHARDS, 1, |_| vec![0]);
    let edges = [
        CELL_BYTES,
        2 * CELL_BYTES,
        ROW_BYTES,
        2 * ROW_BYTES,
        5 * ROW_BYTES,
    ];
    let near = edges
        .iter()
        .flat_map(|edge| [edge - 1, *edge, edge + 1, edge + 2]);
    let losses = [[0, 1], [1, 2], [0, 4], [3, 4]];
    for (seq, size) in (0..).zip(near.chain(1..=12)) {
        let mut behaviours = [Behaviour::Serve; SHARDS];
        for lost in losses[seq as usize % losses.len()] {
            behaviours[lost] = Behaviour::NotFound;
        }
        check(&cluster, seq, size, behaviours).await;
    }
    // The largest chunk there is.
    let mut behaviours = [Behaviour::Serve; SHARDS];
    (behaviours[0], behaviours[2]) = (Behaviour::Corrupt, Behaviour::NotFound);
    check(&cluster, 1_000, 64 << 20, behaviours).await;
}

/// Shards that are what the manifest says of a chunk that is not: the manifest is wrong, and nobody plays it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_is_not_what_the_manifest_says_is_not_given_out() {
    let cluster = TestCluster::start(SHARDS, 1, |_| vec![0]);
    let (mut chunk, _) = coded(&cluster, 0, 5_000, [Behaviour::Serve; SHARDS]);
    chunk.checksum = ChunkDigest::of(b"something else").sha256;
    let client = cluster.connect(PolicyName::default()).await;
    let refused = client.fetch_verified(&chunk).await;
    assert!(
        matches!(refused, Err(ClientError::Unobtainable { .. })),
        "{refused:?}"
    );
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    prop_oneof![
        // What cannot be had says little, and the patterns above have it all.
        8 => Just(Behaviour::Serve),
        1 => Just(Behaviour::NotFound),
        1 => Just(Behaviour::Corrupt),
        1 => Just(Behaviour::Truncate),
        1 => Just(Behaviour::Fail),
    ]
}

/// From 1 byte to 8 MiB, every order of magnitude as often. proptest prints what failed, and keeps its seed.
#[test]
fn any_length_and_any_faults_give_the_chunk_or_an_error() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let cluster = {
        let _inside = runtime.enter();
        TestCluster::start(SHARDS, 1, |_| vec![0])
    };
    let mut runner = TestRunner::new(Config {
        cases: 48,
        max_shrink_iters: 64,
        failure_persistence: None,
        ..Config::default()
    });
    let lengths = (0u32..23).prop_flat_map(|bits| 1usize..=1 << (bits + 1));
    let input = (lengths, proptest::array::uniform5(behaviour()));
    runner
        .run(&input, |(size, behaviours)| {
            runtime.block_on(check(&cluster, 1, size, behaviours));
            Ok(())
        })
        .expect("right bytes or an error");
}
