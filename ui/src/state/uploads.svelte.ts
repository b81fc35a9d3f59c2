// Files on their way into the library.

import type { Backend, Stop, UploadItem, UploadPhase } from "../backend/backend";
import type { Toasts } from "./toasts.svelte";

export function isFinal(phase: UploadPhase): boolean {
  return phase === "done" || phase === "failed" || phase === "cancelled";
}

/** What is happening, in words; the item's own note says more when there is one. */
export const PHASE_WORDS: Readonly<Record<UploadPhase, string>> = {
  sending: "sending",
  queued: "waiting for its turn",
  splitting: "splitting into chunks",
  storing: "storing on 3 nodes",
  finalizing: "finishing",
  done: "in the library",
  failed: "failed",
  cancelled: "cancelled",
};

/** Running first, then what needs the user, then what is over. */
const ORDER: readonly UploadPhase[] = ["finalizing", "storing", "splitting", "sending", "queued", "failed", "done", "cancelled"];

export class Uploads {
  items = $state<UploadItem[]>([]);

  constructor(
    private readonly backend: Backend,
    private readonly toasts: Toasts,
    /** A video came into the library. */
    private readonly onDone: (item: UploadItem) => void,
  ) {}

  start(): Stop {
    this.backend.listUploads().then(
      (items) => this.accept(items),
      (thrown: unknown) => this.toasts.error(thrown),
    );
    return this.backend.watchUploads((items) => this.accept(items));
  }

  get running(): number {
    return this.items.filter((item) => !isFinal(item.phase)).length;
  }

  /** Cancelled ones are gone for the user: it was their wish. */
  get listed(): UploadItem[] {
    const rank = (item: UploadItem): number => (isFinal(item.phase) ? ORDER.indexOf(item.phase) : 0);
    return this.items.filter((item) => item.phase !== "cancelled").sort((a, b) => rank(a) - rank(b));
  }

  get finished(): UploadItem[] {
    return this.items.filter((item) => item.phase === "done");
  }

  async pick(): Promise<void> {
    try {
      await this.add(await this.backend.pickFiles());
    } catch (thrown) {
      this.toasts.error(thrown);
    }
  }

  async add(paths: string[]): Promise<void> {
    if (paths.length === 0) return;
    try {
      const started = await this.backend.startUploads({ paths });
      const known = this.items.filter((item) => !started.some((other) => other.upload_id === item.upload_id));
      this.accept([...known, ...started]);
    } catch (thrown) {
      this.toasts.error(thrown);
    }
  }

  async cancel(item: UploadItem): Promise<void> {
    await this.backend.cancelUpload({ uploadId: item.upload_id }).catch((thrown: unknown) => this.toasts.error(thrown));
  }

  async dismiss(item: UploadItem): Promise<void> {
    this.items = this.items.filter((other) => other.upload_id !== item.upload_id);
    await this.backend.dismissUpload({ uploadId: item.upload_id }).catch((thrown: unknown) => this.toasts.error(thrown));
  }

  async dismissFinished(): Promise<void> {
    await Promise.all(this.finished.map((item) => this.dismiss(item)));
  }

  private accept(items: UploadItem[]): void {
    const wasRunning = new Set(this.items.filter((item) => !isFinal(item.phase)).map((item) => item.upload_id));
    this.items = items;
    for (const item of items) {
      if (item.phase === "done" && wasRunning.has(item.upload_id)) this.onDone(item);
    }
  }
}
