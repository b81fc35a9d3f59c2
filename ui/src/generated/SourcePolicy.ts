// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.

/**
 * How the sources of chunks are chosen.
 */
export type SourcePolicy = "pool" | "seed" | "round-robin" | "random" | "single";
