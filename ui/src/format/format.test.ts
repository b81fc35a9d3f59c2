import { describe, expect, it } from "vitest";
import { bytes, counted, grouped, megabits, percent, speed } from "./bytes";
import { ago, clock, seconds, shortSeconds, spoken } from "./time";

describe("a time", () => {
  it.each([
    [0, "0:00"],
    [5_999, "0:05"],
    [338_000, "5:38"],
    [3_760_000, "1:02:40"],
    [Number.NaN, "0:00"],
    [-4_000, "0:00"],
    [Infinity, "0:00"],
  ])("of %d ms reads %s", (ms, text) => expect(clock(ms)).toBe(text));

  it("is spoken in words without empty parts", () => {
    expect(spoken(338_000)).toBe("5 minutes 38 seconds");
    expect(spoken(3_601_000)).toBe("1 hour 1 second");
    expect(spoken(0)).toBe("0 seconds");
  });

  it("in a figure has two digits at most", () => {
    expect(shortSeconds(412)).toBe("0.41 s");
    expect(shortSeconds(1_240)).toBe("1.2 s");
    expect(shortSeconds(34_100)).toBe("34 s");
    expect(shortSeconds(Number.NaN)).toBe("0.00 s");
  });

  it("in a report has one digit after the point", () => {
    expect([28.41, 0, Number.NaN].map(seconds)).toEqual(["28.4 s", "0.0 s", "0.0 s"]);
  });

  it("in the past is told in the largest unit that fits", () => {
    const now = Date.UTC(2024, 5, 15, 12);
    const told = [30, 300, 7_200, 90_000, 500_000].map((sec) => ago(now - sec * 1000, now));
    expect(told).toEqual(["just now", "5 min ago", "2 h ago", "yesterday", "5 days ago"]);
    expect(ago(Date.UTC(2023, 0, 2), now)).toBe("2023-01-02");
    expect(ago(Number.NaN, now)).toBe("");
  });
});

describe("a size", () => {
  it.each([
    [0, "0 B"],
    [999, "999 B"],
    [999_600, "1.0 MB"],
    [38_400_000, "38 MB"],
    [1_540_000_000, "1.5 GB"],
    [Number.NaN, "0 B"],
  ])("of %d bytes reads %s", (count, text) => expect(bytes(count)).toBe(text));

  it("has a speed, a bandwidth and a share", () => {
    expect(speed(22_000_000)).toBe("22 MB/s");
    expect(megabits(47.12)).toBe("47.1 Mbit/s");
    expect(megabits(940.4)).toBe("940 Mbit/s");
    expect(percent(61.4)).toBe("61 %");
    expect(percent(140)).toBe("100 %");
  });

  it("of many is grouped and counted", () => {
    expect(grouped(1_234_567)).toBe("1\u2009234\u2009567");
    expect(counted(1, "view")).toBe("1 view");
    expect(counted(1204, "view")).toBe("1\u2009204 views");
  });
});
