//! What the page may ask for. Each command is one call; the names are listed in `build.rs` and granted to the window by
//! `capabilities/main.json`.

// Tauri's macro takes arguments by value.
#![allow(
    clippy::needless_pass_by_value,
    reason = "the signature of a command is the macro's"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tauri::ipc::Channel;
use tauri::{AppHandle, Manager as _, State, WebviewWindow};
use tauri_plugin_dialog::DialogExt as _;

use super::playback::{policy_name, source_policy};
use super::{VideoApp, file_manager, library, report};
use crate::dto::{
    ClusterState, LibraryPage, LibrarySort, NodePanel, Playback, Report, SourcePolicy, UiError, UploadItem,
    VideoRect,
};

/// Of the seek bar and the time beside it.
const PLAYBACK_PERIOD: Duration = Duration::from_millis(200);
/// Of the charts: more is not read, and each one is drawn anew.
const PANEL_PERIOD: Duration = Duration::from_millis(250);
const UPLOADS_PERIOD: Duration = Duration::from_millis(200);
const CLUSTER_PERIOD: Duration = Duration::from_millis(500);
const REQUEST_PERIOD: Duration = Duration::from_millis(200);

/// What the file dialog shows first.
const VIDEO_ENDINGS: [&str; 14] = [
    "mp4", "mkv", "webm", "mov", "avi", "m4v", "ts", "m2ts", "mpg", "mpeg", "flv", "wmv", "ogv", "mxf",
];

#[tauri::command]
pub(super) fn get_cluster(app: State<'_, VideoApp>) -> ClusterState {
    app.link.state()
}

#[tauri::command]
pub(super) async fn list_videos(
    app: State<'_, VideoApp>,
    search: String,
    sort: LibrarySort,
    offset: u64,
    limit: u32,
) -> Result<LibraryPage, UiError> {
    library::list(&app.link, search, sort, offset, limit).await
}

#[tauri::command]
pub(super) async fn rename_video(
    app: State<'_, VideoApp>,
    video_id: String,
    title: String,
) -> Result<(), UiError> {
    library::rename(&app.link, library::video_id(&video_id)?, &title).await
}

#[tauri::command]
pub(super) async fn delete_video(app: State<'_, VideoApp>, video_id: String) -> Result<(), UiError> {
    library::delete(&app.link, library::video_id(&video_id)?).await
}

#[tauri::command]
pub(super) async fn pick_files(handle: AppHandle, window: WebviewWindow) -> Vec<String> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let dialog = handle.dialog().file().set_parent(&window).set_title("Add videos");
    let dialog = dialog
        .add_filter("Videos", &VIDEO_ENDINGS)
        .add_filter("All files", &["*"]);
    dialog.pick_files(move |files| {
        // Nobody waits any more when the page is gone.
        let _ = tell.send(files);
    });
    let files = told.await.ok().flatten().unwrap_or_default();
    files
        .into_iter()
        .filter_map(|file| file.into_path().ok())
        .map(|path| path.display().to_string())
        .collect()
}

#[tauri::command]
pub(super) fn start_uploads(app: State<'_, VideoApp>, paths: Vec<PathBuf>) -> Vec<UploadItem> {
    app.uploads.start(paths)
}

#[tauri::command]
pub(super) fn cancel_upload(app: State<'_, VideoApp>, upload_id: String) {
    app.uploads.cancel(&upload_id);
}

#[tauri::command]
pub(super) fn dismiss_upload(app: State<'_, VideoApp>, upload_id: String) {
    app.uploads.dismiss(&upload_id);
}

#[tauri::command]
pub(super) fn list_uploads(app: State<'_, VideoApp>) -> Vec<UploadItem> {
    app.uploads.items()
}

#[tauri::command]
pub(super) async fn open_video(app: State<'_, VideoApp>, video_id: String) -> Result<Playback, UiError> {
    app.playing.open(&app.link, library::video_id(&video_id)?).await
}

#[tauri::command]
pub(super) fn close_video(app: State<'_, VideoApp>) {
    app.playing.close();
}

#[tauri::command]
pub(super) fn play(app: State<'_, VideoApp>) {
    app.playing.play();
}

#[tauri::command]
pub(super) fn pause(app: State<'_, VideoApp>) {
    app.playing.pause();
}

#[tauri::command]
pub(super) fn seek(app: State<'_, VideoApp>, position_ms: f64) {
    app.playing.seek(whole_ms(position_ms));
}

/// The page computes positions as fractions of a bar's width.
fn whole_ms(position_ms: f64) -> u64 {
    vstack_core::manifest::seconds_to_ms(position_ms / 1000.0)
}

#[tauri::command]
pub(super) fn set_volume(app: State<'_, VideoApp>, volume: f64, muted: bool) {
    app.playing.set_volume(volume, muted);
}

/// The pointer is over this place of the seek bar; `None`: it has left.
#[tauri::command]
pub(super) fn hint_pointer(app: State<'_, VideoApp>, position_ms: Option<f64>) {
    app.playing.hint_pointer(position_ms.map(whole_ms));
}

/// This video comes after the open one; `None`: none, or not soon.
#[tauri::command]
pub(super) fn hint_next(app: State<'_, VideoApp>, video_id: Option<String>) -> Result<(), UiError> {
    let next = video_id.as_deref().map(library::video_id).transpose()?;
    app.playing.hint_next(next);
    Ok(())
}

