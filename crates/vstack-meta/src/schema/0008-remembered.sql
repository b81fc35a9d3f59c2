-- What the workers of redundancy would otherwise forget with the role.
-- Wrong answers of nodes: the latest three of each decide whether it is trusted.
CREATE TABLE node_lies(
  lie_id INTEGER PRIMARY KEY,
  node_id TEXT NOT NULL,
  lied_at INTEGER NOT NULL
) STRICT;
CREATE INDEX node_lies_node ON node_lies(node_id);

-- How much was read for work of one kind, and how long that took: the speed that durability figures rest on.
CREATE TABLE work_speeds(
  work TEXT PRIMARY KEY CHECK(work IN ('repairs', 'conversions')),
  read_bytes INTEGER NOT NULL,
  seconds REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- What the operator wants of the rebalance worker.
ALTER TABLE service ADD COLUMN balance TEXT NOT NULL DEFAULT 'idle' CHECK(balance IN ('idle', 'moving', 'paused'));
