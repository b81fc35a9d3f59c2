//! Looking after a cluster: nodes, balance, status, and the folders of roles that do not run.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values::{positive, share};

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// All nodes.
    List,
    /// One node, and what lies on it.
    Info {
        /// Name, id, the beginning of an id, or address.
        node: String,
    },
    /// No new chunks go there, so that it can be emptied; or go there again.
    Drain {
        /// Name, id, the beginning of an id, or address.
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
    /// Folder of the local cluster, whose supervisor is named too [default: that of `vstack dev`].
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
