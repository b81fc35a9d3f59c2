// What the user just asked for, shown until the program reports that it is so.

/** How long a wish outlives reports that contradict it; the program answers a seek well within this. */
export const HOLD_MS = 1500;

/**
 * Without it the handle of the seek bar would jump back once for every report that was sent before the seek.
 */
export class Held<T> {
  private wish: { value: T; untilMs: number } | null = null;

  constructor(private readonly same: (wish: T, reported: T) => boolean) {}

  ask(value: T, nowMs: number): void {
    this.wish = { value, untilMs: nowMs + HOLD_MS };
  }

  /** What to show for this report. */
  settle(reported: T, nowMs: number): T {
    if (this.wish === null) return reported;
    if (nowMs < this.wish.untilMs && !this.same(this.wish.value, reported)) return this.wish.value;
    this.wish = null;
    return reported;
  }

  drop(): void {
    this.wish = null;
  }
}
