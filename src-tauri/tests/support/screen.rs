//! A display without a screen: Xvfb, a session bus, a window manager; and pictures of what it shows.
//!
//! Pictures come from X, which sees the native video: WebDriver's own screenshots show the page alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use vstack_media::barcode::{Area, Picture, read_frame_number};

use super::process::Process;

pub struct Screen {
    // The last one started ends first.
    _window_manager: Process,
    _bus: Process,
    _server: Process,
    display: String,
    bus_address: String,
    folder: PathBuf,
}

/// What the display showed.
pub struct Shot {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Screen {
    pub fn start(folder: &Path) -> Self {
        let mut server = Command::new("Xvfb");
        server.args("-displayfd 1 -screen 0 1280x800x24 +extension GLX -nolisten tcp -noreset".split(' '));
        let (server, number) = Process::with_first_line(server);
        let mut bus = Command::new("dbus-daemon");
        bus.args(["--session", "--nofork", "--nopidfile", "--print-address=1"]);
        let (bus, bus_address) = Process::with_first_line(bus);
        let display = format!(":{number}");
        let mut window_manager = Command::new("openbox");
        window_manager
            .env("DISPLAY", &display)
            .env("DBUS_SESSION_BUS_ADDRESS", &bus_address);
        let window_manager = Process::start(window_manager);
        let folder = folder.to_owned();
        Self {
            _window_manager: window_manager,
            _bus: bus,
            _server: server,
            display,
            bus_address,
            folder,
        }
    }

    /// Makes `command` and what it starts open windows here, and keep its files in the test's folder.
    pub fn show(&self, command: &mut Command) {
        command
            .env("DISPLAY", &self.display)
            .env("DBUS_SESSION_BUS_ADDRESS", &self.bus_address);
        command
            .env("LIBGL_ALWAYS_SOFTWARE", "1")
            .env("GDK_BACKEND", "x11")
            .env_remove("WAYLAND_DISPLAY");
        for (variable, name) in [
            ("XDG_DATA_HOME", "data"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_RUNTIME_DIR", "run"),
        ] {
            let folder = self.folder.join(name);
            std::fs::create_dir_all(&folder).expect("a folder");
            command.env(variable, folder);
        }
    }

    pub fn bus_address(&self) -> &str {
        &self.bus_address
    }

    /// A file among the settings of the programs that are shown here.
    pub fn config_file(&self, name: &str) -> PathBuf {
        self.folder.join("config").join(name)
    }

    /// Where the newest picture is: it stays when a test fails.
    pub fn shot_file(&self) -> PathBuf {
        std::env::temp_dir().join(format!("vstack-player-{}.png", std::process::id()))
    }

    /// All that a person would see.
    pub fn shot(&self) -> Shot {
        let file = self.shot_file();
        let mut import = Command::new("import");
        import
            .args(["-display", &self.display, "-window", "root", "-depth", "8"])
            .arg(format!("PNG24:{}", file.display()));
        let output = import.output().expect("import runs");
        assert!(output.status.success(), "no picture: {output:?}");
        Shot::read(&file)
    }

    /// Closes the window with this title as its user does: by the window manager.
    pub fn close_window(&self, title: &str) {
        let mut close = Command::new("wmctrl");
        close.env("DISPLAY", &self.display).args(["-c", title]);
        let ended = close.status().expect("wmctrl runs");
        assert!(ended.success(), "no window {title}");
    }

    /// Presses keys on the keyboard, for the window that has the focus: "Tab", "ctrl+v".
    pub fn press(&self, keys: &str) {
        let mut press = Command::new("xdotool");
        press.env("DISPLAY", &self.display).args(["key", keys]);
        let ended = press.status().expect("xdotool runs");
        assert!(ended.success(), "{keys}");
    }

    /// Upper left corner of the contents of the window with this title, in pixels. The pointer finds it: what xdotool
    /// says of a window's place counts the frame of the window manager twice.
    pub fn window_origin(&self, title: &str) -> (f64, f64) {
        let script = [
            "search",
            "--onlyvisible",
            "--name",
            title,
            "mousemove",
            "--window",
            "%1",
            "0",
            "0",
            "getmouselocation",
            "--shell",
        ];
        let output = Command::new("xdotool")
            .env("DISPLAY", &self.display)
            .args(script)
            .output();
        let text = String::from_utf8_lossy(&output.expect("xdotool runs").stdout).into_owned();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|number| number.parse().ok())
                .unwrap_or_else(|| panic!("no window {title}: {text}"))
        };
        (value("X="), value("Y="))
    }
}

impl Shot {
    fn read(file: &Path) -> Self {
        let reader = png::Decoder::new(std::io::BufReader::new(
            std::fs::File::open(file).expect("the picture"),
        ));
        let mut reader = reader.read_info().expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a picture that fits memory")];
        let info = reader.next_frame(&mut pixels).expect("a whole picture");
        assert_eq!(info.color_type, png::ColorType::Rgb);
        Self {
            width: info.width,
            height: info.height,
            pixels,
        }
    }

    /// The frame number that the bar code at the top of the video shows, with the video in the middle of `area`.
    pub fn frame(&self, area: Area) -> Option<u16> {
        let picture = Picture {
            width: self.width,
            height: self.height,
            channels: 3,
            pixels: &self.pixels,
        };
        read_frame_number(&picture, area.fitted(1280, 720))
    }

    /// The brightest red, green or blue in `area`: 0 where all is black.
    pub fn brightest(&self, area: Area) -> u8 {
        let row_bytes = usize::try_from(self.width).expect("a width") * 3;
        let within = |at: usize, from: f64, length: f64| (0.0..length).contains(&(at as f64 - from));
        let rows = self.pixels.chunks(row_bytes).enumerate();
        let rows = rows.filter(|(row, _)| within(*row, area.y, area.height));
        let bytes = rows.flat_map(|(_, pixels)| pixels.iter().enumerate());
        let bytes = bytes.filter(|(at, _)| within(at / 3, area.x, area.width));
        bytes.map(|(_, byte)| *byte).max().unwrap_or(0)
    }

    pub fn whole(&self) -> Area {
        Area {
            x: 0.0,
            y: 0.0,
            width: f64::from(self.width),
            height: f64::from(self.height),
        }
    }
}
