// Tells the program where the page leaves room for the picture.

import type { Backend, VideoRect } from "../backend/backend";

/**
 * Svelte action for the element that the video fills. Reports at once, at every change of its box or of the window's
 * scale, and null when the element goes.
 */
export function videoRect(stage: HTMLElement, backend: Backend): { destroy: () => void } {
  let last = "";
  const report = (rect: VideoRect | null): void => {
    const text = JSON.stringify(rect);
    if (text === last) return;
    last = text;
    // Only the picture's place depends on it; the next change of the layout tries again.
    backend.setVideoRect({ rect }).catch((thrown: unknown) => console.error("video area", thrown));
  };
  const measure = (): void => {
    const { x, y, width, height } = stage.getBoundingClientRect();
    report({ x, y, width, height, scale: window.devicePixelRatio });
  };
  const watcher = new ResizeObserver(measure);
  watcher.observe(stage);
  window.addEventListener("resize", measure);
  measure();
  return {
    destroy: () => {
      watcher.disconnect();
      window.removeEventListener("resize", measure);
      report(null);
    },
  };
}
