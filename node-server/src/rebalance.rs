//! `vstack rebalance plan|apply|pause`.

use std::time::Duration;

use tokio::time::sleep;
use vstack_api::redundancy::{BalanceState, NodeUse, RebalanceView};
use vstack_core::node_name::label;

use crate::args::{Place, RebalanceCommand};
use crate::failure::Failure;
use crate::output::Output;
use crate::redundancy::work_line;
use crate::{cluster, table};

/// How often a run that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) async fn run(command: RebalanceCommand, place: &Place, output: &Output) -> Result<(), Failure> {
    let catalogue = cluster::catalogue(place);
    let view = match command {
        RebalanceCommand::Plan => catalogue.rebalance().await?,
        RebalanceCommand::Pause => catalogue.pause_rebalance().await?,
        RebalanceCommand::Apply { wait } => {
            let mut view = catalogue.apply_rebalance().await?;
            while wait && view.state == BalanceState::Moving {
                output.json_line(&view.work);
                output.bar(&work_line("moving", &view.work).unwrap_or_default());
                sleep(LOOK).await;
                view = catalogue.rebalance().await?;
            }
            view
        }
    };
    output.say(&view, || described(&view));
    Ok(())
}

fn described(view: &RebalanceView) -> String {
    let rows: Vec<Vec<String>> = view.nodes.iter().map(row).collect();
    let header = ["node", "address", "rack", "used", "share", "after", "share"];
    format!("{}\n\n{}", next_step(view), table::table(&header, &rows))
}

fn row(node: &NodeUse) -> Vec<String> {
    let share = |bytes: u64| {
        format!(
            "{:.3} %",
            bytes as f64 * 100.0 / node.capacity_bytes.max(1) as f64
        )
    };
    vec![
        label(node.name.as_deref(), node.node_id),
        node.node_url.clone(),
        node.rack.clone().unwrap_or_else(|| "-".to_owned()),
        table::size(node.used_bytes),
        share(node.used_bytes),
        table::size(node.after_bytes),
        share(node.after_bytes),
    ]
}

fn next_step(view: &RebalanceView) -> String {
    let plan = format!(
        "{} parts ({}) are to be moved; the node that is furthest from the others' use is {:.0} % off, and {:.0} % afterwards",
        view.moves,
        table::size(view.move_bytes),
        view.uneven * 100.0,
        view.uneven_after * 100.0
    );
    match (view.moves, view.state) {
        (0, BalanceState::Idle | BalanceState::Paused) => format!(
            "nothing is to be moved: no node is more than {:.0} % off that could be helped",
            view.tolerance * 100.0
        ),
        (_, BalanceState::Moving) => format!(
            "{}\n{plan}\n`vstack rebalance pause` stops it, `vstack status` shows how far it is",
            work_line("moving", &view.work).unwrap_or_else(|| "moving begins".to_owned())
        ),
        (_, BalanceState::Paused) => format!("paused; {plan}\n`vstack rebalance apply` goes on"),
        (_, BalanceState::Idle) => format!("{plan}\n`vstack rebalance apply` begins"),
    }
}
