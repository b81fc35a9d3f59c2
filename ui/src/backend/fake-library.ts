// The videos of the fake cluster, with drawn posters.

import type { LibraryPage, VideoCard } from "../generated";
import type { LibraryQuery } from "./backend";

type Row = [title: string, minutes: number, views: number, redundancy: VideoCard["redundancy"], protecting?: boolean];

const ROWS: readonly Row[] = [
  ["Sintel", 14.8, 312, "erasure"],
  ["Lecture 06: Paxos", 52.17, 48, "replicated"],
  ["Big Buck Bunny", 9.94, 1204, "replicated"],
  ["Tears of Steel", 12.24, 87, "erasure"],
  ["Harbour, night drive", 62.67, 9, "replicated", true],
  ["Garden timelapse", 3.35, 12, "erasure"],
  ["Field trip 2024", 27.5, 31, "replicated"],
  ["First light", 1, 1, "replicated"],
];

export function fakeVideos(): VideoCard[] {
  return ROWS.map(([title, minutes, views, redundancy, protecting = false], at) => ({
    video_id: `00000000-0000-4000-8000-00000000000${at + 1}`,
    title,
    duration_sec: Math.round(minutes * 60),
    status: "active",
    created_at: new Date(Date.UTC(2024, 5, 14 - at, 9, 30)).toISOString(),
    size_bytes: Math.round(minutes * 60 * 215_000),
    redundancy,
    protecting,
    views,
    poster: true,
  }));
}

export function fakePage(videos: readonly VideoCard[], query: LibraryQuery): LibraryPage {
  const wanted = query.search.toLowerCase();
  const found = videos.filter((video) => video.title.toLowerCase().includes(wanted));
  const order: Record<LibraryQuery["sort"], (a: VideoCard, b: VideoCard) => number> = {
    newest: (a, b) => b.created_at.localeCompare(a.created_at),
    title: (a, b) => a.title.localeCompare(b.title),
    duration: (a, b) => b.duration_sec - a.duration_sec,
    views: (a, b) => b.views - a.views,
  };
  const sorted = [...found].sort(order[query.sort]);
  return { videos: sorted.slice(query.offset, query.offset + query.limit), total: found.length };
}

const SKIES = ["#7fa6d6,#23344f", "#d9a05b,#4a2318", "#9cc49a,#1d3a2a", "#c08bb4,#2d1b33", "#5f7fa8,#0b1220", "#d8c86a,#3a3413"] as const;

/** A landscape: sky, sun, two ranges of hills. */
export function fakePoster(videoId: string): string {
  const seed = [...videoId].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 9973, 7);
  const [top, bottom] = (SKIES[seed % SKIES.length] ?? SKIES[0]).split(",");
  const hill = (base: number, step: number): string =>
    Array.from({ length: 17 }, (_, x) => `${x * 40},${Math.round(base + Math.sin(x * 0.9 + seed * step) * 26 + Math.sin(x * 0.37 * step + seed) * 22)}`).join(" ");
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 360" preserveAspectRatio="xMidYMid slice">
<defs><linearGradient id="s" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="${top}"/><stop offset="1" stop-color="${bottom}"/></linearGradient></defs>
<rect width="640" height="360" fill="url(#s)"/><circle cx="${120 + (seed % 400)}" cy="${90 + (seed % 60)}" r="34" fill="#fff" opacity=".75"/>
<polygon points="0,360 ${hill(215, 1.3)} 640,360" fill="${bottom}" opacity=".55"/><polygon points="0,360 ${hill(275, 2.1)} 640,360" fill="${bottom}"/></svg>`;
  return `data:image/svg+xml,${encodeURIComponent(svg)}`;
}
