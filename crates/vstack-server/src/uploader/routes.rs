//! The uploader's HTTP routes: two doors for a file, and windows on its job.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::multipart::{Field, MultipartRejection};
use axum::extract::{DefaultBodyLimit, Multipart, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::watch;
use tokio::time::sleep;
use vstack_api::consensus::ProposerCounts;
use vstack_api::redundancy::RedundancyChoice;
use vstack_api::wire::{Job, JobState, UploadAccepted};
use vstack_api::{ErrorCode, Problem};
use vstack_core::id::VideoId;
use vstack_core::limits::MAX_TITLE_CHARS;
use vstack_core::manifest::VideoStatus;

use super::jobs::JobHandle;
use super::work::Uploader;
use crate::http::{Answer, Refusal, refuse};

/// Most events a second that a watcher gets.
const EVENT_PAUSE: Duration = Duration::from_millis(100);

type Shared = State<Arc<Uploader>>;
type Accepted = (StatusCode, Json<UploadAccepted>);

pub(super) fn routes(uploader: Arc<Uploader>) -> Router {
    let doors = Router::new()
        .route("/upload", post(upload_form))
        .route("/upload/{video_id}", put(upload_raw).post(upload_raw))
        .layer(DefaultBodyLimit::disable());
    Router::new()
        .route("/consensus", get(show_counts))
        .route("/jobs", get(list_jobs))
        .route("/jobs/{job_id}", get(show_job).delete(cancel_job))
        .route("/jobs/{job_id}/events", get(watch_job))
        .route(
            "/health",
            get(|| async { Json(serde_json::json!({ "status": "ok" })) }),
        )
        .merge(doors)
        .with_state(uploader)
}

/// `POST /upload`: answers once the whole file is on our disk; the job goes on.
async fn upload_form(
    State(uploader): Shared,
    headers: HeaderMap,
    form: Result<Multipart, MultipartRejection>,
) -> Answer<Accepted> {
    let form = form.map_err(|rejection| refuse(ErrorCode::UnsupportedMediaType, rejection.body_text()))?;
    finish_even_if_the_client_leaves(async move {
        let job = receive_form(&uploader, form, length_of(&headers)).await?;
        Ok(uploader.launch(&job).await)
    })
    .await
}

/// A handler's future is dropped when its client disconnects; cleaning up after a broken upload must not be.
async fn finish_even_if_the_client_leaves(
    work: impl Future<Output = Result<UploadAccepted, Problem>> + Send + 'static,
) -> Answer<Accepted> {
    let ended = tokio::spawn(work).await;
    let accepted = ended.map_err(|error| refuse(ErrorCode::Internal, error.to_string()))??;
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

/// Takes the fields in any order. A title behind the file renames the video. A wish for its redundancy is durable before
/// the upload is accepted; the conversion follows when the video is complete.
async fn receive_form(
    uploader: &Uploader,
    mut form: Multipart,
    form_bytes: Option<u64>,
) -> Result<Arc<JobHandle>, Problem> {
    let mut title = None;
    let mut job: Option<Arc<JobHandle>> = None;
    let mut redundancy = None;
    let result = loop {
        let field = match form.next_field().await {
            Ok(Some(field)) => field,
            Ok(None) => break fix_redundancy(uploader, job.as_deref(), redundancy).await,
            Err(error) => break Err(broken_form(&error.body_text())),
        };
        let step = match field.name() {
            Some("title") => take_title(uploader, field, &mut title, job.as_deref()).await,
            Some("redundancy") => take_redundancy(field, &mut redundancy).await,
            Some("file") if job.is_some() => {
                Err(Problem::new(ErrorCode::BadRequest, "send one file at a time"))
            }
            Some("file") => receive_file(uploader, field, title.as_deref(), form_bytes, &mut job).await,
            _ => Err(Problem::new(
                ErrorCode::InvalidField,
                "the form has the fields `file`, `title` and `redundancy`, nothing else",
            )),
        };
        if let Err(problem) = step {
            break Err(problem);
        }
    };
    match (result, job) {
        (Ok(()), Some(job)) => Ok(job),
        (Ok(()), None) => Err(Problem::new(ErrorCode::InvalidField, "the form has no `file`")),
        (Err(problem), Some(job)) => {
            uploader.discard(&job, problem.clone()).await;
            Err(problem)
        }
        (Err(problem), None) => Err(problem),
    }
}

async fn take_title(
    uploader: &Uploader,
    field: Field<'_>,
    title: &mut Option<String>,
    job: Option<&JobHandle>,
) -> Result<(), Problem> {
    let text = checked_title(&short_text(field).await?)?;
    if let Some(job) = job {
        uploader
            .metadata
            .rename_video(job.video(), &text)
            .await
            .map_err(vstack_api::ApiError::into_problem)?;
        job.rename(&text);
    }
    *title = Some(text);
    Ok(())
}

async fn take_redundancy(field: Field<'_>, wish: &mut Option<RedundancyChoice>) -> Result<(), Problem> {
    let text = short_text(field).await?;
    let choice = serde_json::from_value(serde_json::Value::String(text)).map_err(|_| {
        Problem::new(
            ErrorCode::InvalidField,
            "redundancy: it is `replicated`, `erasure` or `auto`",
        )
    })?;
    *wish = Some(choice);
    Ok(())
}

async fn fix_redundancy(
    uploader: &Uploader,
    job: Option<&JobHandle>,
    wish: Option<RedundancyChoice>,
) -> Result<(), Problem> {
    let (Some(job), Some(choice)) = (job, wish) else {
        return Ok(());
    };
    let fixed = uploader.metadata.set_redundancy(job.video(), choice).await;
    fixed.map(drop).map_err(vstack_api::ApiError::into_problem)
}

async fn receive_file(
    uploader: &Uploader,
    field: Field<'_>,
    title: Option<&str>,
    form_bytes: Option<u64>,
    job: &mut Option<Arc<JobHandle>>,
) -> Result<(), Problem> {
    let title = match title {
        Some(title) => title.to_owned(),
        None => title_from_file_name(field.file_name().unwrap_or_default()),
    };
    // The form is a few hundred bytes longer than its file: near enough until all of it is here.
    let begun = uploader.begin(&title, form_bytes).await?;
    *job = Some(Arc::clone(&begun));
    uploader.receive(&begun, field).await
}

/// A field of a few characters; a longer one is not read to its end.
async fn short_text(mut field: Field<'_>) -> Result<String, Problem> {
    const MAX_TEXT_BYTES: usize = 4096;
    let mut bytes = Vec::new();
    while let Some(piece) = field
        .chunk()
        .await
        .map_err(|error| broken_form(&error.body_text()))?
    {
        bytes.extend_from_slice(&piece);
        if bytes.len() > MAX_TEXT_BYTES {
            return Err(Problem::new(
                ErrorCode::InvalidField,
                "a field of the form is too long",
            ));
        }
    }
    String::from_utf8(bytes)
        .map_err(|_| Problem::new(ErrorCode::InvalidField, "a field of the form is no UTF-8 text"))
}

fn broken_form(reason: &str) -> Problem {
    Problem::new(
        ErrorCode::BadRequest,
        format!("The upload broke off: {reason}. Send the file again."),
    )
}

fn checked_title(title: &str) -> Result<String, Problem> {
    let title = title.trim();
    let length = title.chars().count();
    if (1..=MAX_TITLE_CHARS).contains(&length) && !title.contains(char::is_control) {
        return Ok(title.to_owned());
    }
    let detail = format!("a title has 1 to {MAX_TITLE_CHARS} characters and no control characters");
    Err(Problem::new(ErrorCode::InvalidField, detail))
}

/// The last part of a file's name without its extension.
fn title_from_file_name(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = base.rsplit_once('.').map_or(base, |(stem, _)| stem);
    let printable: String = stem
        .chars()
        .filter(|letter| !letter.is_control())
        .take(MAX_TITLE_CHARS)
        .collect();
    let title = printable.trim();
    if title.is_empty() {
        "Untitled".to_owned()
    } else {
        title.to_owned()
    }
}

/// `PUT|POST /upload/{video_id}`: the file as the body, for a video that `POST /video` made.
async fn upload_raw(
    State(uploader): Shared,
    Path(video): Path<String>,
    request: Request,
) -> Answer<Accepted> {
    let video: VideoId = video
        .parse()
        .map_err(|_| refuse(ErrorCode::BadVideoId, "a video id is a UUID in lower case"))?;
    let entry = uploader.metadata.video(video).await?;
    if entry.status != VideoStatus::Uploading {
        return Err(refuse(ErrorCode::Conflict, "this video has its file already"));
    }
    // Chunks are there: another uploader began, and this one goes on with what it left. Other bytes than those are
    // refused, and what the other one stored is not ours to remove.
    let joined = entry.total_chunks > 0;
    let length = length_of(request.headers());
    let job = uploader.begin_for(video, &entry.title, length, joined).await?;
    finish_even_if_the_client_leaves(async move {
        uploader
            .receive(&job, request.into_body().into_data_stream())
            .await?;
        Ok(uploader.launch(&job).await)
    })
    .await
}

fn length_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn show_counts(State(uploader): Shared) -> Json<ProposerCounts> {
    Json(uploader.counts.read())
}

async fn list_jobs(State(uploader): Shared) -> Json<Vec<Job>> {
    Json(uploader.jobs.list())
}

fn found(uploader: &Uploader, job_id: &str) -> Answer<Arc<JobHandle>> {
    let unknown = || {
        refuse(
            ErrorCode::JobNotFound,
            "there is no such job; jobs are forgotten when the uploader restarts",
        )
    };
    uploader.jobs.find(job_id).ok_or_else(unknown)
}

async fn show_job(State(uploader): Shared, Path(job_id): Path<String>) -> Answer<Json<Job>> {
    found(&uploader, &job_id).map(|job| Json(job.snapshot()))
}

/// `DELETE /jobs/{id}`: asks the job to end. Its events say when it has.
async fn cancel_job(State(uploader): Shared, Path(job_id): Path<String>) -> Answer<StatusCode> {
    let job = found(&uploader, &job_id)?;
    match job.snapshot().state {
        JobState::Cancelled => Ok(StatusCode::NO_CONTENT),
        JobState::Finalizing | JobState::Done => Err(refuse(
            ErrorCode::Conflict,
            "the video is complete; delete the video instead",
        )),
        JobState::Failed => Err(refuse(ErrorCode::Conflict, "the upload has failed already")),
        JobState::Queued | JobState::Receiving | JobState::Splitting | JobState::Storing => {
            job.cancel.cancel();
            Ok(StatusCode::NO_CONTENT)
        }
    }
}

/// `GET /jobs/{id}/events`: the present state, then every change, at most ten a second; ends after a final state.
async fn watch_job(
    State(uploader): Shared,
    Path(job_id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let watcher = found(&uploader, &job_id)?.watch();
    // A watcher must not keep a stopping role waiting.
    let stopped = uploader.stop.clone().cancelled_owned();
    let events = stream::unfold(Watch::First(watcher), |watch| async {
        let mut watcher = match watch {
            Watch::First(watcher) => watcher,
            Watch::Later(mut watcher) => {
                sleep(EVENT_PAUSE).await;
                watcher.changed().await.ok()?;
                watcher
            }
            Watch::Over => return None,
        };
        let job = watcher.borrow_and_update().clone();
        let event = Event::default().json_data(&job).ok()?;
        let next = if job.state.is_final() {
            Watch::Over
        } else {
            Watch::Later(watcher)
        };
        Some((Ok(event), next))
    });
    Ok(Sse::new(events.take_until(stopped)).keep_alive(KeepAlive::default()))
}

/// Where a watcher of a job stands.
enum Watch {
    First(watch::Receiver<Job>),
    Later(watch::Receiver<Job>),
    Over,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_made_of_a_file_name() {
        for (name, title) in [
            ("holiday.final.mp4", "holiday.final"),
            ("C:\\videos\\one.mkv", "one"),
            ("../../etc/passwd", "passwd"),
            (".mp4", "Untitled"),
            ("a\u{7}b.mp4", "ab"),
            ("", "Untitled"),
        ] {
            assert_eq!(title_from_file_name(name), title, "{name:?}");
        }
    }

    #[test]
    fn titles_are_trimmed_and_judged() {
        assert_eq!(checked_title("  Film \u{1f3ac} ").unwrap(), "Film \u{1f3ac}");
        for bad in ["", "   ", "a\nb", &"x".repeat(201)] {
            assert_eq!(checked_title(bad).unwrap_err().code, ErrorCode::InvalidField);
        }
    }
}
