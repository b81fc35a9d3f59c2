//! Lists the commands of the page, so that each has to be granted, and embeds the page.

/// Every command of `src/app/commands.rs`. One that is missing here cannot be granted and is refused.
const COMMANDS: &[&str] = &[
    "get_cluster",
    "list_videos",
    "rename_video",
    "delete_video",
    "pick_files",
    "start_uploads",
    "cancel_upload",
    "dismiss_upload",
    "list_uploads",
    "open_video",
    "close_video",
    "play",
    "pause",
    "seek",
    "set_volume",
    "hint_pointer",
    "hint_next",
    "hint_resume",
    "get_policy",
    "set_policy",
    "get_report",
    "save_trace",
    "show_trace",
    "set_fullscreen",
    "set_video_rect",
    "watch_playback",
    "watch_nodes",
    "watch_uploads",
    "watch_cluster",
    "watch_open_requests",
];

fn main() {
    // A page that was built anew is embedded anew.
    println!("cargo:rerun-if-changed=../ui/dist");
    let manifest = tauri_build::AppManifest::new().commands(COMMANDS);
    let attributes = tauri_build::Attributes::new().app_manifest(manifest);
    tauri_build::try_build(attributes).expect("tauri.conf.json and the capabilities fit together");
}
