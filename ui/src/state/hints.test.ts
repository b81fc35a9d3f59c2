import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { HINT_EVERY_MS } from "./hover";
import { NEXT_WITHIN_MS, OFFER_MS } from "./player.svelte";
import { shortMemory, type Keep } from "./positions";
import { REFUSAL, settle, startedPage, video, type Page } from "./testing";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** Sintel lasts 888 s. */
async function playing(keep?: Keep): Promise<Page> {
  const page = await startedPage(() => undefined, keep);
  await open(page, "Sintel");
  return page;
}

async function open(page: Page, title: string): Promise<void> {
  page.app.open(video(page.app, title));
  await settle();
  page.backend.advance(3_000);
  await settle();
}

/** Leaves the video where it is at `positionMs`, and opens it again. */
async function leftAt(positionMs: number): Promise<Page> {
  const keep = shortMemory();
  const before = await playing(keep);
  await before.app.player.seekTo(positionMs);
  before.backend.advance(3_000);
  before.app.show("library");
  await settle();
  return playing(keep);
}

describe("what may be watched soon", () => {
  it("is where the pointer rests on the seek bar, told ten times a second at most", async () => {
    const { app, backend } = await playing();
    for (const ms of [100_000, 200_000, 300_000.4]) app.player.pointAt(ms);
    await vi.advanceTimersByTimeAsync(HINT_EVERY_MS);
    app.player.pointAt(null);
    await settle();
    expect(backend.hints).toEqual([{ pointer: 100_000 }, { pointer: 300_000 }, { pointer: null }]);
  });

  it("is not told of a pointer over a video that was left", async () => {
    const { app, backend } = await playing();
    app.player.pointAt(100_000);
    app.player.pointAt(200_000);
    app.show("library");
    await vi.advanceTimersByTimeAsync(HINT_EVERY_MS * 3);
    expect(backend.hints).toEqual([{ pointer: 100_000 }]);
  });

  it("is the next video of the library, near the end and not before", async () => {
    const page = await playing();
    const { app, backend } = page;
    const next = app.library.after(video(app, "Sintel").video_id);
    expect(next).not.toBeNull();
    expect(backend.hints).toEqual([]);
    await app.player.seekTo(888_000 - NEXT_WITHIN_MS + 2_000);
    backend.advance(3_000);
    await settle();
    expect(backend.hints).toEqual([{ next: next?.video_id }]);
    await app.player.seekTo(0);
    backend.advance(3_000);
    await settle();
    expect(backend.hints).toEqual([{ next: next?.video_id }, { next: null }]);
  });

  it("is nothing after the last video", async () => {
    const page = await playing();
    const last = page.app.library.shown.at(-1);
    if (last === undefined) throw new Error("an empty library");
    await open(page, last.title);
    await page.app.player.seekToShare(0.99);
    page.backend.advance(3_000);
    await settle();
    expect(page.backend.hints.filter((hint) => "next" in hint && hint.next !== null)).toEqual([]);
  });

  it("is the place where the viewer left, as long as it is offered", async () => {
    const { app, backend } = await leftAt(600_000);
    const leftMs = app.player.resumeMs ?? 0;
    expect(leftMs).toBeGreaterThanOrEqual(600_000);
    expect(leftMs).toBeLessThan(606_000);
    expect(backend.hints).toEqual([{ resume: leftMs }]);
    app.run({ action: "resume", digit: 0 });
    await settle();
    expect([app.player.playback?.position_ms, app.player.resumeMs]).toEqual([leftMs, null]);
    expect(backend.hints).toEqual([{ resume: leftMs }, { resume: null }]);
  });

  it("is the very place where a video was paused, also when the window closed over it", async () => {
    const keep = shortMemory();
    const { app, backend } = await playing(keep);
    await app.player.seekTo(600_000);
    backend.advance(2_000);
    // Less than it takes to be remembered while it plays.
    backend.advance(3_000);
    app.run({ action: "toggle-play", digit: 0 });
    await settle();
    backend.advance(125);
    const leftMs = app.player.playback?.position_ms ?? 0;
    expect([app.player.phase, leftMs > 600_000]).toEqual(["paused", true]);
    const again = await playing(keep);
    expect(again.app.player.resumeMs).toBe(leftMs);
  });

  it("is no longer offered to who watches from the beginning", async () => {
    const { app, backend } = await leftAt(600_000);
    backend.advance(OFFER_MS + 3_000);
    await settle();
    expect([app.player.resumeMs, backend.hints.at(-1)]).toEqual([null, { resume: null }]);
  });

  it("costs the viewer nothing when the program refuses it", async () => {
    const { app, backend } = await playing();
    backend.refuse.set("hintPointer", REFUSAL);
    app.player.pointAt(100_000);
    await settle();
    expect([app.toasts.list, app.player.phase]).toEqual([[], "playing"]);
  });
});

describe("the next video", () => {
  it("is opened by a key, in the order of the library", async () => {
    const page = await playing();
    const next = page.app.player.next;
    page.app.run({ action: "next-video", digit: 0 });
    await settle();
    page.backend.advance(3_000);
    expect(page.app.player.playback?.title).toBe(next?.title);
    expect(page.app.view).toBe("player");
  });
});
