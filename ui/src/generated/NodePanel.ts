// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.
import type { Lane } from "./Lane";
import type { LogLine } from "./LogLine";
import type { NodeCard } from "./NodeCard";

/**
 * The whole node panel: nodes, the last 30 s of downloads, and what was decided.
 */
export type NodePanel = { nodes: Array<NodeCard>, lanes: Array<Lane>, log: Array<LogLine>, };
