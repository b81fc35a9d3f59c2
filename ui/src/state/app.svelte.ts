// The whole page without its pixels: which view shows, and what every action does.

import { asUiError, type Backend, type ClusterState, type Stop, type VideoCard } from "../backend/backend";
import { assertNever } from "../format/assert-never";
import type { Pressed } from "./keys";
import { Library } from "./library.svelte";
import { Player } from "./player.svelte";
import { Queue } from "./queue.svelte";
import { Positions, shortMemory, type Keep } from "./positions";
import { SessionReport } from "./report.svelte";
import { Settings } from "./settings.svelte";
import { Toasts } from "./toasts.svelte";
import { Uploads } from "./uploads.svelte";

export type View = "library" | "uploads" | "player";

const UNKNOWN: ClusterState = {
  phase: "starting",
  metadata_url: null,
  healthy: 0,
  total: 0,
  disk_usage_percent: 0,
  error: null,
  own_cluster: true,
};

export class App {
  view = $state<View>("library");
  cluster = $state<ClusterState>(UNKNOWN);
  keysShown = $state(false);
  /** Files are being dragged over the window. */
  dragging = $state(false);
  /** Counts the wishes to type a search; the field takes the focus at each. */
  searchWishes = $state(0);
  readonly toasts = new Toasts();
  readonly library: Library;
  readonly queue: Queue;
  readonly settings: Settings;
  readonly report: SessionReport;
  readonly uploads: Uploads;
  readonly player: Player;

  constructor(
    readonly backend: Backend,
    keep: Keep = shortMemory(),
  ) {
    this.library = new Library(backend, this.toasts);
    this.settings = new Settings(backend, this.toasts);
    this.report = new SessionReport(backend, this.toasts);
    this.queue = new Queue((card) => this.library.videos.find((video) => video.video_id === card.video_id) ?? card);
    this.player = new Player(backend, this.toasts, new Positions(keep), {
      queued: () => this.queue.first,
      after: (videoId) => this.queue.first ?? this.library.after(videoId),
      goOn: () => this.playNext(),
    });
    this.uploads = new Uploads(backend, this.toasts, (item) => {
      this.toasts.note(`“${item.file_name}” is in the library`);
      void this.library.refresh();
    });
  }

  start(): Stop {
    this.backend.getCluster().then(
      (state) => this.acceptCluster(state),
      (thrown: unknown) => this.acceptCluster({ ...UNKNOWN, phase: "unreachable", error: asUiError(thrown) }),
    );
    const stops = [
      this.backend.watchCluster((state) => this.acceptCluster(state)),
      this.backend.watchOpenRequests((videoId) => void this.openById(videoId)),
      this.uploads.start(),
      this.backend.onFileDrag((drag) => {
        this.dragging = drag.kind === "over";
        if (drag.kind === "dropped") void this.uploads.add(drag.paths);
      }),
    ];
    return () => stops.forEach((stop) => stop());
  }

  open(video: VideoCard): void {
    this.queue.remove(video.video_id);
    this.view = "player";
    void this.player.open(video);
  }

  /** Opens a video that only its id is known of (an upload that just ended). */
  async openById(videoId: string): Promise<void> {
    await this.library.refresh();
    const video = this.library.videos.find((candidate) => candidate.video_id === videoId);
    if (video === undefined) this.show("library");
    else this.open(video);
  }

  /** Of a video that is deleted nothing is left in the queue, whatever becomes of it. */
  remove(video: VideoCard): void {
    this.queue.remove(video.video_id);
    this.library.remove(video);
  }

  /** The video that comes after the open one. */
  private playNext(): void {
    const next = this.player.next;
    if (next !== null) this.open(next);
  }

  show(view: "library" | "uploads"): void {
    const wasPlaying = this.view === "player";
    this.view = view;
    if (wasPlaying) {
      this.report.hide();
      void this.player.close();
    }
    void this.library.refresh();
  }

  /** The keys of a list are open, the next video is about to begin, a video is full screen, a video is open: Esc undoes the innermost. */
  private leave(): void {
    if (this.keysShown) this.keysShown = false;
    else if (this.settings.shown) this.settings.hide();
    else if (this.player.countdown.leftMs !== null) this.player.countdown.stop();
    else if (this.player.playback?.fullscreen === true) void this.player.setFullscreen(false);
    else if (this.view !== "library") this.show("library");
  }

  private queueById(videoId: string | null): void {
    const video = this.library.shown.find((candidate) => candidate.video_id === videoId);
    if (video !== undefined) this.queue.toggle(video);
  }

  /** `videoId`: the tile that is meant, where an action is about one. */
  run({ action, digit }: Pressed, videoId: string | null = null): void {
    const player = this.player;
    switch (action) {
      case "toggle-play": return void player.togglePlay();
      case "back-10": return void player.seekBy(-10_000);
      case "forward-10": return void player.seekBy(10_000);
      case "back-5": return void player.seekBy(-5_000);
      case "forward-5": return void player.seekBy(5_000);
      case "to-start": return void player.seekTo(0);
      case "to-end": return void player.seekToShare(1);
      case "to-tenth": return void player.seekToShare(digit / 10);
      case "louder": return void player.changeVolume(1);
      case "quieter": return void player.changeVolume(-1);
      case "toggle-mute": return void player.toggleMute();
      case "toggle-fullscreen": return void player.setFullscreen(player.playback?.fullscreen !== true);
      case "toggle-panel": return player.togglePanel();
      case "toggle-report": return this.report.toggle();
      case "next-video": return this.playNext();
      case "resume": return void player.resume();
      case "leave": return this.leave();
      case "search": this.searchWishes += 1; return;
      case "queue-video": return this.queueById(videoId);
      case "add-video": return void this.uploads.pick();
      case "show-settings": return void this.settings.show();
      case "show-keys": this.keysShown = !this.keysShown; return;
      default: assertNever(action);
    }
  }

  private acceptCluster(state: ClusterState): void {
    const becameReady = state.phase === "ready" && this.cluster.phase !== "ready";
    this.cluster = state;
    if (becameReady) void this.library.refresh();
  }
}
