// Where the viewer left each video. Kept by the page alone: the program does not care.

/** Strings that outlive the window. */
export interface Keep {
  getItem(name: string): string | null;
  setItem(name: string, value: string): void;
}

/** Earlier than this nobody misses what was seen. */
export const WORTH_MS = 30_000;
/** So near the end the rest is credits: the video counts as seen. */
export const NEAR_END_MS = 15_000;
/** Videos that are remembered; of more, the latest. */
const MOST = 200;
const NAME = "positions";

export class Positions {
  constructor(private readonly keep: Keep) {}

  /** Where to go on; null: from the beginning. */
  of(videoId: string): number | null {
    return this.read().find(([id]) => id === videoId)?.[1] ?? null;
  }

  /** The video is being watched here. Its first seconds change nothing: they may be a look at the wrong video. */
  note(videoId: string, positionMs: number, durationMs: number): void {
    if (positionMs < WORTH_MS) return;
    const others = this.read().filter(([id]) => id !== videoId);
    const seen = durationMs - positionMs < NEAR_END_MS;
    const list = seen ? others : [...others, [videoId, Math.round(positionMs)] as const];
    try {
      this.keep.setItem(NAME, JSON.stringify(list.slice(-MOST)));
    } catch {
      // A full or forbidden store costs the offer to go on, nothing else.
    }
  }

  /** The longest ago first. What is not understood is forgotten. */
  private read(): (readonly [string, number])[] {
    try {
      const list: unknown = JSON.parse(this.keep.getItem(NAME) ?? "[]");
      if (!Array.isArray(list)) return [];
      return list.filter((entry): entry is [string, number] => Array.isArray(entry) && typeof entry[0] === "string" && Number.isFinite(entry[1]));
    } catch {
      return [];
    }
  }
}

/** Forgets when the window closes. */
export function shortMemory(): Keep {
  const kept = new Map<string, string>();
  return { getItem: (name) => kept.get(name) ?? null, setItem: (name, value) => void kept.set(name, value) };
}
