// The list of videos: search, order, paging, renaming, and deleting with a way back.

import { asUiError, type Backend, type LibrarySort, type UiError, type VideoCard } from "../backend/backend";
import { NOTE_MS, type Toasts } from "./toasts.svelte";

export const PAGE_VIDEOS = 60;
/** A page that the catalogue serves in one go. */
const LARGEST_PAGE = 200;
/** Between the last key and the question to the catalogue. */
const SEARCH_PAUSE_MS = 150;

export class Library {
  videos = $state<VideoCard[]>([]);
  total = $state(0);
  phase = $state<"loading" | "ready" | "failed">("loading");
  error = $state<UiError | null>(null);
  search = $state("");
  sort = $state<LibrarySort>("newest");
  /** Deleted, but still within the time to undo it. */
  private leaving = $state<string[]>([]);
  private question = 0;
  private newest: Promise<void> = Promise.resolve();
  private typing: ReturnType<typeof setTimeout> | null = null;

  constructor(
    private readonly backend: Backend,
    private readonly toasts: Toasts,
  ) {}

  get shown(): VideoCard[] {
    return this.videos.filter((video) => video.status !== "deleted" && !this.leaving.includes(video.video_id));
  }

  /** What comes after this video in the order shown, of those that can be watched; null: nothing, or it is not shown. */
  after(videoId: string): VideoCard | null {
    const at = this.shown.findIndex((video) => video.video_id === videoId);
    return at < 0 ? null : (this.shown.slice(at + 1).find((video) => video.status === "active") ?? null);
  }

  get hasMore(): boolean {
    return this.videos.length < this.total;
  }

  /** Reads again what is shown, from the beginning. A question that a later one overtakes ends with the later one. */
  async refresh(): Promise<void> {
    void this.ask(0, Math.min(LARGEST_PAGE, Math.max(PAGE_VIDEOS, this.videos.length)));
    let awaited: Promise<void>;
    do {
      awaited = this.newest;
      await awaited;
    } while (awaited !== this.newest);
  }

  async loadMore(): Promise<void> {
    if (this.phase === "ready" && this.hasMore) await this.ask(this.videos.length, PAGE_VIDEOS);
  }

  searchFor(text: string): void {
    this.search = text;
    if (this.typing !== null) clearTimeout(this.typing);
    this.typing = setTimeout(() => void this.ask(0, PAGE_VIDEOS), SEARCH_PAUSE_MS);
  }

  orderBy(sort: LibrarySort): void {
    this.sort = sort;
    void this.ask(0, PAGE_VIDEOS);
  }

  /** False when the catalogue refused; the old title is back then. */
  async rename(video: VideoCard, title: string): Promise<boolean> {
    const wanted = title.trim();
    if (wanted === "" || wanted === video.title) return true;
    this.retitle(video.video_id, wanted);
    try {
      await this.backend.renameVideo({ videoId: video.video_id, title: wanted });
      return true;
    } catch (thrown) {
      this.retitle(video.video_id, video.title);
      this.toasts.error(thrown);
      return false;
    }
  }

  /** The card goes at once; the video itself when the time to undo has passed. */
  remove(video: VideoCard): void {
    const id = video.video_id;
    if (this.leaving.includes(id)) return;
    this.leaving = [...this.leaving, id];
    const timer = setTimeout(() => void this.removeNow(id), NOTE_MS);
    const toast = this.toasts.note(`Deleted “${video.title}”`, {
      label: "Undo",
      run: () => {
        clearTimeout(timer);
        this.toasts.dismiss(toast);
        this.leaving = this.leaving.filter((other) => other !== id);
      },
    });
  }

  private async removeNow(id: string): Promise<void> {
    try {
      await this.backend.deleteVideo({ videoId: id });
      this.videos = this.videos.filter((video) => video.video_id !== id);
    } catch (thrown) {
      this.toasts.error(thrown);
    }
    this.leaving = this.leaving.filter((other) => other !== id);
    await this.refresh();
  }

  private retitle(id: string, title: string): void {
    this.videos = this.videos.map((video) => (video.video_id === id ? { ...video, title } : video));
  }

  /** An answer to an older question than the last is dropped. */
  private ask(offset: number, limit: number): Promise<void> {
    this.newest = this.answer(offset, limit);
    return this.newest;
  }

  private async answer(offset: number, limit: number): Promise<void> {
    const number = ++this.question;
    try {
      const page = await this.backend.listVideos({ search: this.search.trim(), sort: this.sort, offset, limit });
      if (number !== this.question) return;
      const known = offset === 0 ? [] : this.videos;
      const fresh = page.videos.filter((video) => !known.some((other) => other.video_id === video.video_id));
      this.videos = [...known, ...fresh];
      this.total = page.total;
      this.phase = "ready";
      this.error = null;
    } catch (thrown) {
      if (number !== this.question) return;
      this.error = asUiError(thrown);
      this.phase = "failed";
    }
  }
}
