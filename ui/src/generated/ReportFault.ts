// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.

/**
 * The faults of one kind on one node.
 */
export type ReportFault = { name: string,
/**
 * As in [`NodeCard`].
 */
node: number,
/**
 * The latest of them, in words that follow the node's name.
 */
failure: string, times: number,
/**
 * From the node's last sign of life to the decision to leave it: the median, and the longest.
 */
detect_p50_ms: number, detect_max_ms: number, wasted_bytes: number, };
