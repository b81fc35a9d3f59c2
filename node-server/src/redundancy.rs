//! `vstack video redundancy|set-redundancy`, and what `vstack status` says of conversion and repair.

use std::time::Duration;

use tokio::time::sleep;
use vstack_api::MetadataClient;
use vstack_api::redundancy::{PartWord, RedundancyChoice, RedundancyStatus, VideoRedundancyView, Work};

use crate::args::RedundancyName;
use crate::cluster::Names;
use crate::failure::Failure;
use crate::output::Output;
use crate::{cluster, table};

/// How often a conversion that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(200);

impl From<RedundancyName> for RedundancyChoice {
    fn from(name: RedundancyName) -> Self {
        match name {
            RedundancyName::Replicated => Self::Replicated,
            RedundancyName::Erasure => Self::Erasure,
            RedundancyName::Auto => Self::Auto,
        }
    }
}

pub(crate) async fn show(catalogue: &MetadataClient, text: &str, output: &Output) -> Result<(), Failure> {
    let video = cluster::find_video(catalogue, text).await?;
    let view = catalogue.redundancy(video).await?;
    let names = Names::read(catalogue).await?;
    output.say(&view, || described(&view, &names));
    Ok(())
}

pub(crate) async fn set(
    catalogue: &MetadataClient,
    text: &str,
    name: RedundancyName,
    wait: bool,
    output: &Output,
) -> Result<(), Failure> {
    let video = cluster::find_video(catalogue, text).await?;
    let mut view = catalogue.set_redundancy(video, name.into()).await?;
    while wait && view.chunks_done < view.chunks {
        sleep(LOOK).await;
        view = catalogue.redundancy(video).await?;
    }
    output.say(&view, || {
        let left = view.chunks - view.chunks_done;
        match left {
            0 => format!("{} is {}", view.title, view.mode),
            _ => format!(
                "{} becomes {} in the background: {left} of {} chunks are left; `vstack status` shows how far it is",
                view.title, view.wanted, view.chunks
            ),
        }
    });
    Ok(())
}

fn described(view: &VideoRedundancyView, names: &Names) -> String {
    let rows: Vec<Vec<String>> = view
        .map
        .iter()
        .map(|chunk| {
            let parts = chunk.parts.iter().map(|part| {
                let shard = part.shard.map_or_else(String::new, |shard| format!(".s{shard}"));
                let node = names.of(part.node_id);
                match part.state {
                    PartWord::Good => format!("{node}{shard}"),
                    state => format!("{node}{shard} ({})", word(state)),
                }
            });
            vec![
                chunk.chunk_id.to_string().split_off(37),
                chunk.mode.clone(),
                table::size(chunk.size_bytes),
                parts.collect::<Vec<_>>().join("  "),
            ]
        })
        .collect();
    format!(
        "{}\n  protection  {} (chosen: {})\n  wanted      {}: {}\n  views       {:.1} lately; more than {} make it hot\n  \
         stored      {} for {}\n\n{}",
        view.title,
        view.mode,
        view.choice.as_str(),
        view.wanted,
        view.reason,
        view.popularity,
        view.hot_above,
        table::size(view.stored_bytes),
        table::size(view.size_bytes),
        table::table(&["chunk", "mode", "size", "parts on nodes"], &rows)
    )
}

const fn word(state: PartWord) -> &'static str {
    match state {
        PartWord::Good => "good",
        PartWord::Checking => "checking",
        PartWord::Leaving => "leaving",
        PartWord::Away => "away",
        PartWord::Missing => "missing",
        PartWord::Lost => "lost",
    }
}

/// Lines for `vstack status`; one when all is calm.
pub(crate) fn status_lines(status: &RedundancyStatus) -> String {
    let mut lines = Vec::new();
    lines.extend(work_line("converting", &status.conversion));
    lines.extend(work_line("repairing ", &status.repair));
    lines.extend(work_line("moving    ", &status.rebalance));
    if status.waiting > 0 {
        lines.push(format!(
            "{} chunks have parts on silent nodes, which are waited for",
            status.waiting
        ));
    }
    for loss in &status.data_loss {
        lines.push(format!(
            "data_loss: {} from {:.1} s to {:.1} s ({})",
            loss.title, loss.from_sec, loss.to_sec, loss.chunk_id
        ));
    }
    if !status.advice.is_empty() {
        lines.push(status.advice.clone());
    }
    match lines.as_slice() {
        [] => "protection  every chunk has all its parts".to_owned(),
        lines => format!("protection  {}", lines.join("\n            ")),
    }
}

pub(crate) fn work_line(verb: &str, work: &Work) -> Option<String> {
    let eta = work.eta_ms.map_or_else(|| "?".to_owned(), table::duration);
    work.active.then(|| {
        format!(
            "{verb} {}: {} of {} chunks, {}/s, {eta} left",
            work.what,
            work.done,
            work.total,
            table::size(vstack_core::manifest::seconds_to_ms(
                work.bytes_per_second / 1000.0
            )),
        )
    })
}
