// When the pointer over the seek bar is worth telling the program, so that it may fetch what lies under it.
// A pointer moves 60 to 1000 times a second; the program itself waits for one that rests.

/** The program needs no newer news than this: it waits 150 ms for a pointer to rest. */
export const HINT_EVERY_MS = 100;
/** Less than a frame of the shortest chunk: closer places are the same one. */
export const SAME_PLACE_MS = 250;

export interface Hover {
  /** What the program was told last; null: nothing under the pointer. */
  toldMs: number | null;
  toldAtMs: number;
}

export const NOT_OVER: Hover = { toldMs: null, toldAtMs: -Infinity };

export interface HoverStep {
  hover: Hover;
  tell: boolean;
  /** Ask again after this time, the pointer may have come to rest; null: nothing is due. */
  againInMs: number | null;
}

/** The pointer is over this place now; null: it has left the bar, which is told at once. */
export function hovered(hover: Hover, pointerMs: number | null, nowMs: number): HoverStep {
  const tell: HoverStep = { hover: { toldMs: pointerMs, toldAtMs: nowMs }, tell: true, againInMs: null };
  const nothing: HoverStep = { hover, tell: false, againInMs: null };
  if (pointerMs === null) return hover.toldMs === null ? nothing : tell;
  if (hover.toldMs !== null && Math.abs(pointerMs - hover.toldMs) < SAME_PLACE_MS) return nothing;
  const dueInMs = hover.toldAtMs + HINT_EVERY_MS - nowMs;
  return dueInMs > 0 ? { ...nothing, againInMs: dueInMs } : tell;
}
