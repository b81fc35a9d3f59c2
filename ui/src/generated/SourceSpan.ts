// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.

/**
 * A part of the seek bar that one node filled.
 */
export type SourceSpan = { start_ms: number, end_ms: number,
/**
 * The node's place in the client's list; five colours repeat along it.
 */
node: number, };
