//! The desktop app around the player: window, commands of the page, cluster, uploads.
//!
//! Thin: what is decided is decided in `vstack-client` and `player/`; here it is wired to Tauri. Order at the end: the
//! pipeline stops while GTK still runs (its sink needs the main thread), then the player's own cluster.

pub mod arguments;
mod cluster;
mod commands;
mod errors;
mod file_manager;
mod library;
mod own_cluster;
mod panel;
mod playback;
mod posters;
mod report;
mod settings;
mod streams;
mod tell;
mod traces;
mod uploads;
mod window;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser as _;
use tauri::{AppHandle, Manager as _, RunEvent};
use tokio::signal::unix::{SignalKind, signal};
use vstack_core::id::VideoId;

use crate::dto::NodePanel;
use crate::player::surface::Surface;
use crate::player::{AudioOutput, Player, PlayerEvent};
use arguments::Arguments;
use cluster::{Choice, ClusterLink};
use panel::PanelMaker;
use playback::NowPlaying;
use posters::Posters;
use settings::{Settings, SettingsFile};
use streams::Streams;
use uploads::Uploads;
use window::WindowFlags;

/// Longest wait for the pipeline at the end; then the process ends anyway.
const PIPELINE_ENDS_WITHIN: Duration = Duration::from_secs(3);
/// Pause between two looks at whether it has ended, while GTK's events are served.
const END_STEP: Duration = Duration::from_millis(2);

/// All that commands work on.
struct VideoApp {
    link: Arc<ClusterLink>,
    playing: Arc<NowPlaying>,
    uploads: Arc<Uploads>,
    surface: Surface,
    window: WindowFlags,
    settings: Arc<SettingsFile>,
    /// The trace that was saved last.
    saved_trace: Mutex<Option<PathBuf>>,
    /// The video that the command line asked for, until the page has taken it.
    requested: Arc<Mutex<Option<VideoId>>>,
    playback_streams: Streams,
    panel_streams: Streams,
    upload_streams: Streams,
    cluster_streams: Streams,
    request_streams: Streams,
}

impl VideoApp {
    /// What a stream of node panels sends: nothing while nobody sees it.
    fn panel_source(&self) -> impl FnMut() -> Option<NodePanel> + Send + 'static {
        let (link, playing, window) = (
            Arc::clone(&self.link),
            Arc::clone(&self.playing),
            self.window.clone(),
        );
        let mut maker = PanelMaker::default();
        move || {
            if window.is_hidden() {
                return None;
            }
            let cluster = link.connected()?;
            let snapshot = playing.session().map(|session| session.snapshot());
            Some(maker.panel(&cluster.nodes(), snapshot.as_ref()))
        }
    }
}

/// Runs the player until its window is closed.
///
/// # Errors
/// The window, GStreamer or the runtime cannot be started; the text says what is missing.
pub fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    start_log();
    let app = tauri::Builder::default()
        .plugin(tauri_plugin_dialog::init())
        .register_asynchronous_uri_scheme_protocol(posters::SCHEME, |context, request, responder| {
            let Some(posters) = context.app_handle().try_state::<Arc<Posters>>() else {
                return;
            };
            let (posters, path) = (Arc::clone(&posters), request.uri().path().to_owned());
            tauri::async_runtime::spawn(async move { responder.respond(posters.answer(&path).await) });
        })
        .invoke_handler(tauri::generate_handler![
            commands::get_cluster,
            commands::list_videos,
            commands::rename_video,
            commands::delete_video,
            commands::pick_files,
            commands::start_uploads,
            commands::cancel_upload,
            commands::dismiss_upload,
            commands::list_uploads,
            commands::open_video,
            commands::close_video,
            commands::play,
            commands::pause,
            commands::seek,
            commands::set_volume,
            commands::hint_pointer,
            commands::hint_next,
            commands::hint_resume,
            commands::get_policy,
            commands::set_policy,
            commands::get_report,
            commands::save_trace,
            commands::show_trace,
            commands::set_fullscreen,
            commands::set_video_rect,
            commands::watch_playback,
            commands::watch_nodes,
            commands::watch_uploads,
            commands::watch_cluster,
            commands::watch_open_requests,
        ])
        .setup(move |app| set_up(app, &arguments))
        .build(context())?;
    app.run(|handle, event| {
        if matches!(event, RunEvent::Exit) {
            end(handle);
        }
    });
    Ok(())
}

/// The page, the configuration and the capabilities, from the build.
#[expect(clippy::exit, reason = "the macro's code for a broken build")]
fn context() -> tauri::Context {
    tauri::generate_context!()
}

/// `VSTACK_LOG` filters as `RUST_LOG` does elsewhere.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("VSTACK_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

fn set_up(app: &mut tauri::App, arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    // Before anything is started that has to be stopped.
    exit_on_signals(app.handle().clone())?;
    let folder = app.path().app_config_dir()?;
    let settings = Settings::read(&folder);
    let policy = arguments.policy.or(settings.policy).unwrap_or_default();
    let choice = match arguments.metadata_url.clone().or(settings.metadata_url) {
        Some(url) => Choice::Named(url),
        None => Choice::Own(app.path().app_data_dir()?.join("cluster")),
    };
    let history = app.path().app_data_dir()?.join("nodes.json");
    let link = ClusterLink::start(choice, policy, history);
    app.manage(Arc::clone(&link));
    app.manage(Arc::new(Posters::new(Arc::clone(&link))));
    let (_, surface, window) = window::open(app)?;
    let player = Player::start(&surface.sink(), AudioOutput::Desktop, log_event)?;
    let uploads = Uploads::new(Arc::clone(&link));
    let (play, files): (Option<VideoId>, Vec<PathBuf>) = arguments.wishes();
    uploads.start(files);
    let playing = NowPlaying::new(player, app.path().app_cache_dir()?);
    if arguments.json {
        tauri::async_runtime::spawn(tell::tell(Arc::clone(&playing), surface.clone()));
    }
    app.manage(VideoApp {
        link,
        playing,
        uploads,
        surface,
        window,
        settings: Arc::new(SettingsFile::new(folder)),
        saved_trace: Mutex::default(),
        requested: Arc::new(Mutex::new(play)),
        playback_streams: Streams::default(),
        panel_streams: Streams::default(),
        upload_streams: Streams::default(),
        cluster_streams: Streams::default(),
        request_streams: Streams::default(),
    });
    Ok(())
}

fn log_event(event: PlayerEvent) {
    tracing::info!(?event, "player");
}

/// Ctrl-C and a polite kill end the app like closing its window.
fn exit_on_signals(handle: AppHandle) -> std::io::Result<()> {
    let _runtime = tauri::async_runtime::handle().inner().enter();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tauri::async_runtime::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        handle.exit(0);
    });
    Ok(())
}

/// The end of the process, on the main thread.
fn end(handle: &AppHandle) {
    if let Some(app) = handle.try_state::<VideoApp>() {
        app.playing.shut_down();
        let deadline = Instant::now() + PIPELINE_ENDS_WITHIN;
        while !app.playing.has_ended() && Instant::now() < deadline {
            gtk::main_iteration_do(false);
            std::thread::sleep(END_STEP);
        }
    }
    if let Some(link) = handle.try_state::<Arc<ClusterLink>>() {
        tauri::async_runtime::block_on(link.stop());
    }
}
