-- The catalogue, first version. Names of the five tables and their columns are part of the design; times are Unix
-- milliseconds, ballots fit 63 bits, row_sum is a checksum over the row's other deciding columns (SQLite has none).

CREATE TABLE service(
  id INTEGER PRIMARY KEY CHECK(id = 1),
  -- Raised durably at every start, so that a ballot is never granted twice.
  generation INTEGER NOT NULL
) STRICT;
INSERT INTO service(id, generation) VALUES (1, 0);

CREATE TABLE videos(
  video_id TEXT PRIMARY KEY,
  title TEXT NOT NULL,
  -- Lower case, for search and order.
  title_key TEXT NOT NULL,
  duration_sec REAL NOT NULL,
  total_chunks INTEGER NOT NULL DEFAULT 0,
  chunk_size_bytes INTEGER NOT NULL DEFAULT 2097152,
  created_at INTEGER NOT NULL,
  status TEXT NOT NULL CHECK(status IN ('uploading', 'active', 'deleted')),
  container TEXT NOT NULL DEFAULT 'fmp4',
  codecs TEXT NOT NULL DEFAULT '',
  tracks TEXT NOT NULL DEFAULT '[]',
  -- Bytes of the init segment, which every manifest carries.
  init_data BLOB,
  views INTEGER NOT NULL DEFAULT 0,
  row_sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX videos_newest ON videos(created_at);
CREATE INDEX videos_title ON videos(title_key);

CREATE TABLE chunks(
  chunk_id TEXT PRIMARY KEY,
  video_id TEXT NOT NULL REFERENCES videos(video_id),
  kind INTEGER NOT NULL,
  track INTEGER NOT NULL,
  sequence_num INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL,
  checksum TEXT NOT NULL,
  leaf_root TEXT NOT NULL,
  scheme TEXT NOT NULL,
  -- Parts that live copies lack to what the scheme wants: the under-replicated list.
  missing_parts INTEGER NOT NULL,
  start_ms INTEGER NOT NULL DEFAULT 0,
  duration_ms INTEGER NOT NULL DEFAULT 0,
  keyframes_ms TEXT NOT NULL DEFAULT '[]',
  fragments TEXT NOT NULL DEFAULT '[]',
  created_at INTEGER NOT NULL,
  row_sum INTEGER NOT NULL,
  UNIQUE(video_id, kind, track, sequence_num)
) STRICT, WITHOUT ROWID;
CREATE INDEX chunks_totals ON chunks(video_id, size_bytes, missing_parts, scheme);
CREATE INDEX chunks_under_replicated ON chunks(missing_parts) WHERE missing_parts > 0;

CREATE TABLE storage_nodes(
  node_url TEXT PRIMARY KEY,
  node_id TEXT NOT NULL UNIQUE,
  last_heartbeat INTEGER NOT NULL,
  disk_usage_percent REAL NOT NULL,
  chunk_count INTEGER NOT NULL,
  status TEXT NOT NULL CHECK(status IN ('healthy', 'degraded', 'down')),
  version TEXT NOT NULL,
  incarnation TEXT NOT NULL,
  boot_epoch INTEGER NOT NULL,
  read_only INTEGER NOT NULL DEFAULT 0,
  highest_generation INTEGER NOT NULL DEFAULT 0,
  row_sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A projection of consensus_state.accepted_value; `failed` marks parts whose disk was replaced.
CREATE TABLE chunk_replicas(
  chunk_id TEXT NOT NULL REFERENCES chunks(chunk_id) ON DELETE CASCADE,
  node_url TEXT NOT NULL REFERENCES storage_nodes(node_url) ON UPDATE CASCADE,
  status TEXT NOT NULL CHECK(status IN ('active', 'pending', 'failed')),
  ballot_number INTEGER NOT NULL,
  -- 255 is a full copy.
  shard_index INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY(chunk_id, node_url)
) STRICT, WITHOUT ROWID;
CREATE INDEX chunk_replicas_by_node ON chunk_replicas(node_url);

CREATE TABLE consensus_state(
  chunk_id TEXT PRIMARY KEY,
  promised_ballot INTEGER NOT NULL DEFAULT 0,
  accepted_ballot INTEGER NOT NULL DEFAULT 0,
  accepted_value TEXT,
  -- For display; no rule of safety reads it.
  phase TEXT NOT NULL DEFAULT 'none' CHECK(phase IN ('none', 'prepare', 'accept', 'committed')),
  open_base INTEGER,
  open_kind TEXT CHECK(open_kind IN ('upload', 'repair', 'convert', 'delete', 'abort')),
  open_owner TEXT,
  open_nodes TEXT,
  open_min_ack INTEGER,
  open_until_ms INTEGER,
  row_sum INTEGER NOT NULL,
  CHECK(accepted_ballot <= promised_ballot)
) STRICT, WITHOUT ROWID;

-- Objects that nothing committed names and nothing ever can. No foreign keys: they outlive their video.
CREATE TABLE gc_queue(
  node_id TEXT NOT NULL,
  chunk_id TEXT NOT NULL,
  object_ballot INTEGER NOT NULL,
  not_before_ms INTEGER NOT NULL,
  PRIMARY KEY(node_id, chunk_id, object_ballot)
) STRICT, WITHOUT ROWID;
CREATE INDEX gc_queue_due ON gc_queue(not_before_ms);
