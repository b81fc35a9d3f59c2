//! `vstack video list|info|redundancy|set-redundancy|rm`.

use std::collections::BTreeMap;

use serde::Serialize;
use vstack_api::MetadataClient;
use vstack_api::wire::{VideoEntry, VideoQuery, VideoSort};
use vstack_core::id::VideoId;
use vstack_core::manifest::{Manifest, VideoStatus, seconds_to_ms};

use crate::args::{ListOptions, Place, SortName, VideoCommand};
use crate::cluster::Names;
use crate::failure::Failure;
use crate::output::Output;
use crate::{cluster, redundancy, table};

pub(crate) async fn run(command: VideoCommand, place: &Place, output: &Output) -> Result<(), Failure> {
    let catalogue = cluster::catalogue(place);
    match command {
        VideoCommand::List(options) => list(&catalogue, options, output).await,
        VideoCommand::Info { video } => info(&catalogue, &video, output).await,
        VideoCommand::Redundancy { video } => redundancy::show(&catalogue, &video, output).await,
        VideoCommand::SetRedundancy { video, mode, wait } => {
            redundancy::set(&catalogue, &video, mode, wait, output).await
        }
        VideoCommand::Rm { videos } => remove(&catalogue, &videos, output).await,
    }
}

async fn list(catalogue: &MetadataClient, options: ListOptions, output: &Output) -> Result<(), Failure> {
    let sort = match options.sort {
        SortName::Newest => VideoSort::Newest,
        SortName::Title => VideoSort::Title,
        SortName::Duration => VideoSort::Duration,
        SortName::Views => VideoSort::Views,
    };
    let query = VideoQuery {
        search: options.search,
        sort,
        offset: options.offset,
        limit: Some(options.limit),
    };
    let page = catalogue.videos(&query).await?;
    output.say(&page, || match page.videos.as_slice() {
        [] => "no videos; `vstack upload FILE` adds one".to_owned(),
        videos => {
            let rows: Vec<Vec<String>> = videos.iter().map(row).collect();
            let shown = table::table(&["id", "title", "length", "size", "status", "protection"], &rows);
            format!("{shown}\n{} of {}", videos.len(), page.total)
        }
    });
    Ok(())
}

fn row(video: &VideoEntry) -> Vec<String> {
    vec![
        video.video_id.to_string(),
        video.title.clone(),
        table::duration(seconds_to_ms(video.duration_sec)),
        table::size(video.size_bytes),
        status_word(video.status).to_owned(),
        protection(video),
    ]
}

const fn status_word(status: VideoStatus) -> &'static str {
    match status {
        VideoStatus::Uploading => "uploading",
        VideoStatus::Active => "active",
        VideoStatus::Deleted => "deleted",
    }
}

fn protection(video: &VideoEntry) -> String {
    match video.under_replicated {
        0 => video.redundancy.clone(),
        few => format!("{}, protecting ({few} chunks lack copies)", video.redundancy),
    }
}

/// A video and where its bytes are.
#[derive(Debug, Serialize)]
struct VideoFacts {
    #[serde(flatten)]
    entry: VideoEntry,
    codecs: String,
    /// Chunks and copies by node address.
    chunks_by_node: BTreeMap<String, u32>,
}

async fn info(catalogue: &MetadataClient, text: &str, output: &Output) -> Result<(), Failure> {
    let video = cluster::find_video(catalogue, text).await?;
    let (entry, manifest) = (catalogue.video(video).await?, catalogue.manifest(video).await?);
    let facts = VideoFacts {
        entry,
        codecs: manifest.codecs.clone(),
        chunks_by_node: chunks_by_node(&manifest),
    };
    let names = Names::read(catalogue).await?;
    output.say(&facts, || described(&facts, &names));
    Ok(())
}

fn chunks_by_node(manifest: &Manifest) -> BTreeMap<String, u32> {
    let init = manifest.init.iter().map(|init| &init.chunk);
    let chunks = init.chain(&manifest.chunks).chain(&manifest.poster);
    let mut counts = BTreeMap::new();
    for part in chunks.flat_map(|chunk| &chunk.placement.parts) {
        *counts.entry(part.node_url.clone()).or_insert(0) += 1;
    }
    counts
}

fn described(facts: &VideoFacts, names: &Names) -> String {
    let VideoFacts {
        entry,
        codecs,
        chunks_by_node,
    } = facts;
    let nodes = chunks_by_node
        .iter()
        .map(|(url, count)| format!("  {}  {url}  {count} chunks", names.at(url)));
    format!(
        "{}\n  id          {}\n  length      {}\n  size        {}\n  status      {}\n  protection  {}\n  codecs      {codecs}\n  \
         chunks      {}\n  views       {}\n  created     {}\nwhere its chunks are\n{}",
        entry.title,
        entry.video_id,
        table::duration(seconds_to_ms(entry.duration_sec)),
        table::size(entry.size_bytes),
        status_word(entry.status),
        protection(entry),
        entry.total_chunks,
        entry.views,
        entry.created_at,
        nodes.collect::<Vec<_>>().join("\n")
    )
}

#[derive(Debug, Serialize)]
struct Removed {
    video_id: VideoId,
    state: &'static str,
}

async fn remove(catalogue: &MetadataClient, videos: &[String], output: &Output) -> Result<(), Failure> {
    for text in videos {
        let video_id = cluster::find_video(catalogue, text).await?;
        catalogue.delete_video(video_id).await?;
        output.say(
            &Removed {
                video_id,
                state: "deleted",
            },
            || format!("{video_id} is deleted"),
        );
    }
    Ok(())
}
