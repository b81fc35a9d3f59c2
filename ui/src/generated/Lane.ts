// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.
import type { LaneBar } from "./LaneBar";

/**
 * The downloads from one node.
 */
export type Lane = {
/**
 * Colour index, 0 to 4.
 */
node: number, bars: Array<LaneBar>, };
