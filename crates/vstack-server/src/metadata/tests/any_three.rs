//! Any three of five shards, read from real storage nodes: by the client, and by plain readers through the gateway.
//!
//! Shards are deleted by signed orders and rotten on disk, or never sent and sent wrong. With three good ones the bytes are
//! exact; with fewer there is an error of the closed list within a limited time, and never a part of the bytes.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vstack_api::ErrorCode;
use vstack_api::redundancy::RedundancyChoice;
use vstack_client::{ClientConfig, ClientError};
use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::id::ChunkId;
use vstack_core::limits::MAX_CHUNK_BYTES;
use vstack_core::manifest::{ManifestChunk, ManifestPart, Redundancy};
use vstack_core::paxos::DeleteOrder;
use vstack_erasure::{CELL_BYTES, DATA_SHARDS, ROW_BYTES, SHARDS, encode};

use super::cluster::{Cluster, code, finalize_of, key};
use super::redundancy::{converted_within, start_gateway};

/// What has become of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shard {
    Good,
    Lost,
    Corrupt,
}

type Pattern = [Shard; SHARDS];

/// All there are: 3^5.
const PATTERNS: u32 = 243;
/// Chunks that are read at the same time.
const AT_ONCE: usize = 64;
/// An answer takes no longer. It waits for its turn among the others, and for nodes that sent several chunks wrong in a row,
/// which are left alone for up to 10 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Chunks are converted one after another, at half speed.
const CONVERTED_WITHIN: Duration = Duration::from_secs(300);
/// Of a shard, looked for on disk.
const NEEDLE_BYTES: usize = 16;
const PAGE_BYTES: usize = 4096;

fn pattern(number: u32) -> Pattern {
    let digit = |place: usize| number / 3_u32.pow(u32::try_from(place).unwrap()) % 3;
    std::array::from_fn(|place| match digit(place) {
        0 => Shard::Good,
        1 => Shard::Lost,
        _ => Shard::Corrupt,
    })
}

fn good(pattern: &Pattern) -> usize {
    pattern.iter().filter(|shard| **shard == Shard::Good).count()
}

/// Bytes that no other chunk has: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn content(seq: u32, size: usize) -> Bytes {
    let mut state = u64::from(seq) << 32;
    let mut word = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..size.div_ceil(8)).flat_map(|_| word()).collect();
    bytes.truncate(size);
    bytes.into()
}

/// Sizes around the edges of the layout that are long enough for their shards to be found on disk. One in sixteen is a cell
/// or a row: what is converted, and looked through for rot, grows with them.
fn size_of(seq: u32) -> usize {
    const SHORT: [usize; 5] = [48, 49, 50, 601, 3_001];
    const LONG: [usize; 4] = [CELL_BYTES, CELL_BYTES + 1, ROW_BYTES - 1, ROW_BYTES + 100];
    let turn = seq as usize / 16;
    match seq % 16 {
        7 => LONG[turn % LONG.len()],
        _ => SHORT[seq as usize % SHORT.len()],
    }
}

/// Turns a bit of every place on the node's disk where one of `needles` stands, and says how many those were.
fn rot(folder: &Path, needles: &HashSet<[u8; NEEDLE_BYTES]>) -> usize {
    let mut turned = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            turned += rot(&path, needles);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let mut file = None;
        for page in (0..bytes.len()).step_by(PAGE_BYTES) {
            let end = (page + PAGE_BYTES + NEEDLE_BYTES - 1).min(bytes.len());
            if bytes[page..end].iter().all(|byte| *byte == 0) {
                continue;
            }
            for (at, window) in (page..).zip(bytes[page..end].windows(NEEDLE_BYTES)) {
                if needles.contains(window) {
                    let open = || std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                    let file = file.get_or_insert_with(open);
                    file.write_all_at(&[window[0] ^ 1], at as u64).unwrap();
                    turned += 1;
                }
            }
        }
    }
    turned
}

