// A cluster that lives in the page: for tests, and for looking at the page without a server.
// Time moves by `advance` only, so a test is the clock; `run` lets real time drive it.

import type { ClusterState, NodePanel, Playback, Report, SourcePolicy, UiError, UploadItem, VideoCard, VideoRect } from "../generated";
import type { Backend, FileDrag, Stop } from "./backend";
import { fakePage, fakePoster, fakeVideos } from "./fake-library";
import { FakeSession } from "./fake-session";
import { FakeUploads } from "./fake-uploads";

const STEP_MS = 125;

class Watchers<T> {
  private readonly list = new Set<(value: T) => void>();

  add(watcher: (value: T) => void): Stop {
    this.list.add(watcher);
    return () => void this.list.delete(watcher);
  }

  tell(value: T): void {
    for (const watcher of this.list) watcher(value);
  }
}

export type FakeHint = { pointer: number | null } | { next: string | null } | { resume: number | null };

export class FakeBackend implements Backend {
  videos: VideoCard[] = fakeVideos();
  cluster: ClusterState = {
    phase: "ready", metadata_url: "http://127.0.0.1:7100", healthy: 5, total: 5, disk_usage_percent: 61, error: null, own_cluster: true,
  };
  session: FakeSession | null = null;
  readonly uploads = new FakeUploads();
  /** What the file dialog answers. */
  picked: string[] = ["/home/ada/field-trip.mkv", "/home/ada/lecture-07.mp4"];
  /** The next call of this name is refused. */
  readonly refuse = new Map<keyof Backend, UiError>();
  readonly calls: string[] = [];
  /** What the page foresaw, in order. */
  readonly hints: FakeHint[] = [];
  policy: SourcePolicy = "pool";
  /** What was copied last. */
  clipboard: string | null = null;
  rect: VideoRect | null = null;
  private readonly onCluster = new Watchers<ClusterState>();
  private readonly onUploads = new Watchers<UploadItem[]>();
  private readonly onPlayback = new Watchers<Playback>();
  private readonly onNodes = new Watchers<NodePanel>();
  private readonly onDrag = new Watchers<FileDrag>();
  private readonly onOpenRequest = new Watchers<string>();

  advance(ms: number): void {
    for (let left = ms; left > 0; left -= STEP_MS) {
      this.session?.advance(Math.min(STEP_MS, left));
      for (const done of this.uploads.advance(Math.min(STEP_MS, left))) this.addVideo(done);
    }
    this.report();
  }

  /** Real time drives the cluster until Stop. */
  run(): Stop {
    const timer = setInterval(() => this.advance(STEP_MS), STEP_MS);
    return () => clearInterval(timer);
  }

  setCluster(change: Partial<ClusterState>): void {
    this.cluster = { ...this.cluster, ...change };
    this.onCluster.tell(this.cluster);
  }

  drag(drag: FileDrag): void {
    this.onDrag.tell(drag);
  }

  requestOpen(videoId: string): void {
    this.onOpenRequest.tell(videoId);
  }

  getCluster = (): Promise<ClusterState> => this.answer("getCluster", () => this.cluster);
  watchCluster = (watcher: (state: ClusterState) => void): Stop => this.onCluster.add(watcher);
  listVideos: Backend["listVideos"] = (query) => this.answer("listVideos", () => fakePage(this.videos, query));
  renameVideo: Backend["renameVideo"] = ({ videoId, title }) =>
    this.answer("renameVideo", () => {
      this.videos = this.videos.map((video) => (video.video_id === videoId ? { ...video, title } : video));
    });
  deleteVideo: Backend["deleteVideo"] = ({ videoId }) =>
    this.answer("deleteVideo", () => {
      this.videos = this.videos.filter((video) => video.video_id !== videoId);
    });
  posterUrl = (videoId: string): string => fakePoster(videoId);

  pickFiles = (): Promise<string[]> => this.answer("pickFiles", () => this.picked);
  startUploads: Backend["startUploads"] = ({ paths }) => this.answer("startUploads", () => paths.map((path) => this.uploads.add(path)));
  cancelUpload: Backend["cancelUpload"] = ({ uploadId }) => this.answer("cancelUpload", () => this.uploads.cancel(uploadId));
  dismissUpload: Backend["dismissUpload"] = ({ uploadId }) => this.answer("dismissUpload", () => this.uploads.dismiss(uploadId));
  listUploads = (): Promise<UploadItem[]> => this.answer("listUploads", () => this.uploads.items);
  watchUploads = (watcher: (items: UploadItem[]) => void): Stop => this.onUploads.add(watcher);
  onFileDrag = (watcher: (drag: FileDrag) => void): Stop => this.onDrag.add(watcher);

