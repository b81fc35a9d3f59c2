//! Playing without a window, and what was written down of it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use vstack_client::PolicyName;

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

/// Where the picture goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sink {
    /// Nowhere: chunks are fetched and verified at the pace of playback, and dropped.
    Null,
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
