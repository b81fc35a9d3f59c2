// The open video: what the program reports, and what the user just asked for.

import { asUiError, type Backend, type NodePanel, type Playback, type SourcePolicy, type Stop, type UiError, type VideoCard } from "../backend/backend";
import { Countdown } from "./countdown.svelte";
import { HOLD_MS, Held } from "./held";
import { Hints } from "./hints";
import type { Positions } from "./positions";
import type { Toasts } from "./toasts.svelte";

/** A seek lands on the frame asked for, but reports come every 100 to 250 ms while playing. */
const SEEK_TOLERANCE_MS = 1000;
const VOLUME_STEP = 0.05;
/** The next video is hinted at when this little is left: enough for its first seconds to come while the last ones play. */
export const NEXT_WITHIN_MS = 60_000;
/** Who has watched so much from the beginning does not want to go on elsewhere. */
export const OFFER_MS = 20_000;
/** Between the end of a video and the next one of the queue: time to say no. */
export const GO_ON_AFTER_MS = 8_000;
/** How often the place is remembered: so much is seen again after a crash. */
const REMEMBER_EVERY_MS = 5_000;

/** What the player asks its surroundings about the videos after the open one. */
export interface Following {
  /** The first one that the viewer wants to see next. */
  queued(): VideoCard | null;
  /** What comes after this video: of the queue, or else of the library. */
  after(videoId: string): VideoCard | null;
  /** Opens it. */
  goOn(): void;
}

interface Sound {
  volume: number;
  muted: boolean;
}

export class Player {
  /** The card that was opened; null in the library. */
  video = $state<VideoCard | null>(null);
  playback = $state<Playback | null>(null);
  nodes = $state<NodePanel>({ nodes: [], lanes: [], log: [] });
  openError = $state<UiError | null>(null);
  /** Where the viewer left this video, while going on there is offered. */
  resumeMs = $state<number | null>(null);
  /** Until the next video of the queue begins by itself. */
  readonly countdown = new Countdown();
  private hasEnded = false;
  private panelInWindow = $state(true);
  /** Full screen is for the picture: there the panel shows only when asked for. */
  private panelInFullscreen = $state(false);
  private readonly position = new Held<number>((wish, now) => Math.abs(wish - now) < SEEK_TOLERANCE_MS);
  private readonly sound = new Held<Sound>((wish, now) => Math.abs(wish.volume - now.volume) < 0.005 && wish.muted === now.muted);
  private lastReport: Playback | null = null;
  private settling: ReturnType<typeof setTimeout> | null = null;
  private stops: Stop[] = [];
  private opened = 0;
  private rememberedMs = 0;
  private readonly hints: Hints;

  constructor(
    private readonly backend: Backend,
    private readonly toasts: Toasts,
    private readonly positions: Positions,
    private readonly following: Following,
    private readonly nowMs: () => number = () => Date.now(),
  ) {
    this.hints = new Hints(backend, nowMs);
  }

  /** What comes after this video. */
  get next(): VideoCard | null {
    return this.video === null ? null : this.following.after(this.video.video_id);
  }

  get error(): UiError | null {
    return this.openError ?? this.playback?.error ?? null;
  }

  get phase(): Playback["phase"] {
    return this.openError === null ? (this.playback?.phase ?? "loading") : "failed";
  }

  get panelOpen(): boolean {
    return this.playback?.fullscreen === true ? this.panelInFullscreen : this.panelInWindow;
  }

  togglePanel(): void {
    if (this.playback?.fullscreen === true) this.panelInFullscreen = !this.panelInFullscreen;
    else this.panelInWindow = !this.panelInWindow;
  }

  async open(video: VideoCard): Promise<void> {
    const number = ++this.opened;
    this.reset();
    this.video = video;
    try {
      const playback = await this.backend.openVideo({ videoId: video.video_id });
      if (number !== this.opened) return;
      this.resumeMs = this.positions.of(video.video_id);
      this.accept(playback);
      this.stops = [
        this.backend.watchPlayback((report) => this.accept(report)),
        this.backend.watchNodes((panel) => (this.nodes = panel)),
      ];
    } catch (thrown) {
      if (number === this.opened) this.openError = asUiError(thrown);
    }
  }

  async close(): Promise<void> {
    this.opened += 1;
    const wasFullscreen = this.playback?.fullscreen === true;
    this.remember(0);
    this.reset();
    this.video = null;
    if (wasFullscreen) await this.run(this.backend.setFullscreen({ on: false }));
    await this.run(this.backend.closeVideo());
  }

  async retry(): Promise<void> {
    if (this.video !== null) await this.open(this.video);
  }

  async togglePlay(): Promise<void> {
    switch (this.phase) {
      case "playing":
      case "buffering":
        return this.run(this.backend.pause());
      case "ended":
        await this.seekTo(0);
        return this.run(this.backend.play());
      case "loading":
      case "paused":
        return this.run(this.backend.play());
      case "failed":
        return this.retry();
    }
  }

