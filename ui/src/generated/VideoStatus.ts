// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.

/**
 * State of a video in the catalogue.
 */
export type VideoStatus = "uploading" | "active" | "deleted";
