// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.

/**
 * What one node brought.
 */
export type ReportNode = { name: string,
/**
 * As in [`NodeCard`].
 */
node: number,
/**
 * Verified.
 */
bytes: number, share_percent: number, };
