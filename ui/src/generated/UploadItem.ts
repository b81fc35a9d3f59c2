// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.
import type { UiError } from "./UiError";
import type { UploadPhase } from "./UploadPhase";

/**
 * One file on its way into the library.
 */
export type UploadItem = { upload_id: string, file_name: string, phase: UploadPhase, sent_bytes: number, total_bytes: number,
/**
 * 0 to 100 over sending and ingest together.
 */
percent: number, speed_bytes_per_sec: number, eta_sec: number | null, video_id: string | null,
/**
 * Worth telling, but no failure.
 */
note: string | null, error: UiError | null, };
