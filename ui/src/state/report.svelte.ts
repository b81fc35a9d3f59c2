// The figures of the open video's session while they are looked at, and its trace.

import type { Backend, Report } from "../backend/backend";
import type { Toasts } from "./toasts.svelte";

/** Figures are read, not watched. */
export const REPORT_EVERY_MS = 500;

export class SessionReport {
  shown = $state(false);
  /** Null until the program has answered. */
  report = $state<Report | null>(null);
  /** The file that the trace was saved to last. */
  savedTo = $state<string | null>(null);
  saving = $state(false);
  private timer: ReturnType<typeof setInterval> | null = null;

  constructor(
    private readonly backend: Pick<Backend, "getReport" | "saveTrace">,
    private readonly toasts: Toasts,
  ) {}

  toggle(): void {
    if (this.shown) this.hide();
    else this.show();
  }

  hide(): void {
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
    this.shown = false;
    this.report = null;
    this.savedTo = null;
  }

  /** Saves what was written of the session's trace so far. */
  async saveTrace(): Promise<void> {
    if (this.saving) return;
    this.saving = true;
    try {
      this.savedTo = await this.backend.saveTrace();
    } catch (thrown) {
      this.toasts.error(thrown);
    }
    this.saving = false;
  }

  private show(): void {
    this.shown = true;
    this.timer = setInterval(() => void this.read(), REPORT_EVERY_MS);
    void this.read();
  }

  /** The next answer may be another; one that fails changes nothing. */
  private async read(): Promise<void> {
    try {
      const report = await this.backend.getReport();
      if (this.shown) this.report = report;
    } catch (thrown) {
      console.debug("no report", thrown);
    }
  }
}
