// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.

export type LaneOutcome = "done" | "running" | "failed" | "cancelled";
