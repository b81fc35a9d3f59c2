// The figures of the open video's session while they are looked at, and its trace.

import type { Backend, Report } from "../backend/backend";
import type { Toasts } from "./toasts.svelte";

/** How long a button says that it has copied. */
export const COPIED_MS = 2_000;
/** Figures are read, not watched. */
export const REPORT_EVERY_MS = 500;

export class SessionReport {
  shown = $state(false);
  /** Null until the program has answered. */
  report = $state<Report | null>(null);
  /** The file that the trace was saved to last. */
  savedTo = $state<string | null>(null);
  saving = $state(false);
  /** Its path was copied just now. */
  copied = $state(false);
  private timer: ReturnType<typeof setInterval> | null = null;
  private copying: ReturnType<typeof setTimeout> | null = null;

  constructor(
    private readonly backend: Pick<Backend, "getReport" | "saveTrace" | "showTrace" | "copyText">,
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
    this.forgetCopy();
  }

  /** Saves what was written of the session's trace so far. */
  async saveTrace(): Promise<void> {
    if (this.saving) return;
    this.saving = true;
    this.forgetCopy();
    try {
      const file = await this.backend.saveTrace();
      // The report may have been closed meanwhile, with all that it says.
      if (this.shown) this.savedTo = file;
    } catch (thrown) {
      this.toasts.error(thrown);
    }
    this.saving = false;
  }

  /** Shows the file that was saved last in the desktop's file manager. */
  async showFile(): Promise<void> {
    await this.backend.showTrace().catch((thrown: unknown) => this.toasts.error(thrown));
  }

  async copyPath(): Promise<void> {
    if (this.savedTo === null) return;
    try {
      await this.backend.copyText({ text: this.savedTo });
      this.forgetCopy();
      this.copied = true;
      this.copying = setTimeout(() => this.forgetCopy(), COPIED_MS);
    } catch (thrown) {
      this.toasts.error(thrown);
    }
  }

  private forgetCopy(): void {
    if (this.copying !== null) clearTimeout(this.copying);
    this.copying = null;
    this.copied = false;
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
