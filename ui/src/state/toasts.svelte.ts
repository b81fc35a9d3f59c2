// Short messages at the edge of the window. A note goes by itself; an error stays until it is dismissed.

import { asUiError } from "../backend/backend";

/** Long enough to read two lines and to reach the button. */
export const NOTE_MS = 6000;

export interface Toast {
  id: number;
  kind: "note" | "error";
  text: string;
  nextStep: string;
  action: { label: string; run: () => void } | null;
}

export class Toasts {
  list = $state<Toast[]>([]);
  private nextId = 1;

  note(text: string, action: Toast["action"] = null): number {
    const id = this.push({ kind: "note", text, nextStep: "", action });
    setTimeout(() => this.dismiss(id), NOTE_MS);
    return id;
  }

  error(thrown: unknown): number {
    const { message, next_step: nextStep } = asUiError(thrown);
    // The same failure again (a key held down) must not fill the window.
    const shown = this.list.find((toast) => toast.kind === "error" && toast.text === message);
    return shown?.id ?? this.push({ kind: "error", text: message, nextStep, action: null });
  }

  dismiss(id: number): void {
    this.list = this.list.filter((toast) => toast.id !== id);
  }

  private push(toast: Omit<Toast, "id">): number {
    const id = this.nextId++;
    this.list = [...this.list, { ...toast, id }];
    return id;
  }
}
