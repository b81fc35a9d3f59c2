// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.
import type { LaneOutcome } from "./LaneOutcome";

/**
 * One download; 0 is 30 s ago, 1 is now.
 */
export type LaneBar = { start: number, end: number, outcome: LaneOutcome, };
