// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.

/**
 * How the chunks of a video are protected.
 */
export type RedundancyMode = "replicated" | "erasure";
