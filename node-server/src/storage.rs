//! `vstack storage`: a node's folder, looked at while no node runs.

use std::path::Path;

use serde::Serialize;
use vstack_api::ErrorCode;
use vstack_server::storage::{CheckDepth, Checkup, FolderOptions, fsck, read_index};

use crate::args::StorageCommand;
use crate::failure::Failure;
use crate::output::Output;
use crate::table;

/// Damaged objects that are listed for people; `--json` has all.
const LISTED: usize = 20;

pub(crate) fn run(command: &StorageCommand, output: &Output) -> Result<(), Failure> {
    match command {
        StorageCommand::Fsck { dir, full } => check(dir, depth(*full), output),
        StorageCommand::Index { dir, full } => index(dir, depth(*full), output),
    }
}

const fn depth(full: bool) -> CheckDepth {
    if full {
        CheckDepth::EveryByte
    } else {
        CheckDepth::AsAtStart
    }
}

/// Nothing can be said about the folder.
fn unsure(dir: &Path, reason: &dyn std::fmt::Display) -> Failure {
    Failure::Usage(format!(
        "nothing can be said about {}: {reason}. Is it a storage node's folder, and is the node stopped?",
        dir.display()
    ))
}

#[derive(Debug, Serialize)]
struct Verdict<'a> {
    clean: bool,
    #[serde(flatten)]
    checkup: &'a Checkup,
}

fn check(dir: &Path, depth: CheckDepth, output: &Output) -> Result<(), Failure> {
    let checkup = fsck(dir, &FolderOptions::default(), depth).map_err(|reason| unsure(dir, &reason))?;
    let clean = checkup.is_clean();
    let verdict = Verdict {
        clean,
        checkup: &checkup,
    };
    output.say(&verdict, || described(dir, &checkup));
    if clean {
        Ok(())
    } else {
        Err(Failure::problem(
            ErrorCode::ChunkCorrupt,
            "the folder is damaged; a node that is started on it serves what is whole and reports the rest for repair",
        ))
    }
}

fn described(dir: &Path, checkup: &Checkup) -> String {
    let report = &checkup.report;
    let mut lines = vec![format!(
        "{}: {} superblocks, {} objects, {}",
        dir.display(),
        report.superblocks,
        checkup.objects,
        table::size(checkup.stored_bytes)
    )];
    for torn in &report.torn {
        lines.push(format!(
            "superblock {}: bytes {}..{} are what a crash left of a write that nobody was told had succeeded (no damage)",
            torn.superblock, torn.range.start, torn.range.end
        ));
    }
    for bad in &report.bad {
        let what = if bad.proven_rot {
            "these bytes were written and are damaged"
        } else {
            "no record can be read, nothing says that one was acknowledged"
        };
        lines.push(format!(
            "superblock {}: bytes {}..{}: {what}",
            bad.superblock, bad.range.start, bad.range.end
        ));
    }
    for number in &report.unread {
        lines.push(format!("superblock {number}: the disk cannot read all of it"));
    }
    for file in &report.skipped {
        lines.push(format!("{} is left aside: {}", file.name, file.reason));
    }
    let lost = report
        .corrupt
        .iter()
        .map(|(chunk, ballot)| format!("{chunk} at ballot {ballot}: damaged, known by its name alone"));
    let contradictions = report.contradictions.iter().map(|(chunk, ballot)| {
        format!("{chunk} at ballot {ballot}: two records with different bytes, the first is kept")
    });
    let damaged = checkup.damaged.iter().map(|damaged| {
        format!(
            "{} at ballot {}: {}",
            damaged.chunk, damaged.ballot, damaged.reason
        )
    });
    let objects: Vec<String> = lost.chain(contradictions).chain(damaged).collect();
    lines.extend(objects.iter().take(LISTED).cloned());
    if objects.len() > LISTED {
        lines.push(format!("and {} more (--json lists all)", objects.len() - LISTED));
    }
    if checkup.is_clean() {
        let read = match checkup.checked_bytes {
            0 => "bodies were not read, --full does".to_owned(),
            bytes => format!("{} read and compared", table::size(bytes)),
        };
        lines.push(format!("clean ({read})"));
    }
    lines.join("\n")
}

fn index(dir: &Path, depth: CheckDepth, output: &Output) -> Result<(), Failure> {
    let lines = read_index(dir, &FolderOptions::default(), depth).map_err(|reason| unsure(dir, &reason))?;
    if output.is_json() {
        lines.iter().for_each(|line| output.json_line(line));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            let state = serde_json::to_value(line.state).ok();
            vec![
                line.chunk.to_string(),
                line.ballot.to_string(),
                line.superblock.to_string(),
                line.offset.to_string(),
                line.size_bytes.to_string(),
                state
                    .and_then(|state| Some(state.as_str()?.to_owned()))
                    .unwrap_or_default(),
                if line.by_reference { "shared" } else { "" }.to_owned(),
            ]
        })
        .collect();
    let header = ["chunk", "ballot", "superblock", "offset", "bytes", "state", ""];
    output.line(&table::table(&header, &rows));
    Ok(())
}
