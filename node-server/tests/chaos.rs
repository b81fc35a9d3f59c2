//! Chaos: real nodes are killed, stopped, partitioned and made to lie at random while people watch, never more than two
//! of five at a time, so that every chunk has a copy on a node that is well. Then no wrong byte is delivered and nothing
//! stalls.
//!
//! `VSTACK_CHAOS_SEED` chooses the run and is printed with it; `VSTACK_CHAOS_ROUNDS` plays so many, each with the next
//! seed, whatever became of the ones before; `VSTACK_CHAOS_POLICY` names the clients' policy; in `VSTACK_CHAOS_DIR` each
//! round leaves its figures. The long form, `cargo xtask prove chaos`, makes docs/evaluation/chaos.md of them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use common::lab::Lab;
use common::process::signal;
use common::{alone, clip};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use vstack_client::{
    ClientConfig, ClientError, Cluster, HeadlessOptions, Pace, PolicyName, Session, SessionReport, headless,
};
use vstack_core::digest::Sha256Digest;
use vstack_core::manifest::Manifest;
use vstack_emulator::{Direction, Ending, Fault, Loss, Profile};

const NODES: usize = 5;
/// With three copies on five nodes every chunk then has one on a node that is well.
const MAX_BROKEN: usize = 2;
const CLIP_SECONDS: u32 = 150;
/// Times real time. The base policy leaves a silent node after 2 s and may meet two of them: 8 s are played meanwhile,
/// less than the 15 s at which it fills its buffer.
const SPEED: f64 = 2.0;
const VIEWERS: usize = 2;
/// Something happens every 30 to 60 s in such a cluster, here six times as often.
const TIME_SCALE: f64 = 6.0;
/// 25 times the clip's bitrate.
const PATHS: Profile = Profile {
    down_mbps: Some(8.0),
    up_mbps: None,
    delay_ms: 3,
    jitter_ms: 2,
};

/// What happens to a node.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trouble {
    Killed,
    /// SIGSTOP: its sockets stay open.
    Stopped,
    OnItsPath(Fault),
}

/// At this time a node breaks, or is mended where there is no trouble.
#[derive(Debug, Clone, Copy)]
struct Step {
    at: Duration,
    node: usize,
    trouble: Option<Trouble>,
}

fn troubles() -> Vec<Trouble> {
    let chance = 1.0;
    let of_paths = [
        Fault::Cut {},
        Fault::Stall {
            direction: Direction::Both,
        },
        Fault::Stall {
            direction: Direction::Down,
        },
        Fault::Flap {
            up_ms: 1_500,
            down_ms: 1_500,
            loss: Loss::Cut,
        },
        Fault::Reset { mean_bytes: 100_000 },
        Fault::Corrupt { chance },
        Fault::Stale { chance },
        Fault::Endless { chance },
        Fault::Truncate {
            at_share: 0.6,
            ending: Ending::Close,
            chance,
        },
        Fault::Hang {
            at_share: 0.95,
            chance,
        },
        Fault::SlowHeaders {
            bytes_per_s: 20.0,
            chance,
        },
        Fault::Status { status: 404, chance },
    ];
    // Deaths are half of what happens.
    let deaths = [Trouble::Killed, Trouble::Stopped]
        .into_iter()
        .cycle()
        .take(of_paths.len());
    deaths.chain(of_paths.map(Trouble::OnItsPath)).collect()
}

/// All that happens in a run of this seed.
fn plan(seed: u64, length: Duration) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let (troubles, mut broken, mut steps) = (troubles(), BTreeSet::new(), Vec::new());
    let mut at = Duration::from_secs(1);
    while at < length {
        let mend = broken.len() == MAX_BROKEN || (!broken.is_empty() && random.random_bool(0.3));
        let candidates: Vec<usize> = (0..NODES).filter(|node| broken.contains(node) == mend).collect();
        let node = candidates[random.random_range(0..candidates.len())];
        let trouble = (!mend).then(|| troubles[random.random_range(0..troubles.len())]);
        if mend {
            broken.remove(&node);
        } else {
            broken.insert(node);
        }
        steps.push(Step { at, node, trouble });
        at += Duration::from_secs_f64(random.random_range(30.0..60.0) / TIME_SCALE);
    }
    steps
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn chaos_delivers_no_wrong_byte_and_stalls_nobody() {
    let _alone = alone();
    let first = number("VSTACK_CHAOS_SEED", 1);
    let mut lab = Lab::start(NODES, Profile::default());
    let video = lab.upload(&clip(CLIP_SECONDS));
    let folder = std::env::var_os("VSTACK_CHAOS_DIR").map(PathBuf::from);
    let mut rounds: Vec<Value> = Vec::new();
    for seed in first..first + number("VSTACK_CHAOS_ROUNDS", 1) {
        println!("chaos: seed {seed}; again: cargo xtask prove chaos --seed {seed} --count 1");
        rounds.push(play_round(&mut lab, &video, seed));
        if let Some(folder) = &folder {
            let text = serde_json::to_string_pretty(&rounds).unwrap();
            std::fs::write(folder.join("rounds.json"), text).unwrap();
        }
    }
    for round in rounds {
        assert_eq!(round["complaints"], json!([]), "seed {}: {round}", round["seed"]);
    }
}

