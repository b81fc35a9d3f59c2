//! `vstack upload`: sends files and follows their jobs to the end.
//!
//! A terminal shows a bar; elsewhere there is a line for each phase. With `--json`, progress and job events are lines of
//! their own, and the last line of a file is its finished job or its problem.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use serde::Serialize;
use tokio::signal::ctrl_c;
use tokio_util::io::ReaderStream;
use vstack_api::transport::ByteStream;
use vstack_api::wire::{Job, JobState, NodeEntry, UploadAccepted};
use vstack_api::{ErrorCode, MetadataClient, UploaderClient};
use vstack_core::id::SHARD_COUNT;
use vstack_core::limits::REPLICA_COUNT;
use vstack_core::node::NodeState;

use crate::args::{Place, RedundancyName, UploadOptions};
use crate::failure::Failure;
use crate::output::Output;
use crate::upload_progress::{Sending, job_bar, phase_line};
use crate::{cluster, table};

/// Bytes read from the file at a time.
const READ_BYTES: usize = 256 * 1024;
/// Times that a broken stream of events is opened again while the job goes on.
const EVENT_ATTEMPTS: u32 = 20;
const EVENT_PAUSE: Duration = Duration::from_millis(500);

/// A line of `--json` before the last one.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Accepted(&'a UploadAccepted),
    Job(&'a Job),
}

pub(crate) async fn run(options: UploadOptions, place: &Place, output: &Output) -> Result<(), Failure> {
    if options.title.is_some() && options.files.len() > 1 {
        return Err(Failure::Usage(
            "--title is for one file; several are named after their files".to_owned(),
        ));
    }
    let uploader = find_uploader(place).await?;
    let catalogue = cluster::catalogue(place);
    check_nodes(&catalogue, options.redundancy).await?;
    let mut failures = Vec::new();
    for file in &options.files {
        let title = options.title.clone().unwrap_or_else(|| title_of(file));
        let sent = async {
            let accepted = send(&uploader, file, &title, output).await?;
            output.json_line(&Line::Accepted(&accepted));
            // Durable from here on, whatever becomes of this process.
            if let Some(name) = options.redundancy {
                catalogue.set_redundancy(accepted.video_id, name.into()).await?;
            }
            finished(&uploader, &accepted, &title, output).await
        };
        if let Err(failure) = sent.await {
            failures.push((file.clone(), failure));
        }
    }
    summary(failures, options.files.len(), output)
}

/// Before the bytes are sent: every upload begins with three copies, and shards need five nodes. Copies may be fewer while
/// nodes are down, so that all that belong to the cluster count for them.
async fn check_nodes(catalogue: &MetadataClient, wanted: Option<RedundancyName>) -> Result<(), Failure> {
    let nodes = catalogue.nodes().await?;
    let count = |fits: &dyn Fn(&NodeEntry) -> bool| nodes.iter().filter(|node| fits(node)).count();
    let members = count(&|node| node.state != NodeState::Removed);
    let takers = count(&|node| node.state.takes_parts() && !node.read_only);
    let detail = if members < REPLICA_COUNT {
        format!(
            "{REPLICA_COUNT} copies need {REPLICA_COUNT} nodes, and {members} are registered; add a node (`vstack serve \
             --role storage`) and upload again; nothing was sent"
        )
    } else if wanted == Some(RedundancyName::Erasure) && takers < usize::from(SHARD_COUNT) {
        format!(
            "--redundancy erasure needs {SHARD_COUNT} nodes, and {takers} take new parts; use replicated, or add nodes; \
             nothing was sent"
        )
    } else {
        return Ok(());
    };
    Err(Failure::problem(ErrorCode::NotEnoughNodes, detail))
}

async fn find_uploader(place: &Place) -> Result<UploaderClient, Failure> {
    match cluster::catalogue(place).uploader_url().await? {
        Some(url) => Ok(UploaderClient::new(&url)),
        None => Err(Failure::problem(
            ErrorCode::Unavailable,
            "no uploader has reported to this cluster; `vstack serve --role uploader` runs one",
        )),
    }
}

