//! What serves: a development cluster, and the roles as operators run them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vstack_server::dev::{DEFAULT_NODES, DEFAULT_PORT_BASE, MAX_NODES};

use super::values::{label, node_name, not_negative, positive};

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
    /// What a storage node is called in every table and chart; no two nodes have the same [default: the catalogue numbers it].
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    pub(crate) name: Option<String>,
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
