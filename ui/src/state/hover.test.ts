import { describe, expect, it } from "vitest";
import { HINT_EVERY_MS, NOT_OVER, SAME_PLACE_MS, hovered, type Hover } from "./hover";

interface Told {
  atMs: number;
  positionMs: number | null;
}

/** What is told of a pointer that is at these places at these times, timers included. */
function told(moves: readonly (readonly [atMs: number, pointerMs: number | null])[]): Told[] {
  const list: Told[] = [];
  let hover: Hover = NOT_OVER;
  let timerAtMs = Infinity;
  let pointer: number | null = null;
  const ask = (nowMs: number): void => {
    const step = hovered(hover, pointer, nowMs);
    hover = step.hover;
    timerAtMs = step.againInMs === null ? Infinity : nowMs + step.againInMs;
    if (step.tell) list.push({ atMs: nowMs, positionMs: pointer });
  };
  for (const [atMs, pointerMs] of [...moves, [Infinity, null] as const]) {
    if (timerAtMs < atMs) ask(timerAtMs);
    if (atMs === Infinity) break;
    pointer = pointerMs;
    ask(atMs);
  }
  return list;
}

describe("a pointer over the seek bar", () => {
  it("is told where it is at once, and again only when it has moved", () => {
    expect(told([[0, 60_000], [500, 60_000 + SAME_PLACE_MS - 1], [900, 90_000]])).toEqual([
      { atMs: 0, positionMs: 60_000 },
      { atMs: 900, positionMs: 90_000 },
    ]);
  });

  it("that crosses the bar is told ten times a second, however often it moves", () => {
    const moves = Array.from({ length: 1000 }, (_, at) => [at, at * 600] as const);
    const list = told(moves);
    expect(list.length).toBeGreaterThan(8);
    expect(list.length).toBeLessThanOrEqual(1000 / HINT_EVERY_MS + 1);
  });

  it("that comes to rest is told where, although it did not move any more", () => {
    expect(told([[0, 10_000], [20, 20_000], [40, 30_000]])).toEqual([
      { atMs: 0, positionMs: 10_000 },
      { atMs: HINT_EVERY_MS, positionMs: 30_000 },
    ]);
  });

  it("that leaves is told at once, and once", () => {
    expect(told([[0, 10_000], [20, null], [30, null]])).toEqual([
      { atMs: 0, positionMs: 10_000 },
      { atMs: 20, positionMs: null },
    ]);
  });

  it("that was never over the bar is not told of", () => expect(told([[0, null], [5, null]])).toEqual([]));

  it("that trembles at the edge of the bar is not told without end", () => {
    const moves = Array.from({ length: 1000 }, (_, at) => [at, at % 2 === 0 ? 50_000 : null] as const);
    expect(told(moves).length).toBeLessThanOrEqual((2 * 1000) / HINT_EVERY_MS);
  });
});
