// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.
import type { RedundancyMode } from "./RedundancyMode";
import type { VideoStatus } from "./VideoStatus";

/**
 * A video as the library grid shows it.
 */
export type VideoCard = { video_id: string, title: string, duration_sec: number, status: VideoStatus,
/**
 * RFC 3339, UTC.
 */
created_at: string, size_bytes: number, redundancy: RedundancyMode,
/**
 * Some chunks have fewer copies than they should, and more are being made.
 */
protecting: boolean, views: number,
/**
 * Whether `poster://localhost/{video_id}` answers with a picture.
 */
poster: boolean, };
