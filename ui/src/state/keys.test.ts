import { describe, expect, it } from "vitest";
import { KEYS, hint, pressed, printed, type KeyPress } from "./keys";

function press(key: string, held: Partial<KeyPress> = {}): KeyPress {
  return { key, code: "", ctrlKey: false, shiftKey: false, altKey: false, metaKey: false, ...held };
}

describe("the table of keys", () => {
  it.each([
    [" ", "toggle-play"],
    ["k", "toggle-play"],
    ["K", "toggle-play"],
    ["j", "back-10"],
    ["l", "forward-10"],
    ["ArrowLeft", "back-5"],
    ["ArrowUp", "louder"],
    ["m", "toggle-mute"],
    ["f", "toggle-fullscreen"],
    ["F11", "toggle-fullscreen"],
    ["n", "toggle-panel"],
    ["i", "toggle-report"],
    ["Escape", "leave"],
    ["Home", "to-start"],
    ["End", "to-end"],
    ["?", "show-keys"],
  ])("reads %j in the player as %s", (key, action) => expect(pressed(press(key), "player")?.action).toBe(action));

  it("gives the digit with a jump", () => {
    expect(pressed(press("7"), "player")).toEqual({ action: "to-tenth", digit: 7 });
    expect(pressed(press("0"), "player")).toEqual({ action: "to-tenth", digit: 0 });
  });

  it("keeps the player's keys out of the library, and the library's out of the player", () => {
    expect(pressed(press("k"), "library")).toBeNull();
    expect(pressed(press("/"), "library")?.action).toBe("search");
    expect(pressed(press("/"), "player")).toBeNull();
  });

  it("tells keys with Ctrl apart from those without", () => {
    expect(pressed(press("o", { ctrlKey: true }), "library")?.action).toBe("add-video");
    expect(pressed(press("o"), "library")).toBeNull();
    expect(pressed(press(",", { ctrlKey: true }), "player")?.action).toBe("show-settings");
    expect(pressed(press("f", { ctrlKey: true }), "player")).toBeNull();
    expect(pressed(press("k", { metaKey: true }), "player")).toBeNull();
  });

  it("tells a letter with Shift apart where that is bound, and only there", () => {
    expect(pressed(press("N", { shiftKey: true }), "player")?.action).toBe("next-video");
    expect(pressed(press("N"), "player")?.action).toBe("toggle-panel");
    expect(pressed(press("K", { shiftKey: true }), "player")?.action).toBe("toggle-play");
    expect(pressed(press("?", { shiftKey: true }), "player")?.action).toBe("show-keys");
  });

  it("reads a layout without Latin letters by the key's place", () => {
    expect(pressed(press("л", { code: "KeyK" }), "player")?.action).toBe("toggle-play");
    expect(pressed(press("щ", { code: "KeyO", ctrlKey: true }), "library")?.action).toBe("add-video");
  });

  it("means one thing by one key in each view", () => {
    for (const view of ["library", "player"] as const) {
      const keys = KEYS.filter((binding) => binding.scope === "any" || binding.scope === view).flatMap((binding) => binding.keys);
      expect(new Set(keys).size).toBe(keys.length);
    }
  });

  it("prints every key as people call it", () => {
    expect(hint("toggle-play", "Pause")).toBe("Pause (Space)");
    expect(hint("add-video")).toBe("Add video (Ctrl+O)");
    expect(hint("next-video")).toBe("Next video (Shift+N)");
    expect(hint("back-5")).toBe("Back 5 seconds (←)");
    expect(KEYS.flatMap(printed).every((text) => text.trim() !== "")).toBe(true);
  });
});
