import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { REFUSAL, settle, startedPage, titles, video } from "./testing";
import { NOTE_MS } from "./toasts.svelte";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("the library", () => {
  it("shows the newest video first as soon as the cluster is ready", async () => {
    const { app } = await startedPage();
    expect(app.library.phase).toBe("ready");
    expect(titles(app)[0]).toBe("Sintel");
    expect(app.library.total).toBe(8);
  });

  it("waits for a cluster that is starting, then shows what it has", async () => {
    const { app, backend } = await startedPage((fake) => (fake.cluster = { ...fake.cluster, phase: "starting" }));
    expect(app.library.phase).toBe("loading");
    backend.setCluster({ phase: "ready" });
    await settle();
    expect(app.library.total).toBe(8);
  });

  it("asks once for a word that is typed fast", async () => {
    const { app, backend } = await startedPage();
    const before = backend.calls.filter((call) => call === "listVideos").length;
    for (const text of ["b", "bi", "big"]) app.library.searchFor(text);
    await vi.advanceTimersByTimeAsync(500);
    expect(titles(app)).toEqual(["Big Buck Bunny"]);
    expect(backend.calls.filter((call) => call === "listVideos").length).toBe(before + 1);
  });

  it("orders by what is chosen", async () => {
    const { app } = await startedPage();
    app.library.orderBy("views");
    await settle();
    expect(titles(app)[0]).toBe("Big Buck Bunny");
  });

  it("tells why it cannot be read, and recovers", async () => {
    const { app } = await startedPage((fake) => fake.refuse.set("listVideos", REFUSAL));
    expect(app.library.phase).toBe("failed");
    expect(app.library.error).toEqual(REFUSAL);
    await app.library.refresh();
    expect(app.library.phase).toBe("ready");
    expect(app.library.error).toBeNull();
  });

  it("renames at once, and takes it back when the catalogue refuses", async () => {
    const { app, backend } = await startedPage();
    await app.library.rename(video(app, "Sintel"), "  Sintel, 4K ");
    expect(backend.videos[0]?.title).toBe("Sintel, 4K");
    backend.refuse.set("renameVideo", REFUSAL);
    expect(await app.library.rename(video(app, "Sintel, 4K"), "Other")).toBe(false);
    expect(titles(app)[0]).toBe("Sintel, 4K");
    expect(app.toasts.list.map((toast) => toast.text)).toEqual([REFUSAL.message]);
  });

  it("asks nothing for a title that did not change or is empty", async () => {
    const { app, backend } = await startedPage();
    await app.library.rename(video(app, "Sintel"), "Sintel");
    await app.library.rename(video(app, "Sintel"), "   ");
    expect(backend.calls).not.toContain("renameVideo");
  });

  it("deletes only when the time to undo has passed", async () => {
    const { app, backend } = await startedPage();
    app.library.remove(video(app, "Sintel"));
    expect(titles(app)).not.toContain("Sintel");
    expect(backend.videos).toHaveLength(8);
    await vi.advanceTimersByTimeAsync(NOTE_MS + 100);
    expect(backend.videos).toHaveLength(7);
    expect(titles(app)).not.toContain("Sintel");
  });

  it("brings a deleted video back on Undo", async () => {
    const { app, backend } = await startedPage();
    app.library.remove(video(app, "Sintel"));
    app.toasts.list[0]?.action?.run();
    await vi.advanceTimersByTimeAsync(NOTE_MS * 2);
    expect(titles(app)).toContain("Sintel");
    expect(backend.calls).not.toContain("deleteVideo");
    expect(app.toasts.list).toEqual([]);
  });

  it("brings a video back that the catalogue would not delete, and says why", async () => {
    const { app, backend } = await startedPage();
    backend.refuse.set("deleteVideo", REFUSAL);
    app.library.remove(video(app, "Sintel"));
    await vi.advanceTimersByTimeAsync(NOTE_MS + 100);
    expect(titles(app)).toContain("Sintel");
    expect(app.toasts.list.map((toast) => toast.kind)).toEqual(["error"]);
  });

  it("reads a long library page by page, without repeats", async () => {
    const { app } = await startedPage((fake) => {
      const like = fake.videos[0];
      if (like !== undefined) fake.videos = Array.from({ length: 150 }, (_, at) => ({ ...like, video_id: `v${at}`, title: `Video ${at}` }));
    });
    expect(app.library.videos).toHaveLength(60);
    await app.library.loadMore();
    await app.library.loadMore();
    expect(app.library.hasMore).toBe(false);
    expect(new Set(titles(app)).size).toBe(150);
  });
});
