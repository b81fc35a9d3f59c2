// What the viewer wants to watch next, in order. It ends with the window: tomorrow other things are next.

import type { VideoCard } from "../backend/backend";

export class Queue {
  private cards = $state<VideoCard[]>([]);

  /** `known` gives a card as the library has it now, with the title that it has now. */
  constructor(private readonly known: (card: VideoCard) => VideoCard) {}

  get list(): VideoCard[] {
    return this.cards.map(this.known);
  }

  get first(): VideoCard | null {
    return this.list[0] ?? null;
  }

  /** 1 for the first; 0: it is not in here. */
  place(videoId: string): number {
    return this.cards.findIndex((card) => card.video_id === videoId) + 1;
  }

  /** To the end, or out. Only what can be watched comes in. */
  toggle(video: VideoCard): void {
    if (this.place(video.video_id) > 0) this.remove(video.video_id);
    else if (video.status === "active") this.cards = [...this.cards, video];
  }

  remove(videoId: string): void {
    this.cards = this.cards.filter((card) => card.video_id !== videoId);
  }

  clear(): void {
    this.cards = [];
  }
}
