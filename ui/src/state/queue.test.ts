import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { VideoCard } from "../backend/backend";
import { GO_ON_AFTER_MS } from "./player.svelte";
import { settle, startedPage, video, type Page } from "./testing";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const waiting = ({ app }: Page): string[] => app.queue.list.map((card) => card.title);

async function queue(page: Page, ...titles: string[]): Promise<Page> {
  for (const title of titles) page.app.run({ action: "queue-video", digit: 0 }, video(page.app, title).video_id);
  return page;
}

/** "Garden timelapse" has ended, with these after it in the queue. */
async function ended(...titles: string[]): Promise<Page> {
  const page = await queue(await startedPage(), ...titles);
  page.app.open(video(page.app, "Garden timelapse"));
  await settle();
  page.backend.advance(3_000);
  await page.app.player.seekToShare(1);
  page.backend.advance(6_000);
  page.backend.advance(200);
  expect(page.app.player.phase).toBe("ended");
  return page;
}

describe("up next", () => {
  it("holds what was put there, in that order, and the same key takes it out", async () => {
    const page = await queue(await startedPage(), "Tears of Steel", "Sintel");
    expect(waiting(page)).toEqual(["Tears of Steel", "Sintel"]);
    expect(page.app.queue.place(video(page.app, "Sintel").video_id)).toBe(2);
    await queue(page, "Tears of Steel");
    expect(waiting(page)).toEqual(["Sintel"]);
    page.app.queue.clear();
    expect(waiting(page)).toEqual([]);
  });

  it("takes nothing that cannot be watched, and nothing where no video is meant", async () => {
    const uploads = (card: VideoCard): VideoCard => (card.title === "Sintel" ? { ...card, status: "uploading" } : card);
    const page = await startedPage((fake) => (fake.videos = fake.videos.map(uploads)));
    page.app.run({ action: "queue-video", digit: 0 }, video(page.app, "Sintel").video_id);
    page.app.run({ action: "queue-video", digit: 0 });
    expect(waiting(page)).toEqual([]);
  });

  it("knows a new title, and forgets a video that is deleted or being watched", async () => {
    const page = await queue(await startedPage(), "Tears of Steel", "Sintel", "Garden timelapse");
    await page.app.library.rename(video(page.app, "Sintel"), "Dragons");
    expect(waiting(page)).toEqual(["Tears of Steel", "Dragons", "Garden timelapse"]);
    page.app.remove(video(page.app, "Tears of Steel"));
    page.app.open(video(page.app, "Garden timelapse"));
    expect(waiting(page)).toEqual(["Dragons"]);
  });

  it("comes before what follows in the library, also where it is fetched in advance", async () => {
    const page = await ended("Tears of Steel");
    const { video_id } = video(page.app, "Tears of Steel");
    expect(page.app.player.next?.video_id).toBe(video_id);
    expect(page.backend.hints).toContainEqual({ next: video_id });
  });

  it("begins by itself some seconds after the end", async () => {
    const page = await ended("Tears of Steel", "Sintel");
    expect(page.app.player.countdown.leftMs).toBe(GO_ON_AFTER_MS);
    await vi.advanceTimersByTimeAsync(GO_ON_AFTER_MS - 1);
    expect(page.app.player.video?.title).toBe("Garden timelapse");
    await vi.advanceTimersByTimeAsync(1);
    page.backend.advance(3_000);
    expect([page.app.player.video?.title, page.app.player.phase]).toEqual(["Tears of Steel", "playing"]);
    expect([waiting(page), page.app.player.countdown.leftMs]).toEqual([["Sintel"], null]);
  });

  it.each([
    ["Esc, and the video stays open", "leave"],
    ["playing it again", "toggle-play"],
    ["going back in it", "back-10"],
  ] as const)("does not begin after %s", async (_, action) => {
    const page = await ended("Tears of Steel");
    page.app.run({ action, digit: 0 });
    await settle();
    page.backend.advance(1_000);
    await vi.advanceTimersByTimeAsync(GO_ON_AFTER_MS * 2);
    expect([page.app.view, page.app.player.video?.title, page.app.player.countdown.leftMs]).toEqual(["player", "Garden timelapse", null]);
    expect(waiting(page)).toEqual(["Tears of Steel"]);
  });

  it("does not begin once the player was left", async () => {
    const page = await ended("Tears of Steel");
    page.app.show("library");
    await vi.advanceTimersByTimeAsync(GO_ON_AFTER_MS * 2);
    expect([page.app.view, page.app.player.video]).toEqual(["library", null]);
  });

  it("is only offered where it is the library's order", async () => {
    const page = await ended();
    expect(page.app.player.next).not.toBeNull();
    await vi.advanceTimersByTimeAsync(GO_ON_AFTER_MS * 2);
    expect([page.app.player.video?.title, page.app.player.phase]).toEqual(["Garden timelapse", "ended"]);
  });
});
