//! Which processes of this machine are a cluster's: those that `vstack dev` wrote down in its folder, and whatever listens at
//! the roles' addresses. So they are found wherever the data is, and however the roles were started.

use vstack_api::wire::NodeEntry;
use vstack_server::dev::{ClusterState, ServeReady};
use vstack_server::process::{role_pid, runs_role};

/// Where a cluster's roles are.
#[derive(Debug)]
pub(crate) struct Addresses<'a> {
    pub(crate) metadata: &'a str,
    pub(crate) uploader: Option<&'a str>,
    pub(crate) gateway: Option<&'a str>,
    pub(crate) nodes: &'a [NodeEntry],
}

/// Those that run; `local` is the cluster as its folder has it.
pub(crate) fn of(addresses: &Addresses<'_>, local: Option<&ClusterState>) -> Vec<ServeReady> {
    let written = local
        .map(|state| state.cluster.children.as_slice())
        .unwrap_or_default();
    // A child that was killed stays written down, and its number may be another process's by now.
    let mut found: Vec<ServeReady> = written
        .iter()
        .filter(|child| runs_role(child.pid))
        .cloned()
        .collect();
    for role in roles(addresses) {
        let is_known = found
            .iter()
            .any(|child| child.url == role.url && child.role == role.role);
        if let Some(pid) = role_pid(&role.url).filter(|_| !is_known) {
            found.push(ServeReady { pid, ..role });
        }
    }
    found
}

/// All of them, as if their processes were known.
fn roles(addresses: &Addresses<'_>) -> Vec<ServeReady> {
    let role = |role: &str, url: &str| ServeReady {
        role: role.to_owned(),
        url: url.to_owned(),
        node_id: None,
        name: None,
        pid: 0,
    };
    let node = |node: &NodeEntry| ServeReady {
        node_id: Some(node.node_id),
        name: node.name.clone(),
        ..role("storage", &node.node_url)
    };
    let mut roles = vec![role("metadata", addresses.metadata)];
    roles.extend(addresses.nodes.iter().map(node));
    roles.extend(addresses.uploader.map(|url| role("uploader", url)));
    roles.extend(addresses.gateway.map(|url| role("gateway", url)));
    roles
}
