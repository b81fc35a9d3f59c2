// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.

/**
 * Order of the library.
 */
export type LibrarySort = "newest" | "title" | "duration" | "views";
