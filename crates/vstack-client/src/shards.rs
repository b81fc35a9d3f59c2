//! The chunk out of any three of its shards.
//!
//! Three nodes are asked at once, the one that the policy chose first; each that fails is replaced by one that is left.
//! Every shard is checked before it is used, parity too, and the chunk after that: the code restores what is missing and
//! finds nothing that is wrong. Whole shards; rows are not scheduled on their own here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use vstack_erasure::{DATA_SHARDS, SHARDS, decode};

use crate::clock::micros;
use crate::cluster::Shared;
use crate::fetch::{Attempt, Object, Setback, fetch_object, verify};
use crate::policy::rank::rank;
use crate::policy::{Choice, Failure, NodeIndex};
use crate::source::{Source, SourcePart};

/// Reads an erasure-coded chunk.
pub(crate) async fn fetch(
    cluster: &Shared,
    source: &Source,
    lead: NodeIndex,
    received: Arc<AtomicU64>,
) -> Attempt {
    let started = Instant::now();
    let mut gathering = Gathering {
        cluster,
        source,
        left: order(cluster, source, lead),
        received,
        setbacks: Vec::new(),
    };
    let gathered = gathering.run().await;
    let last_sign = Instant::now();
    let result = match gathered {
        Ok(shards) => decoded(source, shards).await,
        Err(failure) => Err(failure),
    };
    Attempt {
        result,
        elapsed: micros(started.elapsed()),
        detect: micros(last_sign.elapsed()),
        setbacks: gathering.setbacks,
    }
}

/// All parts: the lead's, then the best-scored ones.
fn order(cluster: &Shared, source: &Source, lead: NodeIndex) -> VecDeque<SourcePart> {
    let others: Vec<NodeIndex> = source.shape().nodes().filter(|node| *node != lead).collect();
    let ranked = rank(
        Choice::Score,
        0,
        &others,
        &cluster.nodes().records,
        &BTreeMap::new(),
        &BTreeMap::new(),
        cluster.clock.now(),
    );
    let nodes = std::iter::once(lead).chain(ranked.into_iter().map(|candidate| candidate.node));
    nodes.filter_map(|node| source.part_on(node).copied()).collect()
}

type Gathered = [Option<Bytes>; SHARDS];

struct Gathering<'a> {
    cluster: &'a Shared,
    source: &'a Source,
    left: VecDeque<SourcePart>,
    received: Arc<AtomicU64>,
    setbacks: Vec<Setback>,
}

impl Gathering<'_> {
    /// Three shards with their own hashes, or why there are no three.
    async fn run(&mut self) -> Result<Gathered, Failure> {
        let mut shards: Gathered = Default::default();
        let mut count = 0;
        let mut downloads = FuturesUnordered::new();
        downloads.extend((0..DATA_SHARDS).filter_map(|_| self.next()));
        while let Some((part, received, attempt)) = downloads.next().await {
            match (
                attempt.result,
                part.shard.and_then(|shard| shards.get_mut(usize::from(shard))),
            ) {
                (Ok(bytes), Some(slot)) => {
                    self.cluster.nodes().records.record_mut(part.node).sent_right();
                    count += usize::from(slot.replace(bytes).is_none());
                    if count == DATA_SHARDS {
                        return Ok(shards);
                    }
                }
                (result, _) => {
                    self.setbacks.push(Setback {
                        node: part.node,
                        failure: result.err().unwrap_or(Failure::NotFound),
                        detect: attempt.detect,
                        wasted_bytes: received.load(Ordering::Relaxed),
                    });
                    downloads.extend(self.next());
                }
            }
        }
        Err(Failure::TooFewShards {
            found: u8::try_from(count).unwrap_or(u8::MAX),
        })
    }

    /// The download of the next part that is left.
    fn next(&mut self) -> Option<impl Future<Output = (SourcePart, Arc<AtomicU64>, Attempt)> + use<>> {
        loop {
            let part = self.left.pop_front()?;
            let client = self.cluster.nodes().client(part.node);
            let (Some(client), Some(id)) = (client, self.source.object_id(&part)) else {
                continue;
            };
            let object = Object {
                id,
                ballot: part.ballot,
                size_bytes: self.source.part_bytes(),
                sha256: part.sha256,
            };
            let (own, all) = (Arc::new(AtomicU64::new(0)), Arc::clone(&self.received));
            return Some(async move {
                let attempt = fetch_object(&client, object, Arc::clone(&own)).await;
                all.fetch_add(own.load(Ordering::Relaxed), Ordering::Relaxed);
                (part, own, attempt)
            });
        }
    }
}

/// Off the runtime's threads: decoding 64 MiB takes 20 ms, hashing it 40 ms and more.
async fn decoded(source: &Source, shards: Gathered) -> Result<Bytes, Failure> {
    let layout = source.layout();
    let decoding = tokio::task::spawn_blocking(move || {
        decode(layout, std::array::from_fn(|index| shards.get(index)?.as_deref()))
    });
    match decoding.await {
        // The shards are what the manifest says; if the chunk is not, the manifest is wrong.
        Ok(Ok(chunk)) => verify(chunk.into(), source.sha256).await,
        Ok(Err(error)) => Err(Failure::NotUnderstood {
            reason: error.to_string(),
        }),
        Err(_) => Err(Failure::WrongBytes),
    }
}
