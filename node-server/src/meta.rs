//! `vstack meta check|rebuild`.

use std::path::PathBuf;

use serde::Serialize;
use vstack_api::ErrorCode;
use vstack_server::metadata;

use crate::args::{MetaCommand, RebuildOptions};
use crate::failure::Failure;
use crate::output::Output;

pub(crate) async fn run(command: MetaCommand, output: &Output) -> Result<(), Failure> {
    match command {
        MetaCommand::Check { data } => check(data, output),
        MetaCommand::Rebuild(options) => rebuild(options, output).await,
    }
}

#[derive(Debug, Serialize)]
struct Checked {
    sound: bool,
    findings: Vec<String>,
}

fn check(data: PathBuf, output: &Output) -> Result<(), Failure> {
    let findings = metadata::check(&data)?;
    let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let checked = Checked {
        sound: findings.is_empty(),
        findings,
    };
    if checked.sound {
        output.say(&checked, || "the catalogue is sound".to_owned());
        return Ok(());
    }
    output.say(&checked, || checked.findings.join("\n"));
    let detail = format!(
        "the catalogue has {} findings; restore a backup (`vstack restore FILE --data DIR`) or rebuild it \
         (`vstack meta rebuild --from-nodes --data DIR`)",
        checked.findings.len()
    );
    Err(Failure::problem(ErrorCode::MetadataCorrupt, detail))
}

async fn rebuild(options: RebuildOptions, output: &Output) -> Result<(), Failure> {
    let key_file = options
        .cluster_key_file
        .unwrap_or_else(|| options.data.join("cluster.key"));
    let key = vstack_server::dev::read_key(&key_file)
        .map_err(|error| Failure::Usage(format!("--cluster-key-file: {error}")))?;
    let rebuilt = metadata::rebuild(&options.data, &key, &options.from_nodes).await?;
    output.say(&rebuilt, || {
        let learned = &rebuilt.learned;
        let unread = rebuilt.unread.iter().map(|reason| format!("  not read: {reason}"));
        let kept = rebuilt
            .kept
            .iter()
            .map(|path| format!("  the file before it is kept: {}", path.display()));
        let notes: Vec<String> = unread.chain(kept).collect();
        format!(
            "rebuilt from {} nodes: {} videos, {} chunks\n{}\nStart the metadata role: it learns the rest from every node \
             that reports.",
            learned.nodes,
            learned.videos,
            learned.chunks,
            notes.join("\n")
        )
    });
    Ok(())
}
