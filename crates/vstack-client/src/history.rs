//! How nodes served this client before, kept in a small file between runs.
//!
//! It is a cache of guesses: what it says is worth half after ten minutes and nothing after two hours. A file that is
//! missing, broken or somebody else's is ignored, and a node that it is wrong about costs one slow first range. It is
//! replaced as a whole, so that a reader sees the old one or the new one; two clients that write it at the same time lose
//! some of what one of them knew.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use vstack_core::id::NodeId;
use vstack_core::time::UnixMillis;

use crate::policy::{Micros, Prior};

/// First thing in every such file.
const FORMAT: &str = "vstack-node-history-1";
/// Twelve half-lives: less than a thousandth of it would count.
const MAX_AGE_MS: u64 = 2 * 60 * 60 * 1_000;
/// Nodes that are kept, those measured last. Far more than a viewer's clusters have within two hours.
const MAX_NODES: usize = 1_024;
/// Larger than a full file, and quickly read.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// No node that we have met sends more than 100 Gbit/s: what claims so is no measurement.
const MAX_BYTES_PER_SEC: f64 = 12.5e9;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    nodes: BTreeMap<NodeId, Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    bytes_per_sec: f64,
    first_byte_us: u64,
    measured_at: UnixMillis,
}

impl Entry {
    fn of(prior: &Prior, now: UnixMillis) -> Self {
        Self {
            bytes_per_sec: prior.bytes_per_sec,
            first_byte_us: prior.first_byte.0,
            measured_at: UnixMillis(now.0.saturating_sub(prior.age.as_ms())),
        }
    }

    /// `None` once it is too old, and of what cannot have been measured: a rate out of bounds, a time to come.
    fn prior(&self, now: UnixMillis) -> Option<Prior> {
        let age_ms = now.0.checked_sub(self.measured_at.0)?;
        let is_rate = self.bytes_per_sec > 0.0 && self.bytes_per_sec <= MAX_BYTES_PER_SEC;
        (is_rate && age_ms <= MAX_AGE_MS).then(|| Prior {
            bytes_per_sec: self.bytes_per_sec,
            first_byte: Micros(self.first_byte_us),
            age: Micros::from_ms(age_ms),
        })
    }
}

/// What the file at `path` still says at `now`. Nothing where there is none, or none of ours.
pub(crate) fn read(path: &Path, now: UnixMillis) -> BTreeMap<NodeId, Prior> {
    match read_entries(path) {
        Ok(entries) => entries
            .into_iter()
            .filter_map(|(node, entry)| Some((node, entry.prior(now)?)))
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "the history of nodes is not understood and is ignored");
            BTreeMap::new()
        }
    }
}

fn read_entries(path: &Path) -> io::Result<BTreeMap<NodeId, Entry>> {
    let mut text = Vec::new();
    // Not the length that the file system names: it may grow, and a device has none.
    std::fs::File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("it is too large"));
    }
    let file: File = serde_json::from_slice(&text)?;
    if file.format != FORMAT {
        return Err(io::Error::other(format!("its format is \"{}\"", file.format)));
    }
    Ok(file.nodes)
}

/// Puts `fresh` into the file at `path`, beside what it says of other nodes.
///
/// # Errors
/// The file system refused; the old file is as it was.
pub(crate) fn write(
    path: &Path,
    now: UnixMillis,
    fresh: impl IntoIterator<Item = (NodeId, Prior)>,
) -> io::Result<()> {
    // A file that is not understood is replaced.
    let mut nodes = read_entries(path).unwrap_or_default();
    nodes.retain(|_, entry| entry.prior(now).is_some());
    for (node, prior) in fresh {
        let entry = Entry::of(&prior, now);
        if entry.prior(now).is_none() {
            continue;
        }
        let known = nodes.entry(node).or_insert(entry);
        if entry.measured_at >= known.measured_at {
            *known = entry;
        }
    }
    let nodes = newest(nodes);
    let format = FORMAT.to_owned();
    replace(path, &serde_json::to_vec_pretty(&File { format, nodes })?)
}

