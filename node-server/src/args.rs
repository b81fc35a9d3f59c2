//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use vstack_client::PolicyName;
use vstack_core::limits::MAX_LABEL_BYTES;
use vstack_core::rendezvous::is_label;
use vstack_media::barcode::Area;
use vstack_server::dev::{DEFAULT_NODES, DEFAULT_PORT_BASE, MAX_NODES};

use crate::picture::area_of;

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
    Serve(ServeOptions),
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

#[derive(Debug, Args)]
pub(crate) struct DevOptions {
    /// Storage nodes.
    #[arg(long, default_value_t = DEFAULT_NODES, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_NODES)))]
    pub(crate) nodes: u16,
    /// Folder of the cluster; made where it is missing [default: vstack in the folder for user data].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// First port: metadata here, uploader and gateway next, nodes from 10 behind it on; 0 takes free ports.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PORT_BASE, value_parser = clap::value_parser!(u16).range(0..=65_400))]
    pub(crate) port_base: u16,
    /// Start a role again when its process ended by itself.
    #[arg(long)]
    pub(crate) restart: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum RoleName {
    // In the order of starting: the others send heartbeats to the first.
    Metadata,
    Storage,
    Uploader,
    Gateway,
}

impl RoleName {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Storage => "storage",
            Self::Uploader => "uploader",
            Self::Gateway => "gateway",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ServeOptions {
    /// Roles of this process, joined by commas.
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', required = true)]
    pub(crate) roles: Vec<RoleName>,
    /// Address of the first role; further roles take the following ports; port 0 takes free ones.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7400")]
    pub(crate) listen: SocketAddr,
    /// Folder of the role's data; several roles use a folder of their own in it.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// File with the 32 random bytes that all roles of the cluster share.
    #[arg(long, value_name = "FILE")]
    pub(crate) cluster_key_file: Option<PathBuf>,
    /// Address under which others reach the storage node, where it is not the one it listens on.
    #[arg(long, value_name = "URL")]
    pub(crate) advertise_url: Option<String>,
    /// Rack or other place whose machines fail together: parts of a chunk are spread over racks [default: the node's host].
    #[arg(long, value_name = "NAME", value_parser = label)]
    pub(crate) rack: Option<String>,
    /// Largest superblock of a storage node [default: 1024]; the disk keeps this much room for each open one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(128..=4096))]
    pub(crate) superblock_mib: Option<u64>,
    /// Days after which a view counts half, in the library's order and for its redundancy [default: 7].
    #[arg(long, value_name = "DAYS", env = "VSTACK_VIEW_HALF_LIFE_DAYS", value_parser = positive)]
    pub(crate) view_half_life_days: Option<f64>,
    /// Room on the disk that a storage node leaves alone [default: 5 % of the disk or two superblocks, whichever is more].
    #[arg(long, value_name = "N")]
    pub(crate) reserve_mib: Option<u64>,
    /// What a storage node sends of chunks at most, in Mbit/s, serving first who needs them first; a little below what
    /// the machine's line carries [default: no limit].
    #[arg(long, value_name = "MBIT", value_parser = positive)]
    pub(crate) egress_mbit: Option<f64>,
    /// Decayed views above which a video is kept as full copies [default: 1000].
    #[arg(long, value_name = "VIEWS", env = "VSTACK_HOT_ABOVE_VIEWS", value_parser = not_negative)]
    pub(crate) hot_above_views: Option<f64>,
    /// Hours that a new video stays replicated at least [default: 24].
    #[arg(long, value_name = "HOURS", env = "VSTACK_COOL_AFTER_HOURS", value_parser = not_negative)]
    pub(crate) cool_after_hours: Option<f64>,
    /// Hours in which a video is converted at most once [default: 24].
    #[arg(long, value_name = "HOURS", env = "VSTACK_CONVERSION_PERIOD_HOURS", value_parser = not_negative)]
    pub(crate) conversion_period_hours: Option<f64>,
    /// Videos smaller than this stay replicated [default: 1024].
    #[arg(long, value_name = "N", env = "VSTACK_SMALL_VIDEO_KIB")]
    pub(crate) small_video_kib: Option<u64>,
    /// Seconds from a node's being down until its parts are made again elsewhere [default: 600].
    #[arg(long, value_name = "SECONDS", env = "VSTACK_REPAIR_GRACE_S")]
    pub(crate) repair_grace_s: Option<u64>,
    /// Seconds for which a node that gave out wrong bytes three times is not trusted [default: 600].
    #[arg(long, value_name = "SECONDS", env = "VSTACK_QUARANTINE_S")]
    pub(crate) quarantine_s: Option<u64>,
    /// End when this process ends.
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) parent_pid: Option<u32>,
}

fn label(text: &str) -> Result<String, String> {
    match is_label(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "a rack is called by one word of at most {MAX_LABEL_BYTES} bytes"
        )),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum StorageCommand {
    /// Check a folder: what the node's next start would say. Exit code 0: clean, 1: damage, 2: nothing can be said.
    Fsck {
        /// The storage node's folder.
        dir: PathBuf,
        /// Read every byte of every object too; takes as long as the disk needs for that.
        #[arg(long)]
        full: bool,
    },
    /// Print the index that the next start would build: one line an object, tombstones included.
    Index {
        /// The storage node's folder.
        dir: PathBuf,
        /// Believe no footer and no index snapshot, read every header.
        #[arg(long)]
        full: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct UploadOptions {
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// How the video is protected from its upload on [default: auto, which starts with full copies].
    #[arg(long, value_name = "MODE")]
    pub(crate) redundancy: Option<RedundancyName>,
    /// Title [default: the file's name].
    #[arg(long)]
    pub(crate) title: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VideoCommand {
    /// List videos.
    List(ListOptions),
    /// One video: its facts and where its chunks are.
    Info {
        /// Id, or title.
        video: String,
    },
    /// How a video is protected, why, and where each chunk's parts are.
    Redundancy {
        /// Id, or title.
        video: String,
    },
    /// Fix how a video is protected, or leave it to the policy.
    SetRedundancy {
        /// Id, or title.
        video: String,
        mode: RedundancyName,
        /// Return when every chunk is converted.
        #[arg(long)]
        wait: bool,
    },
    /// Delete videos.
    Rm {
        /// Ids, or titles.
        #[arg(required = true, value_name = "VIDEO")]
        videos: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Why a video is replicated or erasure-coded, and where it is heading.
    Explain {
        /// Id, or title.
        video: String,
    },
    /// What the settings, or another threshold, would store and convert; nothing is changed.
    Simulate {
        /// Decayed views above which a video is kept as full copies [default: as it is set].
        #[arg(long, value_name = "VIEWS", value_parser = positive)]
        threshold: Option<f64>,
    },
    /// Bytes stored and saved, expected reads of each node, and how long data lasts in each mode.
    Cost,
}

/// A finite number above 0.
fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if number.is_finite() && number > 0.0 {
        Ok(number)
    } else {
        Err("it has to be above 0".to_owned())
    }
}

/// A finite number, 0 or above.
fn not_negative(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if number.is_finite() && number >= 0.0 {
        Ok(number)
    } else {
        Err("it must not be below 0".to_owned())
    }
}

/// A share above 0 and below 1.
fn share(text: &str) -> Result<f64, String> {
    match positive(text)? {
        share if share < 1.0 => Ok(share),
        _ => Err("it is a share below 1; 5 % is 0.05".to_owned()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RedundancyName {
    /// Three full copies.
    Replicated,
    /// Five shards, of which any three suffice: 1.67 times the size instead of 3.
    Erasure,
    /// As popularity and age suggest.
    Auto,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SortName {
    Newest,
    Title,
    Duration,
    Views,
}

#[derive(Debug, Args)]
pub(crate) struct ListOptions {
    /// Only titles that contain this.
    #[arg(long)]
    pub(crate) search: Option<String>,
    #[arg(long, default_value = "newest")]
    pub(crate) sort: SortName,
    #[arg(long, default_value_t = 0)]
    pub(crate) offset: u64,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) limit: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MetaCommand {
    /// Read every row and compare what must agree; the role may run.
    Check {
        /// The metadata role's folder, or the folder of `vstack dev`.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Make a new catalogue from what the nodes hold; the metadata role must not run, the nodes must.
    Rebuild(RebuildOptions),
}

#[derive(Debug, Args)]
pub(crate) struct RebuildOptions {
    /// Addresses of nodes, joined by commas; those that the old catalogue knew are asked as well.
    #[arg(long, value_name = "URL", value_delimiter = ',', num_args = 0.., required = true)]
    pub(crate) from_nodes: Vec<String>,
    /// The metadata role's folder, or the folder of `vstack dev`.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// The cluster's key [default: cluster.key in the folder of `vstack dev`].
    #[arg(long, value_name = "FILE")]
    pub(crate) cluster_key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// All nodes.
    List,
    /// One node, and what lies on it.
    Info { node: String },
    /// No new chunks go there, so that it can be emptied; or go there again.
    Drain {
        /// Id, the beginning of an id, or address.
        node: String,
        /// End the draining.
        #[arg(long)]
        cancel: bool,
        /// Return when nothing is left there, and show how far it is meanwhile.
        #[arg(long, conflicts_with = "cancel")]
        wait: bool,
    },
    /// It will be away for a while and come back with its data.
    Maintenance {
        node: String,
        /// It is back.
        #[arg(long)]
        end: bool,
    },
    /// Take it out of the cluster; what lay there counts as lost.
    Remove {
        node: String,
        /// Even if chunks lie nowhere else: they are lost.
        #[arg(long)]
        force: bool,
        /// Return when what lay there is made again elsewhere, and show how far it is meanwhile.
        #[arg(long)]
        wait: bool,
    },
    /// Its disk is gone: what lay there counts as lost, and a new data folder is welcome.
    Replace {
        node: String,
        /// Even if chunks lie nowhere else: they are lost.
        #[arg(long)]
        force: bool,
        /// Return when what lay there is made again elsewhere, and show how far it is meanwhile.
        #[arg(long)]
        wait: bool,
    },
    /// Trust a node again that was removed, or that came back with an older copy of its data.
    Readopt { node: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RebalanceCommand {
    /// How full the nodes are, and what would be moved.
    Plan,
    /// Move parts until no node is much fuller than the others; goes on where it was paused.
    Apply {
        /// Return when the nodes are even, and show how far it is meanwhile.
        #[arg(long)]
        wait: bool,
    },
    /// Stop moving; what was moved stays.
    Pause,
}

#[derive(Debug, Args)]
pub(crate) struct StatusOptions {
    /// Folder of the local cluster, to name its processes [default: that of `vstack dev`].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// What agreement on placements cost: requests of ChunkPaxos for each chunk, counted since the roles started.
    #[arg(long)]
    pub(crate) consensus: bool,
    /// How long the library lasts as it is now, from the measured repair speed, with what that assumes.
    #[arg(long, conflicts_with = "consensus")]
    pub(crate) durability: bool,
    /// Share of the disks that fail within a year [default: 0.05].
    #[arg(long, value_name = "SHARE", requires = "durability", value_parser = share)]
    pub(crate) annual_failure_rate: Option<f64>,
    /// Hours until an operator has added a node, where none is left for lost parts [default: 24].
    #[arg(long, value_name = "HOURS", requires = "durability", value_parser = positive)]
    pub(crate) operator_hours: Option<f64>,
    /// Go on: print conversion, repair and balance whenever they change, until Ctrl-C.
    #[arg(long, conflicts_with_all = ["consensus", "durability"])]
    pub(crate) watch: bool,
}

/// Where the picture goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sink {
    /// Nowhere: chunks are fetched and verified at the pace of playback, and dropped.
    Null,
}

#[derive(Debug, Args)]
pub(crate) struct PlayOptions {
    /// Id, or title.
    pub(crate) video: String,
    #[arg(long, default_value = "null")]
    pub(crate) sink: Sink,
    /// Times real time; 0 takes each chunk as soon as it is there.
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    pub(crate) speed: f64,
    /// Where to begin.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    pub(crate) from: f64,
    /// How sources are chosen: pool (ranges of a chunk from several nodes at once), seed (whole chunks by score), or to compare with: round-robin, random, single.
    #[arg(long, value_name = "NAME", env = "VSTACK_POLICY", default_value_t = PolicyName::default())]
    pub(crate) policy: PolicyName,
    /// Play this video afterwards; its beginning is fetched while the first one plays, whenever that needs nothing.
    #[arg(long, value_name = "VIDEO")]
    pub(crate) next: Option<String>,
    /// Write down all that the policy hears and answers of the (first) video, as JSON lines that `vstack trace replay` plays back.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TraceCommand {
    /// Feed the recorded facts into the policy again, and say where its actions are not the recorded ones.
    Replay {
        file: PathBuf,
        /// Another policy than the recorded one: where would it have decided otherwise first?
        #[arg(long, value_name = "NAME")]
        policy: Option<PolicyName>,
    },
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
pub(crate) struct ClipOptions {
    pub(crate) file: PathBuf,
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// 320x180 at 0.3 Mbit/s instead of 1280x720 at 1.5 Mbit/s.
    #[arg(long)]
    pub(crate) small: bool,
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
