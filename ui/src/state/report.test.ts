import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { COPIED_MS, REPORT_EVERY_MS } from "./report.svelte";
import { REFUSAL, settle, startedPage, video, type Page } from "./testing";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

async function reported(): Promise<Page> {
  const page = await startedPage();
  page.app.open(video(page.app, "Sintel"));
  await settle();
  page.backend.advance(30_000);
  page.app.run({ action: "toggle-report", digit: 0 });
  await settle();
  return page;
}

describe("the session's report", () => {
  it("is shown by a key with the same bytes as the node cards", async () => {
    const { app } = await reported();
    const { report } = app.report;
    expect(report?.startup_ms).toBe(410);
    expect(report?.stalls).toBe(0);
    const cards = app.player.nodes.nodes.map((card) => [card.name, card.bytes]);
    expect(Object.fromEntries(cards)).toEqual(Object.fromEntries((report?.nodes ?? []).map((node) => [node.name, node.bytes])));
    const shares = app.player.nodes.nodes.map((card) => card.share_percent);
    expect(shares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(100);
  });

  it("follows the session while it is shown, and asks nobody when it is not", async () => {
    const { app, backend } = await reported();
    const before = app.report.report?.bytes ?? 0;
    backend.advance(20_000);
    await vi.advanceTimersByTimeAsync(REPORT_EVERY_MS);
    expect(app.report.report?.bytes).toBeGreaterThan(before);
    app.run({ action: "toggle-report", digit: 0 });
    backend.calls.length = 0;
    await vi.advanceTimersByTimeAsync(REPORT_EVERY_MS * 4);
    expect([app.report.shown, backend.calls]).toEqual([false, []]);
  });

  it("goes with the video", async () => {
    const { app, backend } = await reported();
    app.show("library");
    await settle();
    backend.calls.length = 0;
    await vi.advanceTimersByTimeAsync(REPORT_EVERY_MS * 4);
    expect([app.report.shown, app.report.report, backend.calls]).toEqual([false, null, []]);
  });

  it("saves the trace and says where", async () => {
    const { app } = await reported();
    await app.report.saveTrace();
    expect(app.report.savedTo).toMatch(/\.jsonl$/);
    expect(app.toasts.list).toEqual([]);
  });

  it("shows the saved trace in its folder, or says why not", async () => {
    const { app, backend } = await reported();
    await app.report.saveTrace();
    await app.report.showFile();
    expect([backend.calls.at(-1), app.toasts.list]).toEqual(["showTrace", []]);
    backend.refuse.set("showTrace", REFUSAL);
    await app.report.showFile();
    expect(app.toasts.list.map((toast) => toast.text)).toEqual([REFUSAL.message]);
  });

  it("copies the path of the saved trace and says so for a moment", async () => {
    const { app, backend } = await reported();
    await app.report.copyPath();
    expect([backend.clipboard, app.report.copied]).toEqual([null, false]);
    await app.report.saveTrace();
    await app.report.copyPath();
    expect([backend.clipboard, app.report.copied]).toEqual([app.report.savedTo, true]);
    await vi.advanceTimersByTimeAsync(COPIED_MS);
    expect(app.report.copied).toBe(false);
    backend.refuse.set("copyText", REFUSAL);
    await app.report.copyPath();
    expect([app.report.copied, app.toasts.list.length]).toEqual([false, 1]);
  });

  it("says nothing of a trace once it is closed", async () => {
    const { app } = await reported();
    const saving = app.report.saveTrace();
    app.report.hide();
    await saving;
    expect([app.report.savedTo, app.report.copied]).toEqual([null, false]);
  });

  it("says why the trace cannot be saved, and lets it be tried again", async () => {
    const { app, backend } = await reported();
    backend.refuse.set("saveTrace", REFUSAL);
    await app.report.saveTrace();
    expect([app.report.savedTo, app.report.saving]).toEqual([null, false]);
    expect(app.toasts.list.map((toast) => toast.text)).toEqual([REFUSAL.message]);
    await app.report.saveTrace();
    expect(app.report.savedTo).toMatch(/\.jsonl$/);
  });
});