  watchOpenRequests = (watcher: (videoId: string) => void): Stop => this.onOpenRequest.add(watcher);
  openVideo: Backend["openVideo"] = ({ videoId }) =>
    this.answer("openVideo", () => {
      const video = this.videos.find((candidate) => candidate.video_id === videoId);
      if (video === undefined) throw refusal("video_not_found", "This video is no longer in the library.", "Go back and choose another one.");
      this.session = new FakeSession(video);
      this.session.playback.policy = this.policy;
      return { ...this.session.playback };
    });
  closeVideo = (): Promise<void> => this.answer("closeVideo", () => void (this.session = null));
  play = (): Promise<void> => this.change("play", (playback) => (playback.phase = playback.phase === "loading" ? "loading" : "playing"));
  pause = (): Promise<void> => this.change("pause", (playback) => (playback.phase = "paused"));
  seek: Backend["seek"] = ({ positionMs }) => this.answer("seek", () => this.session?.seek(positionMs));
  setVolume: Backend["setVolume"] = ({ volume, muted }) => this.change("setVolume", (playback) => Object.assign(playback, { volume, muted }));
  hintPointer: Backend["hintPointer"] = ({ positionMs }) => this.answer("hintPointer", () => void this.hints.push({ pointer: positionMs }));
  hintNext: Backend["hintNext"] = ({ videoId }) => this.answer("hintNext", () => void this.hints.push({ next: videoId }));
  hintResume: Backend["hintResume"] = ({ positionMs }) => this.answer("hintResume", () => void this.hints.push({ resume: positionMs }));
  getPolicy = (): Promise<SourcePolicy> => this.answer("getPolicy", () => this.policy);
  setPolicy: Backend["setPolicy"] = ({ policy }) =>
    this.answer("setPolicy", () => {
      this.policy = policy;
      if (this.session !== null) this.session.playback.policy = policy;
    });
  getReport = (): Promise<Report | null> => this.answer("getReport", () => this.session?.report() ?? null);
  saveTrace = (): Promise<string> => this.answer("saveTrace", () => "/home/ada/Downloads/vstack-trace-2024-06-15-120400-10000000.jsonl");
  showTrace = (): Promise<void> => this.answer("showTrace", () => undefined);
  copyText: Backend["copyText"] = ({ text }) => this.answer("copyText", () => void (this.clipboard = text));
  setFullscreen: Backend["setFullscreen"] = ({ on }) => this.change("setFullscreen", (playback) => (playback.fullscreen = on));
  setVideoRect: Backend["setVideoRect"] = ({ rect }) => this.answer("setVideoRect", () => void (this.rect = rect));
  watchPlayback = (watcher: (playback: Playback) => void): Stop => this.onPlayback.add(watcher);
  watchNodes = (watcher: (panel: NodePanel) => void): Stop => this.onNodes.add(watcher);

  private report(): void {
    this.onUploads.tell(this.uploads.items);
    if (this.session === null) return;
    const down = this.session.nodes.filter((node) => node.status === "down").length;
    if (this.cluster.healthy !== 5 - down) this.setCluster({ healthy: 5 - down });
    this.onPlayback.tell({ ...this.session.playback });
    this.onNodes.tell(this.session.panel());
  }

  private addVideo(upload: UploadItem): void {
    const [like] = fakeVideos();
    if (like === undefined || upload.video_id === null) return;
    const title = upload.file_name.replace(/\.\w+$/, "");
    this.videos = [{ ...like, video_id: upload.video_id, title, views: 0, created_at: new Date(Date.UTC(2024, 5, 15)).toISOString() }, ...this.videos];
  }

  private change(name: keyof Backend, change: (playback: Playback) => unknown): Promise<void> {
    return this.answer(name, () => {
      if (this.session !== null) change(this.session.playback);
    });
  }

  /** Answers later, as a real program does, and refuses once where a test asks for it. */
  private async answer<T>(name: keyof Backend, make: () => T): Promise<T> {
    this.calls.push(name);
    await Promise.resolve();
    const refused = this.refuse.get(name);
    if (refused === undefined) return make();
    this.refuse.delete(name);
    throw refused;
  }
}

function refusal(code: string, message: string, nextStep: string): UiError {
  return { code, message, next_step: nextStep };
}
