// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.
import type { ReportAhead } from "./ReportAhead";
import type { ReportFault } from "./ReportFault";
import type { ReportNode } from "./ReportNode";
import type { SourcePolicy } from "./SourcePolicy";

/**
 * What the open video's session has come to: the figures that `vstack play` prints.
 */
export type Report = {
/**
 * The one that decides now.
 */
policy: SourcePolicy,
/**
 * Since the video was opened.
 */
session_ms: number,
/**
 * From opening to the first picture; `null` until then.
 */
startup_ms: number | null, stalls: number, stall_ms: number,
/**
 * Over the time of playing, as long as the end of the video did not limit it.
 */
avg_buffer_s: number,
/**
 * For a twentieth of that time the buffer was lower.
 */
p5_buffer_s: number, min_buffer_s: number,
/**
 * Delivered at least once, and chunks of the video.
 */
chunks: number, total_chunks: number,
/**
 * Verified.
 */
bytes: number,
/**
 * Received and of no use.
 */
wasted_bytes: number,
/**
 * Asked for although another request was running for them.
 */
hedged_bytes: number, requests_per_chunk: number, failovers: number,
/**
 * Chunks or blocks that came with the wrong hash; none of their bytes were played.
 */
hash_failures: number, nodes: Array<ReportNode>, faults: Array<ReportFault>, ahead: ReportAhead, };
