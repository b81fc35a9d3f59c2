import { describe, expect, it } from "vitest";
import { belongsToFocus } from "./keyboard";

describe("a key press", () => {
  it("belongs to a text field, whatever the key", () => {
    for (const key of ["k", " ", "/", "Escape", "ArrowLeft"]) {
      expect(belongsToFocus({ tagName: "INPUT", type: "search" }, key)).toBe(true);
      expect(belongsToFocus({ tagName: "TEXTAREA" }, key)).toBe(true);
      expect(belongsToFocus({ tagName: "DIV", isContentEditable: true }, key)).toBe(true);
    }
  });

  it("that presses a button belongs to the button, every other one to the table", () => {
    expect(belongsToFocus({ tagName: "BUTTON", type: "button" }, " ")).toBe(true);
    expect(belongsToFocus({ tagName: "BUTTON", type: "button" }, "Enter")).toBe(true);
    expect(belongsToFocus({ tagName: "BUTTON", type: "button" }, "k")).toBe(false);
  });

  it("that moves the volume belongs to its slider", () => {
    expect(belongsToFocus({ tagName: "INPUT", type: "range" }, "ArrowUp")).toBe(true);
    expect(belongsToFocus({ tagName: "INPUT", type: "range" }, " ")).toBe(false);
  });

  it("with nothing focused is the table's", () => {
    expect(belongsToFocus(null, " ")).toBe(false);
    expect(belongsToFocus({ tagName: "BODY" }, "ArrowLeft")).toBe(false);
  });
});
