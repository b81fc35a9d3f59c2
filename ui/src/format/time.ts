// Times as people read them. A duration that is unknown or nonsense reads as 0:00, never as NaN.

/** 338_000 -> "5:38", 3_760_000 -> "1:02:40". */
export function clock(ms: number): string {
  const total = Number.isFinite(ms) && ms > 0 ? Math.floor(ms / 1000) : 0;
  const seconds = String(total % 60).padStart(2, "0");
  const minutes = Math.floor(total / 60) % 60;
  const hours = Math.floor(total / 3600);
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, "0")}:${seconds}` : `${minutes}:${seconds}`;
}

/** The same for a screen reader: "5 minutes 38 seconds". */
export function spoken(ms: number): string {
  const total = Number.isFinite(ms) && ms > 0 ? Math.floor(ms / 1000) : 0;
  const parts: [number, string][] = [
    [Math.floor(total / 3600), "hour"],
    [Math.floor(total / 60) % 60, "minute"],
    [total % 60, "second"],
  ];
  const said = parts.filter(([count]) => count > 0).map(([count, word]) => `${count} ${word}${count === 1 ? "" : "s"}`);
  return said.length > 0 ? said.join(" ") : "0 seconds";
}

/** 412 -> "0.41 s", 12_300 -> "12 s": two figures are all that a glance takes in. */
export function shortSeconds(ms: number): string {
  const seconds = Number.isFinite(ms) && ms > 0 ? ms / 1000 : 0;
  return `${seconds < 10 ? seconds.toFixed(seconds < 1 ? 2 : 1) : Math.round(seconds)} s`;
}

/** 28.41 -> "28.4 s": a figure of a report. */
export function seconds(value: number): string {
  return `${(Number.isFinite(value) && value > 0 ? value : 0).toFixed(1)} s`;
}

/** How long ago, in the largest unit that fits: "just now", "5 min ago", "3 days ago", then the date. */
export function ago(thenMs: number, nowMs: number): string {
  const minutes = Math.floor((nowMs - thenMs) / 60_000);
  if (!Number.isFinite(minutes)) return "";
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ago`;
  const days = Math.floor(minutes / (24 * 60));
  if (days < 30) return days === 1 ? "yesterday" : `${days} days ago`;
  return new Date(thenMs).toISOString().slice(0, 10);
}
