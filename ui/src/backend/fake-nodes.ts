// The five storage nodes of the fake cluster: each has its own pace, and one can be taken away.

import type { NodeCard, NodeStatus } from "../generated";
import { between, type Random } from "./fake-random";

/** Samples of a card's chart: 4 a second over 30 s. */
const SAMPLES = 120;
export const NODE_COLORS = ["#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442"] as const;
const PACE: readonly [latencyMs: number, mbps: number][] = [[18, 47], [24, 41], [31, 39], [44, 30], [58, 22]];

export class FakeNode {
  status: NodeStatus = "healthy";
  chunksServed = 0;
  bytes = 0;
  downMs = 0;
  note: string | null = null;
  private latencyMs: number;
  private mbps: number;
  private readonly samples: (number | null)[] = [];

  constructor(
    readonly node: number,
    private readonly random: Random,
  ) {
    [this.latencyMs, this.mbps] = PACE[node] ?? [30, 30];
    for (let at = 0; at < SAMPLES; at += 1) this.measure();
  }

  get name(): string {
    return `node-${this.node + 1}`;
  }

  /** Bandwidth over latency, as the base policy weighs them; a node that is down has none. */
  get score(): number {
    return this.status === "down" ? 0 : (this.mbps / (this.latencyMs + 10)) * 10;
  }

  measure(): void {
    const [latencyMs, mbps] = PACE[this.node] ?? [30, 30];
    this.latencyMs += (latencyMs - this.latencyMs) * 0.2 + between(this.random, -2, 2);
    this.mbps += (mbps - this.mbps) * 0.2 + between(this.random, -2.5, 2.5);
    this.samples.push(this.status === "down" ? null : this.score);
    if (this.samples.length > SAMPLES) this.samples.shift();
  }

  /** `allBytes`: of the whole session. */
  card(allBytes: number): NodeCard {
    const down = this.status === "down";
    return {
      node_id: `10000000-0000-4000-8000-00000000000${this.node + 1}`,
      name: this.name,
      node: this.node,
      status: this.status,
      score: this.score,
      latency_ms: down ? null : this.latencyMs,
      bandwidth_mbps: down ? null : this.mbps,
      success_percent: down ? 71 : 100,
      bytes: this.bytes,
      share_percent: allBytes > 0 ? (this.bytes / allBytes) * 100 : 0,
      chunks: this.chunksServed,
      note: this.note,
      chart_svg: chart(this.samples, NODE_COLORS[this.node] ?? NODE_COLORS[0], `${this.name}: score over the last 30 s`),
    };
  }
}

/** The same shape that vstack-charts draws: an area and a line for each run, a red line where samples are missing. */
function chart(samples: readonly (number | null)[], color: string, title: string): string {
  const width = 300;
  const height = 38;
  const high = Math.max(1, ...samples.map((value) => value ?? 0)) * 1.1;
  const x = (at: number): string => ((at / (SAMPLES - 1)) * width).toFixed(1);
  const y = (value: number): string => (height - 2 - (value / high) * (height - 4)).toFixed(1);
  const runs: number[][] = [];
  samples.forEach((value, at) => {
    if (value === null) return;
    if (at === 0 || samples[at - 1] === null) runs.push([]);
    runs.at(-1)?.push(at);
  });
  const lines = runs.map((run) => {
    const points = run.map((at) => `${x(at)},${y(samples[at] ?? 0)}`).join(" ");
    const floor = `${x(run.at(-1) ?? 0)},${height - 2} ${x(run[0] ?? 0)},${height - 2}`;
    return `<polygon fill="${color}" opacity="0.16" points="${points} ${floor}"/><polyline fill="none" stroke="${color}" stroke-width="2" points="${points}"/>`;
  });
  const from = samples.indexOf(null);
  const gap = from < 0 ? "" : `<polyline fill="none" stroke="#ff6b6b" opacity="0.7" points="${x(from)},${height - 2} ${x(samples.lastIndexOf(null))},${height - 2}"/>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" role="img" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" preserveAspectRatio="none"><title>${title}</title>${gap}${lines.join("")}</svg>`;
}
