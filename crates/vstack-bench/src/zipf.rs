//! `zipf`: a library that is watched by Zipf's law ends with its hot videos as copies and its cold ones as shards.
//!
//! A real `vstack dev` with five nodes, real uploads, real views. Time runs faster by settings alone: a day of the view log
//! takes some seconds, and half-life, cooling and the period between conversions are that much shorter. What is judged is
//! what the catalogue says in the end: a video above the line has to be replicated, one below the cold line coded, and a
//! sample of both has to play. Threshold and band are the product's own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use futures::StreamExt as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use uuid::Uuid;
use vstack_api::MetadataClient;
use vstack_api::policy::{PolicyExplanation, PolicyQuery, PolicyReport};
use vstack_api::wire::ViewedBy;
use vstack_core::id::VideoId;

use crate::output;
use crate::peers::fresh;
use crate::process::Process;
use crate::report::Report;
use crate::role;

const HALF_LIFE_DAYS: f64 = 7.0;
/// Views that are on their way at the same time.
const AT_ONCE: usize = 64;
/// Until every video has its mode after the last view. Conversions of tiny videos take tenths of a second.
const SETTLED_WITHIN: Duration = Duration::from_secs(600);
/// Videos of each mode that are played to the end.
const PLAYED: usize = 5;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The release binary.
    #[arg(long, value_name = "FILE")]
    vstack: PathBuf,
    /// Folder for the cluster; emptied at the end.
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// The page to write.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(2..=2000))]
    videos: u16,
    /// Decayed views above which a video is replicated.
    #[arg(long, default_value_t = 1000.0)]
    threshold: f64,
    /// Videos that the views are to make hot, about.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=2000))]
    hot: u16,
    /// Length of the view log.
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u16).range(1..=365))]
    days: u16,
    /// Seconds that a day of the log takes.
    #[arg(long, default_value_t = 6.0)]
    day_seconds: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A video by its rank, the most watched first.
#[derive(Debug)]
struct Ranked {
    video: VideoId,
    explained: PolicyExplanation,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = fresh(&options.work, "zipf")?;
    let mut report = Report::new("A library watched by Zipf's law", &folder);
    let proven = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(prove(options, &folder));
    // What the cluster stored is of no use any more; what went wrong is said below.
    let _ = std::fs::remove_dir_all(&folder);
    let (ranked, policy) = proven?;
    let notes = [
        format!(
            "{} videos on five nodes of `vstack dev`, watched by Zipf's law with exponent 1 (seed {}): {} days, each of {} s; \
             half-life {HALF_LIFE_DAYS} days, a new video stays replicated for a day, converted at most once a day, all \
             on that scale. Threshold {}, cold below half of it.",
            options.videos, options.seed, options.days, options.day_seconds, options.threshold
        ),
        format!(
            "Checked: every video above the threshold is replicated, every one below half of it erasure-coded, and {PLAYED} \
             of each play from end to end with every byte verified."
        ),
    ];
    report.notes.extend(notes);
    report.tables.push(saving(&policy));
    report.tables.push(ranks(&ranked));
    report.tables.push(thresholds(&policy));
    let page = report.markdown("V-Stack");
    if let Some(folder) = options.report.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&options.report, &page)
        .with_context(|| format!("cannot write {}", options.report.display()))?;
    output::text(&page);
    Ok(())
}

async fn prove(options: &Options, folder: &Path) -> Result<(Vec<Ranked>, PolicyReport)> {
    output::step("starting five nodes");
    let (_cluster, metadata_url) = cluster(options, folder)?;
    let catalogue = MetadataClient::new(&metadata_url);
    output::step(&format!("uploading {} videos", options.videos));
    let videos = upload(options, folder, &metadata_url)?;
    watch(options, &catalogue, &videos).await?;
    output::step("waiting until every video has its mode");
    let (ranked, policy) = settled(&catalogue, &videos).await?;
    check(&ranked)?;
    for mode in ["replicated", "erasure"] {
        let of_mode = ranked.iter().filter(|ranked| ranked.explained.mode == mode);
        for ranked in of_mode.take(PLAYED) {
            play(&options.vstack, &metadata_url, ranked.video)?;
        }
    }
    Ok((ranked, policy))
}

