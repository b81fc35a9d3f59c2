//! The system packages of each purpose, and their installation with apt.
//!
//! Debian 12, Ubuntu 24.04 and newer have all of them under these names. Elsewhere nothing is installed: the list is
//! printed, and the build says what it misses.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::say;

/// What a package is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Headers of GTK, WebKit and GStreamer.
    Build,
    /// Decoders, video outputs, FFmpeg.
    Run,
    /// A display without a screen, and pictures of it.
    Screen,
    /// What only tests use.
    Test,
    /// What benches compare with.
    Bench,
}

impl Purpose {
    const fn packages(self) -> &'static str {
        match self {
            Self::Build => {
                "build-essential pkg-config libwebkit2gtk-4.1-dev libgtk-3-dev librsvg2-dev libssl-dev libxdo-dev \
                 libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev"
            }
            Self::Run => {
                "ffmpeg gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-libav \
                 gstreamer1.0-gtk3 gstreamer1.0-gl gstreamer1.0-x gstreamer1.0-pulseaudio gstreamer1.0-alsa \
                 fonts-dejavu-core"
            }
            Self::Screen => "xvfb xauth dbus-x11 openbox imagemagick libgl1-mesa-dri at-spi2-core",
            Self::Bench => "aria2 iproute2",
            Self::Test => "curl xdotool wmctrl webkit2gtk-driver spin",
        }
    }
}

/// Installs what is missing for `purposes`, and says what that is.
pub(crate) fn install(purposes: &[Purpose]) -> Result<()> {
    let wanted: BTreeSet<&str> = purposes
        .iter()
        .flat_map(|purpose| purpose.packages().split_whitespace())
        .collect();
    if !has_apt() {
        let list: Vec<&str> = wanted.into_iter().collect();
        say::note(&format!(
            "no apt on this system; these Debian packages have to be there: {}",
            list.join(" ")
        ));
        return Ok(());
    }
    let missing = missing(&wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    say::step(&format!("installing system packages: {}", missing.join(" ")));
    let apt = Apt::new()?;
    if !has_package_lists() {
        apt.run(&["update"])?;
    }
    if apt.install(&missing).is_ok() {
        return Ok(());
    }
    say::note("the package lists may be old: updating them, then once more");
    apt.run(&["update"])?;
    apt.install(&missing)
}

fn has_apt() -> bool {
    ["/usr/bin/apt-get", "/usr/bin/dpkg-query"]
        .iter()
        .all(|tool| Path::new(tool).exists())
}

fn has_package_lists() -> bool {
    let lists = std::fs::read_dir("/var/lib/apt/lists")
        .into_iter()
        .flatten()
        .flatten();
    lists
        .into_iter()
        .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

fn missing(wanted: &BTreeSet<&str>) -> Result<Vec<String>> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f=${Package} ${db:Status-Status}\\n"])
        .args(wanted)
        .stderr(Stdio::null())
        .output()
        .context("cannot run dpkg-query")?;
    let answer = String::from_utf8_lossy(&output.stdout);
    let installed: BTreeSet<&str> = answer
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    Ok(wanted
        .difference(&installed)
        .map(|name| (*name).to_owned())
        .collect())
}

/// apt-get with the rights to install.
struct Apt {
    sudo: bool,
}

impl Apt {
    fn new() -> Result<Self> {
        if is_root() {
            return Ok(Self { sudo: false });
        }
        let has_sudo = Command::new("sudo")
            .arg("-V")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok();
        if !has_sudo {
            bail!("packages are missing and there is no sudo: run `cargo xtask setup` once as root");
        }
        Ok(Self { sudo: true })
    }

    fn install(&self, packages: &[String]) -> Result<()> {
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        self.run(&[&["install", "-y", "--no-install-recommends"], packages.as_slice()].concat())
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let mut command = if self.sudo { sudo() } else { Command::new("env") };
        command.args([
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "-q",
            "-o",
            "DPkg::Lock::Timeout=300",
        ]);
        let status = command
            .args(arguments)
            .stdin(Stdio::null())
            .status()
            .context("cannot run apt-get")?;
        if !status.success() {
            bail!("apt-get {} failed", arguments.join(" "));
        }
        Ok(())
    }
}

/// Asks for a password only where somebody can type one.
fn sudo() -> Command {
    let mut command = Command::new("sudo");
    if !std::io::stderr().is_terminal() {
        command.arg("-n");
    }
    command
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| {
        line.strip_prefix("Uid:")
            .is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
    })
}
