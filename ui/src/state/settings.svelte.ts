// What the user sets for this and every later start. The program keeps it.

import type { Backend, SourcePolicy } from "../backend/backend";
import type { Toasts } from "./toasts.svelte";

export class Settings {
  shown = $state(false);
  /** Null until the program has said. */
  policy = $state<SourcePolicy | null>(null);

  constructor(
    private readonly backend: Backend,
    private readonly toasts: Toasts,
  ) {}

  /** What is set now is read first: the dialog puts the focus on it. */
  async show(): Promise<void> {
    await this.read();
    this.shown = true;
  }

  hide(): void {
    this.shown = false;
  }

  /** For the open video at once, for later ones, and for the next start. */
  async setPolicy(policy: SourcePolicy): Promise<void> {
    this.policy = policy;
    try {
      await this.backend.setPolicy({ policy });
    } catch (thrown) {
      this.toasts.error(thrown);
      // It may be in force and only not kept: the program knows.
      await this.read();
    }
  }

  private async read(): Promise<void> {
    try {
      this.policy = await this.backend.getPolicy();
    } catch (thrown) {
      this.toasts.error(thrown);
    }
  }
}