/// Brings every chunk of the video into the state of its pattern.
async fn damage(cluster: &Cluster, chunks: &[ManifestChunk]) {
    let mut needles: BTreeMap<usize, HashSet<[u8; NEEDLE_BYTES]>> = BTreeMap::new();
    let mut orders = Vec::new();
    for chunk in chunks {
        let seq = chunk.sequence_num;
        let shards = encode(&content(seq, size_of(seq))).unwrap();
        for part in &chunk.placement.parts {
            let shard = part.shard.expect("the chunk is coded");
            let number = cluster
                .nodes
                .iter()
                .position(|node| node.node_id == Some(part.node_id))
                .unwrap();
            match pattern(seq)[usize::from(shard)] {
                Shard::Good => {}
                Shard::Lost => {
                    let object = chunk.chunk_id.with_shard(shard).unwrap();
                    let order = DeleteOrder::signed(&key().grant_key(), object, part.ballot, part.node_id);
                    orders.push((number, order));
                }
                Shard::Corrupt => {
                    let begin = shards[usize::from(shard)][..NEEDLE_BYTES].try_into().unwrap();
                    needles.entry(number).or_default().insert(begin);
                }
            }
        }
    }
    let deletions = orders
        .into_iter()
        .map(async |(number, order)| cluster.storage(number).delete(&order).await.unwrap());
    stream::iter(deletions)
        .buffer_unordered(AT_ONCE)
        .for_each(async |_| ())
        .await;
    for (number, needles) in needles {
        let folder = cluster.folder.path().join(format!("node-{number}"));
        let turned = tokio::task::spawn_blocking(move || (rot(&folder, &needles), needles.len()));
        let (turned, wanted) = turned.await.unwrap();
        assert!(turned >= wanted, "{turned} of {wanted} shards were found on disk");
    }
}

/// A video of a chunk for each pattern, coded, its shards still good.
async fn coded_video(cluster: &Cluster) -> Vec<ManifestChunk> {
    let video = cluster.create("patterns").await;
    cluster.store(ChunkId::init(video), b"init").await;
    let stores = (0..PATTERNS).map(async |seq| {
        cluster
            .store(ChunkId::media(video, seq), &content(seq, size_of(seq)))
            .await
    });
    stream::iter(stores)
        .buffer_unordered(8)
        .for_each(async |_| ())
        .await;
    cluster
        .catalogue
        .finalize(video, &finalize_of(PATTERNS))
        .await
        .unwrap();
    converted_within(CONVERTED_WITHIN, cluster, video, RedundancyChoice::Erasure).await;
    cluster.catalogue.manifest(video).await.unwrap().chunks
}

/// One GET of a plain reader.
async fn check_plain(cluster: &Cluster, gateway_url: &str, chunk: &ManifestChunk) {
    let seq = chunk.sequence_num;
    let pattern = pattern(seq);
    let url = format!("{gateway_url}/chunk/{}", chunk.chunk_id);
    let answer = tokio::time::timeout(ANSWER_WITHIN, cluster.http.get(url).send()).await;
    let answer = answer.expect("an answer in time").unwrap();
    if answer.status() == 200 {
        let announced = answer.content_length();
        let bytes = answer.bytes().await.expect("the whole body");
        assert_eq!(announced, Some(bytes.len() as u64), "{pattern:?}");
        assert!(bytes == content(seq, size_of(seq)), "wrong bytes: {pattern:?}");
        assert!(good(&pattern) >= DATA_SHARDS, "bytes out of nothing: {pattern:?}");
    } else {
        assert_eq!(code(answer).await, ErrorCode::Unavailable, "{pattern:?}");
        assert!(good(&pattern) < DATA_SHARDS, "bytes that are there: {pattern:?}");
    }
}

