//! `client --layer sockets,netns`: how near to the physical limit a whole video comes, whatever the nodes do.
//!
//! Two layers of real sockets. `sockets`: our nodes behind emulated paths on loopback, every fault. `netns`: nginx as
//! plain nodes in network namespaces behind `tc tbf`, with aria2 beside the policies in the same run; as root, skipped
//! loudly elsewhere. The content is chunks of exactly 2 MB, three copies of each, or five shards. The lines move on by one
//! node each round, so that no policy is lucky with the order in which nodes are named. Contestants take turns within a
//! round, or run at the same time, each on lines of its own.

mod bound;
mod netns;
mod page;
mod scenario;
mod simulated;
mod sockets;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};
use vstack_client::headless::Unit;
use vstack_client::{
    ClientConfig, Cluster, HeadlessOptions, Pace, PolicyName, Session, SessionReport, TraceSink,
    TraceWriting, headless,
};

use crate::client::PREFIX_BYTES;
use crate::output;
use crate::stage::{Catalogue, Content, Holder};
use bound::Bound;
use scenario::Scenario;
use simulated::Simulated;

const CHUNK_BYTES: usize = 2_000_000;
const CHUNK_MS: u64 = 10_000;
/// As our ingest makes them of such a video: a second or less.
const FRAGMENT_BYTES: usize = 128 * 1024;
const BETWEEN_STARTS: Duration = Duration::from_millis(300);
/// Of a video whose traces are recorded.
const RECORDED_CHUNKS: u32 = 12;
const RECORDED_PATIENCE: u16 = 12;

/// What the layers of real sockets take beside what every bench takes.
#[derive(Debug, Args)]
pub(crate) struct RealOptions {
    #[arg(long, value_name = "FILE")]
    nginx: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    aria2: Option<PathBuf>,
    /// Policies on real sockets.
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        default_value = "round-robin,seed,pool"
    )]
    policy: Vec<PolicyName>,
    /// On real sockets; the lines move on by one node each round. Five see every order.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: u16,
    /// Chunks of 2 MB and 10 s on real sockets.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=200))]
    chunks: u32,
    /// A run that takes so many times its bound is given up.
    #[arg(long, value_name = "TIMES", default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=100))]
    patience: u16,
    /// All contestants and rounds of a scenario at the same time, each on lines of its own. They share the processors: only
    /// where these have little to do, which the page says.
    #[arg(long)]
    together: bool,
    /// Keep the pool's traces of real sockets there.
    #[arg(long, value_name = "DIR")]
    traces: Option<PathBuf>,
}

/// A layer of real sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    Sockets,
    Netns,
}

/// Where and with what.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) vstack: &'a Path,
    pub(crate) work: &'a Path,
    pub(crate) report: &'a Path,
    pub(crate) only: &'a str,
    pub(crate) quick: bool,
    pub(crate) options: &'a RealOptions,
}

/// One run of one contestant.
#[derive(Debug, Clone, Serialize)]
struct Row {
    layer: &'static str,
    id: &'static str,
    scenario: &'static str,
    has_fault: bool,
    round: u16,
    contestant: String,
    chunks: u32,
    /// From opening to the last chunk; none if it was given up.
    took_s: Option<f64>,
    /// Until a player may begin, and until all of the first chunk is there.
    startup_s: Option<f64>,
    first_chunk_s: Option<f64>,
    bound: Bound,
    simulated: Option<Simulated>,
    wasted_percent: f64,
    hedged_percent: f64,
    requests_per_chunk: f64,
    /// Seen and refused.
    hash_failures: u64,
    /// The bytes at the end are those of the source.
    right: bool,
    faults: usize,
    detect_ms: Option<u64>,
    bytes_by_node: BTreeMap<String, u64>,
}

