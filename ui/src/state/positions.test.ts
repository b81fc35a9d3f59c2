import { describe, expect, it } from "vitest";
import { NEAR_END_MS, Positions, WORTH_MS, shortMemory } from "./positions";

const HOUR_MS = 3_600_000;

describe("where a video was left", () => {
  it("is known again, also by another window", () => {
    const keep = shortMemory();
    new Positions(keep).note("a", 61_234.6, HOUR_MS);
    expect(new Positions(keep).of("a")).toBe(61_235);
    expect(new Positions(keep).of("b")).toBeNull();
  });

  it("survives a short look at the beginning", () => {
    const positions = new Positions(shortMemory());
    positions.note("a", 600_000, HOUR_MS);
    positions.note("a", WORTH_MS - 1, HOUR_MS);
    expect(positions.of("a")).toBe(600_000);
  });

  it("is forgotten when the video was seen to its end", () => {
    const positions = new Positions(shortMemory());
    positions.note("a", 600_000, HOUR_MS);
    positions.note("a", HOUR_MS - NEAR_END_MS + 1, HOUR_MS);
    expect(positions.of("a")).toBeNull();
  });

  it("is kept for the latest 200 videos", () => {
    const positions = new Positions(shortMemory());
    for (let video = 0; video <= 200; video += 1) positions.note(String(video), 600_000, HOUR_MS);
    expect([positions.of("0"), positions.of("1"), positions.of("200")]).toEqual([null, 600_000, 600_000]);
  });

  it.each(["", "null", "{}", "[1,[2],[\"a\",\"b\"]]", "[[\"a\","])("reads nothing out of %j, and goes on", (text) => {
    const keep = shortMemory();
    keep.setItem("positions", text);
    const positions = new Positions(keep);
    expect(positions.of("a")).toBeNull();
    positions.note("a", 600_000, HOUR_MS);
    expect(positions.of("a")).toBe(600_000);
  });

  it("costs nothing but itself when it cannot be kept", () => {
    const refuse = (): never => {
      throw new Error("full");
    };
    const positions = new Positions({ getItem: () => null, setItem: refuse });
    expect(() => positions.note("a", 600_000, HOUR_MS)).not.toThrow();
  });
});
