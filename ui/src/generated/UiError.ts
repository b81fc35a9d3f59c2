// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.

/**
 * A failure in words: what happened, and what the user can do about it.
 */
export type UiError = {
/**
 * Stable; the page may choose an icon by it, never a text.
 */
code: string, message: string, next_step: string, };