impl Row {
    fn new(layer: &'static str, of: &Run<'_>, contestant: String) -> Self {
        Self {
            layer,
            id: of.scenario.id,
            scenario: of.scenario.name,
            has_fault: of.scenario.has_fault(),
            round: of.round,
            contestant,
            chunks: of.chunks(),
            took_s: None,
            startup_s: None,
            first_chunk_s: None,
            bound: of.bound,
            simulated: None,
            wasted_percent: 0.0,
            hedged_percent: 0.0,
            requests_per_chunk: 0.0,
            hash_failures: 0,
            right: false,
            faults: 0,
            detect_ms: None,
            bytes_by_node: BTreeMap::new(),
        }
    }

    fn count(&mut self, report: &SessionReport) {
        let received = (report.bytes + report.wasted_bytes).max(1) as f64;
        self.startup_s = report.startup_ms.map(|ms| ms as f64 / 1e3);
        self.wasted_percent = 100.0 * report.wasted_bytes as f64 / received;
        self.hedged_percent = 100.0 * report.hedged_bytes as f64 / received;
        self.requests_per_chunk = report.requests_per_chunk;
        self.hash_failures = report.hash_failures;
        self.faults = report.faults.len();
        self.detect_ms = report.faults.iter().map(|fault| fault.detect_ms).max();
        self.bytes_by_node.clone_from(&report.bytes_by_node);
    }

    fn ratio(&self) -> Option<f64> {
        self.took_s.map(|took| took / self.bound.whole_s)
    }

    /// The pool starts from a prefix; the others need the whole first chunk.
    fn startup_bound_s(&self) -> f64 {
        if self.contestant == PolicyName::Pool.as_str() {
            self.bound.prefix_s
        } else {
            self.bound.first_chunk_s
        }
    }

    fn sentence(&self) -> String {
        let time = match (self.took_s, self.ratio()) {
            (Some(took), Some(ratio)) => format!("{took:.1} s, {ratio:.2} of the bound"),
            _ => "given up".to_owned(),
        };
        let shown =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2} s"));
        format!(
            "{}: {time}; begins after {}, first chunk after {}; {:.1} % wasted{}",
            self.contestant,
            shown(self.startup_s),
            shown(self.first_chunk_s),
            self.wasted_percent,
            if self.right { "" } else { "; WRONG BYTES" }
        )
    }
}

/// What one contestant is given.
#[derive(Debug)]
struct Run<'a> {
    /// As it is in this round.
    scenario: Scenario,
    round: u16,
    content: &'a Content,
    bound: Bound,
    /// Then it is given up.
    limit: Duration,
    traces: Option<&'a Path>,
}

impl<'a> Run<'a> {
    fn new(scenario: &Scenario, round: u16, content: &'a Content, patience: u16) -> Self {
        let scenario = scenario.in_round(round);
        let chunks = u32::try_from(content.chunks.len()).unwrap_or(u32::MAX);
        let bound = Bound::of(&scenario, PREFIX_BYTES, CHUNK_BYTES as u64, chunks);
        Self {
            scenario,
            round,
            content,
            bound,
            limit: Duration::from_secs_f64(bound.whole_s * f64::from(patience) + 5.0),
            traces: None,
        }
    }

    /// Opens the video, and keeps the trace if it is the pool's and traces are kept.
    async fn open(
        &self,
        layer: &str,
        policy: PolicyName,
        cluster: &Cluster,
    ) -> Result<(Session, Option<TraceWriting>)> {
        let Some(folder) = self.traces.filter(|_| policy == PolicyName::Pool) else {
            return Ok((cluster.open(self.content.video).await?, None));
        };
        let name = format!("{layer}-{}-{}.trace", self.scenario.id, self.round);
        let (sink, writing) = TraceSink::to(std::fs::File::create(folder.join(name))?);
        Ok((
            cluster.open_traced(self.content.video, sink).await?,
            Some(writing),
        ))
    }

    fn chunks(&self) -> u32 {
        u32::try_from(self.content.chunks.len()).unwrap_or(u32::MAX)
    }

