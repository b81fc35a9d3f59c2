// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.

export type UploadPhase = "sending" | "queued" | "splitting" | "storing" | "finalizing" | "done" | "failed" | "cancelled";
