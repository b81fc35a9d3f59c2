//! The mutants: bugs that storage engines have had, each as a replacement in the store's source.
//!
//! A test of `mutants.rs` fails when a place is gone: then the mutant must follow the source.

/// One replacement. `from` stands in `file` exactly once.
pub(super) struct Edit {
    pub(super) file: &'static str,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
}

/// A bug.
pub(super) struct Mutant {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) edits: &'static [Edit],
}

const BATCH: &str = "crates/vstack-store/src/batch.rs";
const COPY: &str = "crates/vstack-store/src/compact/copy.rs";
const DECIDE: &str = "crates/vstack-store/src/decide.rs";
const DISK: &str = "crates/vstack-store/src/disk.rs";
const IDENTITY: &str = "crates/vstack-store/src/identity.rs";
const MARKER: &str = "crates/vstack-store/src/compact/marker.rs";
const PLAN: &str = "crates/vstack-store/src/compact/plan.rs";
const READ: &str = "crates/vstack-store/src/read.rs";
const RECORD: &str = "crates/vstack-store/src/record.rs";
const SCAN: &str = "crates/vstack-store/src/scan.rs";
const SNAPSHOT: &str = "crates/vstack-store/src/snapshot.rs";
const SUPERBLOCK: &str = "crates/vstack-store/src/superblock.rs";
const WRITER: &str = "crates/vstack-store/src/writer.rs";

