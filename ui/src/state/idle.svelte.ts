// Whether the controls over the picture show: always after a sign of life, until nothing has moved for a while.

/** The desktop design's figure: cursor and controls hide after 3 s. */
export const HIDE_AFTER_MS = 3000;

export class Idle {
  active = $state(true);
  private timer: ReturnType<typeof setTimeout> | null = null;
  private held = false;

  /** The pointer moved, a key was pressed, a control got the focus. */
  poke(): void {
    this.active = true;
    this.clear();
    if (!this.held) this.timer = setTimeout(() => (this.active = false), HIDE_AFTER_MS);
  }

  /** While held (paused, dragging, a dialog is open) the controls stay. */
  hold(held: boolean): void {
    if (this.held === held) return;
    this.held = held;
    this.poke();
  }

  /** The pointer left the window. */
  rest(): void {
    if (this.held) return;
    this.clear();
    this.active = false;
  }

  stop(): void {
    this.clear();
  }

  private clear(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
  }
}
