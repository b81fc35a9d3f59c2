//! A trace as a sequence diagram of text: one lane an actor, one arrow a step, and below it what came of it.

use std::fmt::Write as _;

use vstack_core::paxos::trace::{Trace, TraceStep};

/// Columns that a diagram may have.
pub const WIDTH: usize = 100;
/// Columns in front of the first lane: the step's number.
const MARGIN: usize = 5;
const MAX_LANE: usize = 16;

/// The whole diagram.
#[must_use]
pub fn draw(trace: &Trace) -> String {
    draw_steps(trace).concat()
}

/// The diagram in pieces: the head, each step, the end.
#[must_use]
pub fn draw_steps(trace: &Trace) -> Vec<String> {
    let lanes = Lanes::of(trace);
    let head = format!("{}\n\n{}\n", wrapped(&trace.title, 0), lanes.names());
    let steps = trace.steps.iter().map(|step| lanes.step(step));
    let end = match &trace.violated {
        Some(broken) => format!("\n{}\n", wrapped(&format!("BROKEN  {broken}"), 0)),
        None => "\nEvery rule holds.\n".to_owned(),
    };
    std::iter::once(head).chain(steps).chain([end]).collect()
}

struct Lanes {
    actors: Vec<String>,
    width: usize,
}

impl Lanes {
    /// Uploaders and others to the left, then the catalogue, then the nodes by number.
    fn of(trace: &Trace) -> Self {
        let mut actors: Vec<String> = Vec::new();
        for name in trace.steps.iter().flat_map(|step| [&step.from, &step.to]) {
            if !actors.contains(name) {
                actors.push(name.clone());
            }
        }
        let rank = |name: &String| match name.as_str() {
            "catalogue" => 1,
            node if node.starts_with("node ") => 2,
            _ => 0,
        };
        actors.sort_by_key(|name| {
            (
                rank(name),
                if rank(name) == 2 {
                    name.clone()
                } else {
                    String::new()
                },
            )
        });
        let width = ((WIDTH - MARGIN) / actors.len().max(1)).min(MAX_LANE);
        Self { actors, width }
    }

    fn column(&self, actor: &str) -> usize {
        let lane = self
            .actors
            .iter()
            .position(|name| name == actor)
            .unwrap_or_default();
        MARGIN + lane * self.width + self.width / 2
    }

    fn names(&self) -> String {
        let mut line = " ".repeat(MARGIN);
        for name in &self.actors {
            let name: String = name.chars().take(self.width - 1).collect();
            let _ = write!(line, "{name:^width$}", width = self.width);
        }
        line.trim_end().to_owned()
    }

    fn bars(&self) -> Vec<char> {
        let mut line = vec![' '; WIDTH];
        for actor in &self.actors {
            line[self.column(actor)] = '│';
        }
        line
    }

    fn step(&self, step: &TraceStep) -> String {
        let mut line = self.bars();
        for (place, digit) in line.iter_mut().zip(format!("{:>3}", step.step).chars()) {
            *place = digit;
        }
        let (from, to) = (self.column(&step.from), self.column(&step.to));
        let lost = step.effect.starts_with("lost");
        if from == to {
            line[from] = '◆';
        } else {
            for place in &mut line[from.min(to) + 1..from.max(to)] {
                *place = '─';
            }
            line[from] = if from < to { '├' } else { '┤' };
            let head = if from < to { to - 1 } else { to + 1 };
            line[head] = match (lost, from < to) {
                (true, _) => '✗',
                (false, true) => '▶',
                (false, false) => '◀',
            };
        }
        let arrow: String = line.into_iter().collect();
        let text = wrapped(&format!("{}: {}", step.message, step.effect), MARGIN);
        format!("{}\n{text}\n", arrow.trim_end())
    }
}

/// Text in lines of at most [`WIDTH`] columns, each behind `indent` blanks.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = vec![" ".repeat(indent)];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always a line");
        let blank = usize::from(line.len() > indent);
        if line.chars().count() + blank + word.chars().count() > WIDTH && blank == 1 {
            lines.push(format!("{}{word}", " ".repeat(indent + 2)));
        } else {
            if blank == 1 {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}