/// One video with two viewers, and all that happens meanwhile; what came of it.
fn play_round(lab: &mut Lab, video: &str, seed: u64) -> Value {
    let runtime = Runtime::new().expect("a runtime");
    let viewers: Vec<_> = (0..VIEWERS)
        .map(|_| Viewer::start(&runtime, lab, video))
        .collect();
    lab.set_profile(PATHS);
    let length = Duration::from_secs(CLIP_SECONDS.into()).div_f64(SPEED);
    let steps = plan(seed, length.saturating_sub(Duration::from_secs(3)));
    let started = Instant::now();
    let mut broken = BTreeMap::new();
    for step in &steps {
        std::thread::sleep(step.at.saturating_sub(started.elapsed()));
        println!(
            "  {:5.1} s: node {} {:?}",
            step.at.as_secs_f64(),
            step.node,
            step.trouble
        );
        match step.trouble {
            Some(trouble) => {
                break_node(lab, step.node, trouble);
                broken.insert(step.node, trouble);
            }
            None => mend(lab, step.node, &mut broken),
        }
    }
    let watched: Vec<_> = viewers
        .into_iter()
        .map(|viewer| viewer.finish(&runtime))
        .collect();
    for node in 0..NODES {
        mend(lab, node, &mut broken);
    }
    lab.set_profile(Profile::default());
    figures(seed, &steps, &watched)
}

fn figures(seed: u64, steps: &[Step], watched: &[Watched]) -> Value {
    let struck = |of: fn(Trouble) -> bool| steps.iter().filter(|step| step.trouble.is_some_and(of)).count();
    let reports = || watched.iter().map(|one| &one.report);
    let checked: u32 = watched.iter().map(|one| one.checked).sum();
    let complaints: Vec<&String> = watched.iter().flat_map(|one| &one.complaints).collect();
    let round = json!({
        "seed": seed,
        "killed": struck(|trouble| trouble == Trouble::Killed),
        "stopped": struck(|trouble| trouble == Trouble::Stopped),
        "cut_off": struck(|trouble| matches!(trouble, Trouble::OnItsPath(fault) if is_partition(fault))),
        "lying": struck(|trouble| matches!(trouble, Trouble::OnItsPath(fault) if !is_partition(fault))),
        "chunks_checked": checked,
        "stalls": reports().map(|report| report.stalls).sum::<u32>(),
        "startup_ms": reports().filter_map(|report| report.startup_ms).max(),
        "least_buffer_s": reports().map(|report| report.min_buffer_s).fold(f64::MAX, f64::min),
        "faults_met": reports().map(|report| report.faults.len()).sum::<usize>(),
        "bad_blocks_refused": reports().map(|report| report.hash_failures).sum::<u64>(),
        "wasted_bytes": reports().map(|report| report.wasted_bytes).sum::<u64>(),
        "complaints": complaints,
    });
    println!("  {round}");
    round
}

/// Nothing comes through, but what comes is right.
const fn is_partition(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::Cut {} | Fault::Stall { .. } | Fault::Flap { .. } | Fault::Reset { .. }
    )
}

fn break_node(lab: &mut Lab, node: usize, trouble: Trouble) {
    match trouble {
        Trouble::Killed => lab.nodes[node].process.kill(),
        Trouble::Stopped => signal(lab.nodes[node].process.pid(), Signal::STOP),
        Trouble::OnItsPath(fault) => lab.set_faults(node, vec![fault]),
    }
}

fn mend(lab: &mut Lab, node: usize, broken: &mut BTreeMap<usize, Trouble>) {
    match broken.remove(&node) {
        None => {}
        Some(Trouble::Killed) => lab.restart(node),
        Some(Trouble::Stopped) => signal(lab.nodes[node].process.pid(), Signal::CONT),
        Some(Trouble::OnItsPath(_)) => lab.set_faults(node, Vec::new()),
    }
}

/// Somebody who watches, and a checker who compares every chunk with what lay on the nodes before.
struct Viewer {
    session: Session,
    playing: JoinHandle<Result<(), ClientError>>,
    checking: JoinHandle<Checked>,
}

