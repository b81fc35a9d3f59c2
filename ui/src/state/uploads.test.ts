import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { REFUSAL, settle, startedPage, titles } from "./testing";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("an upload", () => {
  it("passes from the file dialog into the library", async () => {
    const { app, backend } = await startedPage();
    await app.uploads.pick();
    expect(app.uploads.running).toBe(2);
    backend.advance(10_000);
    expect(app.uploads.listed.map((item) => item.phase)).toEqual(["storing", "storing"]);
    backend.advance(30_000);
    await settle();
    expect(app.uploads.listed.map((item) => item.phase)).toEqual(["done", "done"]);
    expect(titles(app)).toContain("field-trip");
    expect(app.toasts.list.map((toast) => toast.text)).toContain("“field-trip.mkv” is in the library");
  });

  it("starts by dropping files, and the overlay goes", async () => {
    const { app, backend } = await startedPage();
    backend.drag({ kind: "over" });
    expect(app.dragging).toBe(true);
    backend.drag({ kind: "dropped", paths: ["/tmp/a.mp4"] });
    await settle();
    expect(app.dragging).toBe(false);
    expect(app.uploads.items.map((item) => item.file_name)).toEqual(["a.mp4"]);
  });

  it("of a file that is no video keeps its error until it is dismissed", async () => {
    const { app, backend } = await startedPage();
    await app.uploads.add(["/tmp/pictures.zip"]);
    backend.advance(60_000);
    const failed = app.uploads.listed[0];
    expect(failed?.error?.code).toBe("unsupported_format");
    expect(app.uploads.running).toBe(0);
    if (failed !== undefined) await app.uploads.dismiss(failed);
    expect(app.uploads.listed).toEqual([]);
    backend.advance(1_000);
    expect(app.uploads.listed).toEqual([]);
  });

  it("that is cancelled is gone", async () => {
    const { app, backend } = await startedPage();
    await app.uploads.add(["/tmp/a.mp4"]);
    const item = app.uploads.listed[0];
    if (item !== undefined) await app.uploads.cancel(item);
    backend.advance(1_000);
    expect(app.uploads.listed).toEqual([]);
    expect(titles(app)).not.toContain("a");
  });

  it("that cannot start says why", async () => {
    const { app, backend } = await startedPage();
    backend.refuse.set("startUploads", REFUSAL);
    await app.uploads.add(["/tmp/a.mp4"]);
    expect(app.toasts.list.map((toast) => [toast.kind, toast.nextStep])).toEqual([["error", REFUSAL.next_step]]);
  });

  it("stands above those that ended, and these go together", async () => {
    const { app, backend } = await startedPage();
    await app.uploads.pick();
    backend.advance(60_000);
    await app.uploads.add(["/tmp/late.mp4"]);
    expect(app.uploads.listed.map((item) => item.file_name)[0]).toBe("late.mp4");
    await app.uploads.dismissFinished();
    backend.advance(1_000);
    expect(app.uploads.listed.map((item) => item.file_name)).toEqual(["late.mp4"]);
  });

  it("asks for nothing when the dialog was cancelled", async () => {
    const { app, backend } = await startedPage((fake) => (fake.picked = []));
    await app.uploads.pick();
    expect(backend.calls).not.toContain("startUploads");
  });
});
