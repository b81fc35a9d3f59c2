// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.
import type { VideoCard } from "./VideoCard";

/**
 * One page of the library.
 */
export type LibraryPage = { videos: Array<VideoCard>,
/**
 * Matches in all pages.
 */
total: number, };
