//! What is done to a catalogue while no role runs on it: check, restore, rebuild.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tracing::warn;
use vstack_api::StorageClient;
use vstack_api::listing::ObjectPage;
use vstack_core::id::NodeId;
use vstack_core::keys::ClusterKey;
use vstack_core::time::UnixMillis;
use vstack_meta::{
    BackupFacts, Cmd, Finding, MetaError, MetaStore as _, NodeReport, SqliteMetaStore, begin_anew,
    check_file, restore as restore_file,
};

use super::catch_up::{CatchUp, CaughtUp};
use super::{CATALOGUE, lock_folder, unusable};
use crate::role::StartError;

/// Why a catalogue was not restored or rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The folder is in use, say.
    #[error(transparent)]
    Folder(#[from] StartError),
    #[error(transparent)]
    Catalogue(#[from] MetaError),
    #[error("no node answers: {}", reasons.join("; "))]
    NoNode { reasons: Vec<String> },
}

/// A catalogue that was put in place of another one.
#[derive(Debug, Clone, Serialize)]
pub struct Restored {
    #[serde(flatten)]
    pub facts: BackupFacts,
    /// Where the files went that were there before.
    pub kept: Vec<PathBuf>,
}

/// A catalogue that was made from what the nodes hold.
#[derive(Debug, Clone, Serialize)]
pub struct Rebuilt {
    #[serde(flatten)]
    pub learned: CaughtUp,
    /// Addresses that did not answer, and why.
    pub unread: Vec<String>,
    pub kept: Vec<PathBuf>,
}

/// Compares the catalogue in the role's folder with itself: `vstack meta check`. It only reads, so the role may run.
///
/// # Errors
/// The catalogue cannot be read.
pub fn check(data: &Path) -> Result<Vec<Finding>, StartError> {
    let path = role_folder(data).join(CATALOGUE);
    check_file(&path).map_err(|error| unusable(data, &error))
}

/// The metadata role's folder: `data` itself, or the one in the folder of a whole cluster.
#[must_use]
pub fn role_folder(data: &Path) -> PathBuf {
    let inner = data.join("metadata");
    match !data.join(CATALOGUE).exists() && inner.is_dir() {
        true => inner,
        false => data.to_owned(),
    }
}

/// Puts a backup in the place of the catalogue in `data`.
///
/// # Errors
/// A role runs there, or the file is no good backup. Then nothing has changed.
pub fn restore(data: &Path, backup: &Path) -> Result<Restored, OfflineError> {
    let folder = role_folder(data);
    let _lock = lock_folder(&folder)?;
    let (facts, kept) = restore_file(backup, &folder.join(CATALOGUE), now())?;
    Ok(Restored { facts, kept })
}

/// Makes a new catalogue in `data` from what the nodes hold: those at `urls`, and those that the old catalogue knew as
/// far as it can be read. The role learns from further nodes when it runs again.
///
/// # Errors
/// A role runs there, no node answers, or a file cannot be written.
pub async fn rebuild(data: &Path, key: &ClusterKey, urls: &[String]) -> Result<Rebuilt, OfflineError> {
    let folder = role_folder(data);
    let _lock = lock_folder(&folder)?;
    let path = folder.join(CATALOGUE);
    let mut urls = urls.to_vec();
    urls.extend(vstack_meta::known_urls(&path));
    urls.sort();
    urls.dedup();
    let (mut catch_up, mut answered, mut unread) = (CatchUp::default(), Vec::new(), Vec::new());
    for url in urls {
        match catch_up.read_node(&StorageClient::new(&url)).await {
            Ok(page) => answered.push((url, page)),
            Err(reason) => unread.push(format!("{url}: {reason}")),
        }
    }
    if answered.is_empty() {
        return Err(OfflineError::NoNode { reasons: unread });
    }
    let kept = begin_anew(&path, now())?;
    let store = SqliteMetaStore::open(&path)?;
    for (url, page) in &answered {
        let report = report(url, page);
        if let Err(error) = store.apply_one(Cmd::Heartbeat { report, now: now() }).await {
            warn!(%url, %error, "a node is not registered, it reports when the role runs");
        }
    }
    let client = |node: NodeId| {
        let found = answered.iter().find(|(_, page)| page.node_id == node)?;
        Some(StorageClient::new(&found.0))
    };
    let learned = catch_up
        .learn(&store, &key.grant_key(), client, false, now())
        .await?;
    let nodes = u32::try_from(answered.len()).unwrap_or(u32::MAX);
    Ok(Rebuilt {
        learned: CaughtUp { nodes, ..learned },
        unread,
        kept,
    })
}

fn report(url: &str, page: &ObjectPage) -> NodeReport {
    NodeReport {
        node: page.node_id,
        url: url.trim_end_matches('/').to_owned(),
        incarnation: page.incarnation,
        boot_epoch: page.boot_epoch,
        version: page.version.clone(),
        disk_usage_percent: page.disk_usage,
        chunk_count: page.objects.len() as u64,
        read_only: false,
        highest_generation: page.highest_generation,
        capacity_bytes: 0,
        rack: None,
        name: page.name.clone(),
    }
}

fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
