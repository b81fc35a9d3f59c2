//! What a growing number of chunks costs: memory a chunk, time to start, latency of a read and a write.
//!
//! One folder grows from the smallest number to the largest, filled through the store itself (small chunks, so that a
//! million fit on the disk; what is measured does not depend on their length). At each number a node starts on it, and
//! is asked for as many chunks, chosen at random, as the smallest number has: each once, then all of them again and
//! again. So a row differs from the next in nothing but the chunks that lie beside those that are read.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::mpsc::channel;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use rand::seq::{IteratorRandom as _, SliceRandom as _};
use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, VideoId};
use vstack_store::{PutRequest, Reserve, Store, StoreOptions};

use super::Options;
use crate::http::{get, put};
use crate::load::{Job, ms, percentile};
use crate::output;
use crate::peers::{Node, new_paths};
use crate::report::Report;

/// Bytes of each chunk.
const SMALL_BYTES: usize = 512;
/// Chunks whose acknowledgment is awaited at a time: enough for full batches.
const WINDOW: u32 = 4096;
/// Chunks of one video; further ones belong to the next.
const VIDEO_CHUNKS: u32 = 500;
/// How often each chunk is read after its first read, which checks its SHA-256.
const ROUNDS: usize = 20;
const WRITES: usize = 200;

/// What was found at one number of chunks.
struct Step {
    chunks: u32,
    ready_ms: f64,
    anon_bytes: u64,
    first_p50_ms: f64,
    get_p50_ms: f64,
    get_p99_ms: f64,
    put_p50_ms: f64,
}

pub(super) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let numbers: Vec<u32> = options
        .growth()
        .iter()
        .copied()
        .filter(|number| *number > 0)
        .collect();
    let Some(reads) = numbers.first().copied() else {
        return Ok(());
    };
    let folder = options.work.join("growth");
    std::fs::create_dir_all(&folder)?;
    let data = folder.join("node");
    let (mut steps, mut have) = (Vec::new(), 0);
    for number in numbers {
        output::step(&format!("growing to {number} chunks"));
        fill(&data, have..number)?;
        have = number;
        let step = measure(options, &data, number, reads)?;
        output::note(&format!(
            "ready after {:.0} ms, {:.1} MiB anonymous, GET p50 {:.3} ms the first time, {:.3} ms again, PUT p50 {:.2} ms",
            step.ready_ms,
            step.anon_bytes as f64 / 1_048_576.0,
            step.first_p50_ms,
            step.get_p50_ms,
            step.put_p50_ms
        ));
        steps.push(step);
    }
    report.tables.push(table(&steps));
    Ok(())
}

/// The chunk with this number.
fn chunk(number: u32) -> ChunkId {
    let video = VideoId(Uuid::from_u128(1 + u128::from(number / VIDEO_CHUNKS)));
    ChunkId::media(video, number % VIDEO_CHUNKS)
}

fn fill(data: &Path, numbers: std::ops::Range<u32>) -> Result<()> {
    let options = StoreOptions {
        reserve: Reserve::Bytes(0),
        ..StoreOptions::default()
    };
    let (store, _) = Store::open(data, options).context("cannot open the store")?;
    let mut first = numbers.start;
    while first < numbers.end {
        let end = numbers.end.min(first.saturating_add(WINDOW));
        let (sender, receiver) = channel();
        for number in first..end {
            let bytes = Bytes::from(vec![number.to_le_bytes()[0]; SMALL_BYTES]);
            let sender = sender.clone();
            let request = PutRequest::new(chunk(number), Ballot::PLAIN, bytes);
            store.put(request, move |done| drop(sender.send(done)));
        }
        drop(sender);
        for done in receiver {
            done.context("the store refused a chunk")?;
        }
        first = end;
    }
    Ok(())
}

fn measure(options: &Options, data: &Path, chunks: u32, reads: u32) -> Result<Step> {
    let node = Node::start(&options.vstack, data)?;
    let anon_bytes = node.process.usage().anon_bytes;
    let mut random = rand::rng();
    let mut once: Vec<_> = (0..chunks)
        .choose_multiple(&mut random, reads as usize)
        .into_iter()
        .map(|number| get(node.address, &format!("/chunk/{}", chunk(number))))
        .collect();
    once.shuffle(&mut random);
    let mut again = vec![once.as_slice(); ROUNDS].concat();
    again.shuffle(&mut random);
    let writes: Vec<_> = new_paths(WRITES)
        .iter()
        .map(|path| put(node.address, path, SMALL_BYTES))
        .collect();
    let job = |heads, body| Job {
        address: node.address,
        connections: 1,
        heads,
        body,
        again: false,
        limit: options.limit(),
    };
    let first = job(&once, &[]).run()?;
    let read = job(&again, &[]).run()?;
    let written = job(&writes, &[7; SMALL_BYTES]).run()?;
    if first.bytes + read.bytes != ((first.requests() + read.requests()) * SMALL_BYTES) as u64 {
        bail!("chunks came back with another length");
    }
    Ok(Step {
        chunks,
        ready_ms: ms(node.ready_after),
        anon_bytes,
        first_p50_ms: percentile(&first.whole_ms, 0.5),
        get_p50_ms: percentile(&read.whole_ms, 0.5),
        get_p99_ms: percentile(&read.whole_ms, 0.99),
        put_p50_ms: percentile(&written.whole_ms, 0.5),
    })
}

fn table(steps: &[Step]) -> String {
    let reads = steps.first().map_or(0, |step| step.chunks);
    let mut table = format!(
        "## What more chunks cost\n\nOne folder of chunks of {SMALL_BYTES} bytes; at each number a node starts on it and one connection reads {reads} \
         chunks, chosen at random: each once, which checks its SHA-256, then all of them {ROUNDS} times in another order; then it writes {WRITES} new ones.\n\
         Bytes a chunk: anonymous memory above that of the smallest number, divided by the chunks above it.\n\n\
         | chunks | ready after ms | anonymous MiB | bytes a chunk | first GET p50 ms | further GET p50 ms | p99 ms | PUT p50 ms |\n\
         |---|---|---|---|---|---|---|---|\n"
    );
    let base = steps.first();
    for step in steps {
        let more = base.map_or(0, |base| step.chunks - base.chunks);
        let bytes = base.map_or(0, |base| step.anon_bytes.saturating_sub(base.anon_bytes));
        let each = match more {
            0 => "-".to_owned(),
            more => format!("{:.0}", bytes as f64 / f64::from(more)),
        };
        let _ = writeln!(
            table,
            "| {} | {:.0} | {:.1} | {each} | {:.3} | {:.3} | {:.3} | {:.2} |",
            step.chunks,
            step.ready_ms,
            step.anon_bytes as f64 / 1_048_576.0,
            step.first_p50_ms,
            step.get_p50_ms,
            step.get_p99_ms,
            step.put_p50_ms
        );
    }
    table
}
