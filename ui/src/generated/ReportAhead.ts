// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.

/**
 * What was fetched before anybody asked for it; beside the other figures, not among them.
 */
export type ReportAhead = { bytes: number, used_bytes: number, wasted_bytes: number, };
