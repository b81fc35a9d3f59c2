// One playback on the fake cluster: fetches chunks from the best nodes, plays them, fails over when a node dies.
// Pure: time comes in through `advance`.

import type { Lane, LaneBar, LogLine, NodePanel, Playback, Report, SourceSpan, VideoCard } from "../generated";
import { FakeNode } from "./fake-nodes";
import { between, seeded } from "./fake-random";

const CHUNK_MS = 4_000;
const CHUNK_BYTES = 2_097_152;
const TARGET_BUFFER_MS = 30_000;
const LANES_MS = 30_000;
const DOWNLOADS_AT_ONCE = 4;

interface Download {
  seq: number;
  node: FakeNode;
  startMs: number;
  endMs: number;
  outcome: LaneBar["outcome"];
}

export class FakeSession {
  readonly nodes: FakeNode[];
  playback: Playback;
  log: LogLine[] = [];
  /** After this much playing the node that serves most dies; Infinity for a calm evening. */
  failAfterMs = 12_000;
  private nowMs = 0;
  private playedMs = 0;
  private measuredMs = 0;
  private downloads: Download[] = [];
  private readonly chunks = new Map<number, number>();
  private readonly random = seeded(42);

  constructor(video: VideoCard) {
    this.nodes = [0, 1, 2, 3, 4].map((node) => new FakeNode(node, this.random));
    this.playback = {
      video_id: video.video_id, title: video.title, phase: "loading", position_ms: 0, duration_ms: video.duration_sec * 1000,
      volume: 0.8, muted: false, fullscreen: false, buffer_ms: 0, startup_ms: null, stalls: 0, policy: "pool", spans: [], error: null,
    };
  }

  advance(deltaMs: number): void {
    this.nowMs += deltaMs;
    this.play(deltaMs);
    this.finishDownloads();
    this.startDownloads();
    this.tellPhase();
    for (const node of this.nodes) if (node.status === "down") node.downMs += deltaMs;
    if (this.playedMs >= this.failAfterMs) this.killBusiest();
    for (; this.measuredMs + 250 <= this.nowMs; this.measuredMs += 250) this.nodes.forEach((node) => node.measure());
  }

  seek(positionMs: number): void {
    this.playback.position_ms = positionMs;
    if (this.playback.phase === "ended") this.playback.phase = "paused";
    this.downloads = this.downloads.filter((d) => d.outcome !== "running");
    this.tellPhase();
  }

  panel(): NodePanel {
    const used = [...this.nodes].sort((a, b) => Number(a.status === "down") - Number(b.status === "down") || b.score - a.score);
    return { nodes: used.map((node) => node.card(this.bytes())), lanes: this.lanes(), log: this.log };
  }

  report(): Report {
    const { policy, startup_ms, stalls, duration_ms } = this.playback;
    const bytes = this.bytes();
    const down = this.nodes.find((node) => node.status === "down");
    return {
      policy, startup_ms, stalls, session_ms: this.nowMs, stall_ms: 0, avg_buffer_s: 28.4, p5_buffer_s: 24.1, min_buffer_s: 3.6,
      chunks: this.chunks.size, total_chunks: Math.ceil(duration_ms / CHUNK_MS), bytes, wasted_bytes: down === undefined ? 0 : 1_310_720, hedged_bytes: 524_288,
      requests_per_chunk: 4.2, failovers: down === undefined ? 0 : 1, hash_failures: 0,
      nodes: this.nodes.map(({ name, node, bytes: own }) => ({ name, node, bytes: own, share_percent: bytes > 0 ? (own / bytes) * 100 : 0 })),
      faults: down === undefined ? [] : [{ name: down.name, node: down.node, failure: "silent for 0.7 s", times: 3, detect_p50_ms: 700, detect_max_ms: 912, wasted_bytes: 1_310_720 }],
      ahead: { bytes: 2_097_152, used_bytes: 0, wasted_bytes: 0 },
    };
  }

  private play(deltaMs: number): void {
    const playback = this.playback;
    if (playback.phase !== "playing" && playback.phase !== "buffering") return;
    const playable = Math.min(deltaMs, this.bufferMs());
    this.playedMs += playable;
    playback.position_ms += playable;
    if (playback.position_ms >= playback.duration_ms) playback.phase = "ended";
  }

  private finishDownloads(): void {
    for (const download of this.downloads) {
      if (download.outcome !== "running" || download.endMs > this.nowMs) continue;
      download.outcome = "done";
      download.node.chunksServed += 1;
      this.bring(download.node);
      this.chunks.set(download.seq, download.node.node);
    }
    this.downloads = this.downloads.filter((d) => d.outcome === "running" || d.endMs > this.nowMs - LANES_MS);
  }

