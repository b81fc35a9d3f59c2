//! What demo, tests and the curious use: clips, bad networks, stories of the protocol, pictures of the screen.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use vstack_media::barcode::Area;

use crate::picture::area_of;

#[derive(Debug, Args)]
pub(crate) struct ClipOptions {
    pub(crate) file: PathBuf,
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// 320x180 at 0.3 Mbit/s instead of 1280x720 at 1.5 Mbit/s.
    #[arg(long)]
    pub(crate) small: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct EmulateOptions {
    /// TOML with the paths, their faults, and a script (docs/operations.md).
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<EmulateCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EmulateCommand {
    /// The paths of a running emulator.
    List {
        #[command(flatten)]
        control: Control,
    },
    /// Change a path; what is not given stays.
    Set {
        /// The path's name.
        path: String,
        /// As JSON: {"down_mbps": 8, "up_mbps": 8, "delay_ms": 20, "jitter_ms": 5}; what it leaves out has no limit.
        #[arg(long, value_name = "JSON", required_unless_present = "faults")]
        profile: Option<String>,
        /// As JSON: [{"kind": "hang", "at_share": 0.95}]; an empty list ends all.
        #[arg(long, value_name = "JSON")]
        faults: Option<String>,
        #[command(flatten)]
        control: Control,
    },
    /// Make a path, or all, what the file began them as.
    Clear {
        path: Option<String>,
        #[command(flatten)]
        control: Control,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Control {
    /// Where the emulator takes orders; it says so when it starts.
    #[arg(long = "control", value_name = "URL", env = "VSTACK_EMULATOR_URL")]
    pub(crate) url: String,
}

#[derive(Debug, Args)]
pub(crate) struct ConsensusOptions {
    /// Which story; all of them if not given, `list` for their names.
    #[arg(conflicts_with = "file")]
    pub(crate) story: Option<String>,
    /// Draw a told run from a JSON file: a counterexample of the model checker, or a story that was saved.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Wait for Enter after every step.
    #[arg(long)]
    pub(crate) step: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FrameOptions {
    /// A PNG file.
    pub(crate) picture: PathBuf,
    /// Where the video is in the picture, in pixels [default: it is looked for].
    #[arg(long, value_name = "X,Y,WIDTH,HEIGHT", value_parser = area_of)]
    pub(crate) area: Option<Area>,
}

#[derive(Debug, Args)]
pub(crate) struct MatchOptions {
    /// A PNG file.
    pub(crate) picture: PathBuf,
    /// The video.
    pub(crate) file: PathBuf,
    /// First moment that the picture may show.
    #[arg(long, value_name = "MS")]
    pub(crate) from_ms: u64,
    /// Last moment; at most 5 s later.
    #[arg(long, value_name = "MS")]
    pub(crate) to_ms: u64,
    /// Where the video is in the picture, in pixels [default: the whole picture].
    #[arg(long, value_name = "X,Y,WIDTH,HEIGHT", value_parser = area_of)]
    pub(crate) area: Option<Area>,
}
