// A picture for what has none yet.

/** Hues that stay calm beside posters; dark enough that white text on them keeps a contrast over 4.5. */
const TINTS = ["#3d5a80,#0a0f17", "#7d5a3c,#201510", "#4a6b4f,#101a12", "#6b4a67,#1a1019", "#40566b,#10151a", "#6b6440,#1a1810"] as const;

/** The same gradient for the same id, always. */
export function tint(id: string): string {
  const sum = [...id].reduce((hash, letter) => (hash * 31 + letter.charCodeAt(0)) % 65_521, 7);
  return `linear-gradient(135deg, ${TINTS[sum % TINTS.length] ?? TINTS[0]})`;
}

/** The CSS colour of a node by its colour index; the palette has five. */
export function nodeColor(node: number): string {
  return `var(--n${(((Math.trunc(node) % 5) + 5) % 5) + 1})`;
}