/// `vstack dev` on free ports with time on the log's scale.
fn cluster(options: &Options, folder: &Path) -> Result<(Process, String)> {
    let day_hours = options.day_seconds / 3_600.0;
    let mut command = Command::new(&options.vstack);
    command
        .args(["dev", "--json", "--nodes", "5", "--port-base", "0", "--data"])
        .arg(folder.join("cluster"))
        .env("VSTACK_HOT_ABOVE_VIEWS", options.threshold.to_string())
        .env(
            "VSTACK_VIEW_HALF_LIFE_DAYS",
            (HALF_LIFE_DAYS * day_hours / 24.0).to_string(),
        )
        .env("VSTACK_COOL_AFTER_HOURS", day_hours.to_string())
        .env("VSTACK_CONVERSION_PERIOD_HOURS", day_hours.to_string())
        // The videos are tiny so that the run is short.
        .env("VSTACK_SMALL_VIDEO_KIB", "0")
        .env("RUST_LOG", "error");
    let (process, ready) = role::start(&mut command)?;
    Ok((process, role::text(&ready, "metadata_url")?.to_owned()))
}

/// One clip under many titles; the ids in the order of the ranks.
fn upload(options: &Options, folder: &Path, metadata_url: &str) -> Result<Vec<VideoId>> {
    let clip = folder.join("clip.mp4");
    let made = Command::new(&options.vstack)
        .args(["make-clip", "--small", "--seconds", "4"])
        .arg(&clip)
        .stdout(Stdio::null())
        .status()?;
    ensure!(made.success(), "the clip could not be made");
    let mut command = Command::new(&options.vstack);
    command.args(["upload", "--json", "--metadata-url", metadata_url]);
    for rank in 1..=options.videos {
        let file = folder.join(format!("rank-{rank:04}.mp4"));
        std::fs::hard_link(&clip, &file)?;
        command.arg(file);
    }
    let answer = command.stderr(Stdio::inherit()).output()?;
    ensure!(answer.status.success(), "the uploads failed");
    let text = String::from_utf8(answer.stdout)?;
    let mut videos = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line)?;
        if line["state"] == "done" && line["event"].is_null() {
            videos.push(
                line["video_id"]
                    .as_str()
                    .context("a job names no video")?
                    .parse()?,
            );
        }
    }
    ensure!(
        videos.len() == usize::from(options.videos),
        "{} of {} uploads were told as done",
        videos.len(),
        options.videos
    );
    Ok(videos)
}

/// Views of each rank in a day, before chance.
fn weights(options: &Options) -> (Vec<f64>, f64) {
    let shares: Vec<f64> = (1..=options.videos).map(|rank| 1.0 / f64::from(rank)).collect();
    let sum: f64 = shares.iter().sum();
    // After the log a constant rate r a day counts as r * grown; the last hot rank is to reach the threshold with it.
    let grown: f64 = (1..=options.days)
        .map(|day| (-(f64::from(options.days - day) + 0.5) / HALF_LIFE_DAYS).exp2())
        .sum();
    let last_hot = f64::from(options.hot) + 0.5;
    let a_day = options.threshold / grown * last_hot * sum;
    (shares.into_iter().map(|share| share / sum).collect(), a_day)
}