  async seekTo(positionMs: number): Promise<void> {
    if (this.playback === null) return;
    this.stayHere();
    const target = Math.round(Math.min(Math.max(0, positionMs), this.playback.duration_ms));
    this.position.ask(target, this.nowMs());
    this.playback = { ...this.playback, position_ms: target };
    this.settleLater();
    await this.run(this.backend.seek({ positionMs: target }));
  }

  /** Goes on where the viewer left, where that is offered. */
  async resume(): Promise<void> {
    if (this.resumeMs !== null) await this.seekTo(this.resumeMs);
  }

  /** The viewer does not want to go on there. */
  stayHere(): void {
    this.resumeMs = null;
    this.hints.resume(null);
  }

  /** The pointer is over this place of the seek bar; null: it has left. */
  pointAt(positionMs: number | null): void {
    if (this.playback !== null) this.hints.point(positionMs);
  }

  seekBy(deltaMs: number): Promise<void> {
    return this.seekTo((this.playback?.position_ms ?? 0) + deltaMs);
  }

  seekToShare(share: number): Promise<void> {
    return this.seekTo((this.playback?.duration_ms ?? 0) * share);
  }

  async setSound(sound: Sound): Promise<void> {
    if (this.playback === null) return;
    const asked = { volume: Math.min(1, Math.max(0, sound.volume)), muted: sound.muted };
    this.sound.ask(asked, this.nowMs());
    this.playback = { ...this.playback, ...asked };
    this.settleLater();
    await this.run(this.backend.setVolume(asked));
  }

  /** Turning the volume up is a wish to hear something. */
  async changeVolume(steps: number): Promise<void> {
    const { volume = 1, muted = false } = this.playback ?? {};
    await this.setSound({ volume: volume + steps * VOLUME_STEP, muted: steps > 0 ? false : muted });
  }

  async toggleMute(): Promise<void> {
    const { volume = 1, muted = false } = this.playback ?? {};
    // Unmuting at zero would stay silent.
    await this.setSound({ volume: muted && volume === 0 ? 0.5 : volume, muted: !muted });
  }

  async setFullscreen(on: boolean): Promise<void> {
    await this.run(this.backend.setFullscreen({ on }));
  }

  async setPolicy(policy: SourcePolicy): Promise<void> {
    await this.run(this.backend.setPolicy({ policy }));
  }

  nodeName(node: number): string {
    return this.nodes.nodes.find((card) => card.node === node)?.name ?? "a node";
  }

  private accept(report: Playback): void {
    // A report of the video before this one may still arrive.
    if (report.video_id !== this.video?.video_id) return;
    this.lastReport = report;
    const now = this.nowMs();
    const sound = this.sound.settle({ volume: report.volume, muted: report.muted }, now);
    this.playback = { ...report, ...sound, position_ms: this.position.settle(report.position_ms, now) };
    this.foresee(this.playback);
    this.watchEnd(report.phase === "ended");
    // Who pauses, or moves while paused, may close the window next.
    this.remember(report.phase === "paused" ? 0 : REMEMBER_EVERY_MS);
  }

  /** Tells the program what may be watched soon. */
  private foresee(playback: Playback): void {
    const leftMs = playback.duration_ms - playback.position_ms;
    this.hints.next(leftMs <= NEXT_WITHIN_MS ? (this.next?.video_id ?? null) : null);
    if (this.resumeMs !== null && playback.position_ms > OFFER_MS) this.stayHere();
    this.hints.resume(this.resumeMs);
  }

  /** At the end it goes on with what the viewer asked for. What merely follows in the library is offered, not begun. */
  private watchEnd(ended: boolean): void {
    if (ended === this.hasEnded) return;
    this.hasEnded = ended;
    if (ended && this.following.queued() !== null) this.countdown.start(GO_ON_AFTER_MS, () => this.following.goOn());
    else this.countdown.stop();
  }

  /** Keeps the place in mind when it has moved by this much. */
  private remember(movedMs: number): void {
    const { video_id: videoId, position_ms: positionMs, duration_ms: durationMs } = this.playback ?? {};
    if (videoId === undefined || positionMs === undefined || durationMs === undefined) return;
    if (Math.abs(positionMs - this.rememberedMs) < movedMs) return;
    this.rememberedMs = positionMs;
    this.positions.note(videoId, positionMs, durationMs);
  }

  /** Reports come only when something changes: while paused none may follow a wish that was not obeyed. */
  private settleLater(): void {
    if (this.settling !== null) clearTimeout(this.settling);
    this.settling = setTimeout(() => {
      if (this.lastReport !== null) this.accept(this.lastReport);
    }, HOLD_MS);
  }

  private reset(): void {
    if (this.settling !== null) clearTimeout(this.settling);
    this.lastReport = null;
    for (const stop of this.stops) stop();
    this.stops = [];
    this.position.drop();
    this.sound.drop();
    this.hints.drop();
    this.countdown.stop();
    this.hasEnded = false;
    this.resumeMs = null;
    this.rememberedMs = 0;
    this.playback = null;
    this.openError = null;
    this.nodes = { nodes: [], lanes: [], log: [] };
  }

  private async run(command: Promise<void>): Promise<void> {
    await command.catch((thrown: unknown) => this.toasts.error(thrown));
  }
}
