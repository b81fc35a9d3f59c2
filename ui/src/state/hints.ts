// What the program is told of what may be watched soon, so that it lies ready then. The program decides whether to
// fetch any of it; a hint that fails is no news to the viewer.

import type { Backend } from "../backend/backend";
import { NOT_OVER, hovered, type Hover } from "./hover";

export class Hints {
  private hover: Hover = NOT_OVER;
  private pointerMs: number | null = null;
  private resting: ReturnType<typeof setTimeout> | null = null;
  private nextId: string | null = null;
  private resumeMs: number | null = null;

  constructor(
    private readonly backend: Pick<Backend, "hintPointer" | "hintNext" | "hintResume">,
    private readonly nowMs: () => number,
  ) {}

  /** The pointer is over this place of the seek bar; null: it has left. */
  point(positionMs: number | null): void {
    this.pointerMs = positionMs === null ? null : Math.max(0, Math.round(positionMs));
    this.look();
  }

  /** This video comes next; null: none, or not soon. */
  next(videoId: string | null): void {
    if (videoId === this.nextId) return;
    this.nextId = videoId;
    this.send(this.backend.hintNext({ videoId }));
  }

  /** The viewer is offered to go on here; null: no longer. */
  resume(positionMs: number | null): void {
    if (positionMs === this.resumeMs) return;
    this.resumeMs = positionMs;
    this.send(this.backend.hintResume({ positionMs }));
  }

  /** Another video, or none: the program forgets its hints with the video that they were about. */
  drop(): void {
    this.stopWaiting();
    [this.hover, this.pointerMs, this.nextId, this.resumeMs] = [NOT_OVER, null, null, null];
  }

  private look(): void {
    this.stopWaiting();
    const step = hovered(this.hover, this.pointerMs, this.nowMs());
    this.hover = step.hover;
    if (step.tell) this.send(this.backend.hintPointer({ positionMs: this.pointerMs }));
    if (step.againInMs !== null) this.resting = setTimeout(() => this.look(), step.againInMs);
  }

  private stopWaiting(): void {
    if (this.resting !== null) clearTimeout(this.resting);
    this.resting = null;
  }

  private send(hint: Promise<void>): void {
    hint.catch((thrown: unknown) => console.debug("a hint was not taken", thrown));
  }
}
