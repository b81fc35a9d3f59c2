//! `vstack trace`: a session that `vstack play --trace` wrote down, played back.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use vstack_api::ErrorCode;
use vstack_client::policy::trace::{Parting, Replay, Replayer};
use vstack_client::{ClientConfig, PolicyName, TraceSink, TraceWriting};

use crate::args::TraceCommand;
use crate::failure::Failure;
use crate::output::Output;

pub(crate) fn run(command: &TraceCommand, output: &Output) -> Result<(), Failure> {
    match command {
        TraceCommand::Replay { file, policy } => replay(file, *policy, output),
    }
}

/// A trace into a new file.
pub(crate) fn into_file(file: &Path) -> Result<(TraceSink, TraceWriting), Failure> {
    let target = File::create(file)
        .map_err(|error| Failure::Usage(format!("{} cannot be written: {error}", file.display())))?;
    Ok(TraceSink::to(target))
}

/// Waits for the end of a trace whose session is over.
pub(crate) async fn written(writing: TraceWriting, file: &Path) -> Result<u64, Failure> {
    let waited = tokio::task::spawn_blocking(|| writing.wait()).await;
    waited.map_err(std::io::Error::other).flatten().map_err(|error| {
        let detail = format!("{} is not whole: {error}", file.display());
        Failure::problem(ErrorCode::DiskError, detail)
    })
}

fn replay(file: &Path, policy: Option<PolicyName>, output: &Output) -> Result<(), Failure> {
    let other = policy.map(|policy| {
        let config = ClientConfig {
            policy,
            ..ClientConfig::new(String::new())
        };
        config.policy_config()
    });
    let replay = played(file, Replayer::new(other))?;
    output.say(&replay, || described(&replay));
    match &replay.parted {
        None => Ok(()),
        Some(parted) => Err(Failure::problem(ErrorCode::TraceDiffers, sentence(parted))),
    }
}

fn played(file: &Path, mut replayer: Replayer) -> Result<Replay, Failure> {
    let unread =
        |error: std::io::Error| Failure::Usage(format!("{} cannot be read: {error}", file.display()));
    let refuse = |error: vstack_client::policy::trace::TraceError| {
        Failure::problem(ErrorCode::BadRequest, format!("{}: {error}", file.display()))
    };
    for line in BufReader::new(File::open(file).map_err(unread)?).lines() {
        if !replayer.take(&line.map_err(unread)?).map_err(refuse)? {
            break;
        }
    }
    replayer.finish().map_err(refuse)
}

fn described(replay: &Replay) -> String {
    let verdict = match &replay.parted {
        None if replay.complete => "every action came out as it is written",
        None => {
            "every action came out as it is written; the trace has no end, its session did not stop by itself"
        }
        Some(_) => "then they part",
    };
    format!(
        "{} lines, {:.1} s: {} facts, {} changes of what is known of nodes, {} changes of policy\n{} actions are the same: {verdict}",
        replay.lines,
        replay.span_us.0 as f64 / 1e6,
        replay.facts,
        replay.records,
        replay.switches,
        replay.actions,
    )
}

fn sentence(parted: &Parting) -> String {
    let action = |text: &Option<String>| text.clone().unwrap_or_else(|| "no further action".to_owned());
    format!(
        "the replay parts from the trace at line {}, {:.3} s, in what follows line {}: {}\n  trace:  {}\n  replay: {}",
        parted.line,
        parted.fact_at_us.0 as f64 / 1e6,
        parted.fact_line,
        parted.fact,
        action(&parted.recorded),
        action(&parted.replayed),
    )
}
