//! `vstack`: every server role, the development cluster, and the operator's command line.
//!
//! A thin shell: arguments in, one call into `vstack-server` or `vstack-client`, output and exit code out. Exit codes:
//! 0 done, 1 refused or failed with a problem, 2 wrong arguments or configuration, 3 cannot start.

mod args;
mod backup;
mod clip;
mod cluster;
mod consensus;
mod consensus_demo;
mod dev;
mod emulate;
mod failure;
mod frame;
mod logs;
mod match_frame;
mod meta;
mod node;
mod node_progress;
mod output;
mod picture;
mod play;
mod policy;
mod processes;
mod rebalance;
mod redundancy;
mod roles;
mod serve;
mod signals;
mod status;
mod storage;
mod table;
mod trace;
mod upkeep;
mod upload;
mod upload_progress;
mod video;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Arguments, Command};
use crate::failure::Failure;
use crate::output::Output;

// The main task starts the children of `vstack dev`: it runs on the main thread, which lives as long as the process.
#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.json);
    match run(arguments, &output).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn run(arguments: Arguments, output: &Output) -> Result<(), Failure> {
    let _logs = logs::start(&arguments.command)?;
    let place = arguments.place;
    match arguments.command {
        Command::Serve(options) => Box::pin(serve::run(*options, place, output)).await,
        Command::Dev(options) => Box::pin(dev::run(options, output)).await,
        Command::Upload(options) => Box::pin(upload::run(options, &place, output)).await,
        Command::Video(command) => Box::pin(video::run(command, &place, output)).await,
        Command::Policy(command) => Box::pin(policy::run(command, &place, output)).await,
        Command::Node(command) => Box::pin(node::run(command, &place, output)).await,
        Command::Rebalance(command) => Box::pin(rebalance::run(command, &place, output)).await,
        Command::Backup { file } => Box::pin(backup::backup(file.as_deref(), &place, output)).await,
        Command::Restore { file, data } => backup::restore(&file, &data, output),
        Command::Storage(command) => storage::run(&command, output),
        Command::Meta(command) => Box::pin(meta::run(command, output)).await,
        Command::Status(options) => Box::pin(status::run(&options, &place, output)).await,
        Command::Play(options) => Box::pin(play::run(options, &place, output)).await,
        Command::Trace(command) => trace::run(&command, output),
        Command::MakeClip(options) => Box::pin(clip::run(options, output)).await,
        Command::Emulate(options) => Box::pin(emulate::run(options, output)).await,
        Command::ConsensusDemo(options) => consensus_demo::run(&options, output),
        Command::ReadFrame(options) => frame::run(&options, output),
        Command::MatchFrame(options) => match_frame::run(&options, output).await,
    }
}
