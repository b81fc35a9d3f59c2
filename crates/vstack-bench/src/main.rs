//! `vstack-bench`: one subcommand a bench; `cargo xtask bench NAME` builds it, fetches the peers and runs it.
//!
//! What every bench keeps: our server and its peers run on the same machine and take turns within one run, so that a
//! ratio means something even where the absolute figures do not. Servers are real processes on loopback, driven through
//! their own protocols; their processor time and memory come from `/proc`. Everything that was started is ended, every
//! loop has a bound, and the report says machine, load and command.

mod client;
mod consensus;
mod crowd;
mod erasure;
mod http;
mod load;
mod machine;
mod output;
mod peers;
mod predictor;
mod process;
mod real;
mod repair;
mod report;
mod role;
mod stage;
mod store;
mod zipf;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "vstack-bench", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// The client's policies in virtual time or on real sockets, beside what the physics allow.
    Client(client::Options),
    /// Many sessions at once on real nodes, and a rolling restart under them.
    Crowd(crowd::Options),
    /// The sessions of one crowd, started by it.
    #[command(hide = true)]
    CrowdSessions(crowd::Arguments),
    /// A storage node beside nginx and SeaweedFS: GET, PUT, memory, start, growth.
    Store(store::Options),
    /// Placements committed by ChunkPaxos beside puts of etcd; manifests; a growing catalogue.
    Consensus(consensus::Options),
    /// The pool's moving averages beside predictors that learn, over recorded traces.
    Predictor(predictor::Options),
    /// How fast a lost node is made good, and what viewers notice.
    Repair(repair::Options),
    /// Coding of shards beside ISA-L and memcpy.
    Erasure(erasure::Options),
    /// A library that is watched by Zipf's law: what ends as copies, what as shards, and what that saves.
    Zipf(zipf::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().bench {
        Bench::Client(options) => client::run(&options),
        Bench::Crowd(options) => crowd::run(&options),
        Bench::CrowdSessions(arguments) => crowd::run_sessions(&arguments),
        Bench::Store(options) => store::run(&options),
        Bench::Consensus(options) => consensus::run(&options),
        Bench::Predictor(options) => predictor::run(&options),
        Bench::Repair(options) => repair::run(&options),
        Bench::Erasure(options) => erasure::run(&options),
        Bench::Zipf(options) => zipf::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