/// Sends the log, a day after the other.
async fn watch(options: &Options, catalogue: &MetadataClient, videos: &[VideoId]) -> Result<()> {
    let (weights, a_day) = weights(options);
    let mut random = StdRng::seed_from_u64(options.seed);
    let views = vstack_core::manifest::seconds_to_ms(a_day / 1000.0);
    for day in 1..=options.days {
        output::step(&format!("day {day} of {}: {views} views", options.days));
        let started = Instant::now();
        let drawn: Vec<VideoId> = (0..views)
            .filter_map(|_| draw(&weights, videos, &mut random))
            .collect();
        let sent: Vec<Result<()>> = futures::stream::iter(drawn)
            .map(async |video| {
                let session_id = Uuid::new_v4().to_string();
                Ok(catalogue.record_view_of(video, &ViewedBy { session_id }).await?)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        sent.into_iter().collect::<Result<()>>()?;
        let rest = Duration::from_secs_f64(options.day_seconds).saturating_sub(started.elapsed());
        tokio::time::sleep(rest).await;
    }
    Ok(())
}

fn draw(weights: &[f64], videos: &[VideoId], random: &mut StdRng) -> Option<VideoId> {
    let mut left: f64 = random.random();
    for (weight, video) in weights.iter().zip(videos) {
        left -= weight;
        if left <= 0.0 {
            return Some(*video);
        }
    }
    videos.last().copied()
}

/// What every video is, at a moment in which the policy wants nothing else and nothing is converted. Popularity goes on
/// decaying, so that both are read until no conversion came in between.
async fn settled(catalogue: &MetadataClient, videos: &[VideoId]) -> Result<(Vec<Ranked>, PolicyReport)> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let policy = catalogue.policy(PolicyQuery::default()).await?;
        let conversion = catalogue.redundancy_status().await?.conversion;
        let mut ranked = Vec::with_capacity(videos.len());
        for &video in videos {
            let explained = catalogue.explain_policy(video).await?;
            ranked.push(Ranked { video, explained });
        }
        let is_calm = ranked
            .iter()
            .all(|ranked| ranked.explained.mode == ranked.explained.wanted);
        if is_calm && !conversion.active && policy.settled.changes.is_empty() {
            return Ok((ranked, policy));
        }
        ensure!(
            Instant::now() < deadline,
            "{} videos still lack their mode; last trouble: {:?}",
            policy.settled.changes.len(),
            conversion.trouble
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The whole point.
fn check(ranked: &[Ranked]) -> Result<()> {
    let mut modes = [0, 0];
    for (rank, Ranked { explained, .. }) in (1..).zip(ranked) {
        let expected = if explained.popularity > explained.hot_above {
            "replicated"
        } else if explained.popularity < explained.cold_below {
            "erasure"
        } else {
            continue;
        };
        modes[usize::from(expected == "erasure")] += 1;
        if explained.mode != expected {
            bail!(
                "rank {rank} is {} at {:.1} views",
                explained.mode,
                explained.popularity
            );
        }
    }
    ensure!(
        modes.iter().all(|count| *count > 0),
        "nothing hot or nothing cold: {modes:?}"
    );
    Ok(())
}

fn play(vstack: &Path, metadata_url: &str, video: VideoId) -> Result<()> {
    let answer = Command::new(vstack)
        .args([
            "play",
            &video.to_string(),
            "--speed",
            "0",
            "--json",
            "--metadata-url",
            metadata_url,
        ])
        .output()?;
    let text = String::from_utf8(answer.stdout)?;
    let last: Value = serde_json::from_str(text.lines().last().unwrap_or_default())?;
    ensure!(
        last["complete"] == true && last["hash_failures"] == 0,
        "{video} did not play to its end: {last}"
    );
    Ok(())
}

fn saving(policy: &PolicyReport) -> String {
    let cost = &policy.now;
    format!(
        "## The saving\n\n| videos | as copies | as shards | their size | three copies of all | stored | saved |\n\
         |---|---|---|---|---|---|---|\n| {} | {} | {} | {:.1} MB | {:.1} MB | {:.1} MB ({:.2} times the size) | **{:.1} MB, {:.1} %** |\n",
        cost.replicated_videos + cost.erasure_videos,
        cost.replicated_videos,
        cost.erasure_videos,
        mb(cost.size_bytes),
        mb(cost.three_copies_bytes),
        mb(cost.stored_bytes),
        cost.stored_per_byte,
        mb(cost.saved_bytes),
        cost.saved_share * 100.0
    )
}

fn ranks(ranked: &[Ranked]) -> String {
    let mut table =
        String::from("## By rank\n\n| rank | views | of these count | mode | why |\n|---|---|---|---|---|\n");
    let shown = |rank: usize| rank <= 20 || rank.is_multiple_of(20);
    for (rank, Ranked { explained, .. }) in (1..).zip(ranked).filter(|(rank, _)| shown(*rank)) {
        let _ = writeln!(
            table,
            "| {rank} | {} | {:.0} | {} | {} |",
            explained.views, explained.popularity, explained.mode, explained.reason
        );
    }
    table
}

fn thresholds(policy: &PolicyReport) -> String {
    let mut table = String::from(
        "## What other thresholds would store\n\n| threshold | copies | shards | times the size | saved |\n|---|---|---|---|---|\n",
    );
    for step in &policy.thresholds {
        let _ = writeln!(
            table,
            "| {} | {} | {} | {:.2} | {:.1} % |",
            step.hot_above,
            step.cost.replicated_videos,
            step.cost.erasure_videos,
            step.cost.stored_per_byte,
            step.cost.saved_share * 100.0
        );
    }
    table
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