/// The viewer is offered to go on here in the open video; `None`: no longer.
#[tauri::command]
pub(super) fn hint_resume(app: State<'_, VideoApp>, position_ms: Option<f64>) {
    app.playing.hint_resume(position_ms.map(whole_ms));
}

#[tauri::command]
pub(super) fn get_policy(app: State<'_, VideoApp>) -> SourcePolicy {
    source_policy(app.link.policy())
}

/// For the open video at once, for those that are opened later, and for the next start.
#[tauri::command]
pub(super) async fn set_policy(app: State<'_, VideoApp>, policy: SourcePolicy) -> Result<(), UiError> {
    let policy = policy_name(policy);
    app.link.set_policy(policy);
    app.playing.set_policy(policy);
    let (file, link) = (Arc::clone(&app.settings), Arc::clone(&app.link));
    let path = file.path();
    // What is in force when it is written: two choices in a row may be written in any order.
    let kept =
        tokio::task::spawn_blocking(move || file.change(|settings| settings.policy = Some(link.policy())));
    kept.await
        .map_err(std::io::Error::other)
        .flatten()
        .map_err(|error| not_kept(&path, &error))
}

fn not_kept(file: &Path, error: &std::io::Error) -> UiError {
    let next_step = format!("Repair or remove {}, then choose again.", file.display());
    UiError::new(
        "not_kept",
        format!("It is in force now, but not kept for the next start: {error}."),
        next_step,
    )
}

/// `None` while no video is open.
#[tauri::command]
pub(super) fn get_report(app: State<'_, VideoApp>) -> Option<Report> {
    app.playing.report().as_ref().map(report::shown)
}

/// Saves the trace of the open video's session where the user finds it: among the downloads, or, where the desktop names
/// no such folder, beside the app's data. The path of the file.
#[tauri::command]
pub(super) async fn save_trace(handle: AppHandle, app: State<'_, VideoApp>) -> Result<String, UiError> {
    let paths = handle.path();
    let folder = paths
        .download_dir()
        .or_else(|_| paths.app_data_dir().map(|data| data.join("traces")));
    let folder = folder.map_err(|error| {
        UiError::new(
            "no_folder",
            format!("There is no folder for the trace: {error}."),
            "Set HOME.",
        )
    })?;
    let file = app.playing.save_trace(folder).await?;
    *saved_trace(&app) = Some(file.clone());
    Ok(file.display().to_string())
}

fn saved_trace<'a>(app: &'a VideoApp) -> MutexGuard<'a, Option<PathBuf>> {
    app.saved_trace.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows the trace that was saved last in the file manager. The page names no file: it may show no other.
#[tauri::command]
pub(super) async fn show_trace(app: State<'_, VideoApp>) -> Result<(), UiError> {
    let Some(file) = saved_trace(&app).clone() else {
        return Err(UiError::new(
            "not_saved",
            "No trace was saved yet.",
            "Save one first.",
        ));
    };
    let shown = tokio::task::spawn_blocking(move || file_manager::show(&file).map_err(std::io::Error::other));
    shown
        .await
        .map_err(std::io::Error::other)
        .flatten()
        .map_err(|error| {
            UiError::new(
                "no_file_manager",
                format!("No file manager opens: {error}."),
                "Copy the path and open its folder yourself.",
            )
        })
}

#[tauri::command]
pub(super) fn set_fullscreen(window: WebviewWindow, on: bool) -> Result<(), UiError> {
    window.set_fullscreen(on).map_err(|error| {
        UiError::new(
            "window",
            format!("The window cannot change: {error}."),
            "Use the window's own buttons.",
        )
    })
}

#[tauri::command]
pub(super) fn set_video_rect(app: State<'_, VideoApp>, rect: Option<VideoRect>) {
    app.surface.set_rect(rect);
}

#[tauri::command]
pub(super) fn watch_playback(app: State<'_, VideoApp>, channel: Channel<Playback>) {
    let (playing, window) = (app.playing.clone(), app.window.clone());
    app.playback_streams.open(channel, PLAYBACK_PERIOD, move || {
        playing.snapshot(window.is_fullscreen())
    });
}

#[tauri::command]
pub(super) fn watch_nodes(app: State<'_, VideoApp>, channel: Channel<NodePanel>) {
    let next = app.panel_source();
    app.panel_streams.open(channel, PANEL_PERIOD, next);
}

#[tauri::command]
pub(super) fn watch_uploads(app: State<'_, VideoApp>, channel: Channel<Vec<UploadItem>>) {
    let uploads = app.uploads.clone();
    app.upload_streams
        .open(channel, UPLOADS_PERIOD, move || Some(uploads.items()));
}

#[tauri::command]
pub(super) fn watch_cluster(app: State<'_, VideoApp>, channel: Channel<ClusterState>) {
    let link = app.link.clone();
    app.cluster_streams
        .open(channel, CLUSTER_PERIOD, move || Some(link.state()));
}

/// Ids of videos that somebody outside the page wants to watch: the command line.
#[tauri::command]
pub(super) fn watch_open_requests(app: State<'_, VideoApp>, channel: Channel<String>) {
    let (link, requested) = (app.link.clone(), app.requested.clone());
    app.request_streams.open(channel, REQUEST_PERIOD, move || {
        if link.state().phase != crate::dto::ClusterPhase::Ready {
            return None;
        }
        requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .map(|video| video.to_string())
    });
}
