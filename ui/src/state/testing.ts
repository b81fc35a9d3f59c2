// A page on a fake cluster, for the tests of the state.

import { FakeBackend } from "../backend/fake";
import type { UiError, VideoCard } from "../backend/backend";
import { App } from "./app.svelte";
import { shortMemory, type Keep } from "./positions";

export interface Page {
  app: App;
  backend: FakeBackend;
}

/** Lets every answer arrive that is on its way; fake time stands still. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

export async function startedPage(prepare: (backend: FakeBackend) => void = () => undefined, keep: Keep = shortMemory()): Promise<Page> {
  const backend = new FakeBackend();
  prepare(backend);
  const app = new App(backend, keep);
  app.start();
  await settle();
  return { app, backend };
}

export function titles(app: App): string[] {
  return app.library.shown.map((video) => video.title);
}

export function video(app: App, title: string): VideoCard {
  const found = app.library.videos.find((candidate) => candidate.title === title);
  if (found === undefined) throw new Error(`no video ${title} in ${titles(app).join(", ")}`);
  return found;
}

export const REFUSAL: UiError = { code: "unavailable", message: "The catalogue does not answer.", next_step: "Check the cluster." };
