-- What a node is called. NULL until its first heartbeat; 1: it asked for the name itself, 0: it was numbered here.
ALTER TABLE storage_nodes ADD COLUMN name TEXT;
ALTER TABLE storage_nodes ADD COLUMN name_asked INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX storage_nodes_name ON storage_nodes(name);