    /// What clients are told, with the holders in the order of the lines.
    async fn catalogue(&self, holders: &[Holder]) -> Result<Catalogue> {
        let places = |seq| self.scenario.holders(seq);
        let manifest = if self.scenario.is_coded() {
            self.content.coded_manifest(holders, places)?
        } else {
            self.content.manifest(holders, places)
        };
        Catalogue::start(holders, &manifest).await
    }
}

/// Plays one layer and writes its section of the page, with JSON lines and a picture beside it.
pub(crate) fn run(bench: &Bench<'_>, layer: Layer) -> Result<()> {
    std::fs::create_dir_all(bench.work)?;
    if let Some(traces) = &bench.options.traces {
        std::fs::create_dir_all(traces)?;
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let content = Content::random(bench.chunks(), CHUNK_BYTES, CHUNK_MS, 1).in_fragments(FRAGMENT_BYTES);
    let mut played = match layer {
        Layer::Sockets => runtime.block_on(sockets::run(bench, &content))?,
        Layer::Netns => match netns::obstacle(bench.options) {
            Some(obstacle) => {
                output::step(&format!("netns: SKIPPED, {obstacle}"));
                return Ok(());
            }
            None => runtime.block_on(netns::run(bench, &content))?,
        },
    };
    // Files that nobody needs.
    let _ = std::fs::remove_dir_all(bench.work);
    output::step("the same in virtual time");
    let scenarios = match layer {
        Layer::Sockets => scenario::emulated(),
        Layer::Netns => scenario::in_namespaces(),
    };
    simulated::simulate(&scenarios, &mut played.rows);
    page::write(bench.report, bench.work, layer, &played)?;
    output::step(&format!("written to {}", bench.report.display()));
    Ok(())
}

/// All runs of a layer.
#[derive(Debug)]
struct Played {
    rows: Vec<Row>,
    /// Of all processors, by the clients and our nodes.
    busy_percent: f64,
}

/// The traces of the pooled policy over all scenarios of emulated paths, `rounds` of each.
pub(crate) fn record_pool(
    vstack: &Path,
    work: &Path,
    rounds: u16,
    only: &str,
) -> Result<Vec<(String, Vec<Vec<String>>)>> {
    std::fs::create_dir_all(work)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let content = Content::random(RECORDED_CHUNKS, CHUNK_BYTES, CHUNK_MS, 1).in_fragments(FRAGMENT_BYTES);
    let recorded = runtime.block_on(sockets::record(vstack, work, rounds, only, &content))?;
    // Files that nobody needs.
    let _ = std::fs::remove_dir_all(work);
    Ok(recorded)
}

impl Bench<'_> {
    fn scenarios(&self, of: Vec<Scenario>) -> Vec<Scenario> {
        wanted(of, self.only)
    }

    /// A scenario's runs: those of a group run at the same time, round by round and contestant by contestant.
    fn groups<'a, C: Copy>(
        &'a self,
        scenario: &Scenario,
        content: &'a Content,
        contestants: &[C],
    ) -> Vec<Vec<(Run<'a>, C)>> {
        let run = |round| Run {
            traces: self.options.traces.as_deref(),
            ..Run::new(scenario, round, content, self.options.patience)
        };
        let runs = (0..self.rounds()).flat_map(|round| contestants.iter().map(move |who| (run(round), *who)));
        if self.options.together {
            vec![runs.collect()]
        } else {
            runs.map(|run| vec![run]).collect()
        }
    }

    const fn rounds(&self) -> u16 {
        if self.quick { 1 } else { self.options.rounds }
    }

    fn chunks(&self) -> u32 {
        if self.quick {
            self.options.chunks.min(3)
        } else {
            self.options.chunks
        }
    }
}

fn wanted(of: Vec<Scenario>, only: &str) -> Vec<Scenario> {
    of.into_iter()
        .filter(|scenario| format!("{} {}", scenario.id, scenario.name).contains(only))
        .collect()
}

