// What the page needs from the program behind it. Every call that fails rejects with a UiError.
// Implementations: tauri.ts (the app), fake.ts (tests, and the page in a browser).

import type {
  ClusterState,
  LibraryPage,
  LibrarySort,
  NodePanel,
  Playback,
  Report,
  SourcePolicy,
  UiError,
  UploadItem,
  VideoRect,
} from "../generated";

export type * from "../generated";

export interface LibraryQuery {
  search: string;
  sort: LibrarySort;
  offset: number;
  limit: number;
}

/** Files dragged over the window. `over` repeats while they move. */
export type FileDrag = { kind: "over" } | { kind: "left" } | { kind: "dropped"; paths: string[] };

/** Ends a subscription. */
export type Stop = () => void;

export interface Backend {
  getCluster(): Promise<ClusterState>;
  watchCluster(onState: (state: ClusterState) => void): Stop;

  listVideos(query: LibraryQuery): Promise<LibraryPage>;
  renameVideo(video: { videoId: string; title: string }): Promise<void>;
  deleteVideo(video: { videoId: string }): Promise<void>;
  posterUrl(videoId: string): string;

  /** Opens the system's file dialog; an empty list when the user cancels. */
  pickFiles(): Promise<string[]>;
  startUploads(files: { paths: string[] }): Promise<UploadItem[]>;
  cancelUpload(upload: { uploadId: string }): Promise<void>;
  dismissUpload(upload: { uploadId: string }): Promise<void>;
  listUploads(): Promise<UploadItem[]>;
  watchUploads(onItems: (items: UploadItem[]) => void): Stop;
  onFileDrag(onDrag: (drag: FileDrag) => void): Stop;

  /** Somebody outside the page wants to watch this video: the command line. */
  watchOpenRequests(onVideoId: (videoId: string) => void): Stop;
  openVideo(video: { videoId: string }): Promise<Playback>;
  closeVideo(): Promise<void>;
  play(): Promise<void>;
  pause(): Promise<void>;
  seek(to: { positionMs: number }): Promise<void>;
  setVolume(to: { volume: number; muted: boolean }): Promise<void>;
  /** The pointer is over this place of the seek bar; null: it has left. The program may fetch in advance what lies there. */
  hintPointer(at: { positionMs: number | null }): Promise<void>;
  /** This video comes after the open one; null: none, or not soon. */
  hintNext(video: { videoId: string | null }): Promise<void>;
  /** The viewer is offered to go on here in the open video; null: no longer. */
  hintResume(at: { positionMs: number | null }): Promise<void>;
  /** Who chooses the sources of chunks. */
  getPolicy(): Promise<SourcePolicy>;
  /** For this video at once, for later ones, and for the next start. */
  setPolicy(to: { policy: SourcePolicy }): Promise<void>;
  /** What the open video's session has come to; null while no video is open. */
  getReport(): Promise<Report | null>;
  /** Saves the trace of the open video's session as far as it goes now; the path of the file. */
  saveTrace(): Promise<string>;
  /** Shows the trace that was saved last in the desktop's file manager. */
  showTrace(): Promise<void>;
  /** To the clipboard. */
  copyText(copy: { text: string }): Promise<void>;
  setFullscreen(to: { on: boolean }): Promise<void>;
  /** Where the page leaves room for the picture; null when no video shows. */
  setVideoRect(to: { rect: VideoRect | null }): Promise<void>;
  watchPlayback(onPlayback: (playback: Playback) => void): Stop;
  watchNodes(onPanel: (panel: NodePanel) => void): Stop;
}

/** Whatever a call rejected with, as sentences. */
export function asUiError(thrown: unknown): UiError {
  if (typeof thrown === "object" && thrown !== null && "message" in thrown) {
    const { code, message, next_step: nextStep } = thrown as Record<string, unknown>;
    return {
      code: typeof code === "string" ? code : "internal",
      message: String(message),
      next_step: typeof nextStep === "string" ? nextStep : "Try again; if it stays, restart V-Stack.",
    };
  }
  return { code: "internal", message: String(thrown), next_step: "Try again; if it stays, restart V-Stack." };
}
