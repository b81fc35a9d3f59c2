//! `vstack backup` and `vstack restore`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use serde::Serialize;
use vstack_api::wire::BackupMade;
use vstack_api::{ErrorCode, MetadataClient};
use vstack_core::digest::ChunkHasher;
use vstack_server::metadata;

use crate::args::Place;
use crate::failure::Failure;
use crate::output::Output;
use crate::{cluster, table};

#[derive(Debug, Serialize)]
struct BackedUp {
    /// Here, when it was copied; else on the metadata role's machine.
    file: String,
    #[serde(flatten)]
    made: BackupMade,
}

pub(crate) async fn backup(file: Option<&Path>, place: &Place, output: &Output) -> Result<(), Failure> {
    let catalogue = cluster::catalogue(place);
    let made = catalogue.backup().await?;
    let file = match file {
        Some(file) => {
            copy(&catalogue, &made, file).await?;
            file.display().to_string()
        }
        None => made.path.clone(),
    };
    let backed_up = BackedUp { file, made };
    output.say(&backed_up, || {
        let BackedUp { file, made } = &backed_up;
        format!(
            "{file}\n  {}, {} videos, {} chunks, checked\n  `vstack restore {file} --data DIR` starts again from it",
            table::size(made.size_bytes),
            made.videos,
            made.chunks
        )
    });
    Ok(())
}

/// Under a name that nobody takes for a backup until it is whole and has the announced hash.
async fn copy(catalogue: &MetadataClient, made: &BackupMade, file: &Path) -> Result<(), Failure> {
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let failed = |error: std::io::Error| {
        Failure::problem(ErrorCode::DiskError, format!("{}: {error}", partial.display()))
    };
    let mut target = std::fs::File::create(&partial).map_err(failed)?;
    let mut hasher = ChunkHasher::new();
    let mut body = catalogue.read_backup(&made.name).await?.body;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(vstack_api::ApiError::from)?;
        hasher.update(&piece);
        target.write_all(&piece).map_err(failed)?;
    }
    if hasher.finish().0.sha256 != made.sha256 {
        let detail = "the backup arrived damaged; it stays on the metadata role's machine, try again";
        return Err(Failure::problem(ErrorCode::HashMismatch, detail));
    }
    target
        .sync_all()
        .and_then(|()| std::fs::rename(&partial, file))
        .map_err(failed)
}

pub(crate) fn restore(file: &Path, data: &Path, output: &Output) -> Result<(), Failure> {
    let restored = metadata::restore(data, file)?;
    output.say(&restored, || {
        let kept: Vec<String> = restored
            .kept
            .iter()
            .map(|path| format!("  the file before it is kept: {}", path.display()))
            .collect();
        format!(
            "restored: {} videos, {} chunks\n{}\nStart the metadata role: it first asks every node what it has seen since, \
             then takes over what it finds there.",
            restored.facts.videos,
            restored.facts.chunks,
            kept.join("\n")
        )
    });
    Ok(())
}
