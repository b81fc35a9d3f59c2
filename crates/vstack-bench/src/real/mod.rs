//! `client --layer sockets,netns`: how near to the physical limit a whole video comes, whatever one node does.
//!
//! Two layers of real sockets. `sockets`: our nodes behind emulated paths on loopback, every fault. `netns`: nginx as
//! plain nodes in network namespaces behind `tc tbf`, with aria2 beside the policies in the same run; as root, skipped
//! loudly elsewhere. The content is chunks of exactly 2 MB on every node. Policies and aria2 take turns within a round,
//! and the lines move on by one node each round, so that no policy is lucky with the order in which nodes are named.

mod netns;
mod page;
mod scenario;
mod sockets;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use tokio::time::timeout;
use vstack_client::headless::Unit;
use vstack_client::{ClientConfig, Cluster, HeadlessOptions, Pace, PolicyName, TraceSink, headless};

use crate::output;
use crate::stage::{Catalogue, Content};
use scenario::Scenario;

const CHUNK_BYTES: usize = 2_000_000;
const CHUNK_MS: u64 = 10_000;
/// Of a video whose traces are recorded.
const RECORDED_CHUNKS: u32 = 12;
/// A run that takes so many times its bound is given up.
const PATIENCE: f64 = 12.0;

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
        default_value = "seed,pool"
    )]
    policy: Vec<PolicyName>,
    /// On real sockets; the lines move on by one node each round.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: u16,
    /// Chunks of 2 MB on real sockets.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=200))]
    chunks: u32,
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
    pub(crate) options: &'a RealOptions,
}

/// One run of one contestant.
#[derive(Debug, Clone, Serialize)]
struct Row {
    layer: &'static str,
    scenario: String,
    round: u16,
    contestant: String,
    /// From opening to the last chunk; none if it was given up.
    took_s: Option<f64>,
    bound_s: f64,
    startup_s: Option<f64>,
    startup_bound_s: f64,
    wasted_percent: f64,
    requests_per_chunk: f64,
    /// Seen and refused.
    hash_failures: u64,
    /// The bytes at the end are those of the source.
    right: bool,
    faults: usize,
    detect_ms: Option<u64>,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.took_s.map(|took| took / self.bound_s)
    }

    fn sentence(&self) -> String {
        let time = match (self.took_s, self.ratio()) {
            (Some(took), Some(ratio)) => format!("{took:.1} s, {ratio:.2} of the bound"),
            _ => "given up".to_owned(),
        };
        let startup = self
            .startup_s
            .map_or_else(|| "-".to_owned(), |startup| format!("{startup:.2} s"));
        format!(
            "{}: {time}; first chunk {startup}; {:.1} % wasted{}",
            self.contestant,
            self.wasted_percent,
            if self.right { "" } else { "; WRONG BYTES" }
        )
    }
}

/// Plays one layer and writes its page, `client-LAYER.md` beside the simulator's.
pub(crate) fn run(bench: &Bench<'_>, layer: Layer) -> Result<()> {
    std::fs::create_dir_all(bench.work)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let content = Content::random(bench.options.chunks, CHUNK_BYTES, CHUNK_MS, 1);
    let (name, rows) = match layer {
        Layer::Sockets => ("sockets", runtime.block_on(sockets::run(bench, &content))?),
        Layer::Netns => match netns::obstacle(bench.options) {
            Some(obstacle) => {
                output::step(&format!("netns: SKIPPED, {obstacle}"));
                return Ok(());
            }
            None => ("netns", runtime.block_on(netns::run(bench, &content))?),
        },
    };
    let page = bench.report.with_file_name(format!("client-{name}.md"));
    page::write(&page, bench.work, &rows)?;
    output::step(&format!("written to {}", page.display()));
    // Files that nobody needs.
    let _ = std::fs::remove_dir_all(bench.work);
    Ok(())
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
    let content = Content::random(RECORDED_CHUNKS, CHUNK_BYTES, CHUNK_MS, 1);
    let recorded = runtime.block_on(sockets::record(vstack, work, rounds, only, &content))?;
    // Files that nobody needs.
    let _ = std::fs::remove_dir_all(work);
    Ok(recorded)
}

impl Bench<'_> {
    fn scenarios(&self, of: Vec<Scenario>) -> Vec<Scenario> {
        of.into_iter()
            .filter(|scenario| scenario.name.contains(self.only))
            .collect()
    }
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

/// Plays everything as fast as it comes with the pooled policy, and writes the trace to `file`.
async fn play_traced(
    scenario: &Scenario,
    catalogue: &Catalogue,
    content: &Content,
    file: &Path,
) -> Result<()> {
    let config = ClientConfig {
        policy: PolicyName::Pool,
        ..ClientConfig::new(&catalogue.url)
    };
    let cluster = Cluster::connect(config).await?;
    let (sink, writing) = TraceSink::to(std::fs::File::create(file)?);
    let session = cluster.open_traced(content.video, sink).await?;
    let options = HeadlessOptions {
        pace: Pace::AsFastAsPossible,
        ..HeadlessOptions::default()
    };
    let limit = Duration::from_secs_f64(scenario.bound_s(content.bytes()) * PATIENCE + 5.0);
    // What was recorded until then counts.
    let _ = timeout(limit, headless::play_session(&session, options)).await;
    drop(session);
    tokio::task::spawn_blocking(|| writing.wait()).await??;
    Ok(())
}

/// Plays everything as fast as it comes through the real client.
async fn play(
    layer: &'static str,
    scenario: &Scenario,
    round: u16,
    policy: PolicyName,
    catalogue: &Catalogue,
    content: &Content,
) -> Result<Row> {
    let bound_s = scenario.bound_s(content.bytes());
    let config = ClientConfig {
        policy,
        ..ClientConfig::new(&catalogue.url)
    };
    let cluster = Cluster::connect(config).await?;
    let started = tokio::time::Instant::now();
    let session = cluster.open(content.video).await?;
    let options = HeadlessOptions {
        pace: Pace::AsFastAsPossible,
        ..HeadlessOptions::default()
    };
    let limit = Duration::from_secs_f64(bound_s * PATIENCE + 5.0);
    let mut right = true;
    let compare = |unit: &Unit, bytes: Bytes| right &= is_of(content, unit, &bytes);
    let ended = timeout(limit, headless::play_into(&session, options, compare)).await;
    let report = session.report();
    let whole = matches!(ended, Ok(Ok(()))) && report.complete;
    let received = report.bytes + report.wasted_bytes;
    Ok(Row {
        layer,
        scenario: scenario.name.to_owned(),
        round,
        contestant: policy.to_string(),
        took_s: whole.then(|| started.elapsed().as_secs_f64()),
        bound_s,
        startup_s: report.startup_ms.map(|ms| ms as f64 / 1e3),
        startup_bound_s: scenario.bound_s(CHUNK_BYTES as u64),
        wasted_percent: 100.0 * report.wasted_bytes as f64 / received.max(1) as f64,
        requests_per_chunk: report.requests_per_chunk,
        hash_failures: report.hash_failures,
        right,
        faults: report.faults.len(),
        detect_ms: report.faults.iter().map(|fault| fault.detect_ms).max(),
    })
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
