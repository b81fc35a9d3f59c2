//! `vstack serve`: the roles of one process, until Ctrl-C or SIGTERM.

use std::net::SocketAddr;

use vstack_core::manifest::seconds_to_ms;
use vstack_server::dev::{ServeReady, die_with_parent};
use vstack_server::http::may_be_open;
use vstack_server::metadata::RedundancySettings;
use vstack_server::role::raise_file_limit;
use vstack_server::{Running, StartError};

use crate::args::{Place, RoleName, ServeOptions};
use crate::failure::Failure;
use crate::output::Output;
use crate::roles::{RoleConfig, start};
use crate::signals;

pub(crate) async fn run(options: ServeOptions, place: Place, output: &Output) -> Result<(), Failure> {
    let stop = signals::stop_token()?;
    if let Some(parent) = options.parent_pid {
        die_with_parent(parent).map_err(|error| Failure::CannotStart(error.to_string()))?;
    }
    raise_file_limit();
    let configs = checked(&options, &place)?;
    let mut running = Vec::new();
    for config in configs {
        let name = config.name.clone().filter(|_| config.role == RoleName::Storage);
        match start_one(config, &running).await {
            Ok(role) => {
                output.say(&ready_line(&role, name), || {
                    format!("{} listens on {}", role.role, role.url)
                });
                running.push(role);
            }
            Err(error) => {
                stop_all(running).await;
                return Err(error.into());
            }
        }
    }
    stop.cancelled().await;
    stop_all(running).await;
    Ok(())
}

/// All complaints about the arguments at once.
fn checked(options: &ServeOptions, place: &Place) -> Result<Vec<RoleConfig>, Failure> {
    let mut complaints = Vec::new();
    if !may_be_open(options.listen.ip()) {
        complaints.push(format!(
            "--listen {}: access is open to everyone, which is allowed on loopback addresses only (127.0.0.1, ::1)",
            options.listen
        ));
    }
    let mut roles = options.roles.clone();
    roles.sort_unstable();
    roles.dedup();
    if !roles.contains(&RoleName::Metadata) && place.metadata_url.is_none() {
        complaints
            .push("--metadata-url is missing: this role has to find the cluster's metadata role".to_owned());
    }
    let key = match &options.cluster_key_file {
        Some(file) => vstack_server::dev::read_key(file).map_err(|error| {
            complaints.push(format!(
                "--cluster-key-file: {error}; `vstack dev` writes one to <data>/cluster.key"
            ));
        }),
        None => {
            complaints.push("--cluster-key-file is missing: all roles of a cluster share one key".to_owned());
            Err(())
        }
    };
    let Ok(key) = key else {
        return Err(Failure::Usage(complaints.join("\n")));
    };
    if !complaints.is_empty() {
        return Err(Failure::Usage(complaints.join("\n")));
    }
    let several = roles.len() > 1;
    let config = |(index, role): (u16, RoleName)| RoleConfig {
        role,
        listen: following(options.listen, index),
        data: if several {
            options.data.join(role.as_str())
        } else {
            options.data.clone()
        },
        key: key.clone(),
        metadata_url: place.metadata_url.clone(),
        advertise_url: options.advertise_url.clone(),
        rack: options.rack.clone(),
        name: options.name.clone(),
        superblock_mib: options.superblock_mib,
        reserve_mib: options.reserve_mib,
        egress_mbit: options.egress_mbit,
        view_half_life_days: options.view_half_life_days,
        redundancy: redundancy(options),
    };
    Ok((0..).zip(roles).map(config).collect())
}

fn redundancy(options: &ServeOptions) -> RedundancySettings {
    let mut settings = RedundancySettings::default();
    if let Some(views) = options.hot_above_views {
        settings.policy.hot_above = views;
    }
    if let Some(hours) = options.cool_after_hours {
        settings.policy.cool_after_ms = seconds_to_ms(hours * 3_600.0);
    }
    if let Some(hours) = options.conversion_period_hours {
        settings.policy.conversion_period_ms = seconds_to_ms(hours * 3_600.0);
    }
    if let Some(kib) = options.small_video_kib {
        settings.policy.small_video_bytes = kib.saturating_mul(1_024);
    }
    if let Some(seconds) = options.repair_grace_s {
        settings.repair.grace_ms = seconds.saturating_mul(1_000);
    }
    if let Some(seconds) = options.quarantine_s {
        settings.repair.quarantine_ms = seconds.saturating_mul(1_000);
    }
    settings
}

/// The address of the role after `index` others; port 0 stays 0.
fn following(first: SocketAddr, index: u16) -> SocketAddr {
    let port = if first.port() == 0 {
        0
    } else {
        first.port().saturating_add(index)
    };
    SocketAddr::new(first.ip(), port)
}

/// Roles beside a metadata role in the same process use that one unless told otherwise.
async fn start_one(mut config: RoleConfig, running: &[Running]) -> Result<Running, StartError> {
    let beside = running
        .iter()
        .find(|role| role.role == RoleName::Metadata.as_str());
    config.metadata_url = config
        .metadata_url
        .or_else(|| beside.map(|role| role.url.clone()));
    start(config).await
}

fn ready_line(running: &Running, name: Option<String>) -> ServeReady {
    ServeReady {
        role: running.role.to_owned(),
        url: running.url.clone(),
        node_id: running.node_id,
        name,
        pid: std::process::id(),
    }
}

/// The last one started stops first.
async fn stop_all(running: Vec<Running>) {
    for role in running.into_iter().rev() {
        role.stop().await;
    }
}
