// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.
import type { PlaybackPhase } from "./PlaybackPhase";
import type { SourcePolicy } from "./SourcePolicy";
import type { SourceSpan } from "./SourceSpan";
import type { UiError } from "./UiError";

/**
 * The open video.
 */
export type Playback = { video_id: string, title: string, phase: PlaybackPhase, position_ms: number, duration_ms: number,
/**
 * 0 to 1.
 */
volume: number, muted: boolean, fullscreen: boolean,
/**
 * Playable without another byte from the network.
 */
buffer_ms: number,
/**
 * From opening to the first picture; `null` until then.
 */
startup_ms: number | null, stalls: number,
/**
 * The one that decides now.
 */
policy: SourcePolicy, spans: Array<SourceSpan>, error: UiError | null, };
