// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.

/**
 * One decision of the smart client, as a sentence.
 */
export type LogLine = {
/**
 * `HH:MM:SS`, local time.
 */
at: string, text: string, };