const SYNC_OF_A_BATCH: &str = "        self.superblock
            .file
            .fdatasync()
            .map_err(|cause| (\"sync\", cause))?;
";

const fn edit(file: &'static str, from: &'static str, to: &'static str) -> Edit {
    Edit { file, from, to }
}

/// All mutants.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "skip-sync",
        what: "a batch is acknowledged without any sync",
        edits: &[edit(BATCH, SYNC_OF_A_BATCH, "")],
    },
    Mutant {
        name: "acknowledge-before-sync",
        what: "every other batch is acknowledged before it is synced: the next sync will do",
        edits: &[edit(
            BATCH,
            SYNC_OF_A_BATCH,
            "        if self.tail % 8192 == 0 {
            self.superblock.file.fdatasync().map_err(|cause| (\"sync\", cause))?;
        }
",
        )],
    },
    Mutant {
        name: "skip-folder-sync",
        what: "the name of a new superblock is not synced",
        edits: &[edit(
            SUPERBLOCK,
            "    disk.fsync_dir(folder)
        .map_err(|error| DiskFault::new(\"sync\", folder, &error))?;
",
            "",
        )],
    },
    Mutant {
        name: "rename-before-sync",
        what: "a new superblock gets its name before its header is synced",
        edits: &[edit(
            SUPERBLOCK,
            "    file.fsync().map_err(fault(\"sync\"))?;
",
            "",
        )],
    },
    Mutant {
        name: "publish-before-sync",
        what: "readers see what is written but not yet synced",
        edits: &[
            edit(BATCH, SYNC_OF_A_BATCH, ""),
            edit(
                WRITER,
                "            Ok(places) => self.publish(&batch, places),",
                "            Ok(places) => {
                self.publish(&batch, places);
                if let Some(active) = &self.active {
                    active.superblock.file.fdatasync().expect(\"synced\");
                }
            }",
            ),
        ],
    },
    Mutant {
        name: "retry-failed-sync",
        what: "a sync that failed is done once more, and its yes believed",
        edits: &[edit(
            BATCH,
            "            .fdatasync()
            .map_err",
            "            .fdatasync()
            .or_else(|_| self.superblock.file.fdatasync())
            .map_err",
        )],
    },
    Mutant {
        name: "ignore-short-write",
        what: "a write that took only a part counts as done",
        edits: &[edit(
            DISK,
            "                IoSlice::advance_slices(&mut pieces, written);",
            "                return Ok(());",
        )],
    },
    Mutant {
        name: "write-on-after-error",
        what: "a superblock whose write or sync failed is written again",
        edits: &[edit(
            WRITER,
            "                self.active = None;
",
            "",
        )],
    },
    Mutant {
        name: "stop-at-first-bad",
        what: "everything behind the first bad record is given up",
        edits: &[edit(
            SCAN,
            "                let next = window.resync(position, salt);",
            "                let next = window.limit;",
        )],
    },
    Mutant {
        name: "trust-unsynced-tail",
        what: "a start believes the last batch without syncing it",
        edits: &[edit(SCAN, "        sync_error = file.fdatasync().err();\n", "")],
    },
    Mutant {
        name: "failed-read-is-torn",
        what: "a start takes what the disk cannot read for a torn tail, and cuts it off",
        edits: &[edit(
            SCAN,
            "            Err(_) => read_errors = true,",
            "            Err(_) => record.damaged = true,",
        )],
    },
    Mutant {
        name: "watermark-too-high",
        what: "a batch says of itself that it is durable",
        edits: &[edit(
            BATCH,
            "                durable_upto: self.tail,
                ..record.header",
            "                durable_upto: end + 4096,
                ..record.header",
        )],
    },
    Mutant {
        name: "foreign-position",
        what: "a record is believed at any place of any file",
        edits: &[edit(
            RECORD,
            "        if u64_at(bytes, 56) ^ salt != position {",
            "        if u64_at(bytes, 56) ^ salt != position && position == u64::MAX {",
        )],
    },
    Mutant {
        name: "skip-leaf-checksum",
        what: "bytes are handed out without their checksum",
        edits: &[edit(
            READ,
            "            if self.leaf_crcs.get(first.saturating_add(index)) != Some(&crc32c::crc32c(leaf)) {",
            "            if self.leaf_crcs.get(first.saturating_add(index)).is_none() && leaf.is_empty() {",
        )],
    },
    Mutant {
        name: "overwrite-other-bytes",
        what: "other bytes under a stored name count as the same",
        edits: &[edit(
            DECIDE,
            "        if digest.sha256 == sha256 {
            Ok(digest)",
            "        if digest.sha256 == sha256 || digest.size_bytes > 0 {
            Ok(digest)",
        )],
    },
    Mutant {
        name: "reuse-deleted-name",
        what: "a deleted name may be written again",
        edits: &[edit(
            DECIDE,
            "            Some(location) if location.state == ObjectState::Deleted => Err(StoreError::Deleted {
                chunk: name.chunk,
                ballot: name.ballot,
            }),",
            "            Some(location) if location.state == ObjectState::Deleted => Ok(None),",
        )],
    },
    Mutant {
        name: "drop-tombstone-early",
        what: "a compaction drops a tombstone although another file still holds the object",
        edits: &[edit(PLAN, "                names.retain(|name| !held(name));", "                let _ = held;")],
    },
    Mutant {
        name: "copy-without-checksum",
        what: "a compaction copies objects without checking their SHA-256",
        edits: &[edit(
            COPY,
            "    Ok((digest == header.digest()).then(|| Bytes::from(body)))",
            "    Ok((digest.size_bytes < u64::MAX).then(|| Bytes::from(body)))",
        )],
    },
    Mutant {
        name: "exchange-before-sync",
        what: "the marker of an exchange goes before the removal of the old superblocks is synced",
        edits: &[edit(
            MARKER,
            "        disk.fsync_dir(&data).map_err(fault(\"sync\", &data))?;
        self.remove(disk, &data)",
            "        self.remove(disk, &data)",
        )],
    },
    Mutant {
        name: "replace-before-sync",
        what: "node.json, markers and snapshots get their names before their bytes are synced",
        edits: &[edit(
            IDENTITY,
            "    file.fsync().map_err(fault)?;
    disk.rename",
            "    disk.rename",
        )],
    },
    Mutant {
        name: "trust-snapshot",
        what: "an index snapshot is believed for files that have changed since",
        edits: &[edit(
            SNAPSHOT,
            "        if !same || cover.upto > len {",
            "        if !same && cover.upto > len && len == u64::MAX {",
        )],
    },
];
