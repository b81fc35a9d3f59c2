// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.

/**
 * Where the page leaves room for the picture: CSS pixels from the page's corner, and the scale that makes device
 * pixels of them.
 */
export type VideoRect = { x: number, y: number, width: number, height: number, scale: number, };
