//! `cargo xtask`: everything that is done to this project with one command.
//!
//! It needs only git, a C toolchain, Rust and Node.js; what else a task wants, it installs and says so. It knows no
//! crate of the product: it drives them as a user would, through their commands.

mod bench;
mod bindings;
mod check;
mod corpus;
mod demo;
mod layers;
mod packages;
mod picture;
mod project;
mod prove;
mod say;
mod screen;
mod setup;
mod sources;
mod step;
mod tally;
mod test;
mod toolchain;
mod vstack;
mod watch;
mod web;

use std::process::ExitCode;

use anyhow::Result;

const HELP: &str = "\
cargo xtask TASK

  demo [FILE...]  build, start a five-node cluster on loopback, upload a generated clip (or FILE...) and open the
                  player on it; without a display it plays on a virtual one and leaves target/demo/player.png
  test            install what is missing and run everything that CI runs
  check           format, clippy, layers, sizes, TypeScript bindings, svelte-check, tsc: before every push
  prove NAME      proof runs of the store: power cuts, failing disks, kills, bit rot, fuzzing, mutants (no NAME: lists)
  bench NAME      measure against other servers and write docs/evaluation/NAME.md: client, consensus, erasure, predictor, repair, store; options
                  of the bench may follow (`--help` lists them). --rounds 1 --seconds 1 is done in minutes
  picture         take the picture in the README anew, on a virtual display: docs/images/player.png
  setup           only install what is missing
  help            this text
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(code) => code,
        Err(error) => {
            say::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<ExitCode> {
    match words {
        ["demo", files @ ..] => demo::run(files),
        ["test"] => test::run(),
        ["check"] => check::run(),
        ["bench", words @ ..] => bench::run(words),
        ["prove", words @ ..] => prove::run(words),
        ["setup"] => setup::run(),
        ["picture"] => picture::run(),
        [] | ["help" | "--help" | "-h"] => {
            say::text(HELP);
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            say::error(&format!("there is no task \"{}\"", words.join(" ")));
            say::text(HELP);
            Ok(ExitCode::from(2))
        }
    }
}