/// A client that knows nothing reads a chunk.
async fn check_client(cluster: &Cluster, chunk: &ManifestChunk, pattern: Pattern, expected: &[u8]) {
    let size = expected.len();
    let config = ClientConfig::new(&cluster.metadata.url);
    let client = vstack_client::Cluster::connect(config).await.unwrap();
    let read = tokio::time::timeout(ANSWER_WITHIN, client.fetch_verified(chunk)).await;
    match read.expect("an answer in time") {
        Ok(bytes) => {
            assert!(bytes == expected, "wrong bytes: {size} bytes, {pattern:?}");
            assert!(good(&pattern) >= DATA_SHARDS, "bytes out of nothing: {pattern:?}");
        }
        Err(ClientError::Unobtainable { chunk_id, .. }) => {
            assert_eq!(chunk_id, chunk.chunk_id);
            assert!(
                good(&pattern) < DATA_SHARDS,
                "{size} bytes that are there: {pattern:?}"
            );
        }
        Err(other) => unreachable!("{pattern:?}: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pattern_of_lost_and_rotten_shards_gives_the_chunk_or_a_clear_error() {
    // A compaction under way would carry shards out of the file before they rot there.
    let cluster = Cluster::start_without_upkeep(5).await;
    let gateway = start_gateway(&cluster).await;
    let chunks = coded_video(&cluster).await;
    damage(&cluster, &chunks).await;
    // What a read finds is healed where it can be, so that each chunk is read twice at the same time.
    stream::iter(&chunks)
        .for_each_concurrent(AT_ONCE, async |chunk| {
            let seq = chunk.sequence_num;
            let bytes = content(seq, size_of(seq));
            tokio::join!(
                check_plain(&cluster, &gateway.url, chunk),
                check_client(&cluster, chunk, pattern(seq), &bytes),
            );
        })
        .await;
    gateway.stop().await;
    cluster.stop().await;
}

/// A chunk whose shards were sent to the nodes by hand: `Lost` was not sent, `Corrupt` with other bytes. Shard `i` lies on
/// node `i`, and the node says of none that it is damaged.
async fn sent_by_hand(
    cluster: &Cluster,
    template: &ManifestChunk,
    id: ChunkId,
    bytes: &[u8],
    pattern: Pattern,
) -> ManifestChunk {
    let mut chunk = template.clone();
    let mut parts = Vec::new();
    for ((index, shard), node) in (0..).zip(encode(bytes).unwrap()).zip(&cluster.nodes) {
        let digest = ChunkDigest::of(&shard);
        let state = pattern[usize::from(index)];
        if state != Shard::Lost {
            let mut sent = shard.clone();
            if state == Shard::Corrupt {
                let middle = sent.len() / 2;
                sent[middle] ^= 1;
            }
            let url = format!("{}/chunk/{}", node.url, id.with_shard(index).unwrap());
            let put = cluster.http.put(url).body(sent).send().await.unwrap();
            assert_eq!(put.status(), 201);
        }
        parts.push(ManifestPart {
            node_id: node.node_id.unwrap(),
            node_url: node.url.clone(),
            ballot: Ballot::PLAIN,
            shard: Some(index),
            checksum: digest.sha256,
            leaf_root: digest.leaf_root,
        });
    }
    let digest = ChunkDigest::of(bytes);
    chunk.chunk_id = id;
    (chunk.size_bytes, chunk.checksum, chunk.leaf_root) =
        (digest.size_bytes, digest.sha256, digest.leaf_root);
    chunk.redundancy = Redundancy::coded(3, 2, &parts);
    chunk.placement.parts = parts;
    chunk
}

/// Every order of magnitude as often, up to 4 MiB; the largest chunk there is is read besides.
fn lengths() -> impl Strategy<Value = usize> {
    (0u32..22).prop_flat_map(|bits| 1usize..=1 << (bits + 1))
}

/// Mostly two faults at most, since fewer than three good shards give no chunk to compare.
fn patterns() -> impl Strategy<Value = Pattern> {
    let fault = || (0..SHARDS, prop_oneof![Just(Shard::Lost), Just(Shard::Corrupt)]);
    let two = (fault(), fault()).prop_map(|faults| {
        let mut pattern = [Shard::Good; SHARDS];
        for (place, state) in <[(usize, Shard); 2]>::from(faults) {
            pattern[place] = state;
        }
        pattern
    });
    prop_oneof![5 => two, 1 => (0..PATTERNS).prop_map(pattern)]
}

/// proptest prints what failed, and keeps its seed.
#[test]
fn any_three_shards_on_real_nodes_give_a_chunk_of_any_length() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (cluster, template) = runtime.block_on(async {
        let cluster = Cluster::start(5).await;
        let video = cluster.active_video("clip", 1).await;
        let template = cluster.catalogue.manifest(video).await.unwrap().chunks.remove(0);
        (cluster, template)
    });
    let next = std::cell::Cell::new(1);
    let check = |size: usize, pattern: Pattern| {
        let id = ChunkId::media(template.chunk_id.video(), next.replace(next.get() + 1));
        let bytes = content(id.seq(), size);
        runtime.block_on(async {
            let chunk = sent_by_hand(&cluster, &template, id, &bytes, pattern).await;
            check_client(&cluster, &chunk, pattern, &bytes).await;
        });
    };
    let mut runner = TestRunner::new(Config {
        cases: 48,
        max_shrink_iters: 32,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&(lengths(), patterns()), |(size, pattern)| {
            check(size, pattern);
            Ok(())
        })
        .expect("exact bytes or an error");
    let largest = usize::try_from(MAX_CHUNK_BYTES).unwrap();
    use Shard::{Corrupt, Good, Lost};
    check(largest, [Corrupt, Good, Lost, Good, Good]);
    check(largest - 1, [Good, Lost, Good, Lost, Good]);
    check(1, [Lost, Corrupt, Good, Good, Good]);
    runtime.block_on(cluster.stop());
}
