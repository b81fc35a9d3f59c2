//! `vstack dev`.

use vstack_server::dev::{ClusterReady, DevCluster, DevConfig};

use crate::args::DevOptions;
use crate::failure::Failure;
use crate::output::Output;
use crate::{cluster, signals, table};

pub(crate) async fn run(options: DevOptions, output: &Output) -> Result<(), Failure> {
    let stop = signals::stop_token()?;
    let program = std::env::current_exe()
        .map_err(|error| Failure::CannotStart(format!("cannot find this program's own file: {error}")))?;
    let config = DevConfig {
        program,
        data: options.data.unwrap_or_else(cluster::default_data),
        nodes: options.nodes,
        port_base: options.port_base,
        restart: options.restart,
    };
    let started = tokio::select! {
        started = DevCluster::start(config) => started?,
        () = stop.cancelled() => return Ok(()),
    };
    let mut cluster = started;
    output.say(cluster.ready(), || described(cluster.ready()));
    let watched = cluster.watch(&stop).await;
    output.line("stopping");
    cluster.stop().await;
    Ok(watched?)
}

fn described(ready: &ClusterReady) -> String {
    let rows: Vec<Vec<String>> = ready
        .children
        .iter()
        .map(|child| {
            let node = child.node_id.map(|id| id.to_string()).unwrap_or_default();
            let name = child.name.clone().unwrap_or_else(|| child.role.clone());
            vec![name, child.url.clone(), child.pid.to_string(), node]
        })
        .collect();
    format!(
        "{}\n\nThe cluster is ready; its data is in {}. Ctrl-C stops it.\n  vstack upload FILE --metadata-url {}",
        table::table(&["name", "address", "pid", "node id"], &rows),
        ready.data_dir,
        ready.metadata_url
    )
}
