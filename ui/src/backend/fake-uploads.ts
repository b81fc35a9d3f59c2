// Uploads of the fake cluster: they pass through every phase; a file that is no video fails as the real one does.

import type { UploadItem } from "../generated";

const BYTES_PER_SEC = 38_000_000;

export class FakeUploads {
  items: UploadItem[] = [];
  private nextId = 1;

  add(path: string): UploadItem {
    const item: UploadItem = {
      upload_id: `upload-${this.nextId++}`,
      file_name: path.split("/").at(-1) ?? path,
      phase: "sending",
      sent_bytes: 0,
      total_bytes: 700_000_000 + this.nextId * 40_000_000,
      percent: 0,
      speed_bytes_per_sec: BYTES_PER_SEC,
      eta_sec: null,
      video_id: null,
      note: null,
      error: null,
    };
    this.items = [...this.items, item];
    return item;
  }

  cancel(uploadId: string): void {
    this.change(uploadId, { phase: "cancelled" });
  }

  dismiss(uploadId: string): void {
    this.items = this.items.filter((item) => item.upload_id !== uploadId);
  }

  /** Returns the uploads that ended in this step. */
  advance(deltaMs: number): UploadItem[] {
    const ended: UploadItem[] = [];
    this.items = this.items.map((item) => {
      const after = step(item, (BYTES_PER_SEC * deltaMs) / 1000);
      if (after.phase === "done" && item.phase !== "done") ended.push(after);
      return after;
    });
    return ended;
  }

  private change(uploadId: string, change: Partial<UploadItem>): void {
    this.items = this.items.map((item) => (item.upload_id === uploadId ? { ...item, ...change } : item));
  }
}

function step(item: UploadItem, moreBytes: number): UploadItem {
  if (item.phase === "done" || item.phase === "failed" || item.phase === "cancelled") return item;
  const sent = Math.min(item.total_bytes, item.sent_bytes + moreBytes);
  const percent = Math.min(100, item.percent + (moreBytes / item.total_bytes) * 82);
  if (percent > 4 && !/\.(mp4|mkv|mov|webm|avi)$/i.test(item.file_name)) return refused(item);
  const phase = percent >= 100 ? "done" : percent > 96 ? "finalizing" : percent > 14 ? "storing" : percent > 9 ? "splitting" : "sending";
  return {
    ...item,
    phase,
    percent,
    sent_bytes: sent,
    eta_sec: ((100 - percent) / 82) * (item.total_bytes / BYTES_PER_SEC),
    video_id: phase === "done" ? `20000000-0000-4000-8000-${item.upload_id.slice(7).padStart(12, "0")}` : null,
    note: phase === "storing" && item.upload_id === "upload-2" ? "node-2 is full, placing on node-4 instead" : null,
  };
}

function refused(item: UploadItem): UploadItem {
  return {
    ...item,
    phase: "failed",
    error: {
      code: "unsupported_format",
      message: "This file is a ZIP archive, not a video.",
      next_step: "Unpack it and add the video inside, or choose another file.",
    },
  };
}
