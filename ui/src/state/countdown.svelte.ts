// Something that happens by itself unless somebody says no.

const STEP_MS = 1000;

export class Countdown {
  /** Until it happens; null: nothing is going to happen. */
  leftMs = $state<number | null>(null);
  private timer: ReturnType<typeof setInterval> | null = null;

  start(afterMs: number, run: () => void): void {
    this.stop();
    this.leftMs = afterMs;
    this.timer = setInterval(() => {
      this.leftMs = (this.leftMs ?? 0) - STEP_MS;
      if (this.leftMs > 0) return;
      this.stop();
      run();
    }, STEP_MS);
  }

  stop(): void {
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
    this.leftMs = null;
  }
}
