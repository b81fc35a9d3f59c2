//! Checks the model of ChunkPaxos: `vstack-model` runs the small and medium configurations and every mutant,
//! `--big` the big ones too, names only those. Exit 1 when a configuration breaks or a mutant does not.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use vstack_sim::model::{self, Outcome, Run, Size};

/// Visits every state of small clusters that run ChunkPaxos.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Only these configurations or mutants.
    names: Vec<String>,
    /// The big configurations, too: hours and several GB.
    #[arg(long)]
    big: bool,
    /// Goes deep first, which takes less memory and finds longer counterexamples.
    #[arg(long)]
    depth_first: bool,
    /// Threads of the search.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Writes every counterexample into this folder, as JSON.
    #[arg(long)]
    traces: Option<PathBuf>,
    /// Lists the names and ends.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, &mut io::stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nothing is left to tell when standard error is closed, too.
            writeln!(io::stderr(), "vstack-model: {error}").unwrap_or_default();
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments, out: &mut impl Write) -> io::Result<bool> {
    let runs = chosen(arguments)?;
    if arguments.list {
        for run in runs {
            writeln!(out, "{:30} {:?}: {}", run.name, run.size, run.title)?;
        }
        return Ok(true);
    }
    writeln!(
        out,
        "{:30} {:>12} {:>11} {:>5} {:>9}  result",
        "run", "generated", "unique", "depth", "seconds"
    )?;
    let mut as_expected = true;
    for run in runs {
        let outcome = match arguments.depth_first {
            true => model::check_depth_first(&run, arguments.threads),
            false => model::check(&run, arguments.threads),
        };
        as_expected &= tell(&run, &outcome, out)?;
        if let (Some(folder), Some(trace)) = (&arguments.traces, &outcome.violation) {
            fs::create_dir_all(folder)?;
            fs::write(
                folder.join(format!("{}.json", run.name)),
                serde_json::to_vec_pretty(trace)?,
            )?;
        }
    }
    Ok(as_expected)
}

fn chosen(arguments: &Arguments) -> io::Result<Vec<Run>> {
    if !arguments.names.is_empty() {
        let unknown = |name: &String| io::Error::other(format!("no run is called {name}; see --list"));
        let named = arguments.names.iter();
        return named
            .map(|name| model::find(name).ok_or_else(|| unknown(name)))
            .collect();
    }
    let all = model::configurations().into_iter().chain(model::mutants());
    let wanted = |run: &Run| arguments.big || arguments.list || run.size < Size::Big;
    Ok(all.filter(wanted).collect())
}

/// Prints one row; says whether the run came out as it must.
fn tell(run: &Run, outcome: &Outcome, out: &mut impl Write) -> io::Result<bool> {
    let broken = run.config.broken.is_some();
    let (as_expected, result) = match &outcome.violation {
        Some(trace) => {
            let what = trace.violated.as_deref().unwrap_or_default();
            (broken, format!("breaks in {} steps: {what}", trace.steps.len()))
        }
        None if broken => (false, "NO COUNTEREXAMPLE".to_owned()),
        None if outcome.holds() => (true, "holds".to_owned()),
        None => (false, format!("never reaches {:?}", outcome.unreached)),
    };
    let mark = if as_expected { "" } else { "  <-- NOT AS EXPECTED" };
    writeln!(
        out,
        "{:30} {:>12} {:>11} {:>5} {:>9.1}  {result}{mark}",
        run.name,
        outcome.states_generated,
        outcome.states_unique,
        outcome.depth,
        outcome.duration.as_secs_f64()
    )?;
    out.flush()?;
    Ok(as_expected)
}
