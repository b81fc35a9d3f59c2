-- How often a video was watched lately, beside how often ever: views_recent is the decayed count as it was at views_at.
ALTER TABLE videos ADD COLUMN views_recent REAL NOT NULL DEFAULT 0;
ALTER TABLE videos ADD COLUMN views_at INTEGER NOT NULL DEFAULT 0;
UPDATE videos SET views_recent = views, views_at = created_at;

-- Sessions that were counted lately, so that a repeated call counts once.
CREATE TABLE view_sessions(
  session_id TEXT PRIMARY KEY,
  video_id TEXT NOT NULL,
  counted_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX view_sessions_age ON view_sessions(counted_at);
