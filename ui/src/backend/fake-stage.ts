// The fake cluster in a browser window (npm run dev): scenes by the address, files by drag and drop, a picture under
// the page. `?scene=empty|starting|offline|uploads` chooses what is there.

import { FakeBackend } from "./fake";
import { fakePoster } from "./fake-library";

export function stagedBackend(): FakeBackend {
  const query = new URLSearchParams(location.search);
  const backend = new FakeBackend();
  setScene(backend, query.get("scene") ?? "");
  listenForFiles(backend);
  hangPicture();
  backend.run();
  backend.advance(Number(query.get("advance_ms") ?? 0));
  return backend;
}

function setScene(backend: FakeBackend, scene: string): void {
  if (scene === "empty") backend.videos = [];
  if (scene === "uploads") {
    for (const file of ["field-trip.mkv", "lecture-07.mp4", "holiday-pictures.zip"]) backend.uploads.add(`/home/ada/${file}`);
    backend.advance(9_000);
  }
  if (scene === "starting") backend.setCluster({ phase: "starting", metadata_url: null, healthy: 0, total: 0 });
  if (scene === "offline") {
    backend.setCluster({
      phase: "unreachable", metadata_url: "http://192.0.2.7:7100", healthy: 0, total: 0, own_cluster: false,
      error: {
        code: "unavailable",
        message: "The cluster at 192.0.2.7:7100 does not answer.",
        next_step: "Check that it runs (vstack status) and that this computer is on its network; the player keeps trying.",
      },
    });
    const refused = backend.cluster.error;
    if (refused !== null) backend.refuse.set("listVideos", refused);
  }
}

function listenForFiles(backend: FakeBackend): void {
  window.addEventListener("dragover", (event) => {
    event.preventDefault();
    backend.drag({ kind: "over" });
  });
  window.addEventListener("dragleave", () => backend.drag({ kind: "left" }));
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    backend.drag({ kind: "dropped", paths: [...(event.dataTransfer?.files ?? [])].map((file) => file.name) });
  });
}

/** Stands for the native surface: under the page, over nothing. */
function hangPicture(): void {
  const picture = document.createElement("div");
  picture.style.cssText = `position:fixed;inset:0;z-index:-1;background:#000 url("${fakePoster("stage")}") center/cover`;
  document.body.prepend(picture);
}