  /** Most of a chunk comes from one node, the rest from the others that live. */
  private bring(most: FakeNode): void {
    const others = this.nodes.filter((node) => node !== most && node.status !== "down");
    most.bytes += CHUNK_BYTES * 0.6;
    for (const node of others) node.bytes += (CHUNK_BYTES * 0.4) / others.length;
  }

  private bytes(): number {
    return this.nodes.reduce((sum, node) => sum + node.bytes, 0);
  }

  private startDownloads(): void {
    const running = this.downloads.filter((d) => d.outcome === "running");
    const first = Math.floor(this.playback.position_ms / CHUNK_MS);
    const last = Math.min(Math.ceil(this.playback.duration_ms / CHUNK_MS) - 1, first + TARGET_BUFFER_MS / CHUNK_MS);
    for (let seq = first; seq <= last && running.length < DOWNLOADS_AT_ONCE; seq += 1) {
      if (this.chunks.has(seq) || running.some((d) => d.seq === seq)) continue;
      running.push(this.startDownload(seq));
    }
  }

  private startDownload(seq: number): Download {
    // Three replicas of each chunk; the best of them serves it.
    const replicas = this.nodes.filter((node) => (node.node + seq * 2) % 5 < 3 && node.status !== "down");
    const node = replicas.sort((a, b) => b.score - a.score)[0] ?? this.nodes[0] ?? new FakeNode(0, this.random);
    const tookMs = between(this.random, 700, 2400) + node.node * 350;
    const download: Download = { seq, node, startMs: this.nowMs, endMs: this.nowMs + tookMs, outcome: "running" };
    this.downloads.push(download);
    return download;
  }

  private tellPhase(): void {
    const playback = this.playback;
    playback.buffer_ms = this.bufferMs();
    playback.spans = this.spans();
    const hasData = playback.buffer_ms > 0;
    if (playback.phase === "loading" && hasData) {
      playback.startup_ms = 410;
      playback.phase = "playing";
    } else if (playback.phase === "playing" && !hasData) playback.phase = "buffering";
    else if (playback.phase === "buffering" && hasData) playback.phase = "playing";
  }

  private bufferMs(): number {
    let end = Math.floor(this.playback.position_ms / CHUNK_MS);
    while (this.chunks.has(end)) end += 1;
    return Math.max(0, Math.min(end * CHUNK_MS, this.playback.duration_ms) - this.playback.position_ms);
  }

  private spans(): SourceSpan[] {
    const spans: SourceSpan[] = [];
    for (const [seq, node] of [...this.chunks].sort(([a], [b]) => a - b)) {
      const last = spans.at(-1);
      const end_ms = Math.min((seq + 1) * CHUNK_MS, this.playback.duration_ms);
      if (last?.node === node && last.end_ms === seq * CHUNK_MS) last.end_ms = end_ms;
      else spans.push({ start_ms: seq * CHUNK_MS, end_ms, node });
    }
    return spans;
  }

  private killBusiest(): void {
    const victim = [...this.nodes].sort((a, b) => b.chunksServed - a.chunksServed)[0];
    const cut = this.downloads.filter((d) => d.node === victim && d.outcome === "running");
    // In the middle of a download, where it hurts.
    if (victim === undefined || cut.length === 0) return;
    this.failAfterMs = Infinity;
    victim.status = "down";
    for (const download of cut) {
      download.outcome = "failed";
      download.endMs = this.nowMs;
    }
    const next = this.nodes.filter((node) => node.status !== "down").sort((a, b) => b.score - a.score)[0];
    victim.note = `${cut.length === 1 ? "1 download" : `${cut.length} downloads`} moved to ${next?.name ?? "nobody"}`;
    const at = new Date(Date.UTC(2024, 5, 15, 12, 4) + this.nowMs).toISOString().slice(11, 19);
    const seq = cut[0]?.seq ?? Math.floor(this.playback.position_ms / CHUNK_MS) + 1;
    this.log = [{ at, text: `${victim.name} stopped answering, chunk ${seq} goes on from ${next?.name ?? "nobody"}` }, ...this.log];
  }

  private lanes(): Lane[] {
    const place = (ms: number): number => Math.min(1, Math.max(0, 1 - (this.nowMs - ms) / LANES_MS));
    return this.nodes.map((node) => ({
      node: node.node,
      bars: this.downloads
        .filter((d) => d.node === node && d.startMs < this.nowMs)
        .map((d) => ({ start: place(d.startMs), end: place(Math.min(d.endMs, this.nowMs)), outcome: d.outcome })),
    }));
  }
}