/// Those who run at the same time begin one after another: opening so many connections at once takes tens of milliseconds
/// of processor, which start-up would be blamed for.
async fn its_turn(place: u32) {
    sleep(BETWEEN_STARTS * place).await;
}

/// Whether these are the bytes that were put on the nodes.
fn is_of(content: &Content, unit: &Unit, bytes: &[u8]) -> bool {
    let chunk = content.chunks.get(unit.seq as usize).map(|(_, chunk)| chunk);
    let known = chunk.and_then(|chunk| match &unit.bytes {
        Some(range) => chunk.get(range.clone()),
        None => Some(&chunk[..]),
    });
    known == Some(bytes)
}

fn config_of(policy: PolicyName, catalogue: &Catalogue) -> ClientConfig {
    ClientConfig {
        policy,
        ..ClientConfig::new(&catalogue.url)
    }
}

fn as_fast_as_possible() -> HeadlessOptions {
    HeadlessOptions {
        pace: Pace::AsFastAsPossible,
        ..HeadlessOptions::default()
    }
}

/// Plays everything as fast as it comes with the pooled policy, and writes the trace to `file`.
async fn play_traced(run: &Run<'_>, catalogue: &Catalogue, file: &Path) -> Result<()> {
    let cluster = Cluster::connect(config_of(PolicyName::Pool, catalogue)).await?;
    let (sink, writing) = TraceSink::to(std::fs::File::create(file)?);
    let session = cluster.open_traced(run.content.video, sink).await?;
    // What was recorded until then counts.
    let _ = timeout(run.limit, headless::play_session(&session, as_fast_as_possible())).await;
    drop(session);
    tokio::task::spawn_blocking(|| writing.wait()).await??;
    Ok(())
}

/// Plays everything as fast as it comes through the real client.
async fn play(layer: &'static str, run: &Run<'_>, policy: PolicyName, catalogue: &Catalogue) -> Result<Row> {
    let mut row = Row::new(layer, run, policy.to_string());
    let cluster = Cluster::connect(config_of(policy, catalogue)).await?;
    let started = Instant::now();
    let (session, writing) = run.open(layer, policy, &cluster).await?;
    let (mut right, mut first_chunk_s) = (true, None);
    let take = |unit: &Unit, bytes: Bytes| {
        right &= is_of(run.content, unit, &bytes);
        let end = unit.bytes.as_ref().map_or(CHUNK_BYTES, |range| range.end);
        if first_chunk_s.is_none() && end == CHUNK_BYTES {
            first_chunk_s = Some(started.elapsed().as_secs_f64());
        }
    };
    let ended = timeout(
        run.limit,
        headless::play_into(&session, as_fast_as_possible(), take),
    )
    .await;
    let took_s = started.elapsed().as_secs_f64();
    let report = session.report();
    drop(session);
    if let Some(writing) = writing {
        tokio::task::spawn_blocking(|| writing.wait()).await??;
    }
    row.count(&report);
    row.took_s = (matches!(ended, Ok(Ok(()))) && report.complete).then_some(took_s);
    (row.right, row.first_chunk_s) = (right, first_chunk_s);
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_is_not_the_videos_is_seen() {
        let content = Content::random(2, 1_000, 4_000, 7);
        let unit = |seq, bytes| Unit {
            seq,
            bytes,
            start_ms: 0,
        };
        let (_, chunk) = &content.chunks[1];
        assert!(is_of(&content, &unit(1, None), chunk));
        assert!(is_of(&content, &unit(1, Some(10..20)), &chunk[10..20]));
        let mut wrong = chunk.to_vec();
        wrong[999] ^= 1;
        assert!(!is_of(&content, &unit(1, None), &wrong));
        assert!(!is_of(&content, &unit(1, None), &chunk[..999]));
        assert!(!is_of(&content, &unit(1, Some(11..21)), &chunk[10..20]));
        assert!(!is_of(&content, &unit(0, None), chunk));
        assert!(!is_of(&content, &unit(2, None), chunk));
    }
}
