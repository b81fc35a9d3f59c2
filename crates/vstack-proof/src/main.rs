//! `prove NAME [--seed N] [--count N] [--json]`: one proof run, started by `cargo xtask prove`.
//!
//! Ends with 0 if it passed, 1 if it failed, 2 if it was asked wrongly, 3 if this machine cannot do it.

mod output;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use vstack_proof::{
    Report, Settings, crash_points, flips, fuzzing, kill, nth_call, power_cut, writer_process,
};

const USAGE: &str = "\
prove NAME [--seed N] [--count N] [--json]

  crash-points  simulated power cuts before every disk call of random scripts (count: points, 1000000)
  flips         every bit and every length of a superblock of 64 records (count: cases, all)
  nth-call      every single disk call fails once and for ever (count: failed calls, 200000)
  kill          a real process killed with SIGKILL (count: kills, 1000)
  power-cut     real power cuts of a loop-mounted ext4, as root (count: cuts, 200)
";
/// The cuts that must find out a store that does not sync: most of so many.
const CUTS_WITHOUT_SYNCS: u64 = 10;
/// In the private mount namespace.
const INSIDE: &str = "--inside";
const SKIPPED: u8 = 3;

#[derive(Debug, Clone, Copy)]
struct Asked {
    seed: u64,
    count: Option<u64>,
    json: bool,
    inside: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = words.split_first() else {
        return usage("which run?");
    };
    if name == writer_process::WRITER {
        return match writer_process::write_until_killed(rest) {
            Ok(()) => ExitCode::SUCCESS,
            Err(what) => {
                output::error(&what);
                ExitCode::FAILURE
            }
        };
    }
    if name == "corpus" {
        return write_corpus(rest.first().map_or(Path::new("fuzz/corpus"), Path::new));
    }
    match parse(rest) {
        Ok(asked) => run(name, asked),
        Err(what) => usage(&what),
    }
}

fn usage(what: &str) -> ExitCode {
    output::error(what);
    output::error(USAGE);
    ExitCode::from(2)
}

fn parse(words: &[String]) -> Result<Asked, String> {
    let mut asked = Asked {
        seed: 1,
        count: None,
        json: false,
        inside: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().ok_or(format!("{word} needs a number"))?;
            value
                .parse::<u64>()
                .map_err(|_| format!("{word}: {value:?} is no number"))
        };
        match word.as_str() {
            "--seed" => asked.seed = number()?,
            "--count" => asked.count = Some(number()?),
            "--json" => asked.json = true,
            INSIDE => asked.inside = true,
            _ => return Err(format!("unknown argument {word:?}")),
        }
    }
    Ok(asked)
}

fn run(name: &str, asked: Asked) -> ExitCode {
    let settings = |default| Settings {
        seed: asked.seed,
        count: asked.count.unwrap_or(default),
    };
    match name {
        "crash-points" => finish(asked, &crash_points::run(settings(1_000_000), progress(asked))),
        "flips" => finish(asked, &flips::run(settings(u64::MAX), progress(asked))),
        "nth-call" => finish(asked, &nth_call::run(settings(200_000), progress(asked))),
        "kill" => with_scratch(|program, scratch| {
            finish(
                asked,
                &kill::run(settings(1000), program, scratch, progress(asked)),
            )
        }),
        "power-cut" if asked.inside => {
            with_scratch(|program, scratch| cut_power(asked, settings(200), program, scratch))
        }
        "power-cut" => enter_namespace(),
        _ => usage(&format!("there is no run {name:?}")),
    }
}

fn finish(asked: Asked, report: &Report) -> ExitCode {
    if asked.json {
        output::text(&report.to_json());
    } else {
        output::text(&report.to_string());
    }
    if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Says every few seconds how far a run is.
fn progress(asked: Asked) -> impl FnMut(u64) -> bool {
    const EVERY: Duration = Duration::from_secs(20);
    let mut next = Instant::now() + EVERY;
    move |count| {
        if Instant::now() >= next {
            next += EVERY;
            if !asked.json {
                output::text(&format!("  ... {count}"));
            }
        }
        true
    }
}

/// This program and a folder that goes afterwards.
fn with_scratch(run: impl FnOnce(&Path, &Path) -> ExitCode) -> ExitCode {
    let scratch = std::env::temp_dir().join(format!("vstack-proof-{}", std::process::id()));
    let program: Result<PathBuf, _> = std::env::current_exe();
    let code = match (program, std::fs::create_dir_all(&scratch)) {
        (Ok(program), Ok(())) => run(&program, &scratch),
        (Err(error), _) | (_, Err(error)) => {
            output::error(&format!("cannot begin in {}: {error}", scratch.display()));
            ExitCode::FAILURE
        }
    };
    drop(std::fs::remove_dir_all(&scratch));
    code
}

/// Runs this very command again in a mount namespace of its own.
fn enter_namespace() -> ExitCode {
    if let Some(obstacle) = power_cut::obstacle() {
        return skipped(obstacle);
    }
    let status = std::env::current_exe().and_then(|program| {
        Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .arg(program)
            .args(std::env::args().skip(1))
            .arg(INSIDE)
            .status()
    });
    match status.map(|status| status.code()) {
        Ok(Some(code)) => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
        Ok(None) => ExitCode::FAILURE,
        Err(error) => skipped(&format!("unshare: {error}")),
    }
}

/// Writes the seed corpora of the fuzz targets below `folder`.
fn write_corpus(folder: &Path) -> ExitCode {
    for (target, name, bytes) in fuzzing::seeds() {
        let folder = folder.join(target);
        let written =
            std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join(name), bytes));
        if let Err(error) = written {
            output::error(&format!("cannot write to {}: {error}", folder.display()));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn skipped(why: &str) -> ExitCode {
    output::text(&format!("power-cut: SKIPPED, {why}"));
    ExitCode::from(SKIPPED)
}

fn cut_power(asked: Asked, settings: Settings, program: &Path, scratch: &Path) -> ExitCode {
    let harness = |syncs| power_cut::Harness {
        program,
        scratch,
        syncs,
    };
    if let Err(why) = power_cut::try_mount(scratch) {
        return skipped(&format!("no file system can be mounted here: {why}"));
    }
    let mut report = power_cut::run(settings, &harness(true), progress(asked));
    let blind = Settings {
        count: CUTS_WITHOUT_SYNCS,
        ..settings
    };
    let found_out = power_cut::run(blind, &harness(false), |_| true).failure_count;
    report
        .facts
        .push(("cuts of a store that does not sync", CUTS_WITHOUT_SYNCS));
    report.facts.push(("of these found out", found_out));
    if found_out * 2 < CUTS_WITHOUT_SYNCS {
        report.blunt(settings.seed, found_out);
    }
    finish(asked, &report)
}
