// Who may choose the sources of chunks, in words. The first one ships; the others are there to compare with.

import type { SourcePolicy } from "../backend/backend";

export interface PolicyChoice {
  policy: SourcePolicy;
  /** As the node panel shows it. */
  short: string;
  explained: string;
}

export const POLICIES: readonly PolicyChoice[] = [
  { policy: "pool", short: "several nodes for each chunk", explained: "Parts of a chunk come from several nodes at once; a slow or silent one is noticed at once." },
  { policy: "seed", short: "best node for each chunk", explained: "Whole chunks, each from the node with the best score." },
  { policy: "round-robin", short: "nodes in turn", explained: "Whole chunks, from each node in turn. To compare with." },
  { policy: "random", short: "nodes by lot", explained: "Whole chunks, each from a node drawn by lot. To compare with." },
  { policy: "single", short: "one node for all", explained: "Everything from one node as long as it works. To compare with." },
];

export function asPolicy(value: string): SourcePolicy | null {
  return POLICIES.find(({ policy }) => policy === value)?.policy ?? null;
}
