-- What a node may hold in all, in bytes, and what fails together with it. 0 and NULL: it has not said.
ALTER TABLE storage_nodes ADD COLUMN capacity_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE storage_nodes ADD COLUMN rack TEXT;
