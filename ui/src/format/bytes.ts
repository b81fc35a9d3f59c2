// Sizes, speeds and counts. Decimal units, as disks and networks are sold.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"] as const;

/** 38_400_000 -> "38 MB", 1_540_000_000 -> "1.5 GB". */
export function bytes(count: number): string {
  let value = Number.isFinite(count) && count > 0 ? count : 0;
  let unit = 0;
  // 999.5 would round to "1000 kB".
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const figures = unit > 0 && value < 9.95 ? value.toFixed(1) : String(Math.round(value));
  return `${figures} ${UNITS[unit]}`;
}

/** 38_400_000 -> "38 MB/s". */
export function speed(bytesPerSec: number): string {
  return `${bytes(bytesPerSec)}/s`;
}

/** 47.12 -> "47.1 Mbit/s". */
export function megabits(mbps: number): string {
  return `${Number.isFinite(mbps) && mbps > 0 ? mbps.toFixed(mbps < 100 ? 1 : 0) : "0"} Mbit/s`;
}

/** 1204 -> "1 204": a thin space keeps the groups apart in every language. */
export function grouped(count: number): string {
  return String(Math.round(count)).replace(/\B(?=(\d{3})+(?!\d))/g, "\u2009");
}

/** 1, "view" -> "1 view"; 1204, "view" -> "1 204 views". */
export function counted(count: number, word: string): string {
  return `${grouped(count)} ${word}${count === 1 ? "" : "s"}`;
}

/** 61.4 -> "61 %", never outside 0 to 100. */
export function percent(value: number): string {
  return `${Math.round(Math.min(100, Math.max(0, Number.isFinite(value) ? value : 0)))} %`;
}
