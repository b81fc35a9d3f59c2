//! `cargo xtask demo`: from a clean clone to a video that plays from five nodes.
//!
//! It builds in the dev profile: hashing is optimised there too, decoding is GStreamer's, and a release build with LTO
//! would take several times as long on two cores for the same picture. Each run starts an empty cluster in
//! `target/demo/data`. Without a display the player runs on a virtual one, and the run succeeds only when a picture of
//! that display proves that the video plays; see `watch`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::packages::Purpose;
use crate::project::Project;
use crate::screen::{self, Screen};
use crate::vstack::{Cluster, Vstack, text};
use crate::watch::Watch;
use crate::{say, setup, step};

const CLIP_SECONDS: &str = "60";

pub(crate) fn run(files: &[&str]) -> Result<ExitCode> {
    let files = files.iter().map(|file| {
        Path::new(file)
            .canonicalize()
            .with_context(|| format!("cannot open {file}"))
    });
    let files: Vec<PathBuf> = files.collect::<Result<_>>()?;
    let has_screen = screen::exists();
    let purposes: &[Purpose] = if has_screen {
        &[Purpose::Build, Purpose::Run]
    } else {
        &[Purpose::Build, Purpose::Run, Purpose::Screen]
    };
    let project = setup::prepare(purposes)?;
    build(&project)?;
    let folder = empty_folder(&project, "demo")?;
    let videos = if files.is_empty() {
        vec![generated_clip(&project, &folder)?]
    } else {
        files.clone()
    };
    say::step("starting a cluster of five nodes");
    let cluster = Cluster::start(project.binary("vstack"), &folder.join("data"))?;
    let video = upload(&cluster, &videos)?;
    if has_screen {
        watch(&project, &cluster, &video)?;
    } else {
        let own_file = files.first().map(PathBuf::as_path);
        photograph(&project, &cluster, &video, &folder, own_file)?;
    }
    say::step("stopping the cluster");
    cluster.stop()?;
    Ok(ExitCode::SUCCESS)
}

fn build(project: &Project) -> Result<()> {
    say::step("building vstack and vstack-player");
    let mut command = project.cargo();
    command.args(["build", "--locked", "--workspace", "--bins"]);
    step::must(command)
}

/// This folder of `target`, with nothing of an earlier run but the clip.
pub(crate) fn empty_folder(project: &Project, name: &str) -> Result<PathBuf> {
    let folder = project.root.join("target").join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for old in ["player.png", "unread.png", "player.log"] {
        let _ = fs::remove_file(folder.join(old));
    }
    let data = folder.join("data");
    if data.exists() {
        fs::remove_dir_all(&data).with_context(|| format!("cannot empty {}", data.display()))?;
    }
    Ok(folder)
}

pub(crate) fn generated_clip(project: &Project, folder: &Path) -> Result<PathBuf> {
    let clip = folder.join("V-Stack demo.mp4");
    if !clip.exists() {
        say::step("generating a clip of 60 s");
        let vstack = Vstack::new(project.binary("vstack"));
        vstack.tell(&["make-clip", text(&clip)?, "--seconds", CLIP_SECONDS])?;
    }
    Ok(clip)
}

/// Uploads all files; the first one's id.
pub(crate) fn upload(cluster: &Cluster, videos: &[PathBuf]) -> Result<String> {
    let mut ids = Vec::new();
    for video in videos {
        say::step(&format!("uploading {}", video.display()));
        let job = cluster.vstack.tell(&["upload", text(video)?])?;
        let id = job["video_id"].as_str().context("the upload names no video")?;
        say::note(&format!(
            "stored as {id}: {} chunks on three nodes each",
            job["stored_chunks"]
        ));
        ids.push(id.to_owned());
    }
    ids.into_iter().next().context("nothing was uploaded")
}

/// The player, told which cluster and which video.
pub(crate) fn player(project: &Project, cluster: &Cluster, video: &str) -> Command {
    let mut command = Command::new(project.binary("vstack-player"));
    command
        .args(["--play", video])
        .env("VSTACK_METADATA_URL", &cluster.metadata_url);
    command
}

/// Until the window is closed.
fn watch(project: &Project, cluster: &Cluster, video: &str) -> Result<()> {
    say::step("opening the player; close its window to end the demo");
    say::note(&format!("this cluster: --metadata-url {}", cluster.metadata_url));
    step::must(player(project, cluster, video))
}

fn photograph(
    project: &Project,
    cluster: &Cluster,
    video: &str,
    folder: &Path,
    own_file: Option<&Path>,
) -> Result<()> {
    say::step("no display here: playing on a virtual one");
    let screen = Screen::start(folder, screen::LAPTOP_PX)?;
    let mut command = player(project, cluster, video);
    command.arg("--json");
    screen.show(&mut command);
    let mut watch = Watch::start(command, &screen, &cluster.vstack, folder)?;
    let picture = folder.join("player.png");
    match own_file {
        None => {
            let (first, last) = watch.until_it_plays()?;
            say::note(&format!(
                "frame {first}, then frame {last}, read from {}",
                picture.display()
            ));
        }
        Some(file) => {
            let (position_ms, likeness) = watch.until_it_shows(file)?;
            say::note(&format!(
                "at {position_ms} ms the window shows what FFmpeg decodes there, likeness {likeness:.3}"
            ));
        }
    }
    say::step(&format!("the video plays: {}", picture.display()));
    Ok(())
}
