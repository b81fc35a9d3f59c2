//! `vstack consensus-demo`: stories of ChunkPaxos, told by the code that the roles run.

use std::io::BufRead as _;
use std::path::Path;

use vstack_api::ErrorCode;
use vstack_core::paxos::trace::Trace;
use vstack_sim::stories;

use crate::args::ConsensusOptions;
use crate::failure::Failure;
use crate::output::Output;

pub(crate) fn run(options: &ConsensusOptions, output: &Output) -> Result<(), Failure> {
    if options.step && output.is_json() {
        return Err(Failure::Usage(
            "--step is for people, --json for programs".to_owned(),
        ));
    }
    match (&options.file, options.story.as_deref()) {
        (Some(file), _) => tell(&read(file)?, options.step, output),
        (None, Some("list")) => {
            for story in stories::all() {
                output.say(&story.name, || format!("{:<22} {}", story.name, story.title));
            }
        }
        (None, Some(name)) => {
            let story = stories::find(name);
            let story = story.ok_or_else(|| {
                Failure::Usage(format!(
                    "no story is called {name:?}; `vstack consensus-demo list` names them"
                ))
            })?;
            tell(&story, options.step, output);
        }
        (None, None) => stories::all()
            .iter()
            .for_each(|story| tell(story, options.step, output)),
    }
    Ok(())
}

fn read(file: &Path) -> Result<Trace, Failure> {
    let refuse =
        |reason: String| Failure::problem(ErrorCode::BadRequest, format!("{}: {reason}", file.display()));
    let json = std::fs::read(file).map_err(|error| refuse(error.to_string()))?;
    serde_json::from_slice(&json).map_err(|error| refuse(format!("not a told run: {error}")))
}

fn tell(story: &Trace, step: bool, output: &Output) {
    output.json_line(story);
    for piece in stories::draw_steps(story) {
        output.line(&piece);
        if step {
            // The end of the input ends only the waiting.
            let _ = std::io::stdin().lock().read_line(&mut String::new());
        }
    }
}
