import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

const css = readFileSync(new URL("./app.css", import.meta.url), "utf8");

/** The tokens of the first block whose selector begins so. */
function tokens(selector: string): Map<string, string> {
  const block = css.slice(css.indexOf(`${selector} {`) < 0 ? css.indexOf(selector) : css.indexOf(`${selector} {`)).split("}")[0] ?? "";
  return new Map([...block.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map(([, name = "", value = ""]) => [name, value]));
}

function luminance(hex: string): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const part = Number.parseInt(hex.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(one: string, other: string): number {
  const [light = 0, dark = 0] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}

const TEXT_ON_GROUND = ["ink", "dim", "accent", "warn", "bad"].flatMap((text) => ["bg", "panel", "raised"].map((ground) => [text, ground] as const));

describe.each([
  ["dark", ":root,"],
  ["light", ":root.light"],
])("text in the %s theme", (_, selector) => {
  const theme = tokens(selector);
  const color = (name: string): string => theme.get(name) ?? `no token ${name}`;

  it.each(TEXT_ON_GROUND)("%s on %s has the contrast of WCAG AA", (text, ground) => {
    expect(contrast(color(text), color(ground))).toBeGreaterThanOrEqual(4.5);
  });

  it("on a button has it too", () => {
    expect(contrast(color("on-accent"), color("accent"))).toBeGreaterThanOrEqual(4.5);
  });
});
