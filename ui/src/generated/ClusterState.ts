// Made from src-tauri/src/dto.rs by `cargo test -p vstack-player export_bindings`. Not edited by hand.
import type { ClusterPhase } from "./ClusterPhase";
import type { UiError } from "./UiError";

/**
 * The cluster that this player is connected to.
 */
export type ClusterState = { phase: ClusterPhase, metadata_url: string | null, healthy: number, total: number,
/**
 * Of the fullest node.
 */
disk_usage_percent: number, error: UiError | null,
/**
 * The player started this cluster itself and stops it when it exits.
 */
own_cluster: boolean, };
