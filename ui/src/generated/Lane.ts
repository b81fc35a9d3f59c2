// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.
import type { LaneBar } from "./LaneBar";

/**
 * The downloads from one node.
 */
export type Lane = {
/**
 * As in [`NodeCard`].
 */
node: number, bars: Array<LaneBar>, };
