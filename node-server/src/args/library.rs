//! The library: what goes into it, what is in it, and how it is protected.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::values::positive;

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

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SortName {
    Newest,
    Title,
    Duration,
    Views,
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
