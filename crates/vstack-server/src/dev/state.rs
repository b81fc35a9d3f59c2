//! What a development cluster says of itself: one line when it is ready, and a file while it runs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::child::{Child, ServeReady};
use crate::process::is_this_program;

/// The ready line of `vstack dev --json`. Names are a contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterReady {
    pub metadata_url: String,
    pub uploader_url: String,
    /// Whole chunks for plain readers.
    pub gateway_url: Option<String>,
    /// In the order of the nodes' folders.
    pub storage_urls: Vec<String>,
    pub data_dir: String,
    pub children: Vec<ServeReady>,
}

impl ClusterReady {
    pub(super) fn of(children: &[Child], data: &Path) -> Self {
        let children: Vec<ServeReady> = children.iter().map(|child| child.ready().clone()).collect();
        let urls = |role: &str| -> Vec<String> {
            children
                .iter()
                .filter(|child| child.role == role)
                .map(|child| child.url.clone())
                .collect()
        };
        let one = |role| urls(role).into_iter().next().unwrap_or_default();
        Self {
            metadata_url: one("metadata"),
            uploader_url: one("uploader"),
            gateway_url: urls("gateway").into_iter().next(),
            storage_urls: urls("storage"),
            data_dir: data
                .canonicalize()
                .unwrap_or_else(|_| data.to_owned())
                .display()
                .to_string(),
            children,
        }
    }
}

/// `cluster.json` in the cluster's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// The process of `vstack dev`.
    pub supervisor_pid: u32,
    #[serde(flatten)]
    pub cluster: ClusterReady,
}

impl ClusterState {
    /// Where it is kept.
    #[must_use]
    pub fn file(data: &Path) -> PathBuf {
        data.join("cluster.json")
    }

    /// The cluster that runs in `data`; `None` when none does. A file that a killed supervisor left behind is no
    /// cluster, even when another program has got its pid.
    #[must_use]
    pub fn read(data: &Path) -> Option<Self> {
        let text = std::fs::read(Self::file(data)).ok()?;
        let state: Self = serde_json::from_slice(&text).ok()?;
        is_this_program(state.supervisor_pid).then_some(state)
    }
}
