import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { REFUSAL, settle, startedPage, video, type Page } from "./testing";
import type { Action } from "./keys";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

async function playing(title = "Sintel"): Promise<Page> {
  const page = await startedPage();
  page.app.open(video(page.app, title));
  await settle();
  page.backend.advance(3_000);
  return page;
}

async function act({ app }: Page, action: Action, digit = 0): Promise<void> {
  app.run({ action, digit });
  await settle();
}

describe("the player", () => {
  it("opens a video, plays it, and colours what was fetched", async () => {
    const { app, backend } = await playing();
    expect(app.view).toBe("player");
    backend.advance(5_000);
    expect(app.player.phase).toBe("playing");
    expect(app.player.playback?.position_ms).toBeGreaterThan(4_000);
    expect(app.player.playback?.spans.length).toBeGreaterThan(0);
    expect(app.player.playback?.startup_ms).toBe(410);
  });

  it("opens the video that somebody outside the page asks for", async () => {
    const { app, backend } = await startedPage();
    backend.requestOpen(video(app, "Sintel").video_id);
    await settle();
    backend.advance(3_000);
    expect(app.view).toBe("player");
    expect(app.player.playback?.title).toBe("Sintel");
  });

  it("opens it although the list is asked for again at that moment, as at the start", async () => {
    const { app, backend } = await startedPage();
    const { video_id } = video(app, "Sintel");
    app.library.videos = [];
    backend.requestOpen(video_id);
    void app.library.refresh();
    await settle();
    expect(app.view).toBe("player");
  });

  it("tells nodes of the same colour apart", async () => {
    const { app } = await playing();
    const [first] = app.player.nodes.nodes;
    if (first === undefined) throw new Error("a node");
    app.player.nodes = { ...app.player.nodes, nodes: [first, { ...first, node_id: "6", node: first.node + 5, name: "nas" }] };
    expect([app.player.nodeName(first.node), app.player.nodeName(first.node + 5)]).toEqual([first.name, "nas"]);
    expect(app.player.nodeName(40)).toBe("a node");
  });

  it("goes on without a stall when the busiest node dies, and shows it", async () => {
    const page = await playing();
    page.backend.advance(30_000);
    const { app } = page;
    const down = app.player.nodes.nodes.filter((node) => node.status === "down");
    expect(down).toHaveLength(1);
    expect(app.player.nodes.log[0]?.text).toContain("stopped answering");
    expect(app.player.nodes.lanes.flatMap((lane) => lane.bars).some((bar) => bar.outcome === "failed")).toBe(true);
    expect(app.player.phase).toBe("playing");
    expect(app.player.playback?.stalls).toBe(0);
    expect(app.cluster.healthy).toBe(4);
  });

  it("pauses and goes on with one key", async () => {
    const page = await playing();
    await act(page, "toggle-play");
    page.backend.advance(1_000);
    expect(page.app.player.phase).toBe("paused");
    const stood = page.app.player.playback?.position_ms;
    page.backend.advance(2_000);
    expect(page.app.player.playback?.position_ms).toBe(stood);
    await act(page, "toggle-play");
    page.backend.advance(1_000);
    expect(page.app.player.phase).toBe("playing");
  });

  it("lets another policy choose the sources while it plays", async () => {
    const page = await playing();
    const { player } = page.app;
    expect(player.playback?.policy).toBe("pool");
    await player.setPolicy("round-robin");
    page.backend.advance(500);
    expect(player.playback?.policy).toBe("round-robin");
    expect(player.phase).toBe("playing");
  });

  it("says so when the policy cannot be changed", async () => {
    const { app, backend } = await playing();
    backend.refuse.set("setPolicy", REFUSAL);
    await app.player.setPolicy("seed");
    backend.advance(500);
    expect(app.player.playback?.policy).toBe("pool");
    expect(app.toasts.list.map((toast) => toast.text)).toEqual([REFUSAL.message]);
  });

  it("seeks by steps and by tenths, never outside the video", async () => {
    const page = await playing();
    const position = (): number => page.app.player.playback?.position_ms ?? -1;
    await act(page, "to-tenth", 5);
    expect(position()).toBe(444_000);
    await act(page, "forward-10");
    expect(position()).toBe(454_000);
    await act(page, "to-start");
    await act(page, "back-10");
    expect(position()).toBe(0);
    await act(page, "to-end");
    await act(page, "forward-10");
    expect(position()).toBe(888_000);
  });

  it("does not jump back for a report from before the seek", async () => {
    const { app, backend } = await playing();
    const old = { ...app.player.playback };
    void app.player.seekTo(300_000);
    const late = backend.session?.playback;
    if (late === undefined) throw new Error("no session");
    const now = late.position_ms;
    late.position_ms = old.position_ms ?? 0;
    backend.advance(0);
    expect(app.player.playback?.position_ms).toBe(300_000);
    late.position_ms = now;
  });

  it("believes the report when a seek was not obeyed in time", async () => {
    const { app, backend } = await playing();
    backend.refuse.set("seek", REFUSAL);
    await app.player.seekTo(300_000);
    await vi.advanceTimersByTimeAsync(2_000);
    backend.advance(125);
    expect(app.player.playback?.position_ms).toBeLessThan(10_000);
    expect(app.toasts.list.map((toast) => toast.text)).toEqual([REFUSAL.message]);
  });

  it("believes the last report when a seek was not obeyed and nothing moves", async () => {
    const page = await playing();
    await act(page, "toggle-play");
    page.backend.advance(125);
    const stood = page.app.player.playback?.position_ms;
    page.backend.refuse.set("seek", REFUSAL);
    await page.app.player.seekTo(300_000);
    expect(page.app.player.playback?.position_ms).toBe(300_000);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(page.app.player.playback?.position_ms).toBe(stood);
  });

  it("plays again from the beginning when it has ended", async () => {
    const page = await playing("First light");
    await act(page, "to-end");
    page.backend.advance(6_000);
    page.backend.advance(200);
    expect(page.app.player.phase).toBe("ended");
    await act(page, "toggle-play");
    page.backend.advance(4_000);
    expect(page.app.player.phase).toBe("playing");
    expect(page.app.player.playback?.position_ms).toBeLessThan(10_000);
  });

  it("turns the sound up and down, and up again from mute", async () => {
    const page = await playing();
    const sound = (): unknown => [page.app.player.playback?.volume.toFixed(2), page.app.player.playback?.muted];
    await act(page, "quieter");
    expect(sound()).toEqual(["0.75", false]);
    await act(page, "toggle-mute");
    expect(sound()).toEqual(["0.75", true]);
    await act(page, "louder");
    expect(sound()).toEqual(["0.80", false]);
    for (let step = 0; step < 9; step += 1) await act(page, "louder");
    expect(sound()).toEqual(["1.00", false]);
  });

  it("hides the node panel in full screen until it is asked for", async () => {
    const page = await playing();
    expect(page.app.player.panelOpen).toBe(true);
    await act(page, "toggle-fullscreen");
    page.backend.advance(125);
    expect(page.app.player.panelOpen).toBe(false);
    await act(page, "toggle-panel");
    expect(page.app.player.panelOpen).toBe(true);
    await act(page, "leave");
    page.backend.advance(125);
    expect([page.app.player.playback?.fullscreen, page.app.view]).toEqual([false, "player"]);
  });

  it("leaves by Esc, and the program closes the video", async () => {
    const page = await playing();
    await act(page, "leave");
    expect(page.app.view).toBe("library");
    expect(page.backend.session).toBeNull();
    expect(page.app.player.playback).toBeNull();
  });

  it("says why a video does not open, and tries again", async () => {
    const page = await startedPage((fake) => fake.refuse.set("openVideo", REFUSAL));
    page.app.open(video(page.app, "Sintel"));
    await settle();
    expect([page.app.player.phase, page.app.player.error]).toEqual(["failed", REFUSAL]);
    await act(page, "toggle-play");
    page.backend.advance(3_000);
    expect([page.app.player.phase, page.app.player.error]).toEqual(["playing", null]);
  });

  it("forgets the answer of a video that was left before it opened", async () => {
    const { app } = await startedPage();
    app.open(video(app, "Sintel"));
    app.show("library");
    await settle();
    expect(app.player.playback).toBeNull();
  });
});
