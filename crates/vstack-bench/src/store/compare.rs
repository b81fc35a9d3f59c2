//! The servers side by side: GET, then PUT, in rounds.

use anyhow::Result;

use super::{CHUNK_BYTES, OURS, Options, slow};
use crate::http::put;
use crate::load::{Job, Outcome};
use crate::output;
use crate::peers::{self, Target, check_and_warm, new_paths};
use crate::process::Usage;
use crate::report::{Cell, Report};

const GET: &str = "GET 2 MiB, hot";
const PUT: &str = "PUT 2 MiB";

/// Makes so many paths for new chunks on its server.
type NewPaths = Box<dyn Fn(usize) -> Result<Vec<String>>>;

/// One way to write: a server and what its answer promises.
struct Sink<'a> {
    name: &'static str,
    target: &'a Target,
    paths: NewPaths,
}

pub(super) fn run(options: &Options, chunks: &[Vec<u8>], report: &mut Report) -> Result<()> {
    let programs = options.programs();
    output::step("starting the servers");
    let ours = peers::vstack(&programs, chunks)?;
    let nginx = peers::nginx(&programs, chunks)?;
    let seaweed = peers::seaweed(&programs, chunks)?;
    report.notes.extend(notes(
        options,
        nginx.as_ref(),
        seaweed.as_ref().map(|(target, _)| target),
    ));
    let (seaweed, assigner) = seaweed.unzip();
    let targets: Vec<&Target> = [Some(&ours), nginx.as_ref(), seaweed.as_ref()]
        .into_iter()
        .flatten()
        .collect();
    for target in &targets {
        check_and_warm(target, chunks)?;
    }
    let mut sinks = vec![Sink {
        name: OURS,
        target: &ours,
        paths: Box::new(|count| Ok(new_paths(count))),
    }];
    if let (Some(target), Some(assigner)) = (&seaweed, assigner) {
        let assigner = std::rc::Rc::new(assigner);
        for (name, query) in [("SeaweedFS, fsync", "?fsync=true"), ("SeaweedFS, no fsync", "")] {
            let assigner = std::rc::Rc::clone(&assigner);
            let paths = move |count| {
                let paths = assigner.paths(count)?;
                Ok(paths.into_iter().map(|path| format!("{path}{query}")).collect())
            };
            sinks.push(Sink {
                name,
                target,
                paths: Box::new(paths),
            });
        }
    }
    for round in 0..usize::from(options.rounds()) {
        reads(options, &targets, round, report)?;
    }
    slow::run(options, &ours, report)?;
    let body = chunks.first().map(Vec::as_slice).unwrap_or_default();
    warm_memory(options, &sinks, body)?;
    for round in 0..usize::from(options.rounds()) {
        writes(options, &sinks, body, round, report)?;
    }
    Ok(())
}

fn notes(options: &Options, nginx: Option<&Target>, seaweed: Option<&Target>) -> Vec<String> {
    let seen = |name: &str, target: Option<&Target>| match target {
        Some(target) => format!("{name} {}", target.version),
        None => format!("{name} not installed, left out"),
    };
    vec![
        format!(
            "Servers: {}; {}.",
            seen("nginx", nginx),
            seen("SeaweedFS", seaweed)
        ),
        format!(
            "{} rounds of {} s a cell; the servers take turns in each round, the one that begins moves on. Figures are \
             medians of the rounds, ratios are medians of the ratios within a round.",
            options.rounds(),
            options.limit().as_secs()
        ),
        format!(
            "GET: {} chunks of 2 MiB of random bytes, in memory, every one compared once before. nginx sends files as \
             they are (sendfile); SeaweedFS checks a CRC32C at the end of the stream; V-Stack checks the CRC32C of every \
             64 KiB before it leaves.",
            options.chunks
        ),
        format!(
            "PUT: new names, at most {} MiB a cell, memory warm (each writer wrote as much once before, unmeasured). \
             V-Stack answers after SHA-256, Merkle root and fdatasync; SeaweedFS with ?fsync=true after fsync; without, \
             from memory (a power cut loses it).",
            options.put_mib
        ),
        "CPU is that of the server's processes alone, RSS and anonymous memory theirs after the cell."
            .to_owned(),
    ]
}

fn reads(options: &Options, targets: &[&Target], round: usize, report: &mut Report) -> Result<()> {
    for connections in options.readers.iter().map(|count| usize::from(*count)) {
        for turn in 0..targets.len() {
            let target = targets[(turn + round) % targets.len()];
            let job = Job {
                address: target.address,
                connections,
                heads: &target.reads,
                body: &[],
                again: true,
                limit: options.limit(),
            };
            let (outcome, usage) = measured(&job, target)?;
            note(
                report,
                Cell::new((GET, target.name), (connections, round), &outcome, usage),
            );
        }
    }
    Ok(())
}

fn writes(
    options: &Options,
    sinks: &[Sink<'_>],
    body: &[u8],
    round: usize,
    report: &mut Report,
) -> Result<()> {
    for connections in options.writers.iter().map(|count| usize::from(*count)) {
        for turn in 0..sinks.len() {
            let sink = &sinks[(turn + round) % sinks.len()];
            let heads = sink.heads(options)?;
            let (outcome, usage) = measured(&sink.job(options, connections, &heads, body), sink.target)?;
            note(
                report,
                Cell::new((PUT, sink.name), (connections, round), &outcome, usage),
            );
        }
    }
    Ok(())
}

/// Memory that the system hands out for the first time costs more than memory that was in use before, and which of the
/// two a writer gets depends on what ran earlier. After this everybody gets used memory.
fn warm_memory(options: &Options, sinks: &[Sink<'_>], body: &[u8]) -> Result<()> {
    output::step("writing once, unmeasured, so that memory is warm");
    for sink in sinks {
        let heads = sink.heads(options)?;
        sink.job(options, 4, &heads, body).run()?;
    }
    Ok(())
}

impl Sink<'_> {
    fn heads(&self, options: &Options) -> Result<Vec<Vec<u8>>> {
        let count = options.put_mib as usize * 1024 * 1024 / CHUNK_BYTES;
        let paths = (self.paths)(count.max(1))?;
        Ok(paths
            .iter()
            .map(|path| put(self.target.address, path, CHUNK_BYTES))
            .collect())
    }

    fn job<'a>(
        &self,
        options: &Options,
        connections: usize,
        heads: &'a [Vec<u8>],
        body: &'a [u8],
    ) -> Job<'a> {
        Job {
            address: self.target.address,
            connections,
            heads,
            body,
            again: false,
            limit: options.limit(),
        }
    }
}

fn measured(job: &Job<'_>, target: &Target) -> Result<(Outcome, (Usage, Usage))> {
    let before = target.process.usage();
    let outcome = job.run()?;
    Ok((outcome, (before, target.process.usage())))
}

fn note(report: &mut Report, cell: Cell) {
    output::note(&format!(
        "round {}, {}, {} connections, {}: {:.0} MB/s, {:.2} CPU s/GB, p99 {:.2} ms",
        cell.round + 1,
        cell.task,
        cell.connections,
        cell.server,
        cell.mb_per_sec,
        cell.cpu_sec_per_gb,
        cell.p99_ms
    ));
    report.cells.push(cell);
}
