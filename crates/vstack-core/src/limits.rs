//! Every limit of the product in one table, with its unit in its name and the reason for its size.

/// Largest chunk or shard a node stores. A GOP larger than this cannot be cut and is refused at ingest.
pub const MAX_CHUNK_BYTES: u64 = 64 * MIB;
/// A media chunk closes at the first keyframe past this many bytes...
pub const CHUNK_TARGET_BYTES: u64 = 4 * MIB;
/// ...or past this much time, whichever comes first (`chunk_duration_sec` of the manifest).
pub const CHUNK_TARGET_MS: u64 = 10_000;
/// A media chunk grows beyond this only when one GOP alone is larger.
pub const CHUNK_SOFT_MAX_BYTES: u64 = 16 * MIB;
/// The nominal chunk size that manifests carry (`chunk_size_bytes`); real sizes are per chunk.
pub const CHUNK_NOMINAL_BYTES: u64 = 2 * MIB;
/// Largest JSON body a role reads.
pub const MAX_JSON_BYTES: usize = 1024 * 1024;
/// Largest manifest a client reads: about 200 000 chunks.
pub const MAX_MANIFEST_BYTES: u64 = 64 * MIB;
/// Longest title, in Unicode scalar values (a grapheme has at least one).
pub const MAX_TITLE_CHARS: usize = 200;
/// Longest label of a failure domain.
pub const MAX_LABEL_BYTES: usize = 64;
/// Largest side of a picture, in pixels.
pub const MAX_PICTURE_SIDE_PX: u32 = 8192;
/// Streams in one uploaded file.
pub const MAX_STREAMS: usize = 32;
/// Longest video.
pub const MAX_VIDEO_MS: u64 = 24 * 3_600_000;
/// Objects that one OPEN or COMMIT request may carry.
pub const MAX_BATCH_CHUNKS: usize = 256;

/// Copies of a replicated chunk.
pub const REPLICA_COUNT: usize = 3;
/// Copies that a write is content with when the cluster has nodes enough but some are down.
pub const REPLICA_MIN_ACK: usize = 2;
/// Shards that a write is content with: one more than a read needs, so that the next lost disk loses no chunk.
pub const SHARD_MIN_ACK: usize = 4;
/// Chunks of one upload that are being stored at the same time.
pub const UPLOAD_CHUNKS_IN_FLIGHT: usize = 5;

/// Heartbeat period of a node.
pub const HEARTBEAT_MS: u64 = 2_000;
/// Silence after which a node is `degraded`: two heartbeats and a half.
pub const NODE_DEGRADED_AFTER_MS: u64 = 5_000;
/// Silence after which a node is `down`.
pub const NODE_DOWN_AFTER_MS: u64 = 30_000;
/// How long an opened ballot belongs to its owner. Liveness only; safety never reads it.
pub const OPEN_LEASE_MS: u64 = 60_000;
/// Grace between a commit and the deletion of what it replaced, so that readers with an old manifest seldom meet a 404.
pub const COLLECT_GRACE_MS: u64 = 60_000;
/// Ballot-0 objects and objects unknown to the catalogue are kept this long.
pub const UNKNOWN_OBJECT_GRACE_MS: u64 = 24 * 3_600_000;
/// A view counts half after this long: what was watched last week leads over what was watched last year.
pub const VIEW_HALF_LIFE_MS: u64 = 7 * 24 * 3_600_000;
/// Decayed views above which a video is kept as full copies.
pub const HOT_ABOVE_VIEWS: f64 = 1000.0;
/// A video is converted at most once within this.
pub const CONVERSION_PERIOD_MS: u64 = 24 * 3_600_000;
/// A new video stays replicated for this long: its first views come fast.
pub const COOL_AFTER_MS: u64 = 24 * 3_600_000;
/// Below this a video stays replicated: the saving is less than 1.4 MB, and each of its chunks would take three requests
/// instead of one.
pub const SMALL_VIDEO_BYTES: u64 = MIB;
/// Parts of a node that is down are replaced after this: most nodes that go come back.
pub const REPAIR_GRACE_MS: u64 = 10 * 60_000;
/// A node that gave out wrong bytes three times within this is not trusted for this long.
pub const QUARANTINE_MS: u64 = 10 * 60_000;
/// A repeated call for one session counts once within this time. Sessions are hours long, retries take seconds.
pub const VIEW_SESSION_KEPT_MS: u64 = 48 * 3_600_000;
/// A video's catalogue object is written again at most this often while its placements change.
pub const CATALOGUE_OBJECT_PERIOD_MS: u64 = 60_000;
/// Version of the calls between the roles. A caller of a later one is refused, one of an earlier one is served.
pub const PROTOCOL_VERSION: u32 = 1;
/// A repeated creation under one key makes one video within this time. Retries take seconds, a client that was restarted
/// hours.
pub const CREATION_KEPT_MS: u64 = 48 * 3_600_000;
/// A node's clock that is further off than this is told so. Grants and leases live for a minute.
pub const CLOCK_SKEW_MS: u64 = 60_000;
/// The original of a failed upload is kept this long for a retry.
pub const SPOOL_KEEP_MS: u64 = 7 * 24 * 3_600_000;
/// A video that was begun and to which nothing was added for so long is given up: as long as the original of a failed
/// upload is kept for a retry.
pub const ABANDONED_AFTER_MS: u64 = SPOOL_KEEP_MS;

const MIB: u64 = 1024 * 1024;
