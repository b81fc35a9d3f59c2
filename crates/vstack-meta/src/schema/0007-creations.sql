-- Videos that were created under a key of the client's choice, so that a repeated call makes one video.
CREATE TABLE creations(
  idempotency_key TEXT PRIMARY KEY,
  video_id TEXT NOT NULL,
  -- What was asked for; another request under the same key is refused.
  title TEXT NOT NULL,
  duration_sec REAL NOT NULL,
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX creations_age ON creations(created_at);
CREATE INDEX creations_video ON creations(video_id);