/// One failure is the command's own; of several, each is told, and the last one decides the exit code.
fn summary(mut failures: Vec<(PathBuf, Failure)>, files: usize, output: &Output) -> Result<(), Failure> {
    let Some((_, last)) = failures.pop() else {
        return Ok(());
    };
    for (_, failure) in &failures {
        output.failure(failure);
    }
    if files > 1 {
        output.line(&format!(
            "{} of {files} files were not uploaded",
            failures.len() + 1
        ));
    }
    Err(last)
}

fn title_of(file: &Path) -> String {
    file.file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Follows a job to its end.
async fn finished(
    uploader: &UploaderClient,
    accepted: &UploadAccepted,
    title: &str,
    output: &Output,
) -> Result<(), Failure> {
    let job = follow(uploader, &accepted.job_id, output).await?;
    output.clear_bar();
    if job.state == JobState::Done {
        output.say(&job, || {
            format!(
                "{title}: stored as {} ({})",
                job.video_id,
                table::size(job.stored_bytes)
            )
        });
        return Ok(());
    }
    Err(job_failure(job))
}

fn job_failure(job: Job) -> Failure {
    let (code, words) = match job.state {
        JobState::Cancelled => (
            ErrorCode::Cancelled,
            "the upload was cancelled; nothing of it is kept",
        ),
        _ => (ErrorCode::Internal, "the upload failed without a reason"),
    };
    job.problem
        .map_or_else(|| Failure::problem(code, words), Failure::from)
}

async fn send(
    uploader: &UploaderClient,
    file: &Path,
    title: &str,
    output: &Output,
) -> Result<UploadAccepted, Failure> {
    let unreadable =
        |error: std::io::Error| Failure::Usage(format!("{}: cannot be read: {error}", file.display()));
    let opened = tokio::fs::File::open(file).await.map_err(unreadable)?;
    let facts = opened.metadata().await.map_err(unreadable)?;
    if !facts.is_file() {
        return Err(Failure::Usage(format!("{}: is no file", file.display())));
    }
    let mut sending = Sending::new(facts.len(), title, *output);
    let content: ByteStream = ReaderStream::with_capacity(opened, READ_BYTES)
        .inspect(move |piece| sending.sent(piece.as_ref().map_or(0, |bytes| bytes.len() as u64)))
        .boxed();
    let name = file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    Ok(uploader.upload(title, &name, content, facts.len()).await?)
}

/// Returns the job in its final state. Ctrl-C cancels it, which is a final state too.
async fn follow(uploader: &UploaderClient, job_id: &str, output: &Output) -> Result<Job, Failure> {
    let mut interrupted = pin!(ctrl_c());
    let mut asked_to_cancel = false;
    let mut watching = pin!(watch(uploader, job_id, output));
    loop {
        tokio::select! {
            job = &mut watching => return job,
            _ = &mut interrupted, if !asked_to_cancel => {
                asked_to_cancel = true;
                uploader.cancel_job(job_id).await?;
            }
        }
    }
}

/// Reads events until a final one; a broken stream is opened again, since the job goes on without it.
async fn watch(uploader: &UploaderClient, job_id: &str, output: &Output) -> Result<Job, Failure> {
    let mut phase = None;
    let mut attempt = 0;
    loop {
        let broke = match uploader.job_events(job_id).await {
            Ok(mut events) => loop {
                match events.next().await {
                    Some(Ok(job)) if job.state.is_final() => return Ok(job),
                    Some(Ok(job)) => show(&job, &mut phase, output),
                    Some(Err(error)) => break Some(error),
                    None => break None,
                }
            },
            Err(error) => Some(error),
        };
        attempt += 1;
        if attempt == EVENT_ATTEMPTS {
            let ended = || {
                Failure::problem(
                    ErrorCode::Unreachable,
                    "the uploader stopped telling how the upload goes",
                )
            };
            return Err(broke.map_or_else(ended, Failure::from));
        }
        tokio::time::sleep(EVENT_PAUSE).await;
    }
}

fn show(job: &Job, phase: &mut Option<JobState>, output: &Output) {
    output.json_line(&Line::Job(job));
    if output.has_bar() {
        output.bar(&job_bar(job));
    } else if *phase != Some(job.state) {
        *phase = Some(job.state);
        output.line(&phase_line(job));
    }
}