/// What a viewer went through.
struct Watched {
    report: SessionReport,
    checked: u32,
    complaints: Vec<String>,
}

/// Chunks that were right, and what was wrong with others.
#[derive(Default)]
struct Checked {
    right: u32,
    complaints: Vec<String>,
}

impl Viewer {
    fn start(runtime: &Runtime, lab: &Lab, video: &str) -> Self {
        let mut config = ClientConfig::new(&lab.metadata_url);
        if let Ok(name) = std::env::var("VSTACK_CHAOS_POLICY") {
            config.policy = name.parse::<PolicyName>().expect("a policy");
        }
        let video = video.parse().expect("a video's id");
        let session = runtime.block_on(async {
            let cluster = Cluster::connect(config).await.expect("the catalogue answers");
            cluster.open(video).await.expect("the video opens")
        });
        let truth = truth(session.manifest());
        let player = session.clone();
        let options = HeadlessOptions {
            pace: Pace::Times(SPEED),
            ..HeadlessOptions::default()
        };
        let playing = runtime.spawn(async move { headless::play_session(&player, options).await });
        let checking = runtime.spawn(check_chunks(session.clone(), truth));
        Self {
            session,
            playing,
            checking,
        }
    }

    fn finish(self, runtime: &Runtime) -> Watched {
        let played = runtime.block_on(self.playing).expect("a player does not panic");
        // Where playback ended early, the checker would wait for the rest for ever.
        let (checked, ended) = match played {
            Ok(()) => (
                runtime.block_on(self.checking).expect("a checker does not panic"),
                None,
            ),
            Err(error) => {
                self.checking.abort();
                (Checked::default(), Some(format!("playback ended early: {error}")))
            }
        };
        let report = self.session.report();
        let mut complaints: Vec<String> = ended.into_iter().chain(checked.complaints).collect();
        if !report.complete || checked.right != report.total_chunks {
            complaints.push(format!(
                "{} of {} chunks were right",
                checked.right, report.total_chunks
            ));
        }
        if (report.stalls, report.stall_ms) != (0, 0) {
            complaints.push(format!("{} stalls, {} ms", report.stalls, report.stall_ms));
        }
        Watched {
            report,
            checked: checked.right,
            complaints,
        }
    }
}

/// Takes each chunk when playback has reached it.
async fn check_chunks(session: Session, truth: Vec<Sha256Digest>) -> Checked {
    let starts: Vec<u64> = session
        .manifest()
        .chunks
        .iter()
        .map(|chunk| chunk.start_ms())
        .collect();
    let mut checked = Checked::default();
    for ((seq, start_ms), expected) in (0..).zip(starts).zip(truth) {
        while session.snapshot().position_ms < start_ms {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        match session.chunk(seq).await {
            Ok(bytes) if Sha256Digest::of(&bytes) == expected => checked.right += 1,
            Ok(_) => checked
                .complaints
                .push(format!("chunk {seq} was delivered with wrong bytes")),
            Err(error) => checked.complaints.push(format!("chunk {seq}: {error}")),
        }
    }
    checked
}

/// The chunks as they lie on the nodes before anything happens, read with curl: no code is shared with the client.
fn truth(manifest: &Manifest) -> Vec<Sha256Digest> {
    let read = |url: String| {
        let output = Command::new("curl")
            .args(["-sS", "--fail", "--max-time", "20", &url])
            .output()
            .expect("curl runs");
        assert!(output.status.success(), "{url}: {output:?}");
        Sha256Digest::of(&output.stdout)
    };
    let part = |chunk: &vstack_core::manifest::ManifestChunk| {
        let part = &chunk.placement.parts[0];
        format!(
            "{}/chunk/{}?ballot={}",
            part.node_url, chunk.chunk_id, part.ballot
        )
    };
    manifest.chunks.iter().map(|chunk| read(part(chunk))).collect()
}

#[test]
fn a_plan_keeps_three_nodes_well_and_is_that_of_its_seed() {
    for seed in 0..200 {
        let steps = plan(seed, Duration::from_secs(600));
        let mut broken = BTreeSet::new();
        for step in &steps {
            match step.trouble {
                Some(_) => assert!(broken.insert(step.node), "seed {seed} breaks a broken node"),
                None => assert!(broken.remove(&step.node), "seed {seed} mends a well node"),
            }
            assert!(broken.len() <= MAX_BROKEN, "seed {seed}");
        }
        assert!(
            (60..=125).contains(&steps.len()),
            "{} steps in ten minutes",
            steps.len()
        );
        let again = plan(seed, Duration::from_secs(600));
        assert_eq!(format!("{steps:?}"), format!("{again:?}"));
    }
}
