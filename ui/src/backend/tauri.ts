// The app: commands and channels of the program around this page. The only file that knows Tauri.

import { Channel, invoke } from "@tauri-apps/api/core";
import { getCurrentWebview } from "@tauri-apps/api/webview";
import { asUiError, type Backend, type FileDrag, type Stop, type UiError } from "./backend";

async function call<T>(command: string, args: Record<string, unknown> = {}): Promise<T> {
  try {
    return await invoke<T>(command, args);
  } catch (thrown) {
    throw asUiError(thrown);
  }
}

/** A channel has no end of its own: after Stop its messages are dropped. */
function watch<T>(command: string, onMessage: (message: T) => void): Stop {
  const channel = new Channel<T>();
  channel.onmessage = onMessage;
  call(command, { channel }).catch((thrown: unknown) => console.error(command, asUiError(thrown).message));
  return () => {
    channel.onmessage = () => undefined;
  };
}

async function copied(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch (thrown) {
    throw { code: "not_copied", message: `It cannot be copied: ${asUiError(thrown).message}`, next_step: "Select the text and press Ctrl+C." } satisfies UiError;
  }
}

function onFileDrag(onDrag: (drag: FileDrag) => void): Stop {
  const listening = getCurrentWebview().onDragDropEvent(({ payload }) => {
    if (payload.type === "drop") onDrag({ kind: "dropped", paths: payload.paths });
    else onDrag({ kind: payload.type === "leave" ? "left" : "over" });
  });
  listening.catch((thrown: unknown) => console.error("drag and drop", asUiError(thrown).message));
  return () => void listening.then((stop) => stop());
}

export function tauriBackend(): Backend {
  return {
    getCluster: () => call("get_cluster"),
    watchCluster: (onState) => watch("watch_cluster", onState),
    listVideos: (query) => call("list_videos", { ...query }),
    renameVideo: (video) => call("rename_video", { ...video }),
    deleteVideo: (video) => call("delete_video", { ...video }),
    posterUrl: (videoId) => `poster://localhost/${encodeURIComponent(videoId)}`,
    pickFiles: () => call("pick_files"),
    startUploads: (files) => call("start_uploads", { ...files }),
    cancelUpload: (upload) => call("cancel_upload", { ...upload }),
    dismissUpload: (upload) => call("dismiss_upload", { ...upload }),
    listUploads: () => call("list_uploads"),
    watchUploads: (onItems) => watch("watch_uploads", onItems),
    onFileDrag,
    watchOpenRequests: (onVideoId) => watch("watch_open_requests", onVideoId),
    openVideo: (video) => call("open_video", { ...video }),
    closeVideo: () => call("close_video"),
    play: () => call("play"),
    pause: () => call("pause"),
    seek: (to) => call("seek", { ...to }),
    setVolume: (to) => call("set_volume", { ...to }),
    hintPointer: (at) => call("hint_pointer", { ...at }),
    hintNext: (video) => call("hint_next", { ...video }),
    hintResume: (at) => call("hint_resume", { ...at }),
    getPolicy: () => call("get_policy"),
    setPolicy: (to) => call("set_policy", { ...to }),
    getReport: () => call("get_report"),
    saveTrace: () => call("save_trace"),
    showTrace: () => call("show_trace"),
    copyText: ({ text }) => copied(text),
    setFullscreen: (to) => call("set_fullscreen", { ...to }),
    setVideoRect: (to) => call("set_video_rect", { ...to }),
    watchPlayback: (onPlayback) => watch("watch_playback", onPlayback),
    watchNodes: (onPanel) => watch("watch_nodes", onPanel),
  };
}
