import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { asUiError } from "../backend/backend";
import { nodeColor, tint } from "../charts/tint";
import { Held } from "./held";
import { HIDE_AFTER_MS, Idle } from "./idle.svelte";
import { NOTE_MS, Toasts } from "./toasts.svelte";
import { settle, startedPage } from "./testing";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("the controls", () => {
  it("hide when nothing has moved for a while, and come back", () => {
    const idle = new Idle();
    idle.poke();
    vi.advanceTimersByTime(HIDE_AFTER_MS - 1);
    expect(idle.active).toBe(true);
    vi.advanceTimersByTime(1);
    expect(idle.active).toBe(false);
    idle.poke();
    expect(idle.active).toBe(true);
  });

  it("stay while they are held, and hide after", () => {
    const idle = new Idle();
    idle.hold(true);
    vi.advanceTimersByTime(HIDE_AFTER_MS * 3);
    expect(idle.active).toBe(true);
    idle.hold(false);
    vi.advanceTimersByTime(HIDE_AFTER_MS);
    expect(idle.active).toBe(false);
  });
});

describe("a wish", () => {
  const near = (a: number, b: number): boolean => Math.abs(a - b) < 10;

  it("is shown until a report agrees", () => {
    const held = new Held<number>(near);
    held.ask(500, 0);
    expect(held.settle(100, 50)).toBe(500);
    expect(held.settle(505, 100)).toBe(505);
    expect(held.settle(100, 150)).toBe(100);
  });

  it("ends by itself when nothing agrees in time", () => {
    const held = new Held<number>(near);
    held.ask(500, 0);
    expect(held.settle(100, 1_600)).toBe(100);
  });
});

describe("a toast", () => {
  it("goes by itself when it is a note, and stays when it is an error", () => {
    const toasts = new Toasts();
    toasts.note("done");
    toasts.error({ code: "internal", message: "broken", next_step: "mend it" });
    vi.advanceTimersByTime(NOTE_MS + 1);
    expect(toasts.list.map((toast) => toast.text)).toEqual(["broken"]);
  });

  it("is not repeated while it shows", () => {
    const toasts = new Toasts();
    for (let time = 0; time < 3; time += 1) toasts.error(new Error("the same"));
    expect(toasts.list).toHaveLength(1);
  });
});

describe("anything thrown", () => {
  it("becomes sentences with a next step", () => {
    const whole = { code: "not_found", message: "Gone.", next_step: "Go back." };
    expect(asUiError(whole)).toEqual(whole);
    expect(asUiError(new Error("x"))).toMatchObject({ code: "internal", message: "x" });
    for (const odd of [undefined, null, 7, "text", {}]) expect(asUiError(odd).next_step).not.toBe("");
  });
});

describe("the colours", () => {
  it("of a node repeat after five, and a video keeps its own", () => {
    expect([0, 4, 5, -1].map(nodeColor)).toEqual(["var(--n1)", "var(--n5)", "var(--n1)", "var(--n5)"]);
    expect(tint("a-video")).toBe(tint("a-video"));
  });
});

describe("the page", () => {
  it("plays an upload that just ended", async () => {
    const { app, backend } = await startedPage();
    await app.uploads.add(["/tmp/clip.mp4"]);
    backend.advance(60_000);
    await settle();
    const done = app.uploads.finished[0];
    await app.openById(done?.video_id ?? "");
    expect([app.view, app.player.video?.title]).toEqual(["player", "clip"]);
  });

  it("says that the program does not answer", async () => {
    const { app } = await startedPage((fake) => fake.refuse.set("getCluster", asUiError("no program")));
    expect([app.cluster.phase, app.cluster.error?.message]).toEqual(["unreachable", "no program"]);
  });
});
