-- What the operator wants of a node, and how steady it has been.
ALTER TABLE storage_nodes ADD COLUMN state TEXT NOT NULL DEFAULT 'active'
  CHECK(state IN ('active', 'maintenance', 'draining', 'removed'));
-- The data folder that was declared lost: its heartbeats are refused, another one's are welcome.
ALTER TABLE storage_nodes ADD COLUMN retired_incarnation TEXT;
-- 1: the next heartbeat may come from an earlier start of the same folder.
ALTER TABLE storage_nodes ADD COLUMN readopt INTEGER NOT NULL DEFAULT 0;
ALTER TABLE storage_nodes ADD COLUMN gaps INTEGER NOT NULL DEFAULT 0;
ALTER TABLE storage_nodes ADD COLUMN last_gap INTEGER NOT NULL DEFAULT 0;
