//! A display without a screen: Xvfb, a session bus and a window manager, and pictures of what it shows.
//!
//! The picture comes from X itself: what a person would see, whatever drew it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::step;
use crate::vstack::Ended;

/// The smallest display that people use.
pub(crate) const LAPTOP_PX: (u32, u32) = (1280, 800);

/// Ends with all its processes when it is dropped, the last one started first.
pub(crate) struct Screen {
    _window_manager: Ended,
    _bus: Ended,
    _server: Ended,
    display: String,
    bus_address: String,
    runtime: PathBuf,
}

/// Whether somebody can look at a window here.
pub(crate) fn exists() -> bool {
    ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

impl Screen {
    /// With GLX; logs and the runtime folder of its programs are in `folder`.
    pub(crate) fn start(folder: &Path, (width, height): (u32, u32)) -> Result<Self> {
        let mut xvfb = Command::new("Xvfb");
        let size = format!("{width}x{height}x24");
        xvfb.args(["-displayfd", "1", "-screen", "0", &size]);
        xvfb.args("+extension GLX -nolisten tcp -noreset".split(' '));
        let (server, number) = first_line(xvfb)?;
        let mut bus = Command::new("dbus-daemon");
        bus.args(["--session", "--nofork", "--nopidfile", "--print-address=1"]);
        let (bus, bus_address) = first_line(bus)?;
        let (display, runtime) = (format!(":{number}"), folder.join("runtime"));
        make_private(&runtime)?;
        let mut window_manager = Command::new("openbox");
        window_manager
            .env("DISPLAY", &display)
            .env("DBUS_SESSION_BUS_ADDRESS", &bus_address);
        let window_manager = Ended::logged(window_manager, &folder.join("openbox.log"))?;
        Ok(Self {
            _window_manager: window_manager,
            _bus: bus,
            _server: server,
            display,
            bus_address,
            runtime,
        })
    }

    /// Makes `command` open its windows here, drawn by the processor.
    pub(crate) fn show(&self, command: &mut Command) {
        command
            .env("DISPLAY", &self.display)
            .env("DBUS_SESSION_BUS_ADDRESS", &self.bus_address);
        command
            .env("XDG_RUNTIME_DIR", &self.runtime)
            .env("LIBGL_ALWAYS_SOFTWARE", "1")
            .env("GDK_BACKEND", "x11");
        command.env_remove("WAYLAND_DISPLAY");
    }

    /// A picture of everything, as PNG.
    pub(crate) fn photograph(&self, file: &Path) -> Result<()> {
        self.photograph_window("root", file)
    }

    /// A picture of the window with this title, without its frame.
    pub(crate) fn photograph_window(&self, title: &str, file: &Path) -> Result<()> {
        let mut import = Command::new("import");
        import
            .args(["-display", &self.display, "-window", title])
            .arg(file);
        step::must(import)
    }
}

/// Starts a program that prints one line when it is ready.
fn first_line(mut command: Command) -> Result<(Ended, String)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let spawned = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = spawned.with_context(|| format!("cannot run {name}"))?;
    let stdout = child.stdout.take();
    let process = Ended(child);
    let line = stdout.map(read_line).transpose()?.unwrap_or_default();
    if line.is_empty() {
        bail!("{name} did not start");
    }
    Ok((process, line))
}

fn read_line(stdout: ChildStdout) -> Result<String> {
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// The folder that programs keep their sockets in; they insist that nobody else may look into it.
fn make_private(folder: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.with_context(|| format!("cannot make {}", folder.display()))
}
