//! The command line: the commands, each with its options in one of the files here.

mod library;
mod serving;
mod tools;
mod upkeep;
mod values;
mod watching;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use library::{ListOptions, PolicyCommand, RedundancyName, SortName, UploadOptions, VideoCommand};
pub(crate) use serving::{DevOptions, RoleName, ServeOptions};
pub(crate) use tools::{
    ClipOptions, ConsensusOptions, Control, EmulateCommand, EmulateOptions, FrameOptions, MatchOptions,
};
pub(crate) use upkeep::{
    MetaCommand, NodeCommand, RebalanceCommand, RebuildOptions, StatusOptions, StorageCommand,
};
pub(crate) use watching::{PlayOptions, Sink, TraceCommand};

/// V-Stack: a video library on several ordinary machines.
#[derive(Debug, Parser)]
#[command(
    name = "vstack",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub(crate) struct Arguments {
    /// Print JSON lines on standard output and nothing else there; the last line is the result.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which cluster is meant.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The cluster's metadata role [default: the cluster that `vstack dev` runs here, else http://127.0.0.1:7400].
    #[arg(long, global = true, env = "VSTACK_METADATA_URL", value_name = "URL")]
    pub(crate) metadata_url: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A whole cluster on this machine, one process for each role.
    Dev(DevOptions),
    /// One or more roles, as operators run them.
    Serve(Box<ServeOptions>),
    /// Upload videos.
    Upload(UploadOptions),
    /// The library.
    #[command(subcommand)]
    Video(VideoCommand),
    /// Copies or shards: why a video has its mode, what the library costs, what another threshold would change.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// The storage nodes: list, drain, remove, replace.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Even out full and empty nodes, after one joined say.
    #[command(subcommand)]
    Rebalance(RebalanceCommand),
    /// Back up the catalogue while the cluster runs.
    Backup {
        /// Where the backup is copied to [default: it stays in `backups` in the metadata role's folder].
        file: Option<PathBuf>,
    },
    /// Start again from a backup of the catalogue; the metadata role must not run.
    Restore {
        file: PathBuf,
        /// The metadata role's folder, or the folder of `vstack dev`.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Look after the catalogue's file.
    #[command(subcommand)]
    Meta(MetaCommand),
    /// A storage node's folder, looked at while no node runs; nothing in it is changed.
    #[command(subcommand)]
    Storage(StorageCommand),
    /// Nodes, their health, and the library's size.
    Status(StatusOptions),
    /// Play a video without a window and report how it went.
    Play(PlayOptions),
    /// A session that was written down by `vstack play --trace`.
    #[command(subcommand)]
    Trace(TraceCommand),
    /// Generate a test clip: moving picture, time code, tones, and a bar code of the frame number.
    MakeClip(ClipOptions),
    /// Put network paths in front of nodes: slow, lossy, lying ones, by script and by hand.
    Emulate(EmulateOptions),
    /// Show how the nodes agree: stories of the protocol, drawn step by step.
    ConsensusDemo(ConsensusOptions),
    /// Read the frame number of a generated clip from a picture of the screen.
    ReadFrame(FrameOptions),
    /// Compare a picture of the screen with the frames of a video file.
    MatchFrame(MatchOptions),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn an_area_is_four_numbers() {
        let area_of =
            |text: &str| Arguments::try_parse_from(["vstack", "read-frame", "a.png", "--area", text]);
        assert!(area_of("1.5,-2,930,522.7").is_ok());
        for wrong in ["1,2,3", "1,2,3,4,5", "1,2,3,x", ""] {
            assert!(area_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_has_no_contradictions() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn json_and_the_metadata_url_may_stand_anywhere() {
        let arguments = Arguments::try_parse_from([
            "vstack",
            "video",
            "list",
            "--json",
            "--metadata-url",
            "http://h:1",
        ])
        .unwrap();
        assert!(arguments.json);
        assert_eq!(arguments.place.metadata_url.as_deref(), Some("http://h:1"));
    }
}