fn newest(nodes: BTreeMap<NodeId, Entry>) -> BTreeMap<NodeId, Entry> {
    let mut by_time: Vec<_> = nodes.into_iter().collect();
    by_time.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.measured_at));
    by_time.truncate(MAX_NODES);
    by_time.into_iter().collect()
}

/// Not synced: what a power cut takes of it is learnt again within seconds.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(folder)?;
    let new = path.with_extension(format!("{}-{number}.new", std::process::id()));
    let replaced = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path));
    if replaced.is_err() {
        // It may not even be there.
        let _ = std::fs::remove_file(&new);
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn node(number: u128) -> NodeId {
        NodeId(Uuid::from_u128(number))
    }

    fn prior(bytes_per_sec: f64, age_ms: u64) -> Prior {
        Prior {
            bytes_per_sec,
            first_byte: Micros(20_000),
            age: Micros::from_ms(age_ms),
        }
    }

    #[test]
    fn what_was_written_is_read_back_older_by_the_time_between() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/nodes.json");
        write(&path, NOW, [(node(1), prior(5e6, 1_000))]).unwrap();
        let later = NOW + 60_000;
        assert_eq!(
            read(&path, later),
            BTreeMap::from([(node(1), prior(5e6, 61_000))])
        );
        assert_eq!(read(&path, NOW + MAX_AGE_MS), BTreeMap::new(), "too old");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn other_clients_nodes_stay_and_of_one_node_the_later_measurement_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.json");
        write(
            &path,
            NOW,
            [(node(1), prior(1e6, 5_000)), (node(2), prior(2e6, 5_000))],
        )
        .unwrap();
        write(
            &path,
            NOW,
            [(node(2), prior(9e6, 9_000)), (node(3), prior(3e6, 0))],
        )
        .unwrap();
        let expected = BTreeMap::from([
            (node(1), prior(1e6, 5_000)),
            (node(2), prior(2e6, 5_000)),
            (node(3), prior(3e6, 0)),
        ]);
        assert_eq!(read(&path, NOW), expected);
    }

    #[test]
    fn no_more_than_so_many_nodes_are_kept_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.json");
        let many = (0..MAX_NODES as u64 + 10).map(|age| (node(age.into()), prior(1e6, age)));
        write(&path, NOW, many).unwrap();
        let kept = read(&path, NOW);
        assert_eq!(kept.len(), MAX_NODES);
        assert!(kept.contains_key(&node(0)) && !kept.contains_key(&node(MAX_NODES as u128)));
        assert!(std::fs::metadata(&path).unwrap().len() < MAX_FILE_BYTES);
    }

    #[test]
    fn files_that_are_broken_foreign_or_endless_are_ignored_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.json");
        let id = node(1);
        let entry = |rate: &str, at: u64| {
            format!(
                r#"{{"format":"{FORMAT}","nodes":{{"{id}":{{"bytes_per_sec":{rate},"first_byte_us":1,"measured_at":{at}}}}}}}"#
            )
        };
        let texts = [
            String::new(),
            "{".to_owned(),
            "[]".to_owned(),
            r#"{"format":"something else","nodes":{}}"#.to_owned(),
            entry("-1.0", NOW.0),
            entry("1e300", NOW.0),
            entry("0", NOW.0),
            entry("5.0", NOW.0 + 1),
            " ".repeat(3 << 20),
        ];
        for text in texts {
            std::fs::write(&path, &text).unwrap();
            let shown = &text[..text.len().min(200)];
            assert_eq!(read(&path, NOW), BTreeMap::new(), "{shown}");
            write(&path, NOW, [(id, prior(5e6, 0))]).unwrap();
            assert_eq!(read(&path, NOW).len(), 1, "{shown}");
        }
        std::fs::write(&path, entry("5.0", NOW.0)).unwrap();
        assert_eq!(read(&path, NOW).len(), 1, "the form above is the right one");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.json");
        std::fs::create_dir(&path).unwrap();
        assert!(write(&path, NOW, [(node(1), prior(5e6, 0))]).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
