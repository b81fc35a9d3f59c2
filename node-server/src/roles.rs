//! Starts one role with what the command line says.

use std::net::SocketAddr;
use std::path::PathBuf;

use vstack_core::keys::ClusterKey;
use vstack_core::manifest::seconds_to_ms;
use vstack_server::gateway::{self, GatewayConfig};
use vstack_server::metadata::{self, MetadataConfig, RedundancySettings};
use vstack_server::storage::{self, StorageConfig};
use vstack_server::uploader::{self, UploaderConfig};
use vstack_server::{Running, StartError};

use crate::args::RoleName;

const MIB: u64 = 1024 * 1024;
const DAY_SECONDS: f64 = 24.0 * 3_600.0;

/// What a role is started with.
#[derive(Debug)]
pub(crate) struct RoleConfig {
    pub(crate) role: RoleName,
    pub(crate) listen: SocketAddr,
    pub(crate) data: PathBuf,
    pub(crate) key: ClusterKey,
    /// Missing for the metadata role alone.
    pub(crate) metadata_url: Option<String>,
    /// Of a storage node.
    pub(crate) advertise_url: Option<String>,
    /// Of a storage node.
    pub(crate) rack: Option<String>,
    /// Of a storage node.
    pub(crate) name: Option<String>,
    /// Of a storage node.
    pub(crate) superblock_mib: Option<u64>,
    /// Of a storage node.
    pub(crate) reserve_mib: Option<u64>,
    /// Of a storage node.
    pub(crate) egress_mbit: Option<f64>,
    /// Of the metadata role.
    pub(crate) view_half_life_days: Option<f64>,
    /// Of the metadata role.
    pub(crate) redundancy: RedundancySettings,
}

/// Returns when the role listens.
///
/// # Errors
/// The port is taken, or the data folder is locked or cannot be used.
pub(crate) async fn start(config: RoleConfig) -> Result<Running, StartError> {
    let RoleConfig {
        role,
        listen,
        data,
        key,
        metadata_url,
        advertise_url,
        rack,
        name,
        superblock_mib,
        reserve_mib,
        egress_mbit,
        view_half_life_days,
        redundancy,
    } = config;
    match role {
        RoleName::Metadata => {
            let mut catalogue = MetadataConfig::new(listen, data, key);
            catalogue.redundancy = redundancy;
            if let Some(days) = view_half_life_days {
                catalogue.view_half_life_ms = seconds_to_ms(days * DAY_SECONDS).max(1);
            }
            metadata::start(catalogue).await
        }
        RoleName::Storage => {
            let mut node = StorageConfig::new(listen, data, key);
            node.metadata_url = metadata_url;
            node.public_url = advertise_url;
            node.rack = rack;
            node.name = name;
            node.superblock_bytes = superblock_mib.map(|mib| mib * MIB);
            node.reserve_bytes = reserve_mib.map(|mib| mib.saturating_mul(MIB));
            node.egress_mbit = egress_mbit;
            storage::start(node).await
        }
        RoleName::Gateway => {
            let config = GatewayConfig {
                listen,
                metadata_url: needed(metadata_url)?,
                cluster_key: key,
            };
            gateway::start(config).await
        }
        RoleName::Uploader => {
            let metadata_url = needed(metadata_url)?;
            uploader::start(UploaderConfig::new(listen, &metadata_url, data, key)).await
        }
    }
}

fn needed(metadata_url: Option<String>) -> Result<String, StartError> {
    metadata_url.ok_or_else(|| StartError::Missing {
        what: "the metadata role's address".to_owned(),
        remedy: "name it with --metadata-url".to_owned(),
    })
}
