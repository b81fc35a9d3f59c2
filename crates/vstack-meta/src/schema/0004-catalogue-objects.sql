-- 2: restored or rebuilt, no ballot is granted yet. 1: some node has not been read yet, so unknown objects stay.
ALTER TABLE service ADD COLUMN behind INTEGER NOT NULL DEFAULT 0;

-- Each video is also written to the nodes as a catalogue object, with a new number each time.
ALTER TABLE videos ADD COLUMN catalogue_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE videos ADD COLUMN saved_at INTEGER NOT NULL DEFAULT 0;
-- Changes since it was last written; 0 means none.
ALTER TABLE videos ADD COLUMN unsaved INTEGER NOT NULL DEFAULT 1;
UPDATE videos SET unsaved = 0 WHERE status = 'deleted';
CREATE INDEX videos_unsaved ON videos(saved_at) WHERE unsaved > 0;
