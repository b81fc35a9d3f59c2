import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { POLICIES, asPolicy } from "./policies";
import { REFUSAL, settle, startedPage, video } from "./testing";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("the settings", () => {
  it("open by a key with the policy that is in force, and close by Esc's action", async () => {
    const { app, backend } = await startedPage((fake) => (fake.policy = "seed"));
    app.run({ action: "show-settings", digit: 0 });
    await settle();
    expect([app.settings.shown, app.settings.policy]).toEqual([true, "seed"]);
    app.run({ action: "leave", digit: 0 });
    expect([app.settings.shown, app.view]).toEqual([false, "library"]);
    expect(backend.policy).toBe("seed");
  });

  it("change the policy for the open video and for those that are opened later", async () => {
    const { app, backend } = await startedPage();
    app.open(video(app, "Sintel"));
    await settle();
    await app.settings.setPolicy("random");
    backend.advance(3_000);
    expect(app.player.playback?.policy).toBe("random");
    app.show("library");
    app.open(video(app, "Sintel"));
    await settle();
    expect(app.player.playback?.policy).toBe("random");
  });

  it("show what is in force when a change is refused", async () => {
    const { app, backend } = await startedPage();
    backend.refuse.set("setPolicy", REFUSAL);
    await app.settings.setPolicy("single");
    expect(app.settings.policy).toBe("pool");
    expect(app.toasts.list.map((toast) => toast.text)).toEqual([REFUSAL.message]);
  });

  it("know every policy by one name, and no other name", () => {
    expect(POLICIES.map(({ policy }) => asPolicy(policy))).toEqual(POLICIES.map(({ policy }) => policy));
    expect(asPolicy("fastest")).toBeNull();
  });
});
