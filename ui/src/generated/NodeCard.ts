// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.
import type { NodeStatus } from "./NodeStatus";

/**
 * A node as the panel shows it.
 */
export type NodeCard = { node_id: string,
/**
 * What the whole cluster calls it.
 */
name: string,
/**
 * Place in the client's list; five colours repeat along it.
 */
node: number, status: NodeStatus, score: number, latency_ms: number | null, bandwidth_mbps: number | null, success_percent: number,
/**
 * Verified, of the open video's session.
 */
bytes: number,
/**
 * Of all that this session received.
 */
share_percent: number,
/**
 * That it brought alone, or the largest part of: with ranges most chunks come from several nodes.
 */
chunks: number, note: string | null,
/**
 * A whole SVG document, drawn by `vstack-charts`.
 */
chart_svg: string, };
