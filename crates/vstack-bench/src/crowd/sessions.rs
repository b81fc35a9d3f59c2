//! The process of a crowd's sessions: each arrives at its time, plays in real time, and reports.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use vstack_client::{ClientConfig, Cluster, HeadlessOptions, PolicyName, SessionReport, TraceSink, headless};
use vstack_core::id::VideoId;

use crate::load::percentile;
use crate::output;
use crate::process::own_usage;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    pub(crate) catalogue: String,
    #[arg(long)]
    pub(crate) video: VideoId,
    #[arg(long)]
    pub(crate) policy: PolicyName,
    #[arg(long)]
    pub(crate) sessions: u32,
    #[arg(long)]
    pub(crate) arrive_ms: u64,
    #[arg(long)]
    pub(crate) traces: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn words(&self) -> Vec<String> {
        let pairs = [
            ("--catalogue", self.catalogue.clone()),
            ("--video", self.video.to_string()),
            ("--policy", self.policy.to_string()),
            ("--sessions", self.sessions.to_string()),
            ("--arrive-ms", self.arrive_ms.to_string()),
        ];
        let traces = self
            .traces
            .iter()
            .map(|folder| ("--traces", folder.display().to_string()));
        pairs
            .into_iter()
            .chain(traces)
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .collect()
    }
}

/// What a crowd came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) sessions: u32,
    /// Sessions that did not deliver every chunk.
    pub(crate) failed: u32,
    pub(crate) stalls: u32,
    pub(crate) stall_ms: u64,
    /// Of those who started; none if nobody did.
    pub(crate) startup_p50_ms: Option<f64>,
    pub(crate) startup_p95_ms: Option<f64>,
    pub(crate) wasted_percent: f64,
    pub(crate) requests_per_chunk: f64,
    /// Of the sessions' process, for each session.
    pub(crate) cpu_ms_per_session: f64,
    pub(crate) rss_kib_per_session: f64,
    pub(crate) faults: usize,
    pub(crate) nodes_cpu_sec: Option<f64>,
}

impl Figures {
    pub(crate) fn sentence(&self) -> String {
        format!(
            "{} sessions: {} failed, {} stalls ({} ms), start-up p50 {} ms p95 {} ms, {:.2} % wasted, {:.0} ms of processor and {:.0} KiB a session",
            self.sessions,
            self.failed,
            self.stalls,
            self.stall_ms,
            shown(self.startup_p50_ms),
            shown(self.startup_p95_ms),
            self.wasted_percent,
            self.cpu_ms_per_session,
            self.rss_kib_per_session
        )
    }
}

/// Whole milliseconds, or a dash.
pub(super) fn shown(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"))
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let (cpu_before, rss_before) = own_usage();
    let (reports, most_rss) = runtime.block_on(play(arguments));
    let (cpu_after, _) = own_usage();
    let count = f64::from(arguments.sessions.max(1));
    let mut figures = summed(arguments.sessions, &reports);
    figures.cpu_ms_per_session = (cpu_after - cpu_before) * 1e3 / count;
    figures.rss_kib_per_session = (most_rss - rss_before).max(0.0) * 1024.0 / count;
    output::text(&serde_json::to_string(&figures).context("figures are JSON")?);
    Ok(())
}

/// The reports of those who got one, and the most memory that was in use.
async fn play(arguments: &Arguments) -> (Vec<SessionReport>, f64) {
    let mut sessions = JoinSet::new();
    for number in 0..arguments.sessions {
        let wait = arguments.arrive_ms * u64::from(number) / u64::from(arguments.sessions.max(1));
        let (catalogue, video, policy) = (arguments.catalogue.clone(), arguments.video, arguments.policy);
        let traces = arguments.traces.clone();
        sessions.spawn(async move {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let config = ClientConfig {
                policy,
                ..ClientConfig::new(catalogue)
            };
            let cluster = Cluster::connect(config).await?;
            match traces {
                None => Ok(headless::play(&cluster, video, HeadlessOptions::default()).await?),
                Some(folder) => traced(&cluster, video, &folder.join(format!("{number}.trace"))).await,
            }
        });
    }
    let (mut reports, mut most_rss) = (Vec::new(), 0.0_f64);
    let mut look = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            done = sessions.join_next() => match done {
                None => return (reports, most_rss),
                Some(Ok(Ok(report))) => reports.push(report),
                Some(_) => {}
            },
            _ = look.tick() => most_rss = most_rss.max(own_usage().1),
        }
    }
}

/// Plays, and keeps the trace if playback stalled or ended early.
async fn traced(cluster: &Cluster, video: VideoId, file: &Path) -> Result<SessionReport> {
    let (sink, writing) = TraceSink::to(std::fs::File::create(file)?);
    let session = cluster.open_traced(video, sink).await?;
    // What did not come is in the report.
    let _ = headless::play_session(&session, HeadlessOptions::default()).await;
    let report = session.report();
    drop(session);
    tokio::task::spawn_blocking(|| writing.wait()).await??;
    if report.stalls == 0 && report.complete {
        std::fs::remove_file(file)?;
    }
    Ok(report)
}

fn summed(sessions: u32, reports: &[SessionReport]) -> Figures {
    let complete = reports
        .iter()
        .filter(|report| report.complete && report.startup_ms.is_some());
    let mut startups: Vec<f64> = complete
        .filter_map(|report| report.startup_ms)
        .map(|ms| ms as f64)
        .collect();
    startups.sort_by(f64::total_cmp);
    let total = |of: fn(&SessionReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (bytes, wasted) = (total(|report| report.bytes), total(|report| report.wasted_bytes));
    let chunks = total(|report| u64::from(report.chunks)).max(1);
    Figures {
        sessions,
        failed: sessions.saturating_sub(u32::try_from(startups.len()).unwrap_or(u32::MAX)),
        stalls: reports.iter().map(|report| report.stalls).sum(),
        stall_ms: total(|report| report.stall_ms),
        startup_p50_ms: (!startups.is_empty()).then(|| percentile(&startups, 0.5)),
        startup_p95_ms: (!startups.is_empty()).then(|| percentile(&startups, 0.95)),
        wasted_percent: 100.0 * wasted as f64 / (bytes + wasted).max(1) as f64,
        requests_per_chunk: total(|report| report.requests) as f64 / chunks as f64,
        cpu_ms_per_session: 0.0,
        rss_kib_per_session: 0.0,
        faults: reports.iter().map(|report| report.faults.len()).sum(),
        nodes_cpu_sec: None,
    }
}
