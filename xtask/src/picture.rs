//! `cargo xtask picture`: takes the picture in the README anew, `docs/images/player.png`.
//!
//! A generated clip plays in the player's window on a virtual display. While it plays a node is killed with SIGKILL, and
//! some seconds later the window is photographed. The line under the picture in the README says what is done here; whoever
//! changes one changes the other, and looks at the picture.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::packages::Purpose;
use crate::project::Project;
use crate::screen::Screen;
use crate::vstack::{Cluster, text};
use crate::watch::Watch;
use crate::{demo, say, setup, step};

const TITLE: &str = "V-Stack";
const DISPLAY_PX: (u32, u32) = (1600, 1000);
/// Of the window: high enough for all five nodes and the downloads under them.
const WINDOW_PX: (u32, u32) = (1440, 900);
/// By then the buffer is full, and every node has brought some of it.
const KILLED_FROM_MS: u64 = 14_000;
const SHOWN_AFTER: Duration = Duration::from_secs(8);
/// Of the controls, which a moving pointer brings back.
const CONTROLS_FADE: Duration = Duration::from_millis(600);

pub(crate) fn run() -> Result<ExitCode> {
    let project = setup::prepare(&[Purpose::Build, Purpose::Run, Purpose::Screen, Purpose::Test])?;
    build(&project)?;
    let folder = demo::empty_folder(&project, "picture")?;
    let clip = demo::generated_clip(&project, &folder)?;
    say::step("starting a cluster of five nodes");
    let cluster = Cluster::start(project.binary("vstack"), &folder.join("data"))?;
    let video = demo::upload(&cluster, &[clip])?;
    let screen = Screen::start(&folder, DISPLAY_PX)?;
    let mut command = demo::player(&project, &cluster, &video);
    command.arg("--json");
    screen.show(&mut command);
    let mut watch = Watch::start(command, &screen, &cluster.vstack, &folder)?;
    watch.until_position(1)?;
    resize(&screen)?;
    watch.until_position(KILLED_FROM_MS)?;
    say::step("killing a node");
    let pid = cluster.node_pid()?.to_string();
    step::must(tool("kill", &["-KILL", &pid]))?;
    sleep(SHOWN_AFTER.saturating_sub(CONTROLS_FADE));
    show_controls(&screen)?;
    sleep(CONTROLS_FADE);
    let shot = folder.join("window.png");
    screen.photograph_window(TITLE, &shot)?;
    let picture = project.root.join("docs/images/player.png");
    write_small(&shot, &picture)?;
    say::step(&format!("look at {}", picture.display()));
    Ok(ExitCode::SUCCESS)
}

/// What is photographed, and the cluster behind it.
fn build(project: &Project) -> Result<()> {
    say::step("building vstack and vstack-player");
    let mut command = project.cargo();
    command.args([
        "build",
        "--locked",
        "-p",
        "vstack-node-server",
        "-p",
        "vstack-player",
        "--bins",
    ]);
    step::must(command)
}

fn resize(screen: &Screen) -> Result<()> {
    let (width, height) = WINDOW_PX;
    let place = format!("0,0,0,{width},{height}");
    let mut command = tool("wmctrl", &["-r", TITLE, "-e", &place]);
    screen.show(&mut command);
    step::must(command)
}

fn show_controls(screen: &Screen) -> Result<()> {
    // Over the picture, beside the node panel.
    for x in ["700", "702"] {
        let mut command = tool("xdotool", &["mousemove", x, "700"]);
        screen.show(&mut command);
        step::must(command)?;
    }
    Ok(())
}

/// Without what the tool notes in it (a date), so that the same window is the same file.
fn write_small(shot: &Path, picture: &Path) -> Result<()> {
    let options = ["-strip", "-define", "png:compression-level=9"];
    let mut command = tool("convert", &[text(shot)?]);
    command.args(options).arg(picture);
    step::must(command).context("the picture could not be written")
}

fn tool(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments);
    command
}
